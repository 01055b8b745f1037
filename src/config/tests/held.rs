//! The brake that needs no file.

use super::*;
use crate::config::hold::HELD;
use crate::config::live::Refused;
use crate::side::Side;

fn abort() -> Change {
    Change { force: Some(Some(Side::Old)), ..set("0") }
}

#[test]
fn an_abort_works_while_the_file_is_broken_and_stays_until_resumed() {
    let home = Home::new(GOOD);
    let control = home.start();
    home.write("config.toml", "[rollout\npercentage = ");
    assert!(matches!(control.apply(&set("5")), Err(Refused::Faults(_))), "only an abort is held");
    let state = control.apply(&abort()).unwrap();
    assert_eq!((state.epoch, state.force, state.held), (2, Some(Side::Old), true));
    assert_eq!(control.live().load().decide.force, Some(Side::Old));
    assert_eq!(
        home.read("config.toml"),
        "[rollout\npercentage = ",
        "a broken file is not written over"
    );
    assert!(control.warnings().iter().any(|warning| warning.contains(HELD)));
    assert!(control.history(1)[0].reason.contains(HELD));
    assert_eq!(control.apply(&abort()).unwrap().epoch, 2, "once is enough");

    // The file is mended by somebody who knows nothing of the abort: it stands, for any number of changes.
    for text in [GOOD.to_owned(), GOOD.replace("= 10 ", "= 90 ")] {
        home.write("config.toml", &text);
        control.reload("file").unwrap();
        assert_eq!(control.live().load().decide.force, Some(Side::Old));
    }
    assert!(matches!(control.apply(&set("5")), Err(Refused::Forced { side: Side::Old })));
    let state = control.apply(&Change { resume: true, ..set("90") }).unwrap();
    assert_eq!((state.force, state.held), (None, false), "the file says so already");
    assert_eq!(control.live().load().decide.force, None);
}

#[test]
fn an_abort_over_mended_sources_is_written() {
    let home = Home::new(GOOD);
    let control = home.start();
    home.write("config.toml", "broken");
    control.apply(&abort()).unwrap();
    home.write("config.toml", GOOD);
    let state = control.apply(&abort()).unwrap();
    assert_eq!(
        (state.percentage.to_string().as_str(), state.force, state.held),
        ("0", Some(Side::Old), false)
    );
    assert_eq!(home.start().rollout().force, Some(Side::Old), "a restart reads it");
    let state = control.apply(&Change { resume: true, ..set("10") }).unwrap();
    assert_eq!((state.force, state.held), (None, false));
}

#[test]
fn an_abort_over_a_pinned_percentage_forces_alone() {
    let home = Home::new(GOOD).env("V2_ROLLOUT_PERCENTAGE", "50");
    let control = home.start();
    let state = control.apply(&abort()).unwrap();
    assert_eq!(
        (state.percentage.to_string().as_str(), state.force, state.held),
        ("50", Some(Side::Old), false)
    );
    assert_eq!(home.start().rollout().force, Some(Side::Old), "a restart reads it");
    // A force that is pinned to the other side can't be outranked by a file.
    let home = Home::new(GOOD).env("SUPABASE_ENV", "v2");
    assert!(matches!(home.start().apply(&abort()), Err(Refused::PinnedByEnvironment { .. })));
}
