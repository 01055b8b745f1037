//! What a comparison keeps so that it can be taken up again. Pure; `watch` writes the file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::report::Table;
use super::walk::Reached;
use crate::side::Pair;

/// The layout of the file.
const VERSION: u32 = 1;

/// The state file. It holds keys of rows, so it is as confidential as they are; no other value, and no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// A digest of everything that has to be the same for the state to mean anything.
    settings: String,
    /// Tables that are done.
    pub done: BTreeMap<String, Table>,
    /// Tables that were begun.
    pub begun: BTreeMap<String, Begun>,
}

/// How far a table was.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// Which sample (`tally::Sample`): the number of rows may have changed since.
    pub below: Option<u32>,
    /// Each side's first step.
    pub reached: Pair<Reached>,
}

/// Why a state file can't be gone on from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is no state file, or not of this version.
    #[error("it is no state of this version of cutover: {0}")]
    Unread(String),
    /// It was begun with other arguments, another map, or other tables.
    #[error(
        "it was begun with other settings: the same arguments and the same map are needed, or another file"
    )]
    OtherSettings,
}

impl State {
    /// An empty state for these settings.
    #[must_use]
    pub fn new(settings: &str) -> Self {
        let settings = format!("{:x}", Sha256::digest(settings));
        Self { version: VERSION, settings, done: BTreeMap::new(), begun: BTreeMap::new() }
    }

    /// Reads a file's text for these settings.
    ///
    /// # Errors
    /// [`Unusable`]
    pub fn read(text: &str, settings: &str) -> Result<Self, Unusable> {
        let read: Self =
            serde_json::from_str(text).map_err(|error| Unusable::Unread(error.to_string()))?;
        if read.version != VERSION {
            return Err(Unusable::Unread(format!("version {}", read.version)));
        }
        match read.settings == Self::new(settings).settings {
            true => Ok(read),
            false => Err(Unusable::OtherSettings),
        }
    }

    /// A table is done.
    pub fn finish(&mut self, label: &str, table: Table) {
        self.begun.remove(label);
        self.done.insert(label.to_owned(), table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_for_its_own_settings_only() {
        let mut state = State::new("these");
        state.begun.insert("b".into(), Begun::default());
        state.begun.insert("a".into(), Begun::default());
        state.finish("a", Table::default());
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(State::read(&text, "these").unwrap(), state);
        assert_eq!(State::read(&text, "those"), Err(Unusable::OtherSettings));
        let older = text.replace("\"version\":1", "\"version\":0");
        for bad in ["", "{}", "[]", &older, text.get(..40).unwrap()] {
            assert!(matches!(State::read(bad, "these"), Err(Unusable::Unread(_))), "{bad}");
        }
        assert!(!text.contains("these"), "the settings themselves are not in it");
    }
}
