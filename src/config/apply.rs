//! A change that somebody asks for: where it has to be written, whether the result is good, and then the writing.
//!
//! One truth: the number is written to the source that holds it, so that a restart reads what runs now.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::configmap::{NotWritten, Patch, Said};
use super::edit::{self, New};
use super::files;
use super::follow::{FORCE, PERCENTAGE};
use super::layers::{Layer, Place};
use super::live::{Change, Control, Refused, RolloutState};
use super::load::{Overlay, load};
use super::merged::Merged;
use super::state::{By, State};
use super::variables;
use crate::decide::percentage::Percentage;
use crate::side::Side;

/// How often a file that somebody else edits at the same moment is tried again.
const TRIES: usize = 3;

/// The two values that a change can set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) percentage: Percentage,
    pub(super) force: Option<Side>,
}

/// One value to be written to one place.
struct Edit {
    place: Place,
    /// How messages call the source.
    source: String,
    key: &'static str,
    /// Empty for the ConfigMap.
    path: PathBuf,
    /// In layers of variables.
    variable: String,
}

/// What is to be written: as it is, and as it will be.
struct Draft {
    before: Before,
    after: Overlay,
    /// Keys of the ConfigMap.
    patch: BTreeMap<String, String>,
}

/// Somebody else wrote at the same moment.
enum Moved {
    File,
    ConfigMap,
}

impl Control {
    /// Writes a change to the source that holds the number and applies it.
    pub(super) fn write_change(
        &self,
        state: &mut State,
        change: &Change,
    ) -> Result<RolloutState, Refused> {
        let mut moved = Moved::File;
        for _ in 0..TRIES {
            // What stands in the files is the base; and a file that is bad now is not written over.
            if let Err(faults) = self.reload_locked(state, "file", &|| true) {
                state.refuse(&faults);
                return Err(Refused::Faults(faults));
            }
            let wanted = self.wanted(state, change)?;
            if wanted == running(state) && !is_unsettled(state) {
                if state.held.is_some() && wanted.force.is_none() {
                    self.release(state, &By { actor: &change.actor, reason: &change.reason });
                }
                return Ok(self.rollout_locked(state));
            }
            match self.write(state, wanted, change)? {
                Ok(()) => return Ok(self.rollout_locked(state)),
                Err(by) => moved = by,
            }
        }
        Err(match moved {
            Moved::ConfigMap => self.lost_race(state),
            Moved::File => read_only(
                &state.merged.holder_name(PERCENTAGE),
                "it is edited by somebody else at the same time",
            ),
        })
    }

    /// What the change asks for, or why not.
    fn wanted(&self, state: &State, change: &Change) -> Result<Wanted, Refused> {
        let actual = self.live().load().epoch;
        if let Some(expected) = change.if_epoch.filter(|expected| *expected != actual) {
            return Err(Refused::Stale { expected, actual });
        }
        let now = running(state);
        let force = match (change.force, change.resume) {
            (Some(force), _) => force,
            (None, true) => None,
            (None, false) => {
                let held = state.held.as_ref().map(|held| held.side);
                match (held.or(now.force), change.percentage) {
                    (Some(side), Some(_)) => return Err(Refused::Forced { side }),
                    (force, _) => force,
                }
            }
        };
        Ok(Wanted { percentage: change.percentage.unwrap_or(now.percentage), force })
    }

