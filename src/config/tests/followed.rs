//! A ConfigMap as a source, without an API: what counts, in which order, and what is refused.

use std::sync::Mutex;

use super::*;
use crate::config::configmap::{Contact, NotWritten, Patch, Store, Version};
use crate::config::live::{First, Follow, Refused};
use crate::side::Side;

const NUMBER: &str = "V2_ROLLOUT_PERCENTAGE";
const FORCE: &str = "SUPABASE_ENV";

/// A ConfigMap in memory, and what its API says to the next writes.
#[derive(Default)]
struct Memory {
    map: Mutex<Version>,
    refuses: Mutex<Option<NotWritten>>,
    /// Whether a refused write is made all the same: the answer was lost.
    lands: Mutex<bool>,
    /// What the watch suffers from.
    trouble: Mutex<Option<String>>,
    writes: Mutex<usize>,
}

impl Store for Memory {
    fn write(&self, patch: Patch) -> Result<Version, NotWritten> {
        *self.writes.lock().unwrap() += 1;
        let refusal = self.refuses.lock().unwrap().clone();
        let mut map = self.map.lock().unwrap();
        if refusal.is_none() || *self.lands.lock().unwrap() {
            if patch.revision != map.revision {
                return Err(NotWritten::Conflict);
            }
            map.revision = (map.revision.parse::<u64>().unwrap() + 1).to_string();
            map.data.extend(patch.data);
            (map.epoch, map.said) = (patch.epoch, patch.said);
        }
        refusal.map_or_else(|| Ok(map.clone()), Err)
    }

    fn read(&self) -> Result<Version, NotWritten> {
        Ok(self.map.lock().unwrap().clone())
    }

    fn contact(&self) -> Contact {
        Contact { trouble: self.trouble.lock().unwrap().clone(), ..Contact::default() }
    }
}

fn version(revision: u64, epoch: u64, data: &[(&str, &str)]) -> Version {
    Version {
        revision: revision.to_string(),
        data: data.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        epoch,
        said: None,
    }
}

fn start(home: &Home, first: First) -> Result<(Arc<Control>, Arc<Memory>), Faults> {
    let memory = Arc::new(Memory::default());
    if let First::Version(version) = &first {
        memory.map.lock().unwrap().clone_from(version);
    }
    let store = Arc::clone(&memory);
    let follow = Follow { name: "cutover/rollout".to_owned(), store, first };
    let (control, ..) = Control::start_with(home.sources(), Some(follow))?;
    Ok((control, memory))
}

fn at(percentage: &str) -> First {
    First::Version(version(7, 5, &[(NUMBER, percentage), (FORCE, "")]))
}

fn abort() -> Change {
    Change { force: Some(Some(Side::Old)), ..set("0") }
}

fn number(control: &Control) -> String {
    control.rollout().percentage.to_string()
}

#[test]
fn it_stands_above_files_and_below_the_environment() {
    let home = Home::with("force = \"new\"\n");
    let (control, _) = start(&home, at("40")).unwrap();
    let state = control.rollout();
    assert_eq!((state.percentage, state.epoch), (percent("40"), 5));
    assert_eq!(state.force, Some(Side::New), "an empty force says nothing");
    assert_eq!(state.source, "configmap cutover/rollout");
    assert_eq!(state.revision.as_deref(), Some("7"));

    let home = Home::new(GOOD).env(NUMBER, "60");
    let (control, memory) = start(&home, at("40")).unwrap();
    assert_eq!(number(&control), "60");
    assert!(matches!(control.apply(&set("5")), Err(Refused::PinnedByEnvironment { .. })));
    let state = control.apply(&abort()).unwrap();
    assert_eq!((state.force, state.held), (Some(Side::Old), false), "the force alone is written");
    let data = memory.map.lock().unwrap().data.clone();
    assert_eq!((data[NUMBER].as_str(), data[FORCE].as_str()), ("40", "production"));
}

#[test]
fn a_start_on_a_bad_one_fails_and_on_a_missing_one_says_so() {
    let home = Home::new(GOOD);
    let faults = start(&home, at("abc")).err().unwrap().to_string();
    assert!(faults.starts_with("configmap cutover/rollout (V2_ROLLOUT_PERCENTAGE): "), "{faults}");
    let (control, _) = start(&home, First::Missing).unwrap();
    assert_eq!(number(&control), "10");
    assert_eq!(control.reloads().faults.len(), 1);
    let own = First::Version(version(1, 0, &[("CUTOVER_KUBERNETES__CONFIGMAP", "other")]));
    assert!(start(&home, own).err().unwrap().to_string().contains("where this ConfigMap is read"));
}

