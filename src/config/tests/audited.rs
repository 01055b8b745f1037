//! The audit file: a chain that shows what was taken out or changed.

use super::*;
use crate::config::audit::{Break, Broken, FIRST, Record, Verified, verify};

const FILE: &str = "cutover-audit.jsonl";

fn three(home: &Home) -> String {
    let control = home.start();
    for number in ["20", "30", "40"] {
        control.apply(&set(number)).unwrap();
    }
    home.read(FILE)
}

#[test]
fn each_change_is_one_line_and_names_the_one_before() {
    let home = Home::new(GOOD);
    let text = three(&home);
    assert_eq!(verify(&text), Ok(Verified { records: 3, torn: false }));
    let control = home.start();
    let records = control.history(2);
    assert_eq!(records.iter().map(|r| r.to.as_str()).collect::<Vec<_>>(), ["30", "40"]);
    assert_eq!(records[1].previous, records[0].hash);
    assert!(text.contains(FIRST));
    control.apply(&set("50")).unwrap();
    assert_eq!(
        verify(&home.read(FILE)),
        Ok(Verified { records: 4, torn: false }),
        "a restart goes on"
    );
}

/// A record that somebody makes up, with a hash that is right.
fn forged(line: &str, change: impl FnOnce(&mut Record)) -> String {
    let mut record: Record = serde_json::from_str(line).unwrap();
    change(&mut record);
    record.hash = record.computed_hash();
    serde_json::to_string(&record).unwrap() + "\n"
}

#[test]
fn every_break_is_found_and_named() {
    let text = three(&Home::new(GOOD));
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let [one, two, three] = lines[..] else { panic!("{text}") };
    let cut = &two[..two.len() / 2];
    let longer = two.replace('{', "{ ");
    let more = two.replace('}', ",\"note\":1}");
    let changed = two.replace("\"to\":\"30\"", "\"to\":\"31\"");
    let changed_well = forged(two, |record| record.to = "31".to_owned());
    let inserted = forged(two, |record| record.reason = "another".to_owned());
    let backwards = forged(two, |record| record.time = "1970-01-01T00:00:00Z".to_owned());
    for (what, text, want) in [
        ("changed", [one, &changed, three].concat(), Some((2, Break::Changed))),
        (
            "changed, and hashed again",
            [one, &changed_well, three].concat(),
            Some((3, Break::Missing)),
        ),
        ("white space", [one, &longer, three].concat(), Some((2, Break::Changed))),
        ("one more field", [one, &more, three].concat(), Some((2, Break::Changed))),
        ("first removed", [two, three].concat(), Some((1, Break::Missing))),
        ("one removed", [one, three].concat(), Some((2, Break::Missing))),
        ("inserted", [one, &inserted, two, three].concat(), Some((3, Break::Follows(1)))),
        ("twice", [one, two, two, three].concat(), Some((3, Break::Follows(1)))),
        ("reordered", [one, three, two].concat(), Some((2, Break::Follows(3)))),
        ("two files joined", [one, two, one, two].concat(), Some((3, Break::Begins))),
        ("cut in the middle", [one, cut, "\n", three].concat(), Some((2, Break::NoRecord))),
        ("cut, and glued", [one, cut, three].concat(), Some((2, Break::NoRecord))),
        ("an empty line", [one, "\n", two].concat(), Some((2, Break::NoRecord))),
        ("another file", "{}\n".to_owned(), Some((1, Break::NoRecord))),
        ("nothing", String::new(), None),
        ("whole", text.clone(), None),
        // A clock that was set back is no break.
        ("time runs backwards", [one, &backwards].concat(), None),
    ] {
        let found = verify(&text).err().map(|Broken { line, cause }| (line, cause));
        assert_eq!(found, want, "{what}");
    }
}

#[test]
fn a_broken_chain_is_warned_of_until_the_file_is_another() {
    let home = Home::new(GOOD);
    let text = three(&home);
    home.write(FILE, &text.replace("\"to\":\"30\"", "\"to\":\"31\""));
    let control = home.start();
    let warned =
        || control.warnings().iter().any(|w| w.contains("line 2: its content was changed"));
    assert!(warned(), "{:?}", control.warnings());
    control.apply(&set("50")).unwrap();
    assert!(warned(), "one more record does not mend it");
}

