//! The single writer of the live settings: every change of the percentage, whoever asks for it, goes through
//! [`Control`], is written to the source that holds the number, checked, swapped in and audited.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::watch;

use super::audit::{Audit, Record};
use super::checks;
use super::fault::{Fault, Faults};
use super::files;
use super::follow::Remote;
use super::hold::Held;
use super::load::{Attempt, Loaded, Overlay, load};
use super::startup::Startup;
use super::state::{By, State, audit_file, changes, now, waiting_for_restart};
use crate::counted::Names;
use crate::decide::percentage::Percentage;
use crate::live::Publisher;
use crate::side::Side;
use crate::snapshot::Snapshot;

pub use super::follow::{First, Follow};

/// Where settings are read from. The process environment is handed in, so that tests need none.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`; `None`: `config.toml` in the working directory if it is there.
    pub file: Option<PathBuf>,
    /// The process environment.
    pub environment: BTreeMap<String, String>,
}

/// What to change. `None` leaves a value as it is.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// The new percentage.
    pub percentage: Option<Percentage>,
    /// The new force; `Some(None)` ends it.
    pub force: Option<Option<Side>>,
    /// Allowed while forced; ends the force.
    pub resume: bool,
    /// Who asks: `admin:<address>`, `cli:<user>`, …
    pub actor: String,
    /// Why, as the operator said.
    pub reason: String,
    /// The change is made only if this is still the epoch (If-Match).
    pub if_epoch: Option<u64>,
    /// An abort that gives way to what somebody else wrote in the same moment, as one does that was held for a while.
    pub yields: bool,
}

/// Why a change was refused. Nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// The process environment holds the value; it can't change while the process lives.
    #[error(
        "{variable} is set in the process environment and can't change while the process lives"
    )]
    PinnedByEnvironment {
        /// The variable's name.
        variable: String,
    },
    /// `rollout.force` is set and the change did not say resume.
    #[error("everybody is forced to {side}; say resume to leave force")]
    Forced {
        /// The forced side.
        side: Side,
    },
    /// The epoch has moved on.
    #[error("the epoch is {actual}, not {expected}")]
    Stale {
        /// What the caller believed.
        expected: u64,
        /// What it is.
        actual: u64,
    },
    /// The result would not be a good configuration.
    #[error("{0}")]
    Faults(Faults),
    /// Somebody else changed the ConfigMap at the same moment; what they wrote stands.
    #[error(
        "{source_name} was changed by somebody else at the same moment: it says {now} (epoch {epoch}), and nothing else was written"
    )]
    LostRace {
        /// The source.
        source_name: String,
        /// What it says now.
        now: String,
        /// The epoch of that.
        epoch: u64,
    },
    /// The Kubernetes API can't be reached, so that the ConfigMap can't be written.
    #[error("{source_name} holds the value and the Kubernetes API can't be reached: {cause}")]
    Unreachable {
        /// The source.
        source_name: String,
        /// What went wrong.
        cause: String,
    },
    /// The source that holds the value can't be written (a mounted ConfigMap, a read-only file).
    #[error("{source_name} holds the value and can't be written: {cause}")]
    ReadOnly {
        /// The source.
        source_name: String,
        /// What the system said.
        cause: String,
    },
}

/// The number and what stands around it.
#[derive(Clone, Debug, Serialize)]
pub struct RolloutState {
    /// Number of the snapshot.
    pub epoch: u64,
    /// Share of users on new.
    pub percentage: Percentage,
    /// Everybody on one side.
    pub force: Option<Side>,
    /// Which source holds the percentage, e.g. `config.toml`, `env file …`, `default`.
    pub source: String,
    /// Resource version of the ConfigMap that is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The force is in this process's memory only: an abort while the sources could not be written.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// Why, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_because: Option<&'static str>,
}

/// How reloading has gone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ReloadState {
    /// Snapshots swapped in since the start.
    pub succeeded: u64,
    /// Reloads refused since the start.
    pub failed: u64,
    /// When the last good snapshot was swapped in, RFC 3339.
    pub last_success: Option<String>,
    /// When the last reload was refused, RFC 3339.
    pub last_failure: Option<String>,
    /// What is wrong with the sources right now; empty when they are good.
    pub faults: Vec<Fault>,
}

/// The single writer. Cheap to share; never on the path of a request.
///
/// All its methods may touch files, and wait for each other: on an async runtime call them where blocking is allowed.
pub struct Control {
    pub(super) sources: Sources,
    published: Publisher<Snapshot>,
    /// Writes to the ConfigMap that are known of by other ways than the watch.
    pub(super) writes: AtomicU64,
    counted: Arc<Names>,
    state: Mutex<State>,
}

