//! A change that somebody asks for: where it has to be written, whether the result is good, and then the writing.
//!
//! One truth: the number is written to the source that holds it, so that a restart reads what runs now.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::edit::{self, New};
use super::files;
use super::layers::{Layer, Place};
use super::live::{Change, Control, Refused, RolloutState};
use super::load::{Overlay, load};
use super::merged::Merged;
use super::state::{By, State};
use super::variables;
use crate::decide::percentage::Percentage;
use crate::side::Side;

const PERCENTAGE: &str = "rollout.percentage";
const FORCE: &str = "rollout.force";

/// How often a file that somebody else edits at the same moment is tried again.
const TRIES: usize = 3;

/// The two values that a change can set.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Wanted {
    percentage: Percentage,
    force: Option<Side>,
}

/// One value to be written to one place.
struct Edit<'a> {
    layer: &'a Layer,
    key: &'static str,
    path: PathBuf,
    /// In layers of variables.
    variable: String,
}

impl Control {
    /// Writes a change to the source that holds the number and applies it.
    pub(super) fn write_change(
        &self,
        state: &mut State,
        change: &Change,
    ) -> Result<RolloutState, Refused> {
        let mut cause = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..TRIES {
            // What stands in the files is the base; and a file that is bad now is not written over.
            if let Err(faults) = self.reload_locked(state, "file", &|| true) {
                state.refuse(&faults);
                return Err(Refused::Faults(faults));
            }
            let wanted = self.wanted(state, change)?;
            if wanted == running(state) {
                if state.held.is_some() && wanted.force.is_none() {
                    self.release(state, &By { actor: &change.actor, reason: &change.reason });
                }
                return Ok(self.rollout_locked(state));
            }
            match self.write(state, wanted, change)? {
                Ok(()) => return Ok(self.rollout_locked(state)),
                Err(moved) => cause = moved,
            }
        }
        Err(read_only(&state.merged.holder_name(PERCENTAGE), cause))
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
            (None, false) => match (state.held.or(now.force), change.percentage) {
                (Some(side), Some(_)) => return Err(Refused::Forced { side }),
                (force, _) => force,
            },
        };
        Ok(Wanted { percentage: change.percentage.unwrap_or(now.percentage), force })
    }

    /// Edits, checks, writes, swaps. The inner error says that a file was changed by somebody else meanwhile.
    fn write(
        &self,
        state: &mut State,
        wanted: Wanted,
        change: &Change,
    ) -> Result<Result<(), io::Error>, Refused> {
        let edits = plan(state, wanted)?;
        let (before, after) = texts(&edits, wanted)?;
        let loaded =
            load(&self.sources, state.file.is_some(), &after).outcome.map_err(Refused::Faults)?;
        if (Wanted { percentage: loaded.merged.percentage(), force: loaded.merged.force() })
            != wanted
        {
            let cause = io::Error::other("another source hides the value");
            return Err(read_only(&state.merged.holder_name(PERCENTAGE), cause));
        }
        // In the order of the edits: the force first when it begins, so that no moment is less safe than both ends.
        let mut paths: Vec<&PathBuf> = Vec::new();
        for edit in &edits {
            if !paths.contains(&&edit.path) {
                paths.push(&edit.path);
            }
        }
        for path in &paths {
            if files::read(path).ok() != before.get(*path).cloned().flatten() {
                return Ok(Err(io::Error::other("it is edited by somebody else at the same time")));
            }
        }
        let mut replaced = Vec::with_capacity(paths.len());
        for path in paths {
            let text = after.get(path).map(String::as_str).unwrap_or_default();
            replaced.push(
                files::replace(path, text)
                    .map_err(|error| read_only(&path.display().to_string(), error))?,
            );
        }
        // What is written now is what was held, or ends it.
        state.held = None;
        self.adopt(state, loaded, &By { actor: &change.actor, reason: &change.reason });
        // Live first: a rollback does not wait for a disk. The caller's answer does.
        for file in replaced {
            if let Err(error) = file.sync() {
                tracing::warn!(%error, "the change is live and written; the disk did not confirm it");
            }
        }
        Ok(Ok(()))
    }
}

fn running(state: &State) -> Wanted {
    Wanted { percentage: state.merged.percentage(), force: state.merged.force() }
}

fn read_only(source: &str, cause: impl ToString) -> Refused {
    Refused::ReadOnly { source_name: source.to_owned(), cause: cause.to_string() }
}

