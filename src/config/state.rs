//! What only the writer of the settings knows: what runs, what was refused, what was recorded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::audit::{self, Audit, Record};
use super::fault::{Fault, Faults};
use super::files;
use super::follow::Remote;
use super::hold::Held;
use super::keys::KEYS;
use super::live::{ReloadState, Sources};
use super::merged::Merged;
use super::value::Typed;
use crate::decide::percentage::Percentage;
use crate::side::Side;

/// What only the writer knows.
pub(super) struct State {
    /// The sources as they were when the running snapshot was last confirmed by them.
    pub(super) merged: Merged,
    /// The configuration file, once it was there.
    pub(super) file: Option<PathBuf>,
    pub(super) watched: BTreeSet<PathBuf>,
    /// What the process started with: keys that wait for a restart are compared with it.
    pub(super) started: BTreeMap<&'static str, Typed>,
    pub(super) warnings: Vec<String>,
    pub(super) reloads: ReloadState,
    /// How the files stood when they were refused: the same files are not reported twice.
    pub(super) refused: Option<Vec<Stamp>>,
    /// A force that stands in memory only (`hold`).
    pub(super) held: Option<Held>,
    pub(super) audit: Audit,
    /// Salt or hash were changed while nothing ran and users were on new.
    pub(super) reshuffled: Option<Fault>,
    /// The ConfigMap that is followed.
    pub(super) remote: Option<Remote>,
}

type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// Who changes something, and why.
pub(super) struct By<'a> {
    pub(super) actor: &'a str,
    /// Empty: which keys changed is said instead.
    pub(super) reason: &'a str,
}

impl State {
    /// A change of salt or hash deals all buckets anew: users would move at random.
    pub(super) fn refuse_reshuffle(&self, merged: &Merged) -> Result<(), Faults> {
        if self.merged.percentage() == Percentage::ZERO || merged.truth("rollout.allow_reshuffle") {
            return Ok(());
        }
        let changed = ["rollout.salt", "rollout.hash"]
            .into_iter()
            .filter(|key| self.merged.value(key) != merged.value(key));
        let faults: Vec<_> = changed
            .map(|key| {
                let (old, new) = (self.merged.text(key), merged.text(key));
                let allowed = format!(
                    "{old:?} while the percentage is above 0 (it is {}), or rollout.allow_reshuffle = true: \
                     users would change sides at random",
                    self.merged.percentage()
                );
                Fault::new(merged.source(key), key, format!("{new:?}"), allowed)
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(Faults(faults)) }
    }

    /// Says that something was refused.
    pub(super) fn note_refusal(&mut self, faults: &Faults) {
        for fault in &faults.0 {
            tracing::error!(%fault, "settings refused; the last good ones stay");
        }
        self.reloads.failed += 1;
        self.reloads.last_failure = Some(now());
    }

    /// Notes a refused reload.
    pub(super) fn refuse(&mut self, faults: &Faults) {
        self.note_refusal(faults);
        self.reloads.faults.clone_from(&faults.0);
        self.refused = Some(self.stamps());
    }

    pub(super) fn stamps(&self) -> Vec<Stamp> {
        self.watched.iter().map(|path| files::stamp(path)).collect()
    }

    pub(super) fn record(&mut self, epoch: u64, merged: &Merged, changed: &[&str], by: &By<'_>) {
        let rollout = changed.iter().any(|key| key.starts_with("rollout."));
        let (from, to) = if rollout {
            (describe(&self.merged), describe(merged))
        } else {
            (audit::SETTINGS.to_owned(), audit::SETTINGS.to_owned())
        };
        let reason = if by.reason.is_empty() {
            format!("changed: {}", changed.join(", "))
        } else {
            by.reason.to_owned()
        };
        let source = if rollout {
            merged.holder_name("rollout.percentage")
        } else {
            changed.first().map(|key| merged.holder_name(key)).unwrap_or_default()
        };
        let by = By { actor: by.actor, reason: &reason };
        let mut record = new_record(epoch, (from, to), &by, source);
        record.buckets = rollout.then(|| self.buckets(merged)).flatten();
        self.audit.add(record);
    }

    /// What a record says of salt and hash: nothing as long as users must not be dealt by them.
    fn buckets(&self, merged: &Merged) -> Option<String> {
        self.reshuffled.is_none().then(|| fingerprint(merged))
    }

    /// The running percentage with a force, as the audit says it.
    pub(super) fn describe(&self, force: Option<Side>) -> String {
        described(self.merged.percentage(), force)
    }

    /// Records a change that no source holds.
    pub(super) fn note(&mut self, epoch: u64, from: String, to: String, by: &By<'_>) {
        let source = self
            .held
            .as_ref()
            .map_or_else(|| self.merged.holder_name("rollout.force"), |_| "memory".to_owned());
        self.audit.add(new_record(epoch, (from, to), by, source));
    }

    /// A number that was changed while nothing ran is a change too.
    pub(super) fn note_start(&mut self, epoch: u64) {
        let to = describe(&self.merged);
        let Some(from) = self.audit.last_rollout().map(str::to_owned) else { return };
        let now = fingerprint(&self.merged);
        let is_reshuffled = self.audit.last_buckets().is_some_and(|before| before != now);
        if is_reshuffled && has_users(&from) && self.merged.percentage() > Percentage::ZERO {
            self.note_reshuffle(&from);
        }
        if from == to && !(is_reshuffled && self.reshuffled.is_none()) {
            return;
        }
        let reason = match is_reshuffled {
            true => "changed while the proxy was stopped, salt or hash too",
            false => "changed while the proxy was stopped",
        };
        let source = self.merged.holder_name("rollout.percentage");
        let mut record = new_record(epoch, (from, to), &By { actor: "start", reason }, source);
        record.buckets = self.buckets(&self.merged);
        self.audit.add(record);
    }

    fn note_reshuffle(&mut self, from: &str) {
        if self.merged.truth("rollout.allow_reshuffle") {
            tracing::warn!(
                "users are dealt anew by another salt or hash (rollout.allow_reshuffle)"
            );
            return;
        }
        let found = format!(
            "salt {:?}, hash {:?}: not those that ran before the stop, at {from} %",
            self.merged.text("rollout.salt"),
            self.merged.text("rollout.hash")
        );
        let allowed = "the ones before, or percentage 0, or rollout.allow_reshuffle = true: users would change sides at random";
        let source = self.merged.source("rollout.salt");
        self.reshuffled = Some(Fault::new(source, "rollout.salt", found, allowed));
    }

    pub(super) fn all_warnings(&self) -> Vec<String> {
        let waiting = waiting_for_restart(&self.started, &self.merged);
        let waiting = waiting.into_iter().map(|key| {
            format!("{key} was changed in {}: it needs a restart", self.merged.source(key))
        });
        let trouble = self.audit.broken.iter().chain(&self.audit.trouble);
        let trouble = trouble.map(|trouble| format!("audit file: {trouble}"));
        let held = self
            .held
            .as_ref()
            .map(|held| format!("everybody is forced to {}: {}", held.side, held.because));
        let away = self.remote.as_ref().and_then(Remote::warning);
        let own = self.warnings.iter().cloned();
        own.chain(waiting).chain(trouble).chain(held).chain(away).collect()
    }
}

/// The live keys whose values differ.
pub(super) fn changes(old: &Merged, new: &Merged) -> Vec<&'static str> {
    let live = KEYS.iter().filter(|key| !key.restart).map(|key| key.name);
    live.filter(|key| old.value(key) != new.value(key)).collect()
}

