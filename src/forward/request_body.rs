//! The request's body on its way up: passed on piece by piece, never collected; counted, and watched for a client that
//! stops sending.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::http1::encoder::may_trail;
use crate::http1::incoming::Incoming;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// What was wrong with the client's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// More than `limits.body_bytes`.
    #[error("the body is too large")]
    TooLarge,
    /// The client stopped sending for `limits.body_idle_timeout`.
    #[error("the client stopped sending")]
    Idle,
    /// The client went away, or broke the framing, before the end.
    #[error("the body broke off")]
    Broken,
    /// It has to be read whole, and what others hold so leaves no room for it.
    #[error("no room for the body")]
    NoRoom,
}

/// How much of a body was on its way when the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// All of it, or there is none.
    Whole,
    /// It is still being sent.
    Part,
    /// Nothing: the client still waits for 100 Continue.
    HeldBack,
}

/// What the body tells the one who waits for the response, and is told by it.
#[derive(Debug, Default)]
pub struct BodyState {
    done_at: Cell<Option<Instant>>,
    fault: Cell<Option<BodyFault>>,
    /// When the last piece was handed over, until the next one is asked for in vain.
    passed_at: Cell<Option<Instant>>,
    gate: Cell<GateState>,
    /// What has been handed over, where it may have to be sent again.
    kept: RefCell<Option<Vec<Bytes>>>,
    /// Wakes the body behind its gate.
    waker: RefCell<Option<Waker>>,
}

/// Where the client that asked for 100 Continue stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum GateState {
    /// It did not ask, or was told to send.
    #[default]
    Open,
    /// It waits for the side's word.
    Closed,
    /// The side has answered without the body: it is never asked for now.
    Answered,
    /// The answer is over, too: the body ends.
    GivenUp,
}

impl BodyState {
    /// Since when the next step is the side's; `None` while it is the client's.
    #[must_use]
    pub fn sides_turn_since(&self) -> Option<Instant> {
        self.done_at.get().or_else(|| self.passed_at.get())
    }

    /// How much has been handed over.
    #[must_use]
    pub fn uploaded(&self) -> Uploaded {
        match (self.done_at.get(), self.gate.get()) {
            (Some(_), _) => Uploaded::Whole,
            (None, GateState::Open) => Uploaded::Part,
            (None, _) => Uploaded::HeldBack,
        }
    }

    /// From now on what is handed over is kept, as long as it is not more than [`KEPT`] bytes.
    pub(super) fn keep(&self) {
        self.kept.replace(Some(Vec::new()));
    }