impl Control {
    /// Reads all sources and makes the first snapshot (epoch 1). A ConfigMap that the settings name is not asked for: `k8s::start`
    /// does that.
    ///
    /// # Errors
    /// Every fault of every source.
    pub fn start(sources: Sources) -> Result<(Arc<Self>, Startup, Vec<String>), Faults> {
        Self::start_with(sources, None)
    }

    /// The same with a ConfigMap, whose annotation says the first epoch.
    ///
    /// # Errors
    /// Every fault of every source.
    pub fn start_with(
        sources: Sources,
        follow: Option<Follow>,
    ) -> Result<(Arc<Self>, Startup, Vec<String>), Faults> {
        let remote = follow.map(Remote::new);
        let given = remote.as_ref().and_then(|r| r.good.as_ref().map(|good| r.given(good)));
        let overlay = Overlay { configmap: given, ..Overlay::default() };
        // What another process writes right now is read together with its record, or not at all.
        let turn = files::lock(&sources.path());
        let Attempt { watched, outcome } = load(&sources, false, &overlay);
        let Loaded { built, merged, file } = outcome?;
        checks::tls_files(&merged, &built.startup)?;
        let audit = Audit::open(audit_file(&sources, &merged));
        let mut snapshot = built.snapshot;
        let good = remote.as_ref().and_then(|remote| remote.good.as_ref());
        let epoch = good.map_or(1, |good| good.epoch.max(1));
        snapshot.epoch = epoch;
        let counted = Arc::new(Names::new(built.startup.counted_names));
        snapshot.counted = counted.assign(snapshot.rewrite.map.entries());
        let mut state = State {
            file,
            held: None,
            watched,
            started: merged.values.clone(),
            merged,
            warnings: built.warnings,
            reloads: ReloadState { last_success: Some(now()), ..ReloadState::default() },
            refused: None,
            audit,
            reshuffled: None,
            remote,
        };
        state.note_start(epoch);
        drop(turn);
        let warnings = state.all_warnings();
        let published = Publisher::new(snapshot, epoch);
        let writes = AtomicU64::new(0);
        let control = Self { sources, published, writes, counted, state: Mutex::new(state) };
        Ok((Arc::new(control), built.startup, warnings))
    }

    /// The pointer that workers read.
    #[must_use]
    pub const fn live(&self) -> &Arc<ArcSwap<Snapshot>> {
        self.published.live()
    }

    /// The names under which tables and functions are counted, over all snapshots.
    #[must_use]
    pub const fn counted(&self) -> &Arc<Names> {
        &self.counted
    }

    /// Tells of each new snapshot, by its epoch: for those who have to act on a change before their next request.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Reads all sources again. `Ok(true)` when a new snapshot was swapped in, `Ok(false)` when nothing differs.
    ///
    /// # Errors
    /// Every fault; the last good snapshot stays.
    pub fn reload(&self, actor: &str) -> Result<bool, Faults> {
        let mut state = self.lock();
        self.reload_locked(&mut state, actor, &|| true).inspect_err(|faults| state.refuse(faults))
    }

    /// Like [`Control::reload`], for those who ask again and again: files that were refused as they stand are not
    /// reported twice, and without `report` not even once, because they may be in the middle of being written. What
    /// was read counts only if the files are `calm` afterwards: half a file can be good TOML with the number missing.
    pub(super) fn probe(
        &self,
        actor: &str,
        report: bool,
        calm: &dyn Fn() -> bool,
    ) -> Result<bool, Faults> {
        let mut state = self.lock();
        self.reload_locked(&mut state, actor, calm).inspect_err(|faults| {
            let known =
                state.refused.as_ref() == Some(&state.stamps()) && state.reloads.faults == faults.0;
            if report && !known && calm() {
                state.refuse(faults);
            }
        })
    }

    pub(super) fn reload_locked(
        &self,
        state: &mut State,
        actor: &str,
        calm: &dyn Fn() -> bool,
    ) -> Result<bool, Faults> {
        let Attempt { watched, outcome } =
            load(&self.sources, state.file.is_some(), &state.overlay());
        state.watched.clone_from(&watched);
        let loaded = outcome?;
        if !calm() {
            return Ok(false);
        }
        state.refuse_reshuffle(&loaded.merged)?;
        let before = self.live().load().epoch;
        let changed = self.adopt(state, loaded, &By { actor, reason: "" });
        self.retry_version(state);
        Ok(changed || self.live().load().epoch != before)
    }