pub(super) fn waiting_for_restart(
    started: &BTreeMap<&'static str, Typed>,
    new: &Merged,
) -> Vec<&'static str> {
    let fixed = KEYS.iter().filter(|key| key.restart).map(|key| key.name);
    fixed.filter(|key| started.get(key).unwrap_or(&Typed::Absent) != new.value(key)).collect()
}

/// Whether a record's `to` (`10`, `10 forced old`) has users on new.
fn has_users(to: &str) -> bool {
    let percentage = to.split(' ').next().unwrap_or_default().parse::<Percentage>();
    percentage.is_ok_and(|percentage| percentage > Percentage::ZERO)
}

/// Of salt and hash: the same for the same buckets. md5 has no salt.
fn fingerprint(merged: &Merged) -> String {
    let hash = merged.text("rollout.hash");
    let salt = if hash == "md5" { "" } else { merged.text("rollout.salt") };
    let digest = Sha256::digest(format!("{hash}:{salt}"));
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// `10`, `10 forced old`.
fn describe(merged: &Merged) -> String {
    described(merged.percentage(), merged.force())
}

fn described(percentage: Percentage, force: Option<Side>) -> String {
    force.map_or_else(|| percentage.to_string(), |side| format!("{percentage} forced {side}"))
}

pub(super) fn audit_file(sources: &Sources, merged: &Merged) -> Option<PathBuf> {
    let file = merged.text("rollout.audit_file");
    (!file.is_empty()).then(|| sources.directory().join(file))
}

fn new_record(epoch: u64, (from, to): (String, String), by: &By<'_>, source: String) -> Record {
    // A line stays far below what the audit reads back at once.
    let cut = |text: &str| text.chars().take(2_000).collect();
    Record {
        time: now(),
        epoch,
        from,
        to,
        actor: cut(by.actor),
        reason: cut(by.reason),
        source,
        buckets: None,
        previous: String::new(),
        hash: String::new(),
    }
}

pub(super) fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
