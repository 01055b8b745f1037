//! A ConfigMap that holds the number, as this room sees it: versions come in, patches go out. Who speaks to the Kubernetes API is
//! another room's business (`k8s`), which hands a [`Store`] in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::observe::watching::Failures;

/// The ConfigMap at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `metadata.resourceVersion`.
    pub revision: String,
    /// `data`: one variable each.
    pub data: BTreeMap<String, String>,
    /// What the annotation says that all replicas have reached; 0 without one.
    pub epoch: u64,
    /// Who wrote it and why, if Cutover did.
    pub said: Option<Said>,
}

/// Who changed something, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// As in the audit.
    pub actor: String,
    /// As in the audit.
    pub reason: String,
}

/// What to change in the ConfigMap, if it still is at `revision`. Everything else in it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The version that the change was made for.
    pub revision: String,
    /// Keys to set.
    pub data: BTreeMap<String, String>,
    /// The new value of the epoch's annotation.
    pub epoch: u64,
    /// Who and why; `None` when only the epoch is raised.
    pub said: Option<Said>,
}

/// Why nothing was written, or why nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// The ConfigMap is at another version.
    #[error("it was changed by somebody else at the same moment")]
    Conflict,
    /// The API can't be reached, or did not answer in time: then it may have been written all the same.
    #[error("{0}")]
    Away(String),
    /// The API said no: no right, no such ConfigMap, a value that it refuses.
    #[error("{0}")]
    Refused(String),
}

/// Whoever can read and write that one ConfigMap. Its methods wait, bounded, and must not be called on an async thread that
/// others need.
pub trait Store: Send + Sync {
    /// Writes with the version as precondition. The answer is the version that now stands.
    ///
    /// # Errors
    /// [`NotWritten`]
    fn write(&self, patch: Patch) -> Result<Version, NotWritten>;

    /// Reads what stands now.
    ///
    /// # Errors
    /// [`NotWritten`], but for `Conflict`.
    fn read(&self) -> Result<Version, NotWritten>;

    /// How the watch goes.
    fn contact(&self) -> Contact;
}

/// How the watch of the ConfigMap goes.
#[derive(Clone, Debug, Default)]
pub struct Contact {
    /// Since the API was last heard, by any word of a healthy watch; `None`: never.
    pub heard: Option<Duration>,
    /// Whether the last attempt went well.
    pub connected: bool,
    /// What is wrong now.
    pub trouble: Option<String>,
    /// Failures since the start, in the order of `WatchFailure::ALL`.
    pub failures: Failures,
    /// Lists since the start, the first included.
    pub resyncs: u64,
}

/// What the status shows of it.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigMapState {
    /// `namespace/name`.
    pub configmap: String,
    /// The resource version whose settings run; `None` before the first word of the API.
    pub revision: Option<String>,
    /// Whether the watch is well.
    pub connected: bool,
    /// Seconds since the API was last heard.
    pub last_heard_seconds: Option<f64>,
    /// What is wrong now.
    pub trouble: Option<String>,
    /// For the metrics page.
    #[serde(skip)]
    pub contact: Contact,
}
