//! The body of an answer, and the end of a request: whatever way a request ends, it is counted and logged once.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, header};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::worker::Worker;
use crate::accept::wire::Wire;
use crate::forward::response_body::ResponseBody;
use crate::http1::reading::BodyBroke;
use crate::observe::code::ErrorCode;
use crate::observe::metrics::Held;
use crate::observe::span::Traced;
use crate::observe::{Ending, Finished, Gauge, log};
use crate::trace::Context;

/// nginx's code for a client that went away before its answer: nobody sees it, but the log needs a number.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// What is known of a request so far. When it is dropped, the request has ended: phase 7, observe.
#[derive(Debug)]
pub struct Record {
    /// What is counted and logged.
    pub finished: Finished,
    /// What is only logged; `None` when it is not.
    line: Option<Line>,
    /// What its spans are made of; `None` when it has none.
    pub(super) traced: Option<Box<Traced>>,
    started: Instant,
    worker: Rc<Worker>,
    wire: Rc<Wire>,
    _in_flight: Held,
}

#[derive(Debug)]
struct Line {
    method: Method,
    target: Option<PathAndQuery>,
    request_id: HeaderValue,
    trace: Context,
}

impl Record {
    /// Begins the record of a request.
    #[must_use]
    pub fn begin(worker: &Rc<Worker>, wire: &Rc<Wire>, method: &Method, epoch: u64) -> Self {
        let started = wire.request_begins();
        let mut finished = Finished::new(method.into(), epoch);
        finished.status = CLIENT_CLOSED_REQUEST;
        finished.ending = Ending::ClientGone;
        Self {
            finished,
            line: None,
            traced: None,
            started,
            worker: Rc::clone(worker),
            wire: Rc::clone(wire),
            _in_flight: worker.shard.hold(Gauge::InFlight),
        }
    }

    /// When its head was complete.
    pub(super) const fn began(&self) -> Instant {
        self.started
    }

    /// Says what the access line will show.
    pub fn line(
        &mut self,
        method: &Method,
        target: Option<&PathAndQuery>,
        request_id: &HeaderValue,
        trace: Context,
    ) {
        if self.worker.shared.access_log {
            self.line = Some(Line {
                method: method.clone(),
                target: target.cloned(),
                request_id: request_id.clone(),
                trace,
            });
        }
    }

    /// What is remembered for the spans, and the request's age; `None` when it has none.
    pub(super) fn traced(&mut self) -> Option<(&mut Traced, Duration)> {
        let traced = self.traced.as_deref_mut()?;
        Some((traced, self.started.elapsed()))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.finished.code = Some(ErrorCode::Panic);
            self.finished.status = ErrorCode::Panic.status().as_u16();
            self.finished.ending = Ending::Complete;
        }
        if self.finished.ending == Ending::ClientGone && self.wire.was_too_slow() {
            self.finished.ending = Ending::TooSlow;
        }
        let now = Instant::now();
        self.finished.elapsed = now.saturating_duration_since(self.started);
        self.worker.shard.finish(&self.finished);
        self.wire.request_ends(now, self.finished.status != CLIENT_CLOSED_REQUEST);
        if let Some(line) = &self.line {
            let target = line.target.as_ref().map_or("", PathAndQuery::as_str);
            let id = line.request_id.to_str().unwrap_or_default();
            log::access(&self.finished, &line.method, target, id, line.trace);
        }
        if let (Some(mut traced), Some(spans)) = (self.traced.take(), &self.worker.shared.spans) {
            traced.finished = self.finished;
            spans.send(traced, &self.worker.shard);
        }
    }
}

/// Where an answer's bytes come from.
#[derive(Debug)]
pub enum Source {
    /// The proxy itself.
    Own(Bytes),
    /// A side.
    Side(ResponseBody),
    /// A side; these bytes were already read of it.
    Begun(Bytes, ResponseBody),
}

impl Source {
    /// The same for HEAD: the length that GET would have been told, and nothing of the body. A side leaves its body out by itself; of ours
    /// nobody further down would over HTTP/2, where a client resets a stream with one (RFC 9113 8.1.1).
    #[must_use]
    pub fn for_head(self, headers: &mut HeaderMap) -> Self {
        match self {
            Self::Own(bytes) if !bytes.is_empty() => {
                headers.entry(header::CONTENT_LENGTH).or_insert_with(|| bytes.len().into());
                Self::Own(Bytes::new())
            }
            other => other,
        }
    }
}

/// The body of an answer.
#[derive(Debug)]
pub struct AnswerBody {
    source: Source,
    /// Dropped with the body; `None` for answers outside of any request.
    record: Option<Record>,
}

impl AnswerBody {
    /// A body with the record of its request.
    #[must_use]
    pub fn new(source: Source, record: Option<Record>) -> Self {
        Self { source, record }
    }

    fn ends(&mut self, ending: Ending) {
        if let Some(record) = &mut self.record {
            record.finished.ending = ending;
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyBroke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let own = match &mut self.source {
            Source::Own(bytes) | Source::Begun(bytes, _) => std::mem::take(bytes),
            Source::Side(_) => Bytes::new(),
        };
        if !own.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(own))));
        }
        let frame = match &mut self.source {
            Source::Own(_) => return Poll::Ready(None),
            Source::Side(body) | Source::Begun(_, body) => Pin::new(body).poll_frame(cx),
        };
        match &frame {
            Poll::Ready(None) => self.ends(Ending::Complete),
            Poll::Ready(Some(Err(_))) => self.ends(Ending::ResponseCut),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Side(body) => body.is_end_stream(),
            Source::Begun(bytes, body) => bytes.is_empty() && body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Side(body) => body.size_hint(),
            Source::Begun(..) => SizeHint::default(),
        }
    }
}

impl Drop for AnswerBody {
    /// An answer whose end is known without being asked for (HEAD, 204, 304, the last byte passed on) is complete.
    fn drop(&mut self) {
        if self.is_end_stream()
            && self.record.as_ref().is_some_and(|r| r.finished.ending == Ending::ClientGone)
        {
            self.ends(Ending::Complete);
        }
    }
}
