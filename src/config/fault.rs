//! What is wrong with the settings: all of it at once, each with where, what was found and what is allowed.

use std::fmt;

use serde::Serialize;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file (with line, where known) or variable.
    pub source: String,
    /// The key, dotted.
    pub key: String,
    /// What was found; never a secret.
    pub found: String,
    /// What is allowed.
    pub allowed: String,
}

impl Fault {
    /// Makes a fault.
    #[must_use]
    pub fn new(
        source: impl Into<String>,
        key: impl Into<String>,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self {
            source: source.into(),
            key: key.into(),
            found: found.into(),
            allowed: allowed.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, key, found, allowed } = self;
        if key.is_empty() {
            return write!(f, "{source}: found {found}, allowed: {allowed}");
        }
        write!(f, "{source}: {key}: found {found}, allowed: {allowed}")
    }
}

/// Every fault of a set of sources; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let line = if i == 0 { "" } else { "\n" };
            write!(f, "{line}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
