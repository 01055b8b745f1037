//! What is counted of the watch of the ConfigMap. One watcher writes it, the scraper reads it.

/// How a list, a watch or a write of the Kubernetes API failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchFailure {
    /// No connection, or it broke off.
    Unreachable,
    /// Connected, and silent for longer than it may be.
    Silent,
    /// 401 or 403: the token, or the Role.
    Forbidden,
    /// 410: the version is forgotten, and everything is listed anew. No fault of anybody.
    Gone,
    /// 404: there is no such ConfigMap.
    Missing,
    /// Any other answer than the one asked for.
    Unreadable,
}

impl WatchFailure {
    /// Every kind, in the order of the exposition.
    pub const ALL: [Self; 6] = [
        Self::Unreachable,
        Self::Silent,
        Self::Forbidden,
        Self::Gone,
        Self::Missing,
        Self::Unreadable,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Forbidden => "forbidden",
            Self::Gone => "gone",
            Self::Missing => "missing",
            Self::Unreadable => "unreadable",
        }
    }
}

/// Counts by kind, in the order of [`WatchFailure::ALL`].
pub type Failures = [u64; WatchFailure::ALL.len()];

/// What the metrics page shows of the watch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WatchFacts {
    /// Seconds since the API was last heard; `None`: never.
    pub heard_seconds: Option<f64>,
    /// Whether the watch is well.
    pub connected: bool,
    /// Failures by kind.
    pub failures: Failures,
    /// Lists, the first included.
    pub resyncs: u64,
}
