//! What is counted of the fetching of published keys. One fetcher writes it, the scraper reads it.

use std::time::Duration;

/// How a fetch of a project's published keys ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFetch {
    /// With a set of keys, which may be empty.
    Success,
    /// No connection, or no whole answer in time.
    Unreachable,
    /// Another status than 200.
    Refused,
    /// An answer that is no set of keys, or too large to be one.
    Unreadable,
}

impl KeyFetch {
    /// Every outcome, in the order of the exposition.
    pub const ALL: [Self; 4] = [Self::Success, Self::Unreachable, Self::Refused, Self::Unreadable];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Unreachable => "unreachable",
            Self::Refused => "refused",
            Self::Unreadable => "unreadable",
        }
    }
}

/// What is known of one project's published keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFacts {
    /// Fetches by outcome, in the order of [`KeyFetch::ALL`].
    pub fetches: [u64; KeyFetch::ALL.len()],
    /// Since the last good answer; `None` before the first.
    pub age: Option<Duration>,
}
