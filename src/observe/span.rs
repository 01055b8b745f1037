//! What the path tells of a request that is traced: the facts that its spans are made of. Made only for requests that are recorded.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Version};
use tokio::sync::mpsc;

use super::code::ErrorCode;
use super::event::{Finished, MethodClass};
use super::metrics::{Counter, Shard};
use crate::side::Side;
use crate::trace::{TRACESTATE, Trace};

/// Bytes of a `tracestate` that a span takes along: what everybody has to carry (Trace Context 3.3.1.5). Clients choose it, it is in every
/// span of a request, and a batch of longer ones would be more than a collector takes at once. To the side it goes as it is.
const STATE_BYTES: usize = 512;

/// A traced request. When it is over it goes to the exporter as it is; nothing is formatted on the worker.
#[derive(Debug)]
pub struct Traced {
    /// Its trace and its own span.
    pub trace: Trace,
    /// The client's `tracestate`, where there is a parent that can be read, and it is no longer than it may be.
    pub state: Option<HeaderValue>,
    /// The client's path and query; `None` when they are not known.
    pub target: Option<PathAndQuery>,
    /// The name by which the client calls the proxy.
    pub authority: Option<Authority>,
    /// Whether the client speaks TLS to us.
    pub is_secure: bool,
    /// The client's protocol.
    pub version: Version,
    /// When the request's head had come.
    pub began: SystemTime,
    /// Each time that a side was asked, in order.
    pub tries: Vec<Try>,
    /// What is counted of the request; complete when the request is over.
    pub finished: Finished,
}

/// One time that a side was asked.
#[derive(Debug)]
pub struct Try {
    /// The id that the side was told as its parent.
    pub span: u64,
    /// The side.
    pub side: Side,
    /// The method, as it was sent.
    pub method: MethodClass,
    /// Path and query as they were sent.
    pub target: PathAndQuery,
    /// The side's name.
    pub authority: Authority,
    /// Whether it is spoken to over TLS.
    pub is_tls: bool,
    /// From the request's beginning to this try's.
    pub after: Duration,
    /// How it ended, and how long that took; `None` when the client went away before.
    pub end: Option<(Duration, Outcome)>,
    /// A kept-alive connection was stale, and the same was sent again on a fresh one.
    pub is_resent: bool,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With the head of an answer.
    Answered(u16, Version),
    /// Without one.
    Failed(ErrorCode),
}

/// A copy, for what has to wait: a clone would keep all of the buffer that the request's head was read into.
#[must_use]
pub fn copied(target: &PathAndQuery) -> PathAndQuery {
    target.as_str().parse().unwrap_or_else(|_| target.clone())
}

impl Traced {
    /// A traced request that has just begun.
    #[must_use]
    pub fn new(trace: Trace, headers: &HeaderMap, began: SystemTime, finished: Finished) -> Self {
        let state = trace.parent.and_then(|_| headers.get(TRACESTATE));
        let state = state.filter(|state| state.len() <= STATE_BYTES);
        let state = state.and_then(|state| HeaderValue::from_bytes(state.as_bytes()).ok());
        Self {
            trace,
            state,
            target: None,
            authority: None,
            is_secure: false,
            version: Version::HTTP_11,
            began,
            tries: Vec::new(),
            finished,
        }
    }

    /// Spans that are made of it.
    #[must_use]
    pub fn spans(&self) -> u64 {
        1 + self.tries.len() as u64
    }
}

/// Where traced requests go: a bounded queue that never makes a worker wait.
#[derive(Clone, Debug)]
pub struct Spans {
    queue: mpsc::Sender<Box<Traced>>,
}

impl Spans {
    /// A queue of this length, and its other end.
    #[must_use]
    pub fn queue(length: usize) -> (Self, mpsc::Receiver<Box<Traced>>) {
        let (queue, traced) = mpsc::channel(length.max(1));
        (Self { queue }, traced)
    }

    /// Hands over a request that is over, or counts its spans as lost where there is no room.
    pub fn send(&self, traced: Box<Traced>, shard: &Arc<Shard>) {
        if let Err(full) = self.queue.try_send(traced) {
            let (mpsc::error::TrySendError::Full(traced)
            | mpsc::error::TrySendError::Closed(traced)) = full;
            shard.count_many(Counter::SpansLost, traced.spans());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{Gauges, Metrics};

    fn traced(tries: usize) -> Box<Traced> {
        let trace = Trace::of(None, 7, None);
        let mut traced = Traced::new(
            trace,
            &HeaderMap::new(),
            SystemTime::UNIX_EPOCH,
            Finished::new(MethodClass::Get, 1),
        );
        traced.tries.extend((0..tries).map(|_| Try {
            span: 1,
            side: Side::Old,
            method: MethodClass::Get,
            target: PathAndQuery::from_static("/"),
            authority: Authority::from_static("old"),
            is_tls: false,
            after: Duration::ZERO,
            end: None,
            is_resent: false,
        }));
        Box::new(traced)
    }

    #[test]
    fn no_longer_state_is_taken_along_than_everybody_has_to_carry() {
        let parent =
            HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let trace = Trace::of(Some(&parent), 7, None);
        for (length, want) in [(STATE_BYTES, true), (STATE_BYTES + 1, false)] {
            let state = format!("a={}", "b".repeat(length - 2)).parse().unwrap();
            let headers = HeaderMap::from_iter([(TRACESTATE, state)]);
            let finished = Finished::new(MethodClass::Get, 1);
            let traced = Traced::new(trace, &headers, SystemTime::UNIX_EPOCH, finished);
            assert_eq!(traced.state.is_some(), want, "{length}");
            // A copy: its own bytes, not those of the request's buffer.
            let at = |state: &HeaderValue| state.as_bytes().as_ptr();
            assert_ne!(traced.state.as_ref().map(at), headers.get(TRACESTATE).map(at));
        }
        let target = PathAndQuery::from_static("/rest/v1/todos?select=id");
        let copy = copied(&target);
        assert_eq!(copy, target);
        assert_ne!(copy.as_str().as_ptr(), target.as_str().as_ptr());
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let metrics = Metrics::new(1);
        let shard = metrics.shard(0);
        let (spans, mut queue) = Spans::queue(2);
        for tries in [0, 1, 2, 0] {
            spans.send(traced(tries), &shard);
        }
        let lost = "cutover_telemetry_dropped_total{reason=\"queue\"} 4\n";
        assert!(metrics.render(&Gauges::default()).contains(lost), "three spans and one");
        assert_eq!(queue.try_recv().unwrap().spans(), 1);
        spans.send(traced(0), &shard);
        assert!(metrics.render(&Gauges::default()).contains(lost), "there was room again");
        drop(queue);
        spans.send(traced(0), &shard);
        assert!(!metrics.render(&Gauges::default()).contains(lost), "nobody listens any more");
    }
}
