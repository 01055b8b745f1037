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

/// Every fault of a set of sources; never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.0.iter().enumerate() {
            let line = if i == 0 { "" } else { "\n" };
            write!(
                f,
                "{line}{}: {}: found {}, allowed: {}",
                fault.source, fault.key, fault.found, fault.allowed
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