    /// Edits, checks, writes, swaps. The inner error says that a source was changed by somebody else meanwhile.
    fn write(
        &self,
        state: &mut State,
        wanted: Wanted,
        change: &Change,
    ) -> Result<Result<(), Moved>, Refused> {
        let edits = plan(state, wanted)?;
        let draft = draft(state, &edits, wanted)?;
        let loaded = load(&self.sources, state.file.is_some(), &draft.after)
            .outcome
            .map_err(Refused::Faults)?;
        if (Wanted { percentage: loaded.merged.percentage(), force: loaded.merged.force() })
            != wanted
        {
            let source = loaded.merged.source(FORCE);
            let cause = format!("another source hides the value ({source}): change it there first");
            return Err(read_only(&state.merged.holder_name(PERCENTAGE), cause));
        }
        // In the order of the edits: the force first when it begins, so that no moment is less safe than both ends.
        let mut paths: Vec<&PathBuf> = Vec::new();
        for edit in edits.iter().filter(|edit| edit.place != Place::ConfigMap) {
            if !paths.contains(&&edit.path) {
                paths.push(&edit.path);
            }
        }
        // The configuration file is locked already.
        let others = paths.iter().filter(|path| ***path != self.sources.path());
        let locked: Vec<_> = others.map(|path| files::lock(path)).collect();
        for path in &paths {
            if files::read(path).ok() != draft.before.get(*path).cloned().flatten() {
                return Ok(Err(Moved::File));
            }
        }
        if !draft.patch.is_empty()
            && let Err(moved) = self.write_configmap(state, draft.patch, change)?
        {
            return Ok(Err(moved));
        }
        let mut replaced = Vec::with_capacity(paths.len());
        for path in paths {
            let text = draft.after.files.get(path).map(String::as_str).unwrap_or_default();
            replaced.push(
                files::replace(path, text)
                    .map_err(|error| read_only(&path.display().to_string(), error))?,
            );
        }
        // What is written now is what was held, or ends it.
        let was_held = state.held.take().is_some();
        let by = By { actor: &change.actor, reason: &change.reason };
        if !self.adopt(state, loaded, &by) && was_held {
            // The sources say what they said before, so that nothing else would take the force out of the snapshot.
            self.release(state, &by);
        }
        drop(locked);
        self.lift(state);
        // Live first: a rollback does not wait for a disk. The caller's answer does.
        for file in replaced {
            if let Err(error) = file.sync() {
                tracing::warn!(%error, "the change is live and written; the disk did not confirm it");
            }
        }
        Ok(Ok(()))
    }

