//! Changes that somebody asks for: written to the source that holds the number, or refused.

use super::*;
use crate::config::live::Refused;
use crate::side::Side;

fn abort() -> Change {
    Change { force: Some(Some(Side::Old)), ..set("0") }
}

/// What a restart would read.
fn restarted(home: &Home) -> (String, Option<Side>) {
    let state = home.start().rollout();
    (state.percentage.to_string(), state.force)
}

#[test]
fn config_toml_is_edited_in_place() {
    let home = Home::new(GOOD);
    let control = home.start();
    let state = control.apply(&set("25")).unwrap();
    assert_eq!((state.epoch, state.percentage), (2, percent("25")));
    assert_eq!(home.read("config.toml"), GOOD.replace("= 10 ", "= 25 "));
    assert_eq!(control.reload("file"), Ok(false), "the watcher's event finds nothing new");
    let record = control.history(9).remove(0);
    assert_eq!((record.from.as_str(), record.to.as_str()), ("10", "25"));
    assert_eq!((record.actor.as_str(), record.reason.as_str()), ("admin:test", "because"));

    assert_eq!(control.apply(&set("25")).unwrap().epoch, 2, "the same number is no change");
    assert_eq!(control.history(9).len(), 1);
}

#[test]
fn abort_is_one_write_and_resume_leaves_force() {
    let home = Home::new(GOOD);
    let control = home.start();
    let state = control.apply(&abort()).unwrap();
    assert_eq!((state.epoch, state.percentage, state.force), (2, percent("0"), Some(Side::Old)));
    assert_eq!(restarted(&home), ("0".into(), Some(Side::Old)));
    assert_eq!(control.history(1)[0].to, "0 forced old");
    let text = home.read("config.toml");

    let refused = control.apply(&set("10")).unwrap_err();
    assert!(matches!(refused, Refused::Forced { side: Side::Old }), "{refused}");
    assert_eq!(home.read("config.toml"), text);
    let state = control.apply(&Change { resume: true, ..set("10") }).unwrap();
    assert_eq!((state.percentage, state.force), (percent("10"), None));
    assert_eq!(restarted(&home), ("10".into(), None));
}

#[test]
fn a_default_is_written_to_the_file() {
    let home = Home::new(&GOOD.split("[rollout]").next().unwrap().replace("# Cutover", "# kept"));
    home.start().apply(&set("0.5")).unwrap();
    let text = home.read("config.toml");
    assert!(
        text.starts_with("# kept") && text.ends_with("[rollout]\npercentage = 0.5\n"),
        "{text}"
    );
}

#[test]
fn the_env_file_is_edited_in_place() {
    let home = Home::with("env_file = \"cutover.env\"\n");
    let text = "# live\r\nexport V2_ROLLOUT_PERCENTAGE=\"5\" # week 1\r\nOTHER=x\r\n";
    home.write("cutover.env", text);
    let control = home.start();
    let state = control.apply(&set("20")).unwrap();
    assert_eq!((state.percentage, state.source.as_str()), (percent("20"), "env file cutover.env"));
    assert_eq!(home.read("cutover.env"), text.replace("\"5\"", "\"20\""));
    control.apply(&abort()).unwrap();
    let want = format!("{}SUPABASE_ENV=production\r\n", text.replace("\"5\"", "\"0\""));
    assert_eq!(home.read("cutover.env"), want);
    assert!(home.read("config.toml").contains("percentage = 10"), "untouched");
    assert_eq!(restarted(&home), ("0".into(), Some(Side::Old)));
    control.apply(&Change { resume: true, ..set("1") }).unwrap();
    assert_eq!(restarted(&home), ("1".into(), None));
}

#[test]
fn single_value_files_are_replaced() {
    let home = Home::with("watch_dir = \"live\"\n");
    home.write("live/V2_ROLLOUT_PERCENTAGE", "5");
    let control = home.start();
    control.apply(&set("6")).unwrap();
    assert_eq!(home.read("live/V2_ROLLOUT_PERCENTAGE"), "6\n");
    control.apply(&abort()).unwrap();
    assert_eq!(home.read("live/SUPABASE_ENV"), "production\n");
    assert_eq!(restarted(&home), ("0".into(), Some(Side::Old)));
    control.apply(&Change { resume: true, ..Change::default() }).unwrap();
    assert_eq!(restarted(&home), ("0".into(), None));
}

#[test]
fn a_mounted_config_map_is_not_written() {
    let home = Home::with("watch_dir = \"live\"\n");
    mounted(&home.path("live"), "1", &[("V2_ROLLOUT_PERCENTAGE", "5\n")]);
    let control = home.start();
    let refused = control.apply(&set("6")).unwrap_err().to_string();
    assert!(refused.contains("kubectl patch configmap NAME"), "{refused}");
    assert!(refused.contains("{\"data\":{\"V2_ROLLOUT_PERCENTAGE\":\"6\"}}"), "{refused}");
    assert!(control.apply(&abort()).is_err());
    assert_eq!((control.rollout().epoch, restarted(&home)), (1, ("5".into(), None)));
}