/// Finds the place of each value that changes.
fn plan(state: &State, wanted: Wanted) -> Result<Vec<Edit<'_>>, Refused> {
    let merged = &state.merged;
    let now = running(state);
    let (holds_percentage, holds_force) = (merged.holder(PERCENTAGE), merged.holder(FORCE));
    let mut edits = Vec::new();
    let moves = wanted.percentage != now.percentage;
    if moves {
        edits.push(edit(merged, holds_percentage, PERCENTAGE)?);
    }
    if wanted.force != now.force {
        // With the percentage, in one write, unless a layer above holds the force. A percentage in the process
        // environment that stays as it is does not stand in the way.
        let with_percentage = moves || holds_percentage.place < Place::Environment;
        let beside = if with_percentage { holds_percentage.place } else { Place::File };
        let place = beside.max(holds_force.place).max(Place::File);
        let layer =
            merged.layers.iter().find(|layer| layer.place == place).unwrap_or(holds_percentage);
        edits.push(edit(merged, layer, FORCE)?);
        if wanted.force.is_some() {
            edits.reverse();
        }
    }
    for edit in &edits {
        refuse_mounted(edit, wanted)?;
    }
    Ok(edits)
}

/// Where `key` is, or will be, written in `layer`.
fn edit<'a>(merged: &'a Merged, layer: &'a Layer, key: &'static str) -> Result<Edit<'a>, Refused> {
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
        Place::EnvFile => (layer, layer.path.clone().unwrap_or_default()),
        Place::WatchDir => {
            let directory = layer.path.clone().unwrap_or_default();
            let file = own.and_then(|origin| origin.file.clone());
            (layer, file.unwrap_or_else(|| directory.join(&variable)))
        }
    };
    Ok(Edit { layer, key, path, variable })
}

/// A mounted ConfigMap is a copy: what is written there is lost, if it can be written at all.
fn refuse_mounted(edit: &Edit<'_>, wanted: Wanted) -> Result<(), Refused> {
    let directory = edit.path.parent().unwrap_or_else(|| Path::new("/"));
    let real = fs::canonicalize(&edit.path);
    let linked = real.is_ok_and(|real| {
        real.components().any(|part| part.as_os_str().to_string_lossy().starts_with(".."))
    });
    let mounted = linked || (!edit.path.exists() && directory.join("..data").exists());
    if !mounted {
        return Ok(());
    }
    let data = match edit.layer.place {
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

impl Edit<'_> {
    /// The value as its place spells it.
    fn text(&self, wanted: Wanted) -> String {
        let force = wanted.force.map_or("", Side::as_str);
        match self.key {
            PERCENTAGE => wanted.percentage.to_string(),
            _ if self.layer.place == Place::File || self.variable != variables::FORCE => {
                force.to_owned()
            }
            _ => variables::word_of_force(force).to_owned(),
        }
    }

    fn applied_to(&self, old: &str, wanted: Wanted) -> Result<String, Refused> {
        let value = self.text(wanted);
        match self.layer.place {
            Place::EnvFile => Ok(edit::env(old, &self.variable, &value)),
            Place::WatchDir => Ok(format!("{value}\n")),
            _ => {
                let new =
                    if self.key == PERCENTAGE { New::Number(&value) } else { New::Word(&value) };
                let (section, key) = self.key.split_once('.').unwrap_or_default();
                edit::toml(old, section, key, new)
                    .map_err(|error| read_only(&self.layer.name, error))
            }
        }
    }
}

type Before = BTreeMap<PathBuf, Option<String>>;

/// The texts of all files to be written, as they are and as they will be.
fn texts(edits: &[Edit<'_>], wanted: Wanted) -> Result<(Before, Overlay), Refused> {
    let (mut before, mut after) = (Before::new(), Overlay::new());
    for edit in edits {
        let path = &edit.path;
        if !before.contains_key(path) {
            let text = match files::read(path) {
                Ok(text) => Some(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(read_only(&path.display().to_string(), error)),
            };
            before.insert(path.clone(), text);
        }
        let old = after.get(path).or_else(|| before.get(path)?.as_ref());
        let text = edit.applied_to(old.map(String::as_str).unwrap_or_default(), wanted)?;
        after.insert(path.clone(), text);
    }
    Ok((before, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_there_is_no_place_for_the_number() {
        let merged = Merged::new(vec![Layer::defaults()]);
        let refused =
            edit(&merged, merged.holder(PERCENTAGE), PERCENTAGE).err().unwrap().to_string();
        assert!(refused.starts_with("default holds the value"), "{refused}");
        assert!(refused.contains("there is no configuration file to write to"), "{refused}");
    }
}