    /// The whole body once more, if it was kept.
    pub(super) fn again(&self) -> Option<Bytes> {
        let pieces = self.kept.take().filter(|_| self.done_at.get().is_some())?;
        Some(match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        })
    }

    fn passed(&self, frame: &Frame<Bytes>) {
        let mut kept = self.kept.borrow_mut();
        let Some(pieces) = kept.as_mut() else { return };
        let before: usize = pieces.iter().map(Bytes::len).sum();
        match frame.data_ref() {
            Some(piece) if before + piece.len() <= KEPT => pieces.push(piece.clone()),
            _ => *kept = None,
        }
    }

    /// The head of the answer is here.
    pub(super) fn answered(&self) {
        self.kept.take();
        if self.gate.get() == GateState::Closed {
            self.gate.set(GateState::Answered);
        }
    }

    /// The answer has ended: a body that was held back is not waited for any more.
    pub(super) fn give_up(&self) {
        if self.uploaded() == Uploaded::HeldBack {
            self.gate.set(GateState::GivenUp);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// What was wrong, if something was.
    #[must_use]
    pub fn fault(&self) -> Option<BodyFault> {
        self.fault.get()
    }
}

/// Bytes of a body up to which it can be sent again to a side that says that it has not looked at it: what most writes have.
const KEPT: usize = 64 * 1024;

/// How long a client that asked `Expect: 100-continue` waits for the side's word before the body is sent anyway
/// (RFC 9110 10.1.1: a side may never answer 100).
pub const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Opens when the side says 100 Continue.
pub struct Gate {
    wait: Pin<Box<dyn Future<Output = ()>>>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// A gate and the handle that opens it.
    #[must_use]
    pub fn new() -> (Self, Arc<Notify>) {
        let notify = Arc::new(Notify::new());
        let opened = Arc::clone(&notify);
        let wait = Box::pin(async move {
            // Either way the body goes.
            let _elapsed_or_opened = tokio::time::timeout(CONTINUE_WAIT, opened.notified()).await;
        });
        (Self { wait }, notify)
    }
}

/// The body of a request as the upstream connection sees it.
#[derive(Debug)]
pub enum RequestBody {
    /// No body.
    Empty,
    /// The client's body.
    Client(Box<ClientBody>),
    /// A body that was read before, and perhaps said in other words.
    Read(Bytes),
}

/// A client's body with its limits.
#[derive(Debug)]
pub struct ClientBody {
    incoming: Incoming,
    state: Rc<BodyState>,
    /// Bytes that may still come; `u64::MAX` = no limit.
    left: u64,
    idle_timeout: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    gate: Option<Gate>,
}

impl RequestBody {
    /// Wraps a client's body. `limit` 0 = none.
    #[must_use]
    pub fn new(incoming: Incoming, limit: u64, idle_timeout: Duration, gate: Option<Gate>) -> Self {
        if incoming.is_end_stream() {
            return Self::Empty;
        }
        let state = Rc::new(BodyState::default());
        if gate.is_some() {
            state.gate.set(GateState::Closed);
        }
        let left = if limit == 0 { u64::MAX } else { limit };
        let body = ClientBody { incoming, state, left, idle_timeout, timer: None, gate };
        Self::Client(Box::new(body))
    }

    /// What is told of it on its way; `None` for a body that is all here, and for none: they are sent with their head.
    #[must_use]
    pub fn state(&self) -> Option<Rc<BodyState>> {
        match self {
            Self::Empty | Self::Read(_) => None,
            Self::Client(body) => Some(Rc::clone(&body.state)),
        }
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// What a body that is being read, or was, takes of its worker's memory, which all such bodies share. Given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    all: Rc<Cell<usize>>,
    own: usize,
    most: usize,
}

impl Share {
    /// A share of nothing yet. `most`: bytes that all together may take.
    #[must_use]
    pub fn new(all: &Rc<Cell<usize>>, most: usize) -> Self {
        Self { all: Rc::clone(all), own: 0, most }
    }

    /// Takes this many bytes more, if they are there.
    fn grow(&mut self, by: usize) -> Result<(), BodyFault> {
        let sum = self.all.get().saturating_add(by);
        if sum > self.most {
            return Err(BodyFault::NoRoom);
        }
        self.all.set(sum);
        self.own += by;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.set(self.all.get().saturating_sub(self.own));
    }
}

/// Reads a whole body, at most `limit` bytes, with no pause longer than `idle_timeout`, as far as `share` can grow.
///
/// # Errors
/// [`BodyFault`].
pub async fn collect(
    incoming: &mut Incoming,
    limit: usize,
    idle_timeout: Duration,
    share: &mut Share,
) -> Result<Bytes, BodyFault> {
    if incoming.size_hint().lower() > limit as u64 {
        return Err(BodyFault::TooLarge);
    }
    let mut bytes = BytesMut::new();
    loop {
        let frame = poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx));
        match tokio::time::timeout(idle_timeout, frame).await {
            Err(_) => return Err(BodyFault::Idle),
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(Err(_))) => return Err(BodyFault::Broken),
            Ok(Some(Ok(frame))) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                if bytes.len() + data.len() > limit {
                    return Err(BodyFault::TooLarge);
                }
                share.grow(data.len())?;
                bytes.extend_from_slice(data);
            }
        }
    }
}

/// Removes what may not come behind a body, whatever protocol it goes on in.
fn keep_trailers(trailers: &mut HeaderMap) {
    let gone: Vec<HeaderName> = trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for name in gone {
        trailers.remove(name);
    }
}

impl ClientBody {
    fn fail(&self, fault: BodyFault) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        self.state.fault.set(Some(fault));
        Poll::Ready(Some(Err(fault)))
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyFault>>> {
        if let Some(gate) = &mut self.gate {
            if self.state.gate.get() == GateState::GivenUp {
                return self.fail(BodyFault::Broken);
            }
            if self.state.gate.get() == GateState::Answered
                || gate.wait.as_mut().poll(cx).is_pending()
            {
                self.state.waker.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            self.state.gate.set(GateState::Open);
            self.gate = None;
        }
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    keep_trailers(trailers);
                }
                self.timer = None;
                let now = Some(Instant::now());
                self.state.passed_at.set(now);
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(length) {
                    Some(left) => self.left = left,
                    None => return self.fail(BodyFault::TooLarge),
                }
                self.state.passed(&frame);
                if self.incoming.is_end_stream() {
                    self.state.done_at.set(now);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(_))) => self.fail(BodyFault::Broken),
            Poll::Ready(None) => {
                self.state.done_at.set(Some(Instant::now()));
                Poll::Ready(None)
            }
            Poll::Pending => {
                self.state.passed_at.set(None);
                let idle_timeout = self.idle_timeout;
                let timer =
                    self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle_timeout)));
                match timer.as_mut().poll(cx) {
                    Poll::Ready(()) => self.fail(BodyFault::Idle),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyFault;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Client(body) => body.poll_frame(cx),
            Self::Read(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Read(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(body) => body.incoming.is_end_stream(),
            Self::Read(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(body) => body.incoming.size_hint(),
            Self::Read(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