    /// Writes to the ConfigMap, if it still is what the change was made for. When it is not, what it says now is applied, and the
    /// change is refused; unless it is an abort, or nothing but annotations changed: then it is tried again.
    fn write_configmap(
        &self,
        state: &mut State,
        data: BTreeMap<String, String>,
        change: &Change,
    ) -> Result<Result<(), Moved>, Refused> {
        let Some((store, name, base)) = state.remote.as_ref().and_then(|remote| {
            Some((Arc::clone(&remote.store), remote.name.clone(), remote.latest.clone()?))
        }) else {
            return Ok(Err(Moved::ConfigMap));
        };
        let insists = matches!(change.force, Some(Some(_))) && !change.yields;
        // An API that is known to be away would let an abort wait for its silence: it is held at once, and written behind that.
        if let Some(cause) = store.contact().trouble.filter(|_| insists) {
            return Err(Refused::Unreachable { source_name: name, cause });
        }
        let said = Said { actor: change.actor.clone(), reason: change.reason.clone() };
        let patch = Patch {
            revision: base.revision.clone(),
            data,
            epoch: self.live().load().epoch.max(base.epoch).saturating_add(1),
            said: Some(said),
        };
        let refused = |error: NotWritten| match error {
            NotWritten::Refused(cause) => read_only(&name, cause),
            other => Refused::Unreachable { source_name: name.clone(), cause: other.to_string() },
        };
        match store.write(patch) {
            Ok(version) => {
                self.writes.fetch_add(1, Ordering::Release);
                if let Some(remote) = &mut state.remote {
                    remote.take(Arc::new(version));
                }
                Ok(Ok(()))
            }
            Err(NotWritten::Conflict) => {
                let fresh = store.read().map_err(refused)?;
                // A list that began before this may not know of it either.
                self.writes.fetch_add(1, Ordering::Release);
                let is_same = fresh.data == base.data;
                self.take_version(state, fresh);
                if is_same || insists {
                    Ok(Err(Moved::ConfigMap))
                } else {
                    Err(self.lost_race(state))
                }
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn lost_race(&self, state: &State) -> Refused {
        let name = state.remote.as_ref().map(|remote| remote.name.clone());
        Refused::LostRace {
            source_name: name.unwrap_or_default(),
            now: state.describe(state.merged.force()),
            epoch: self.live().load().epoch,
        }
    }
}

pub(super) fn running(state: &State) -> Wanted {
    Wanted { percentage: state.merged.percentage(), force: state.merged.force() }
}

/// Whether the ConfigMap says something that does not run, because it has faults: then the same number again is a change, which mends it.
fn is_unsettled(state: &State) -> bool {
    state.remote.as_ref().is_some_and(|remote| remote.latest.is_some() && !remote.faults.is_empty())
}

fn read_only(source: &str, cause: impl ToString) -> Refused {
    Refused::ReadOnly { source_name: source.to_owned(), cause: cause.to_string() }
}

/// Finds the place of each value that changes. Where a ConfigMap is followed, it is the place of all that nothing above it holds: one
/// truth for all replicas.
fn plan(state: &State, wanted: Wanted) -> Result<Vec<Edit>, Refused> {
    let merged = &state.merged;
    let now = running(state);
    let (holds_percentage, holds_force) = (merged.holder(PERCENTAGE), merged.holder(FORCE));
    let mut edits = Vec::new();
    let unsettled = is_unsettled(state);
    let moves = wanted.percentage != now.percentage || unsettled;
    if moves {
        edits.push(edit(state, holds_percentage, PERCENTAGE)?);
    }
    if wanted.force != now.force {
        // An empty force in the ConfigMap says nothing: one that stands in a file has to end there.
        let ends_below = wanted.force.is_none() && holds_force.place < Place::ConfigMap;
        let layer = if state.remote.is_some() {
            holds_force
        } else {
            // With the percentage, in one write, unless a layer above holds the force. A percentage in the process
            // environment that stays as it is does not stand in the way.
            let with_percentage = moves || holds_percentage.place < Place::Environment;
            let beside = if with_percentage { holds_percentage.place } else { Place::File };
            let place = beside.max(holds_force.place).max(Place::File);
            merged.layers.iter().find(|layer| layer.place == place).unwrap_or(holds_percentage)
        };
        let it = if ends_below { edit_in(merged, layer, FORCE) } else { edit(state, layer, FORCE) };
        edits.push(it?);
        if wanted.force.is_some() {
            edits.reverse();
        }
    }
    for edit in edits.iter().filter(|edit| edit.place != Place::ConfigMap) {
        refuse_mounted(edit, wanted)?;
    }
    Ok(edits)
}

/// Where `key` is, or will be, written, if `layer` holds it.
fn edit(state: &State, layer: &Layer, key: &'static str) -> Result<Edit, Refused> {
    let Some(remote) = state.remote.as_ref().filter(|_| layer.place < Place::Environment) else {
        return edit_in(&state.merged, layer, key);
    };
    if remote.latest.is_none() {
        let cause = remote.store.contact().trouble;
        return Err(Refused::Unreachable {
            source_name: remote.name.clone(),
            cause: cause.unwrap_or_else(|| "it has not answered yet".to_owned()),
        });
    }
    Ok(Edit {
        place: Place::ConfigMap,
        source: remote.name.clone(),
        key,
        path: PathBuf::new(),
        variable: remote.variable(key),
    })
}

/// Where `key` is, or will be, written in `layer`.
fn edit_in(merged: &Merged, layer: &Layer, key: &'static str) -> Result<Edit, Refused> {
    let own = layer.origin(key);
    let variable = own
        .and_then(|origin| origin.variable.clone())
        .unwrap_or_else(|| variables::preferred_name(key));
    let (layer, path) = match layer.place {
        Place::Environment => return Err(Refused::PinnedByEnvironment { variable }),
        Place::Defaults | Place::File => {
            let file = merged.layers.iter().find(|layer| layer.place == Place::File);
            file.and_then(|file| file.path.clone().map(|path| (file, path))).ok_or_else(|| {
                let cause = "there is no configuration file to write to: make a config.toml, \
                             or name one with --config";
                read_only(&merged.holder_name(key), cause)
            })?
        }
        Place::EnvFile | Place::ConfigMap => (layer, layer.path.clone().unwrap_or_default()),
        Place::WatchDir => {
            let directory = layer.path.clone().unwrap_or_default();
            let file = own.and_then(|origin| origin.file.clone());
            (layer, file.unwrap_or_else(|| directory.join(&variable)))
        }
    };
    Ok(Edit { place: layer.place, source: layer.name.clone(), key, path, variable })
}

/// A mounted ConfigMap is a copy: what is written there is lost, if it can be written at all.
fn refuse_mounted(edit: &Edit, wanted: Wanted) -> Result<(), Refused> {
    let directory = edit.path.parent().unwrap_or_else(|| Path::new("/"));
    let real = fs::canonicalize(&edit.path);
    let linked = real.is_ok_and(|real| {
        real.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".."))
    });
    let mounted = linked || (!edit.path.exists() && directory.join("..data").exists());
    if !mounted {
        return Ok(());
    }
    let data = match edit.place {
        Place::WatchDir => {
            format!("{{\"data\":{{\"{}\":\"{}\"}}}}", edit.variable, edit.text(wanted))
        }
        _ => "…".to_owned(),
    };
    let cause = format!(
        "it is a mounted ConfigMap: change it there, and it takes effect here when the kubelet has synced it \
         (kubectl patch configmap NAME --type merge -p '{data}')"
    );
    Err(read_only(&edit.path.display().to_string(), cause))
}

impl Edit {
    /// The value as its place spells it.
    fn text(&self, wanted: Wanted) -> String {
        let force = wanted.force.map_or("", Side::as_str);
        match self.key {
            PERCENTAGE => wanted.percentage.to_string(),
            _ if self.place == Place::File || self.variable != variables::FORCE => force.to_owned(),
            _ => variables::word_of_force(force).to_owned(),
        }
    }