#[test]
fn a_line_cut_off_by_a_crash_does_not_break_the_chain() {
    let home = Home::new(GOOD);
    let text = three(&home);
    let torn = &text[..text.len() - 20];
    assert_eq!(verify(torn), Ok(Verified { records: 2, torn: true }));
    home.write(FILE, torn);
    home.start().apply(&set("60")).unwrap();
    // Two whole lines, the record of the start (the number is not what the file last said), and the change.
    assert_eq!(verify(&home.read(FILE)), Ok(Verified { records: 4, torn: false }));
}

#[test]
fn a_change_while_nothing_ran_is_recorded_at_the_start() {
    let home = Home::new(GOOD);
    three(&home);
    home.write("config.toml", &GOOD.replace("10 ", "70 "));
    let record = home.start().history(1).remove(0);
    assert_eq!(
        (record.from.as_str(), record.to.as_str(), record.actor.as_str()),
        ("40", "70", "start")
    );
}

#[test]
fn a_file_that_cant_be_written_never_stops_a_change() {
    let home = Home::with("audit_file = \"no/such/dir/audit.jsonl\"\n");
    let control = home.start();
    control.apply(&set("20")).unwrap();
    control.apply(&set("30")).unwrap();
    assert_eq!(control.history(9).len(), 2);
    assert!(control.warnings().join("\n").contains("audit file: "), "{:?}", control.warnings());
    fs::create_dir_all(home.path("no/such/dir")).unwrap();
    control.apply(&set("40")).unwrap();
    let written = home.read("no/such/dir/audit.jsonl");
    assert_eq!(
        verify(&written),
        Ok(Verified { records: 3, torn: false }),
        "what waited was written too"
    );
    assert!(control.warnings().is_empty());
}

#[test]
fn without_a_file_the_memory_keeps_the_newest() {
    let home = Home::with("audit_file = \"\"\n");
    let control = home.start();
    control.apply(&set("20")).unwrap();
    assert_eq!(control.history(9).len(), 1);
    assert!(!home.path(FILE).exists());
}

/// Between another process's reading and its renaming nothing may be written that it does not know of.
#[test]
fn a_change_waits_for_the_one_that_another_process_makes() {
    for _ in 0..10 {
        let home = Home::new(GOOD);
        let control = home.start();
        let other = crate::config::files::lock(&home.path("config.toml"));
        let begun = std::time::Instant::now();
        let changing = std::thread::spawn(move || control.apply(&set("20")));
        let mut is_early = false;
        while begun.elapsed() < std::time::Duration::from_millis(50) {
            is_early |= changing.is_finished();
            std::thread::yield_now();
        }
        home.rename_over("config.toml", &format!("{GOOD}force = \"old\"\n"));
        drop(other);
        let waited = begun.elapsed();
        let refused = changing.join().unwrap();
        // It waits for a second, and no longer: where this machine stood still for as long, anew.
        if waited < std::time::Duration::from_millis(900) {
            assert!(!is_early, "it did not wait");
            assert!(
                matches!(refused, Err(crate::config::live::Refused::Forced { .. })),
                "{refused:?}"
            );
            return;
        }
    }
    panic!("this machine is too slow to hold a file for less than a second");
}

/// One that hangs must not keep a roll back from being written.
#[test]
fn a_process_that_never_lets_go_is_not_waited_for() {
    let home = Home::new(GOOD);
    let control = home.start();
    let hung = crate::config::files::lock(&home.path("config.toml"));
    let audit = fs::File::create(home.path(FILE)).unwrap();
    audit.lock().unwrap();
    assert_eq!(control.apply(&set("0")).unwrap().percentage, percent("0"));
    assert!(control.warnings().join("\n").contains("audit file"), "{:?}", control.warnings());
    drop((hung, audit));
    control.apply(&set("5")).unwrap();
    assert_eq!(verify(&home.read(FILE)), Ok(Verified { records: 2, torn: false }));
    assert!(control.warnings().is_empty(), "{:?}", control.warnings());
}

#[test]
fn two_processes_can_share_a_file() {
    let home = Home::new(GOOD);
    let (one, two) = (home.start(), home.start());
    one.apply(&set("20")).unwrap();
    two.apply(&set("30")).unwrap();
    one.apply(&set("40")).unwrap();
    let text = home.read(FILE);
    assert!(verify(&text).is_ok(), "{text}");
}