#[test]
fn before_the_first_word_a_set_is_refused_and_an_abort_is_held() {
    let home = Home::new(GOOD);
    let (control, _) = start(&home, First::Silence).unwrap();
    assert!(matches!(control.apply(&set("5")), Err(Refused::Unreachable { .. })));
    assert_eq!(home.read("config.toml"), GOOD, "not written where nobody would read it");
    let state = control.apply(&abort()).unwrap();
    assert_eq!((state.force, state.held), (Some(Side::Old), true));
    assert!(matches!(control.apply_to_source(&abort()), Err(Refused::Unreachable { .. })));
}

#[test]
fn older_words_are_overlooked_but_those_of_a_list_that_knows_of_our_writes() {
    let home = Home::new(GOOD);
    let (control, _) = start(&home, at("40")).unwrap();
    let before = control.configmap_writes();
    control.apply(&set("50")).unwrap();
    assert_eq!(control.configmap_writes(), before + 1);
    let old = || version(7, 5, &[(NUMBER, "40"), (FORCE, "")]);
    assert!(
        control.configmap_seen(old(), None),
        "an event that was under way is no reason to list"
    );
    assert!(
        !control.configmap_seen(old(), Some(before)),
        "a list that began before has to be asked again"
    );
    assert_eq!(number(&control), "50");
    let epoch = control.rollout().epoch;
    assert!(
        control.configmap_seen(old(), Some(before + 1)),
        "this one knows: restored from a backup"
    );
    assert_eq!(number(&control), "40");
    assert!(control.rollout().epoch > epoch);
}

#[test]
fn a_write_whose_answer_was_lost_is_refused_and_comes_with_the_watch() {
    let home = Home::new(GOOD);
    let (control, memory) = start(&home, at("40")).unwrap();
    *memory.refuses.lock().unwrap() = Some(NotWritten::Away("no answer in time".to_owned()));
    *memory.lands.lock().unwrap() = true;
    let refused = control.apply(&set("50")).unwrap_err().to_string();
    assert!(refused.contains("no answer in time"), "{refused}");
    assert_eq!(number(&control), "40");
    control.configmap_seen(memory.read().unwrap(), None);
    assert_eq!(number(&control), "50");
    assert_eq!(control.history(1)[0].reason, "because", "and it is known whose it was");

    // The same with an abort: what is held is what was written.
    assert!(control.apply(&abort()).unwrap().held);
    control.configmap_seen(memory.read().unwrap(), None);
    let state = control.rollout();
    assert_eq!((state.force, state.held, state.percentage), (Some(Side::Old), false, percent("0")));
}

#[test]
fn without_the_right_to_write_a_set_says_so_and_an_abort_is_held() {
    let home = Home::new(GOOD);
    let (control, memory) = start(&home, at("40")).unwrap();
    *memory.refuses.lock().unwrap() = Some(NotWritten::Refused("the API answered 403".to_owned()));
    let refused = control.apply(&set("50")).unwrap_err();
    assert!(matches!(refused, Refused::ReadOnly { .. }), "{refused}");
    assert!(refused.to_string().contains("403"), "{refused}");
    assert!(control.apply(&abort()).unwrap().held);
    *memory.refuses.lock().unwrap() = None;
    control.write_held();
    assert!(!control.rollout().held);
    assert_eq!(memory.map.lock().unwrap().data[NUMBER], "0");
}

/// A force against which the ConfigMap's own is held in memory does not come back with a change of something else.
#[test]
fn a_hold_over_the_other_force_outlives_changes_of_files() {
    let home = Home::new(GOOD);
    let first = First::Version(version(7, 5, &[(NUMBER, "40"), (FORCE, "v2")]));
    let (control, memory) = start(&home, first).unwrap();
    assert_eq!(control.live().load().decide.force, Some(Side::New));
    *memory.refuses.lock().unwrap() = Some(NotWritten::Away("away".to_owned()));
    control.apply(&abort()).unwrap();
    home.write("config.toml", &format!("debug_headers = true\n{GOOD}"));
    assert_eq!(control.reload("file"), Ok(true));
    assert_eq!(control.live().load().decide.force, Some(Side::Old));
    assert!(control.rollout().held);
}

