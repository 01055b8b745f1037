//! The response's body on its way down. When its end has been seen, the connection goes back to the pool.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::exchange::{Unsent, Upload};
use super::lease::Lease;
use super::pool::Stream;
use super::request_body::BodyState;
use crate::http1::decoder::Decoder;
use crate::http1::reading::{self, BodyBroke};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// A body that is read from a side.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// The body of its request, which may still be on its way.
    request_body: Option<Rc<BodyState>>,
}

/// Where it comes from.
#[derive(Debug)]
enum Source {
    /// All of it has come.
    Ended,
    /// It broke off, and was said to.
    Broken,
    /// A connection that nobody else uses meanwhile.
    Http1 { lease: Box<Lease>, decoder: Decoder, again: Again },
    /// The same, while the request's body is still being sent on it.
    Early(Early),
    /// One stream of many; dropping it makes room.
    Http2 { incoming: Incoming, _stream: Stream },
}

/// Whether the connection may be used again, and for how long the side says it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Never,
    For(Option<Duration>),
}

impl Again {
    /// What a response's head says of it.
    pub(super) fn of(keeps_alive: bool, decoder: &Decoder, headers: &HeaderMap) -> Self {
        if !keeps_alive || matches!(decoder, Decoder::UntilClose) {
            return Self::Never;
        }
        Self::For(keep_alive_hint(headers))
    }

    fn give_back(self, lease: Box<Lease>) {
        if let Self::For(hint) = self {
            lease.give_back(hint);
        }
    }
}

/// A response that came before its request was sent to the end. The rest is sent by a task of its own, whether or not the client takes
/// the response meanwhile: it may be one that does so only when all is sent.
#[derive(Debug)]
struct Early {
    both: Rc<RefCell<Both>>,
    decoder: Decoder,
    again: Again,
    sending: JoinHandle<()>,
}

/// What sending and receiving share.
#[derive(Debug)]
struct Both {
    lease: Box<Lease>,
    /// All was sent.
    is_whole: bool,
    /// The client's body was at fault: the side waits for the rest of it in vain, and so would the reader.
    is_broken: bool,
    reader: Option<Waker>,
}

impl Early {
    /// `timeout`: how long the side may take nothing of what waits for it. It has answered, and so nothing else watches it.
    fn begin(
        (lease, mut upload): (Box<Lease>, Upload),
        timeout: Duration,
        decoder: Decoder,
        again: Again,
    ) -> Self {
        let both = Both { lease, is_whole: false, is_broken: false, reader: None };
        let both = Rc::new(RefCell::new(both));
        let shared = Rc::clone(&both);
        let sending = tokio::task::spawn_local(async move {
            let mut moved = (0, Instant::now());
            let sent = poll_fn(|cx| {
                let lease = &mut shared.borrow_mut().lease;
                loop {
                    if let Poll::Ready(sent) = upload.poll(&mut lease.link, cx) {
                        return Poll::Ready(sent);
                    }
                    if lease.link.unwritten() == 0 || lease.link.taken() != moved.0 {
                        moved = (lease.link.taken(), Instant::now());
                    }
                    let due = moved.1 + timeout;
                    ready!(lease.alarm.poll_due(due, cx));
                    if lease.link.unwritten() > 0 {
                        return Poll::Ready(Err(Unsent::Stream(io::ErrorKind::TimedOut.into())));
                    }
                }
            })
            .await;
            let mut both = shared.borrow_mut();
            both.is_whole = sent.is_ok();
            if matches!(sent, Err(Unsent::Body(_))) {
                both.is_broken = true;
                if let Some(reader) = both.reader.take() {
                    reader.wake();
                }
            }
        });
        Self { both, decoder, again, sending }
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroke>>> {
        let mut both = self.both.borrow_mut();
        if both.is_broken {
            let error = io::Error::other("the request's body broke off");
            return Poll::Ready(Some(Err(error.into())));
        }
        let frame = reading::poll_frame(&mut both.lease.link, &mut self.decoder, cx);
        if frame.is_pending() {
            both.reader = Some(cx.waker().clone());
        }
        frame
    }

    /// A side that answered early has the rest of the body still to come: whoever got this connection next would wait for it.
    fn finish(self) {
        if let Ok(both) = Rc::try_unwrap(self.both).map(RefCell::into_inner)
            && both.is_whole
        {
            self.again.give_back(both.lease);
        }
    }
}

impl ResponseBody {
    /// The body on a connection of its own, whose head was read just now. `timeout`: for what is still to be sent of its request.
    pub(super) fn http1(
        (lease, upload): (Box<Lease>, Upload),
        timeout: Duration,
        decoder: Decoder,
        again: Again,
        request_body: Option<Rc<BodyState>>,
    ) -> Self {
        let source = if upload.is_whole() {
            Source::Http1 { lease, decoder, again }
        } else {
            Source::Early(Early::begin((lease, upload), timeout, decoder, again))
        };
        let mut body = Self { source, request_body };
        body.finish();
        body
    }

