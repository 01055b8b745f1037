//! The brake that always works: an abort while the sources are broken, or while the environment pins the percentage.
//!
//! A change is written to the source that holds the number, and a source that is broken is not written over. An abort must not wait
//! for somebody to mend a file at three in the morning: then everybody is forced to one side in this process's memory, the
//! answer says so, and it stays until somebody resumes or the sources themselves force a side. A restart can't lose it silently:
//! with broken sources there is no start.

use std::sync::Arc;

use super::fault::Faults;
use super::live::{Change, Control, Refused, RolloutState};
use super::state::{By, State};
use crate::side::Side;

/// Said wherever the hold is shown.
pub(super) const HELD: &str = "held in the memory of this process only, because the sources have faults: mend them, then \
                               abort again to write it, or resume to leave it";

impl Control {
    /// Writes a change to the source that holds the number, applies it, audits it. An abort whose source has faults is held in
    /// memory instead; one whose percentage is pinned by the environment writes its force alone, which outranks the percentage.
    ///
    /// # Errors
    /// [`Refused`]; nothing was written then.
    pub fn apply(&self, change: &Change) -> Result<RolloutState, Refused> {
        let mut state = self.lock();
        let Some(Some(side)) = change.force else { return self.write_change(&mut state, change) };
        let mut done = self.write_change(&mut state, change);
        if matches!(done, Err(Refused::PinnedByEnvironment { .. })) && change.percentage.is_some() {
            let force_alone = Change { percentage: None, ..change.clone() };
            done = self.write_change(&mut state, &force_alone).or(done);
        }
        match done {
            Err(Refused::Faults(faults)) => Ok(self.hold(&mut state, side, change, &faults)),
            done => done,
        }
    }

    fn hold(
        &self,
        state: &mut State,
        side: Side,
        change: &Change,
        faults: &Faults,
    ) -> RolloutState {
        if self.live().load().decide.force != Some(side) {
            let reason = format!("{} ({HELD}; {} faults)", change.reason, faults.0.len());
            tracing::warn!(%side, "everybody is forced: {HELD}");
            state.held = Some(side);
            self.swap_force(state, Some(side), &By { actor: &change.actor, reason: &reason });
        }
        self.rollout_locked(state)
    }

    /// Leaves the hold, when the sources say what is wanted already.
    pub(super) fn release(&self, state: &mut State, by: &By<'_>) {
        state.held = None;
        let force = state.merged.force();
        self.swap_force(state, force, by);
    }

    /// The running snapshot with another force.
    fn swap_force(&self, state: &mut State, force: Option<Side>, by: &By<'_>) {
        let mut snapshot = (**self.live().load()).clone();
        let from = state.describe(snapshot.decide.force);
        snapshot.decide.force = force;
        snapshot.epoch += 1;
        let (epoch, to) = (snapshot.epoch, state.describe(force));
        self.swap(Arc::new(snapshot));
        state.note(epoch, from, to, by);
    }
}
