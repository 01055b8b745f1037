//! The single writer of the live settings: every change of the percentage, whoever asks for it, goes through
//! [`Control`], is written to the source that holds the number, checked, swapped in and audited.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

use super::audit;
use super::fault::{Fault, Faults};
use super::startup::Startup;
use crate::decide::percentage::Percentage;
use crate::side::Side;
use crate::snapshot::Snapshot;

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
#[derive(Debug)]
pub struct Control {}

impl Control {
    /// Reads all sources and makes the first snapshot (epoch 1).
    ///
    /// # Errors
    /// Every fault of every source.
    pub fn start(_sources: Sources) -> Result<(Arc<Self>, Startup, Vec<String>), Faults> {
        unimplemented!()
    }

    /// The pointer that workers read.
    #[must_use]
    pub fn live(&self) -> &Arc<ArcSwap<Snapshot>> {
        unimplemented!()
    }

    /// Reads all sources again. `Ok(true)` when a new snapshot was swapped in, `Ok(false)` when nothing differs.
    ///
    /// # Errors
    /// Every fault; the last good snapshot stays.
    pub fn reload(&self, _actor: &str) -> Result<bool, Faults> {
        unimplemented!()
    }

    /// Writes a change to the source that holds the number, applies it, audits it.
    ///
    /// # Errors
    /// [`Refused`]; nothing was written then.
    pub fn apply(&self, _change: &Change) -> Result<RolloutState, Refused> {
        unimplemented!()
    }

    /// The number now.
    #[must_use]
    pub fn rollout(&self) -> RolloutState {
        unimplemented!()
    }

    /// How reloading has gone.
    #[must_use]
    pub fn reloads(&self) -> ReloadState {
        unimplemented!()
    }

    /// The newest `limit` audit records, oldest first.
    #[must_use]
    pub fn history(&self, _limit: usize) -> Vec<audit::Record> {
        unimplemented!()
    }
}
