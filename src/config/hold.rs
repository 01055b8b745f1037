//! The brake that always works: an abort while the sources are broken or can't be reached, or while the environment pins the
//! percentage.
//!
//! A change is written to the source that holds the number, and a source that is broken is not written over. An abort must not wait
//! for somebody to mend a file at three in the morning, or for an API: then everybody is forced to one side in this process's memory,
//! the answer says so, and it stays until somebody resumes or the sources themselves come to force a side. A restart can't lose it
//! silently: with broken sources there is no start. One that waits for the Kubernetes API is written when that is back, unless
//! the ConfigMap was changed by others meanwhile.

use std::sync::Arc;

use super::apply::{Wanted, running};
use super::files;
use super::live::{Change, Control, Refused, RolloutState};
use super::state::{By, State};
use crate::side::Side;

/// Said wherever a hold is shown that is there because of faults.
pub(super) const HELD: &str = "held in the memory of this process only, because the sources have faults: mend them, then \
                               abort again to write it, or resume to leave it";

/// The same where the ConfigMap can't be written.
pub(super) const AWAY: &str = "held in the memory of this process only, because the ConfigMap can't be written: abort every \
                               replica; it is written when the API is back, if nobody changed the ConfigMap meanwhile";

/// A force that stands in memory only.
pub(super) struct Held {
    pub(super) side: Side,
    /// [`HELD`] or [`AWAY`].
    pub(super) because: &'static str,
    /// What was asked for.
    change: Change,
    /// What the sources said then.
    over: Wanted,
}

impl Control {
    /// Writes a change to the source that holds the number, applies it, audits it. An abort whose source has faults or can't be
    /// reached is held in memory instead; one whose percentage is pinned by the environment writes its force alone, which
    /// outranks the percentage.
    ///
    /// # Errors
    /// [`Refused`]; nothing was written then.
    pub fn apply(&self, change: &Change) -> Result<RolloutState, Refused> {
        let mut state = self.lock();
        let done = self.write_whole(&mut state, change);
        let Some(Some(side)) = change.force else { return done };
        let because = match &done {
            Err(Refused::Faults(_)) => HELD,
            Err(Refused::Unreachable { .. } | Refused::LostRace { .. }) => AWAY,
            Err(Refused::ReadOnly { .. }) if state.remote.is_some() => AWAY,
            _ => return done,
        };
        if let Err(refused) = &done {
            tracing::warn!(%side, %refused, "everybody is forced: {because}");
        }
        Ok(self.hold(&mut state, side, change, because))
    }

    /// The same, never held: for those whose memory ends with the command.
    ///
    /// # Errors
    /// [`Refused`]; nothing was written then.
    pub fn apply_to_source(&self, change: &Change) -> Result<RolloutState, Refused> {
        self.write_whole(&mut self.lock(), change)
    }

    /// Writes what is held, now that the API is heard again. Answers whether nothing is left that could be written later.
    pub fn write_held(&self) -> bool {
        let mut state = self.lock();
        let Some(held) = state.held.as_ref().filter(|held| held.because == AWAY) else {
            return true;
        };
        if running(&state) != held.over {
            return true;
        }
        let change = Change { yields: true, ..held.change.clone() };
        let written = self.write_whole(&mut state, &change);
        match &written {
            Ok(_) => tracing::info!("the abort that was held in memory is written"),
            Err(refused) => tracing::warn!(%refused, "the abort is still held in memory"),
        }
        written.is_ok()
    }

    fn write_whole(&self, state: &mut State, change: &Change) -> Result<RolloutState, Refused> {
        // To its end: what another process changes meanwhile would be recorded before it, and what this one changes after it.
        let _turn = files::lock(&self.sources.path());
        let done = self.write_change(state, change);
        let is_abort = matches!(change.force, Some(Some(_)));
        if is_abort
            && matches!(done, Err(Refused::PinnedByEnvironment { .. }))
            && change.percentage.is_some()
        {
            let force_alone = Change { percentage: None, ..change.clone() };
            let alone = self.write_change(state, &force_alone);
            return match &alone {
                Err(Refused::ReadOnly { .. }) if state.remote.is_none() => done,
                Err(Refused::PinnedByEnvironment { .. } | Refused::Stale { .. }) => done,
                _ => alone,
            };
        }
        done
    }

    fn hold(
        &self,
        state: &mut State,
        side: Side,
        change: &Change,
        because: &'static str,
    ) -> RolloutState {
        if self.live().load().decide.force != Some(side) {
            let reason = format!("{} ({because})", change.reason);
            let change = Change { if_epoch: None, ..change.clone() };
            let over = running(state);
            let by = By { actor: &change.actor.clone(), reason: &reason };
            state.held = Some(Held { side, because, change, over });
            self.swap_force(state, Some(side), &by);
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