#[test]
fn the_process_environment_pins() {
    for (name, value) in [("V2_ROLLOUT_PERCENTAGE", "50"), ("CUTOVER_ROLLOUT__PERCENTAGE", "50")] {
        let home = Home::new(GOOD).env(name, value);
        let control = home.start();
        let refused = control.apply(&set("5")).unwrap_err();
        assert!(
            matches!(&refused, Refused::PinnedByEnvironment { variable } if variable == name),
            "{refused}"
        );
        assert_eq!(home.read("config.toml"), GOOD);
        // The force is free: everybody can still be sent to one side.
        let force = Change { force: Some(Some(Side::Old)), ..Change::default() };
        assert_eq!(control.apply(&force).unwrap().force, Some(Side::Old));
        assert_eq!(restarted(&home), ("50".into(), Some(Side::Old)));
    }
    let home = Home::new(GOOD).env("SUPABASE_ENV", "production");
    let refused = home.start().apply(&Change { resume: true, ..set("5") }).unwrap_err();
    assert!(
        refused.to_string().starts_with("SUPABASE_ENV is set in the process environment"),
        "{refused}"
    );
}

#[test]
fn a_force_in_a_higher_layer_is_written_there() {
    let home = Home::with("env_file = \"cutover.env\"\n");
    home.write("cutover.env", "SUPABASE_ENV=production\n");
    let control = home.start();
    control.apply(&Change { resume: true, ..set("30") }).unwrap();
    assert_eq!(home.read("cutover.env"), "SUPABASE_ENV=\n");
    assert!(home.read("config.toml").contains("percentage = 30"));
    control.apply(&abort()).unwrap();
    assert_eq!(home.read("cutover.env"), "SUPABASE_ENV=production\n");
    assert_eq!(restarted(&home), ("0".into(), Some(Side::Old)));
}

#[test]
fn a_file_that_is_bad_now_is_not_written_over() {
    let home = Home::new(GOOD);
    let control = home.start();
    home.write("config.toml", "[rollout]\nhalf an ed");
    let refused = control.apply(&set("5")).unwrap_err();
    assert!(matches!(refused, Refused::Faults(_)), "{refused}");
    assert_eq!(home.read("config.toml"), "[rollout]\nhalf an ed");
    assert_eq!(control.rollout().percentage, percent("10"));
}

#[test]
fn a_change_that_would_be_a_fault_is_not_written() {
    let home = Home::with("hash = \"md5\"\n");
    let before = home.read("config.toml");
    let control = home.start();
    let refused = control.apply(&set("12.5")).unwrap_err().to_string();
    assert!(refused.contains("a whole percentage"), "{refused}");
    assert_eq!((home.read("config.toml"), control.rollout().epoch), (before, 1));
    assert!(control.reloads().faults.is_empty(), "the files themselves are good");
}

#[test]
fn an_edit_that_nobody_has_seen_yet_is_kept_and_counts_as_its_own_change() {
    let home = Home::new(GOOD);
    let control = home.start();
    home.write("config.toml", &format!("{GOOD}pins = {{ new = [\"ada\"] }}\n"));
    let stale = control.apply(&Change { if_epoch: Some(1), ..set("20") }).unwrap_err();
    assert!(matches!(stale, Refused::Stale { expected: 1, actual: 2 }), "{stale}");
    let state = control.apply(&Change { if_epoch: Some(2), ..set("20") }).unwrap();
    assert_eq!(state.epoch, 3);
    assert!(home.read("config.toml").contains("ada"));
    let actors: Vec<_> = control.history(9).into_iter().map(|record| record.actor).collect();
    assert_eq!(actors, ["file", "admin:test"]);
}

#[test]
fn of_a_hundred_writers_exactly_one_wins_each_epoch() {
    let home = Home::new(GOOD);
    let control = home.start();
    let won: Vec<u64> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..100u16)
            .map(|n| {
                let control = &control;
                scope.spawn(move || {
                    let number = percent(&format!("{}.{:02}", n % 90, n % 99 + 1));
                    let epoch = control.rollout().epoch;
                    let change =
                        Change { percentage: Some(number), if_epoch: Some(epoch), ..set("1") };
                    control.apply(&change).ok().map(|state| state.epoch)
                })
            })
            .collect();
        writers.into_iter().filter_map(|writer| writer.join().unwrap()).collect()
    });
    let distinct: std::collections::BTreeSet<_> = won.iter().collect();
    assert_eq!(distinct.len(), won.len(), "no epoch was won twice");
    assert!(!won.is_empty());
    let last = control.rollout();
    assert_eq!(last.epoch, won.len() as u64 + 1);
    assert_eq!(restarted(&home).0, last.percentage.to_string());
    assert_eq!(control.history(1_000).len(), won.len());
}
