//! Settings: where they come from, what is wrong with them, and how they change while the proxy runs.
//!
//! Sources are read into layers (`load`, `layers`), figment merges them, every value is parsed by the kind of its
//! key (`keys`, `value`, `tables`), what the values say together is checked (`checks`), and the result is built into
//! a [`Snapshot`] (`build`). [`live::Control`] is the only one that swaps a snapshot in. This room never decides
//! anything about a request, and no other room imports it.

pub mod audit;
pub mod configmap;
pub mod edit;
pub mod fault;
pub mod fuzz;
pub mod live;
pub mod startup;
pub mod watch;

mod apply;
mod build;
mod checks;
mod envfile;
mod files;
mod follow;
mod hold;
mod keys;
mod kubernetes;
mod layers;
mod load;
mod merged;
mod names;
mod project;
mod state;
mod tables;
mod telemetry;
mod tokens;
mod value;
mod variables;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::secret::Secret;
use crate::side::{Pair, Side};
use crate::snapshot::Snapshot;
use crate::tokens::Project;
use fault::Faults;
use keys::KEYS;
use live::Sources;
use load::{Overlay, load};
use merged::Merged;
use startup::Startup;

/// Where a project's database is (`projects.*.database_url`, `database_ca`).
#[derive(Clone, Debug)]
pub struct Database {
    /// `postgres://…`, with a password in it.
    pub url: Secret,
    /// PEM of the CA of its certificate; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// What `cutover check` has to say about good settings.
#[derive(Debug)]
pub struct Report {
    /// Allowed, and yet worth a word.
    pub warnings: Vec<String>,
    /// What a start would work with.
    pub startup: Startup,
    /// What requests would work with; its epoch is 0.
    pub snapshot: Snapshot,
    /// Each project's database, for the commands that ask it.
    pub databases: Pair<Option<Database>>,
    /// What each project's tokens are signed with, also while `tokens.mode` is `shared` and no request needs it.
    pub keys: Pair<Project>,
    /// Every key and the source of its value.
    pub provenance: Vec<(String, String)>,
}

/// What the settings say of a ConfigMap to follow; `None` where they name none. Their faults are left to the start.
#[must_use]
pub fn kubernetes(sources: &Sources) -> Option<startup::Kubernetes> {
    load::kubernetes(sources)
}

/// Reads and checks every setting. Opens no socket and writes nothing.
///
/// # Errors
/// Every fault of every source.
pub fn check(sources: &Sources) -> Result<Report, Faults> {
    let loaded = load(sources, false, &Overlay::default()).outcome?;
    checks::tls_files(&loaded.merged, &loaded.built.startup)?;
    let provenance = KEYS.iter().map(|key| (key.name.to_owned(), loaded.merged.source(key.name)));
    Ok(Report {
        databases: Pair::from_fn(|side| database(&loaded.merged, &sources.directory(), side)),
        keys: Pair::from_fn(|side| tokens::keys(&loaded.merged, side).unwrap_or_default()),
        provenance: provenance.collect(),
        warnings: loaded.built.warnings,
        startup: loaded.built.startup,
        snapshot: loaded.built.snapshot,
    })
}

/// Where the audit file is; `None`: there is the log only.
///
/// # Errors
/// Every fault of every source.
pub fn audit_file(sources: &Sources) -> Result<Option<PathBuf>, Faults> {
    let loaded = load(sources, false, &Overlay::default()).outcome?;
    Ok(state::audit_file(sources, &loaded.merged))
}

fn database(merged: &Merged, directory: &Path, side: Side) -> Option<Database> {
    let url = merged.secrets(&format!("projects.{side}.database_url")).first()?.clone();
    let ca = merged.text(&format!("projects.{side}.database_ca"));
    Some(Database { url, ca: (!ca.is_empty()).then(|| directory.join(ca)) })
}
