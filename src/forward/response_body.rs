//! The response's body on its way down. When its end has been seen, the connection goes back to the pool.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::pool::{Lease, Stream};
use super::request_body::{BodyState, Uploaded};

/// What the response came on, kept until its end.
#[derive(Debug)]
pub(super) enum Carrier {
    /// A connection that nobody else uses meanwhile.
    Http1(Lease),
    /// One stream of many; dropping it makes room.
    Http2(Stream),
}

/// A body that is read from a side.
#[derive(Debug)]
pub struct ResponseBody {
    incoming: Incoming,
    lease: Option<(Lease, Option<Duration>)>,
    _stream: Option<Stream>,
    /// The body of its request, which may still be on its way.
    request_body: Option<Rc<BodyState>>,
}

impl ResponseBody {
    pub(super) fn new(
        incoming: Incoming,
        carrier: Carrier,
        request_body: Rc<BodyState>,
        headers: &HeaderMap,
    ) -> Self {
        let (lease, stream) = match carrier {
            Carrier::Http1(lease) => (Some((lease, keep_alive_hint(headers))), None),
            Carrier::Http2(stream) => (None, Some(stream)),
        };
        Self { incoming, lease, _stream: stream, request_body: Some(request_body) }
    }

    /// A body of a connection that is not reused.
    #[must_use]
    pub const fn unpooled(incoming: Incoming) -> Self {
        Self { incoming, lease: None, _stream: None, request_body: None }
    }

    fn finish(&mut self) {
        let is_uploaded =
            self.request_body.as_ref().is_none_or(|body| body.uploaded() == Uploaded::Whole);
        // A side that answered early has the rest of the body still to come: whoever got this connection next would wait for it.
        if let Some((lease, hint)) = self.lease.take().filter(|_| is_uploaded) {
            lease.give_back(hint);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            None => self.finish(),
            Some(Err(_)) => self.lease = None,
            Some(Ok(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for ResponseBody {
    /// A body whose end was already known (HEAD, 204, 304, the last byte read) is never polled for it.
    fn drop(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
        if let Some(body) = &self.request_body {
            body.give_up();
        }
    }
}

/// `Keep-Alive: timeout=N`, less a second for the way there.
fn keep_alive_hint(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
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
