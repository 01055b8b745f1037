//! The audit file: a chain that shows what was taken out or changed.

use super::*;
use crate::config::audit::{Broken, FIRST, Verified, verify};

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

#[test]
fn a_changed_or_missing_line_is_found() {
    let text = three(&Home::new(GOOD));
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    let changed = text.replace("\"to\":\"30\"", "\"to\":\"31\"");
    assert_eq!(verify(&changed).unwrap_err(), Broken { line: 2, cause: "its content was changed" });
    let without = [lines[0], lines[2]].concat();
    assert_eq!(verify(&without).unwrap_err().line, 2);
    assert_eq!(verify(lines[1]).unwrap_err().line, 1);
    assert_eq!(verify("{}\n").unwrap_err(), Broken { line: 1, cause: "not a record" });
    assert_eq!(verify(""), Ok(Verified { records: 0, torn: false }));
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
