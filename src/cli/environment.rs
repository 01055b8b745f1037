//! The process environment, read here and nowhere else, and handed on as data.

use std::collections::BTreeMap;

/// Every variable whose name and value are UTF-8. `std::env::vars` would panic at one that is not.
pub(super) fn read() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
