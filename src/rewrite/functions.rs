//! Edge functions: their names on either side, and who owns one by name (`supabase-wire.md` 6.1).

use std::collections::BTreeMap;

use crate::decide::Belongs;
use crate::side::Side;

/// Names and owners of functions (`[functions]`).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Old name → new name, each one or more path segments.
    pub names: BTreeMap<String, String>,
    /// Name, in either dialect → the side that serves it for everybody.
    pub owners: BTreeMap<String, Side>,
}

/// The side of the function that a path below `/functions/v1` names, if it has an owner.
#[must_use]
pub fn belongs(_settings: &Settings, _tail: &str) -> Belongs {
    Belongs::ToRoute
}
