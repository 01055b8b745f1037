//! Whether the proxy serves requests: what `/readyz` says, and what a stop changes first.

use std::sync::atomic::{AtomicU8, Ordering};

/// Where the process is in its life. It only ever moves forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Listeners are not open yet.
    Starting,
    /// Requests are served.
    Serving,
    /// Requests in flight are finished, new ones belong elsewhere.
    Draining,
}

/// The phase, shared by everybody who asks.
#[derive(Debug)]
pub struct Lifecycle(AtomicU8);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(AtomicU8::new(Phase::Starting as u8))
    }
}

impl Lifecycle {
    /// Moves on to `phase`; a step back is ignored.
    pub fn enter(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::AcqRel);
    }

    /// The phase now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_never_taken_back() {
        let life = Lifecycle::default();
        assert_eq!(life.phase(), Phase::Starting);
        life.enter(Phase::Serving);
        assert_eq!(life.phase(), Phase::Serving);
        life.enter(Phase::Draining);
        life.enter(Phase::Serving);
        assert_eq!(life.phase(), Phase::Draining);
    }
}