    fn applied_to(&self, old: &str, wanted: Wanted) -> Result<String, Refused> {
        let value = self.text(wanted);
        match self.place {
            Place::EnvFile => Ok(edit::env(old, &self.variable, &value)),
            Place::WatchDir => Ok(format!("{value}\n")),
            _ => {
                let new =
                    if self.key == PERCENTAGE { New::Number(&value) } else { New::Word(&value) };
                let (section, key) = self.key.split_once('.').unwrap_or_default();
                edit::toml(old, section, key, new).map_err(|error| read_only(&self.source, error))
            }
        }
    }
}

type Before = BTreeMap<PathBuf, Option<String>>;

/// The texts of all files to be written, as they are and as they will be, and what is to be set in the ConfigMap.
fn draft(state: &State, edits: &[Edit], wanted: Wanted) -> Result<Draft, Refused> {
    let mut draft = Draft { before: Before::new(), after: state.overlay(), patch: BTreeMap::new() };
    for edit in edits {
        if edit.place == Place::ConfigMap {
            draft.patch.insert(edit.variable.clone(), edit.text(wanted));
            continue;
        }
        let path = &edit.path;
        if !draft.before.contains_key(path) {
            let text = match files::read(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(read_only(&path.display().to_string(), error)),
            };
            draft.before.insert(path.clone(), text);
        }
        let old = draft.after.files.get(path).or_else(|| draft.before.get(path)?.as_ref());
        let text = edit.applied_to(old.map(String::as_str).unwrap_or_default(), wanted)?;
        draft.after.files.insert(path.clone(), text);
    }
    let latest =
        state.remote.as_ref().and_then(|r| r.latest.as_ref().map(|latest| r.given(latest)));
    if let (false, Some(mut given)) = (draft.patch.is_empty(), latest) {
        // What is written stands beside what the ConfigMap says now, not beside what it said when it was good.
        given.data.extend(draft.patch.clone());
        draft.after.configmap = Some(given);
    }
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_there_is_no_place_for_the_number() {
        let merged = Merged::new(vec![Layer::defaults()]);
        let refused =
            edit_in(&merged, merged.holder(PERCENTAGE), PERCENTAGE).err().unwrap().to_string();
        assert!(refused.starts_with("default holds the value"), "{refused}");
        assert!(refused.contains("there is no configuration file to write to"), "{refused}");
    }
}
