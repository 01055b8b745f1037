//! The hash-chained record of every change.

use serde::{Deserialize, Serialize};

/// One change of the rollout: a line of the audit file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339, UTC.
    pub time: String,
    /// The epoch that the change made.
    pub epoch: u64,
    /// Before, as text: `10`, `10 forced old`.
    pub from: String,
    /// After.
    pub to: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Which source holds the number.
    pub source: String,
    /// Hash of the record before; 64 zeros for the first.
    pub previous: String,
    /// sha256 over this record without this field.
    pub hash: String,
}