    /// The body on one of the streams of a connection.
    pub(super) const fn http2(
        incoming: Incoming,
        stream: Stream,
        request_body: Option<Rc<BodyState>>,
    ) -> Self {
        Self { source: Source::Http2 { incoming, _stream: stream }, request_body }
    }

    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self { source: Source::Ended, request_body: None }
    }

    /// Gives the connection back when the end has been read.
    fn finish(&mut self) {
        match &self.source {
            Source::Http1 { decoder, .. } | Source::Early(Early { decoder, .. })
                if decoder.is_done() => {}
            _ => return,
        }
        match mem::replace(&mut self.source, Source::Ended) {
            Source::Http1 { lease, again, .. } => again.give_back(lease),
            Source::Early(early) => early.finish(),
            Source::Ended | Source::Broken | Source::Http2 { .. } => {}
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyBroke;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = match &mut self.source {
            Source::Ended | Source::Broken => return Poll::Ready(None),
            Source::Http1 { lease, decoder, .. } => {
                ready!(reading::poll_frame(&mut lease.link, decoder, cx))
            }
            Source::Early(early) => ready!(early.poll_frame(cx)),
            Source::Http2 { incoming, .. } => {
                return Pin::new(incoming).poll_frame(cx).map_err(BodyBroke::Http2);
            }
        };
        match &frame {
            Some(Err(_)) => self.break_off(),
            Some(Ok(_)) | None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ended => true,
            Source::Broken | Source::Http1 { .. } | Source::Early(_) => false,
            Source::Http2 { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ended => SizeHint::with_exact(0),
            Source::Broken => SizeHint::default(),
            Source::Http1 { decoder, .. } | Source::Early(Early { decoder, .. }) => {
                decoder.size_hint()
            }
            Source::Http2 { incoming, .. } => incoming.size_hint(),
        }
    }
}

impl ResponseBody {
    /// Closes the connection, also where something is still being sent on it.
    fn break_off(&mut self) {
        if let Source::Early(early) = mem::replace(&mut self.source, Source::Broken) {
            early.sending.abort();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.break_off();
        }
        if let Some(body) = &self.request_body {
            body.give_up();
        }
    }
}

/// `Keep-Alive: timeout=N`, less a second for the way there.
fn keep_alive_hint(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(KEEP_ALIVE)?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    Some(Duration::from_secs(seconds.trim().parse::<u64>().ok()?.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_read_with_a_second_to_spare() {
        for (value, want) in [
            ("timeout=5", Some(4)),
            ("max=10, timeout=1", Some(0)),
            ("max=10", None),
            ("timeout=x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", value.parse().unwrap());
            assert_eq!(keep_alive_hint(&headers), want.map(Duration::from_secs), "{value}");
        }
    }
}
