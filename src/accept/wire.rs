//! What one client connection's parts tell each other: the guard below the parser, the watchdog beside it and the
//! service above it. They run on one worker; the atomics are only there because an upgraded connection must be `Send`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::Context;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use super::framing::Malformed;

/// Why the guard refused what came over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The framing is in doubt.
    Malformed(Malformed),
    /// More than `limits.header_bytes` or [`super::MAX_HEADERS`].
    HeadTooLarge,
    /// The connection is one too many (`limits.connections`).
    TooManyConnections,
}

/// Every refusal; its index is what the atomic holds.
const REFUSALS: [Refused; 13] = [
    Refused::HeadTooLarge,
    Refused::TooManyConnections,
    Refused::Malformed(Malformed::BareLineEnd),
    Refused::Malformed(Malformed::Folded),
    Refused::Malformed(Malformed::HeaderName),
    Refused::Malformed(Malformed::HeaderValue),
    Refused::Malformed(Malformed::TwoLengths),
    Refused::Malformed(Malformed::ContentLength),
    Refused::Malformed(Malformed::TransferEncoding),
    Refused::Malformed(Malformed::Host),
    Refused::Malformed(Malformed::RequestLine),
    Refused::Malformed(Malformed::Target),
    Refused::Malformed(Malformed::Chunk),
];

/// The shared state of one client connection.
#[derive(Debug)]
pub struct Wire {
    opened: Instant,
    /// Milliseconds after `opened` plus one at which an unfinished head began; 0 = none.
    head_since: AtomicU64,
    /// Milliseconds after `opened` at which something last happened.
    active: AtomicU64,
    in_flight: AtomicU32,
    /// Requests that have ended.
    ended: AtomicU64,
    /// Woken when a request ends.
    waiting: AtomicWaker,
    tunnel: AtomicBool,
    linger: AtomicBool,
    /// Index into [`REFUSALS`] plus one; 0 = none.
    refused: AtomicU8,
}

impl Wire {
    /// A connection that opens now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            opened: Instant::now(),
            // A connection owes its first head from the moment it opens.
            head_since: AtomicU64::new(1),
            active: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            waiting: AtomicWaker::new(),
            tunnel: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            refused: AtomicU8::new(0),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A head has begun (or goes on).
    pub(crate) fn head_begins(&self) {
        if self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now() + 1, Relaxed);
        }
    }

    /// A head is complete.
    pub(crate) fn head_ends(&self) {
        self.head_since.store(0, Relaxed);
        self.touch();
    }

    fn touch(&self) {
        self.active.store(self.now(), Relaxed);
    }

    pub(crate) fn refuse(&self, why: Refused) {
        let index = REFUSALS.iter().position(|refusal| *refusal == why).unwrap_or_default();
        self.refused.store(u8::try_from(index + 1).unwrap_or(1), Relaxed);
        self.answered_early();
    }

    /// The request was answered before it was read to its end: the close must not lose the answer.
    pub fn answered_early(&self) {
        self.linger.store(true, Relaxed);
    }

    pub(crate) fn lingers(&self) -> bool {
        self.linger.load(Relaxed)
    }

    /// Why the guard replaced the request by a stand-in, if it did: the service answers for it.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        let index = usize::from(self.refused.load(Relaxed)).checked_sub(1)?;
        REFUSALS.get(index).copied()
    }

    /// From now on the bytes are no longer HTTP: the guard lets everything through.
    pub fn becomes_tunnel(&self) {
        self.tunnel.store(true, Relaxed);
    }

    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Relaxed)
    }

    /// A request begins.
    pub fn request_begins(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A request, with its response's body, has ended. A head that began behind it could not be read on until now: its time
    /// begins now.
    pub fn request_ends(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
        if self.head_since.load(Relaxed) != 0 {
            self.head_since.store(self.now() + 1, Relaxed);
        }
        self.touch();
        self.ended.fetch_add(1, Relaxed);
        self.waiting.wake();
    }

    /// Whether fewer than this many requests have ended; if so, the task is woken when the next one does.
    pub(crate) fn waits_for(&self, requests: u64, cx: &Context<'_>) -> bool {
        self.waiting.register(cx.waker());
        self.ended.load(Relaxed) < requests
    }

    /// When this connection has to be looked at next, or `None` when it is overdue: its head is too slow or it has been
    /// idle for too long.
    pub(crate) fn next_look(
        &self,
        header_timeout: Duration,
        idle_timeout: Duration,
    ) -> Option<Instant> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = self.now();
        let due = match self.head_since.load(Relaxed).checked_sub(1) {
            _ if self.in_flight.load(Relaxed) > 0 || self.is_tunnel() => {
                now.saturating_add(millis(header_timeout))
            }
            Some(since) => since.saturating_add(millis(header_timeout)),
            None => self.active.load(Relaxed).saturating_add(millis(idle_timeout)),
        };
        // Look again within the shorter of the two: a head, or an idle time, may begin at any moment after this look.
        let step = millis(header_timeout.min(idle_timeout)).max(1);
        let look = due.min(now.saturating_add(step));
        (due > now).then(|| self.opened + Duration::from_millis(look))
    }
}

impl Default for Wire {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_comes_back() {
        for refusal in REFUSALS {
            let wire = Wire::new();
            assert_eq!(wire.refused(), None);
            wire.refuse(refusal);
            assert_eq!(wire.refused(), Some(refusal));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn slow_heads_and_idle_connections_are_overdue() {
        let (header, idle) = (Duration::from_secs(10), Duration::from_secs(75));
        let wire = Wire::new();
        assert!(wire.next_look(header, idle).is_some());
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(wire.next_look(header, idle), None, "no first head");
        wire.head_ends();
        wire.request_begins();
        tokio::time::advance(Duration::from_secs(1000)).await;
        assert!(wire.next_look(header, idle).is_some(), "a request in flight may take its time");
        wire.head_begins();
        assert!(wire.next_look(header, idle).is_some(), "the next head waits for it");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(wire.next_look(header, idle).is_some());
        wire.request_ends();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(wire.next_look(header, idle).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(wire.next_look(header, idle), None, "and has its own time then");
        wire.head_ends();
        tokio::time::advance(Duration::from_secs(74)).await;
        assert!(wire.next_look(header, idle).is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(wire.next_look(header, idle), None, "idle");
    }
}