#[test]
fn a_force_that_a_file_sets_as_well_has_to_end_there() {
    let home = Home::with("force = \"old\"\n");
    let first = First::Version(version(7, 5, &[(NUMBER, "40"), (FORCE, "production")]));
    let (control, memory) = start(&home, first).unwrap();
    let resume = Change { resume: true, ..set("10") };
    let refused = control.apply(&resume).unwrap_err().to_string();
    assert!(
        refused.contains("another source hides the value") && refused.contains("config.toml:"),
        "{refused}"
    );
    assert_eq!(memory.map.lock().unwrap().data[FORCE], "production");
    home.write("config.toml", GOOD);
    assert_eq!(control.apply(&resume).unwrap().force, None);
}

#[test]
fn the_epoch_is_lifted_without_a_record_and_raised_when_behind() {
    let home = Home::new(GOOD);
    let (control, _) = start(&home, at("40")).unwrap();
    assert_eq!(control.configmap_behind(), None);
    let mut epochs = control.subscribe();
    control.configmap_seen(version(8, 9, &[(NUMBER, "40"), (FORCE, "")]), None);
    assert_eq!((control.rollout().epoch, control.history(9).len()), (9, 0));
    assert!(epochs.has_changed().unwrap());
    assert_eq!(*epochs.borrow_and_update(), 9);
    // By hand: the annotation stays where it was, and is raised with the version as precondition.
    control.configmap_seen(version(9, 9, &[(NUMBER, "41"), (FORCE, "")]), None);
    assert_eq!(control.rollout().epoch, 10);
    let patch = control.configmap_behind().unwrap();
    assert_eq!((patch.revision.as_str(), patch.epoch, patch.data.len()), ("9", 10, 0));
}

#[test]
fn a_version_that_changes_nothing_here_lifts_the_epoch_too() {
    let home = Home::new(GOOD).env(NUMBER, "60");
    let (control, _) = start(&home, at("40")).unwrap();
    control.configmap_seen(version(8, 9, &[(NUMBER, "50"), (FORCE, "")]), None);
    assert_eq!((number(&control).as_str(), control.rollout().epoch), ("60", 9));

    // Nor is the writer itself behind what it wrote.
    let home = Home::new(GOOD);
    let (control, memory) = start(&home, at("40")).unwrap();
    *memory.map.lock().unwrap() = version(8, 5, &[(NUMBER, "abc"), (FORCE, "")]);
    control.configmap_seen(memory.read().unwrap(), None);
    let state = control.apply(&set("40")).unwrap();
    assert_eq!((state.epoch, memory.map.lock().unwrap().epoch), (6, 6));
}

#[test]
fn a_resume_that_mends_a_bad_version_ends_what_was_held() {
    let home = Home::new(GOOD);
    let (control, memory) = start(&home, at("40")).unwrap();
    *memory.refuses.lock().unwrap() = Some(NotWritten::Away("away".to_owned()));
    assert!(control.apply(&abort()).unwrap().held);
    *memory.refuses.lock().unwrap() = None;
    *memory.map.lock().unwrap() = version(8, 5, &[(NUMBER, "abc"), (FORCE, "")]);
    control.configmap_seen(memory.read().unwrap(), None);
    let state = control.apply(&Change { resume: true, ..set("40") }).unwrap();
    assert_eq!((state.force, state.held), (None, false));
    assert_eq!(control.live().load().decide.force, None);
    assert_eq!(memory.map.lock().unwrap().data[NUMBER], "40");
}

#[test]
fn an_abort_does_not_wait_for_an_api_that_is_known_to_be_away() {
    let home = Home::new(GOOD);
    let (control, memory) = start(&home, at("40")).unwrap();
    *memory.trouble.lock().unwrap() = Some("the watch was silent".to_owned());
    let state = control.apply(&abort()).unwrap();
    assert_eq!((state.force, state.held), (Some(Side::Old), true));
    assert_eq!(*memory.writes.lock().unwrap(), 0, "nobody waited");
    // Written behind that, in case that it is the watch alone that suffers.
    assert!(control.write_held());
    assert!(!control.rollout().held);
    assert_eq!(memory.map.lock().unwrap().data[NUMBER], "0");
}

#[test]
fn a_list_that_began_before_a_lost_race_brings_no_older_number_back() {
    let home = Home::new(GOOD);
    let (control, memory) = start(&home, at("40")).unwrap();
    let before = control.configmap_writes();
    *memory.map.lock().unwrap() = version(8, 6, &[(NUMBER, "60"), (FORCE, "")]);
    assert!(matches!(control.apply(&set("50")), Err(Refused::LostRace { .. })));
    assert_eq!(number(&control), "60");
    let old = version(7, 5, &[(NUMBER, "40"), (FORCE, "")]);
    assert!(!control.configmap_seen(old, Some(before)), "it has to be asked again");
    assert_eq!(number(&control), "60");
}
