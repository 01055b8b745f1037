//! The body of an answer over HTTP/2, seen from the watchdog: does it wait for its side, or for the client to read?

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::wire::Wire;

/// A body that hyper asks for more only when the client has room for it.
pub(super) struct Unread<B> {
    body: B,
    wire: Rc<Wire>,
    /// Nobody has asked for more since something came, or at all.
    waits: bool,
}

impl<B: Body> Unread<B> {
    pub(super) fn new(body: B, wire: Rc<Wire>) -> Self {
        let mut unread = Self { body, wire, waits: false };
        let is_empty = unread.body.is_end_stream();
        unread.waits(!is_empty);
        unread
    }
}

impl<B> Unread<B> {
    fn waits(&mut self, waits: bool) {
        match waits == self.waits {
            true => self.wire.stream_moves(),
            false => self.wire.stream_waits(waits),
        }
        self.waits = waits;
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Unread<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        self.waits(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for Unread<B> {
    fn drop(&mut self) {
        self.waits(false);
    }
}
