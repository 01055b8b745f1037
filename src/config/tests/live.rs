//! Reloading: what is swapped in, what is kept, what is refused.

use super::*;
use crate::side::Side;

#[test]
fn a_change_of_the_file_makes_a_new_snapshot_and_no_change_makes_none() {
    let home = Home::new(GOOD);
    let control = home.start();
    let first = control.live().load_full();
    assert_eq!(first.epoch, 1);
    assert_eq!(control.reload("signal"), Ok(false));
    home.write("config.toml", &GOOD.replace("# Cutover", "# another comment"));
    assert_eq!(control.reload("file"), Ok(false), "the same meaning");
    home.rename_over("config.toml", &GOOD.replace("10 ", "25.5 "));
    assert_eq!(control.reload("signal"), Ok(true));
    assert_eq!((control.rollout().epoch, control.rollout().percentage), (2, percent("25.5")));
    assert_eq!(first.decide.percentage, percent("10"), "a request keeps the snapshot it took");
    let record = control.history(1).remove(0);
    assert_eq!(
        (record.from.as_str(), record.to.as_str(), record.actor.as_str()),
        ("10", "25.5", "signal")
    );
    assert_eq!(record.reason, "changed: rollout.percentage");
    assert_eq!(control.reloads().succeeded, 1);
}

#[test]
fn garbage_keeps_the_last_good_snapshot_and_is_reported_until_it_is_gone() {
    let home = Home::new(GOOD);
    let control = home.start();
    for (n, garbage) in
        ["", "nonsense", "[rollout]\npercentage = 500", "\u{0}\u{1}"].iter().enumerate()
    {
        home.write("config.toml", garbage);
        let faults = control.reload("file").unwrap_err();
        let reloads = control.reloads();
        assert_eq!((reloads.failed, &reloads.faults), (n as u64 + 1, &faults.0));
        assert!(reloads.last_failure.is_some());
        assert_eq!((control.rollout().epoch, control.rollout().percentage), (1, percent("10")));
    }
    fs::remove_file(home.path("config.toml")).unwrap();
    assert!(
        control.reload("file").is_err(),
        "a file that vanishes must not bring the defaults into force"
    );
    home.write("config.toml", GOOD);
    assert_eq!(control.reload("file"), Ok(false));
    assert!(control.reloads().faults.is_empty());
}

#[test]
fn a_vanished_config_toml_of_the_working_directory_is_a_fault_too() {
    // Everything needed stands in the environment, so that the defaults alone would be good: at 0 %.
    let home =
        Home::new(GOOD).env("SUPABASE_URL_OLD", "http://a").env("SUPABASE_URL_NEW", "http://b");
    let control = home.start();
    fs::remove_file(home.path("config.toml")).unwrap();
    let faults = control.reload("file").unwrap_err();
    assert!(faults.to_string().contains("No such file"), "{faults}");
    assert_eq!(control.rollout().percentage, percent("10"));
}

#[test]
fn salt_and_hash_stand_while_users_are_on_new() {
    let home = Home::new(GOOD);
    let control = home.start();
    for more in ["salt = \"other\"\n", "hash = \"md5\"\n"] {
        home.write("config.toml", &format!("{GOOD}{more}"));
        let faults = control.reload("file").unwrap_err().to_string();
        assert!(faults.contains("while the percentage is above 0 (it is 10)"), "{faults}");
        assert!(faults.contains("rollout.allow_reshuffle = true"), "{faults}");
    }
    home.write("config.toml", &format!("{GOOD}salt = \"other\"\nallow_reshuffle = true\n"));
    assert_eq!(control.reload("file"), Ok(true));
    assert_eq!(control.live().load().decide.salt, "other");

    let home = Home::new(&GOOD.replace("10 ", "0 "));
    let control = home.start();
    home.write("config.toml", &GOOD.replace("10 ", "0 \nsalt = \"other\""));
    assert_eq!(control.reload("file"), Ok(true), "at 0 % nobody moves");
}

#[test]
fn what_is_read_at_start_waits_for_a_restart_and_says_so() {
    let home = Home::new(GOOD);
    let control = home.start();
    home.write("config.toml", &format!("listen = \"127.0.0.1:9000\"\n{GOOD}"));
    assert_eq!(control.reload("file"), Ok(false));
    let warnings = control.warnings().join("\n");
    assert!(
        warnings.contains("listen was changed in") && warnings.contains("needs a restart"),
        "{warnings}"
    );
    home.write("config.toml", GOOD);
    assert_eq!(control.reload("file"), Ok(false));
    assert!(control.warnings().is_empty());
}

#[test]
fn other_settings_are_live_and_recorded() {
    let home = Home::new(GOOD);
    let control = home.start();
    home.write("config.toml", &format!("{GOOD}[cors]\nmax_age = \"1h\"\n"));
    assert_eq!(control.reload("file"), Ok(true));
    assert_eq!(control.live().load().restore.cors.max_age.as_secs(), 3600);
    let record = control.history(1).remove(0);
    assert_eq!((record.from.as_str(), record.to.as_str()), ("settings", "settings"));
    assert_eq!(record.reason, "changed: cors.max_age");
    home.write("config.toml", &format!("{GOOD}pins = {{ old = [\"ada\"] }}\n"));
    assert_eq!(control.reload("file"), Ok(true));
    assert_eq!(control.live().load().decide.pins["ada"], Side::Old);
    let record = control.history(1).remove(0);
    assert_eq!(
        (record.from.as_str(), record.reason.as_str()),
        ("10", "changed: rollout.pins.old, cors.max_age")
    );
}

#[test]
fn a_mounted_config_map_swaps_as_one() {
    let home = Home::with("watch_dir = \"live\"\n");
    mounted(&home.path("live"), "1", &[("V2_ROLLOUT_PERCENTAGE", "5\n"), ("SUPABASE_ENV", "")]);
    let control = home.start();
    assert_eq!(control.rollout().percentage, percent("5"));
    mounted(
        &home.path("live"),
        "2",
        &[("V2_ROLLOUT_PERCENTAGE", "0"), ("SUPABASE_ENV", "production\n")],
    );
    assert_eq!(control.reload("file"), Ok(true));
    let state = control.rollout();
    assert_eq!((state.percentage, state.force), (percent("0"), Some(Side::Old)));
    assert_eq!(control.history(1)[0].to, "0 forced old");
}