    /// Swaps in what was loaded, if it differs from what runs.
    pub(super) fn adopt(&self, state: &mut State, loaded: Loaded, by: &By<'_>) -> bool {
        let Loaded { built, merged, file } = loaded;
        let running = self.live().load();
        let mut changed = changes(&state.merged, &merged);
        for side in Side::ALL {
            let ca = |snapshot: &Snapshot| snapshot.forward.projects[side].ca_pem.clone();
            if ca(&running) != ca(&built.snapshot)
                && !changed.iter().any(|key| key.ends_with(".ca"))
            {
                changed.push("the content of projects.*.ca");
            }
        }
        if !changed.is_empty() {
            let mut snapshot = built.snapshot;
            snapshot.epoch = running.epoch.saturating_add(1).max(state.shared_epoch());
            // What is held in memory yields only to a force that the sources themselves set, and did not set before.
            let force = merged.force();
            let stands = |_: &Held| force.is_none() || force == state.merged.force();
            state.held = state.held.take().filter(stands);
            let held = state.held.as_ref().map(|held| held.side);
            snapshot.decide.force = held.or(snapshot.decide.force);
            snapshot.counted = self.counted.assign(snapshot.rewrite.map.entries());
            let epoch = snapshot.epoch;
            self.swap(Arc::new(snapshot));
            state.audit.move_to(audit_file(&self.sources, &merged));
            state.record(epoch, &merged, &changed, by);
            state.reloads.succeeded += 1;
            state.reloads.last_success = Some(now());
        }
        let waiting = waiting_for_restart(&state.started, &merged);
        for key in waiting.iter().filter(|key| state.merged.value(key) != merged.value(key)) {
            tracing::warn!(key, "the change needs a restart; the running value stays");
        }
        if !state.reloads.faults.is_empty() {
            tracing::info!("the settings are good again");
            state.reloads.faults.clear();
        }
        state.refused = None;
        state.merged = merged;
        state.warnings = built.warnings;
        state.file = file.or_else(|| state.file.take());
        !changed.is_empty()
    }

    /// The one place where a snapshot becomes the live one.
    pub(super) fn swap(&self, snapshot: Arc<Snapshot>) {
        let epoch = snapshot.epoch;
        self.published.publish(snapshot, epoch);
    }

    /// The number now.
    #[must_use]
    pub fn rollout(&self) -> RolloutState {
        self.rollout_locked(&self.lock())
    }

    pub(super) fn rollout_locked(&self, state: &State) -> RolloutState {
        let snapshot = self.live().load();
        RolloutState {
            epoch: snapshot.epoch,
            percentage: snapshot.decide.percentage,
            force: snapshot.decide.force,
            source: state.merged.holder_name("rollout.percentage"),
            revision: state
                .remote
                .as_ref()
                .and_then(|remote| remote.good.as_ref().map(|good| good.revision.clone())),
            held: state.held.is_some(),
            held_because: state.held.as_ref().map(|held| held.because),
        }
    }

    /// How reloading has gone.
    #[must_use]
    pub fn reloads(&self) -> ReloadState {
        let state = self.lock();
        let mut reloads = state.reloads.clone();
        let of_configmap = state.remote.iter().flat_map(|remote| &remote.faults);
        for fault in of_configmap {
            if !reloads.faults.contains(fault) {
                reloads.faults.push(fault.clone());
            }
        }
        reloads
    }

    /// What is allowed and yet worth a word, now: pinned values, keys that wait for a restart, an audit file that
    /// can't be written.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.lock().all_warnings()
    }

    /// The newest `limit` audit records, oldest first.
    #[must_use]
    pub fn history(&self, limit: usize) -> Vec<Record> {
        self.lock().audit.newest(limit)
    }

    /// Refuses to serve users whose buckets were dealt anew while nothing ran: the salt or the hash is another than the audit knows,
    /// some users were on new, and `rollout.allow_reshuffle` is false.
    ///
    /// # Errors
    /// The fault.
    pub fn refuse_reshuffled(&self) -> Result<(), Faults> {
        self.lock().reshuffled.clone().map_or(Ok(()), |fault| Err(Faults(vec![fault])))
    }

    /// Every file and directory that the settings depend on.
    pub(super) fn watched(&self) -> BTreeSet<PathBuf> {
        self.lock().watched.clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held can't have left half a snapshot: the swap is one store.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// The sources hold secrets as plain text.
impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").field("file", &self.sources.file).finish_non_exhaustive()
    }
}
