//! One WebSocket, the client's or one to a side: whole messages in and out, every send bounded in time, and what is held in memory for
//! it bounded by one message.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message};

use super::farewell::{NOT_TEXT, PROTOCOL};
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::observe::metrics::Held;
use crate::realtime::session::Frame;

/// Bytes that one system call reads. Each leg has as many from its beginning, and the library clears them before each read.
const READ: usize = 4 * 1024;
/// Bytes that wait for one system call that writes.
const WRITE: usize = 16 * 1024;
/// How much longer than it came a message may become by rewriting: names, keys, tokens, bindings that were spread.
const GROWTH: usize = 1024 * 1024;
/// How long an end may take to hear the last frames and the goodbye, and to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// One end of a client's socket.
#[derive(Debug)]
pub(super) struct Leg {
    socket: WebSocketStream<Upgraded<Stream>>,
    /// Something was sent that may still wait in memory.
    is_dirty: bool,
    _open: Held,
}

/// What an end said.
#[derive(Debug)]
pub(super) enum Heard {
    /// A message.
    Frame(Frame),
    /// A ping, which was answered, or a pong.
    Nothing,
    /// Its goodbye, which was answered.
    Close(Option<CloseFrame>),
    /// A message longer than `limits.frame_bytes`.
    TooLarge,
    /// What RFC 6455 does not allow, with the code that it has for that.
    Invalid(u16),
    /// The end of the connection, without a goodbye.
    Gone,
}

/// Why something can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// Nothing was taken in time.
    TooSlow,
    /// The connection is gone.
    Gone,
}

impl Leg {
    /// The leg over a connection whose handshake is done.
    pub(super) async fn new(
        io: Upgraded<Stream>,
        role: Role,
        frame_bytes: u64,
        open: Held,
    ) -> Self {
        let limit = usize::try_from(frame_bytes).unwrap_or(usize::MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .write_buffer_size(WRITE)
            .max_write_buffer_size(limit.saturating_add(WRITE + GROWTH))
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let socket = WebSocketStream::from_raw_socket(io, role, Some(config)).await;
        Self { socket, is_dirty: false, _open: open }
    }

    /// Whether something waits for [`Leg::flush`].
    pub(super) const fn is_dirty(&self) -> bool {
        self.is_dirty
    }

    /// What this end says next.
    pub(super) fn poll_heard(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        Pin::new(&mut self.socket).poll_next(cx).map(heard)
    }

    /// Hands a message over. It is on its way when [`Leg::flush`] is done, or when enough others have followed it.
    ///
    /// # Errors
    /// [`Unsent`], when what was sent before is not taken within `patience`.
    pub(super) async fn feed(&mut self, frame: Frame, patience: Duration) -> Result<(), Unsent> {
        bounded(patience, |cx| Pin::new(&mut self.socket).poll_ready(cx)).await?;
        let message = match frame {
            Frame::Text(text) => Message::Text(text),
            Frame::Binary(bytes) => Message::Binary(bytes),
        };
        self.is_dirty = true;
        Pin::new(&mut self.socket).start_send(message).map_err(|_| Unsent::Gone)
    }

    /// Waits until all that was sent is taken.
    ///
    /// # Errors
    /// [`Unsent`], when that takes longer than `patience`.
    pub(super) async fn flush(&mut self, patience: Duration) -> Result<(), Unsent> {
        bounded(patience, |cx| Pin::new(&mut self.socket).poll_flush(cx)).await?;
        self.is_dirty = false;
        Ok(())
    }

    /// Says goodbye as the server of this socket, and waits for the client to close.
    pub(super) async fn dismiss(self, frame: Option<CloseFrame>) {
        let Self { mut socket, .. } = self;
        let goodbye = async {
            say(&mut socket, frame).await;
            // The server closes first (RFC 6455 7.1.1): a client that waits for that would wait until we stop waiting for it.
            if socket.get_mut().shutdown().await.is_ok() {
                drain(&mut socket).await;
            }
        };
        let _late = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    /// Says goodbye as the client of this socket, and waits for the side to close.
    pub(super) async fn leave(self, frame: Option<CloseFrame>) {
        let Self { mut socket, .. } = self;
        let goodbye = async {
            say(&mut socket, frame).await;
            drain(&mut socket).await;
        };
        let _late = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

fn heard(next: Option<Result<Message, Error>>) -> Heard {
    match next {
        Some(Ok(Message::Text(text))) => Heard::Frame(Frame::Text(text)),
        Some(Ok(Message::Binary(bytes))) => Heard::Frame(Frame::Binary(bytes)),
        Some(Ok(Message::Close(frame))) => Heard::Close(frame),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Heard::Nothing,
        Some(Err(Error::Capacity(_))) => Heard::TooLarge,
        Some(Err(Error::Utf8(_))) => Heard::Invalid(NOT_TEXT),
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => Heard::Gone,
        Some(Err(Error::Protocol(_))) => Heard::Invalid(PROTOCOL),
        Some(Err(_)) | None => Heard::Gone,
    }
}

/// Asks until it is ready, at most so long. Nearly always it is at once, and no timer is needed.
async fn bounded(
    patience: Duration,
    mut ask: impl FnMut(&mut Context<'_>) -> Poll<Result<(), Error>>,
) -> Result<(), Unsent> {
    let asked = match poll_fn(|cx| Poll::Ready(ask(cx))).await {
        Poll::Ready(ready) => Ok(ready),
        Poll::Pending => tokio::time::timeout(patience, poll_fn(ask)).await,
    };
    match asked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Unsent::Gone),
        Err(_) => Err(Unsent::TooSlow),
    }
}

/// Sends what waits, and a close frame unless one was sent already.
async fn say(socket: &mut WebSocketStream<Upgraded<Stream>>, frame: Option<CloseFrame>) {
    let closing = async {
        let mut sink = Pin::new(&mut *socket);
        poll_fn(|cx| sink.as_mut().poll_ready(cx)).await?;
        sink.as_mut().start_send(Message::Close(frame))?;
        poll_fn(|cx| sink.as_mut().poll_flush(cx)).await
    };
    // An end that said goodbye first has its answer waiting here, and hears no second one.
    let said: Result<(), Error> = closing.await;
    if said.is_err() {
        let _gone = poll_fn(|cx| Pin::new(&mut *socket).poll_flush(cx)).await;
    }
}

/// Reads to the end of the connection, and keeps nothing: a close on unread bytes would take back what was said.
async fn drain(socket: &mut WebSocketStream<Upgraded<Stream>>) {
    let mut scratch = [0; 1024];
    while socket.get_mut().read(&mut scratch).await.is_ok_and(|length| length > 0) {}
}
