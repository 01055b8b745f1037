//! The settings, read once and checked, for the verbs that work without a running proxy.

use crate::config::fault::Faults;
use crate::config::live::Sources;
use crate::config::startup::Startup;
use crate::snapshot::Snapshot;

pub(super) struct Report {
    pub(super) warnings: Vec<String>,
    pub(super) startup: Startup,
    pub(super) snapshot: Snapshot,
}

pub(super) fn check(_sources: &Sources) -> Result<Report, Faults> {
    unimplemented!()
}
