//! The body of a client's request, whatever protocol the client speaks.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::oneshot;

use super::decoder::Decoder;
use super::link::Link;
use super::reading::{BodyBroke, poll_frame};
use super::stream::Stream;
use super::upgraded::Upgraded;

/// A client's HTTP/1 connection: shared by whoever answers on it and by the body of the request that is being answered. Both are of one
/// worker, and of one task unless the body goes up over HTTP/2.
#[derive(Debug)]
pub struct Shared {
    /// The stream and its buffers.
    pub link: RefCell<Link<Stream>>,
    /// Where the body of the current request is.
    pub decoder: RefCell<Decoder>,
    /// The client waits for 100 Continue before it sends the body, and has not got it yet.
    pub owes_continue: Cell<bool>,
    /// 100 Continue is on its way.
    says_continue: Cell<bool>,
    /// Whether somebody holds the body and may read of the stream.
    is_read: Cell<bool>,
    /// Who waits for the body's end.
    waiting: RefCell<Option<Waker>>,
}

impl Shared {
    /// A connection of which no request was read yet.
    #[must_use]
    pub fn new(link: Link<Stream>) -> Rc<Self> {
        Rc::new(Self {
            link: RefCell::new(link),
            decoder: RefCell::new(Decoder::Done),
            owes_continue: Cell::new(false),
            says_continue: Cell::new(false),
            is_read: Cell::new(false),
            waiting: RefCell::new(None),
        })
    }

    /// The body of a request whose head was read just now.
    #[must_use]
    pub fn body(self: &Rc<Self>, decoder: Decoder, expects_continue: bool) -> Incoming {
        let is_empty = decoder.is_done();
        self.owes_continue.set(expects_continue && !is_empty);
        *self.decoder.borrow_mut() = decoder;
        if is_empty {
            return Incoming::Empty;
        }
        self.is_read.set(true);
        Incoming::Http1(Held(Rc::clone(self)))
    }

    /// Whether the body has an owner that reads the stream. If so, the task is woken when that ends.
    pub fn is_read(&self, cx: &Context<'_>) -> bool {
        if self.is_read.get() {
            let mut waiting = self.waiting.borrow_mut();
            if waiting.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *waiting = Some(cx.waker().clone());
            }
        }
        self.is_read.get()
    }

    fn is_read_no_more(&self) {
        self.is_read.set(false);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyBroke>>> {
        let (mut link, mut decoder) = (self.link.borrow_mut(), self.decoder.borrow_mut());
        if self.owes_continue.get() {
            // A client that sends without waiting needs no word.
            if link.held().is_empty() {
                link.add(b"HTTP/1.1 100 Continue\r\n\r\n");
                self.says_continue.set(true);
            }
            self.owes_continue.set(false);
        }
        // Nothing else is written from here: an answer that goes while its request still comes has a task of its own to be woken, and a client
        // may well read it only when all is sent.
        if self.says_continue.get() && link.poll_flush(cx)?.is_ready() {
            self.says_continue.set(false);
        }
        poll_frame(&mut link, &mut decoder, cx)
    }
}

/// The right to read a body of [`Shared`].
#[derive(Debug)]
pub struct Held(Rc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.is_read_no_more();
    }
}

/// A client's connection once its answer has been 101; an error where it never will be.
pub type OnUpgrade = oneshot::Receiver<Upgraded<Stream>>;

/// The body of a client's request.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    Empty,
    /// There is none, and the client asks for another protocol: the connection comes here if it is answered with 101.
    Upgrade(OnUpgrade),
    /// Over HTTP/1.
    Http1(Held),
    /// Over HTTP/2.
    Http2(hyper::body::Incoming),
}

impl Incoming {
    /// The client's connection to come, if another protocol was asked for. What is left is a body without bytes.
    pub fn take_upgrade(&mut self) -> Option<OnUpgrade> {
        match std::mem::replace(self, Self::Empty) {
            Self::Upgrade(upgrade) => Some(upgrade),
            body => {
                *self = body;
                None
            }
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyBroke;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyBroke>>> {
        match self.get_mut() {
            Self::Empty | Self::Upgrade(_) => Poll::Ready(None),
            Self::Http1(held) => held.0.poll_frame(cx),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(BodyBroke::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Upgrade(_) => true,
            Self::Http1(held) => held.0.decoder.borrow().is_done(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Upgrade(_) => SizeHint::with_exact(0),
            Self::Http1(held) => held.0.decoder.borrow().size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
