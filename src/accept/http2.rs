//! A client's HTTP/2 connection: hyper's, and what is bounded around it.
//!
//! | what a client could do without end | what ends it |
//! |---|---|
//! | open streams | `limits.http2_streams`; h2 refuses more, and ends a connection whose streams it had to refuse or reset [`FAULTY_STREAMS`] times |
//! | reset streams before they are looked at (CVE-2023-44487) | [`RESETS_UNSEEN`] |
//! | reset streams while a side works on them | `limits.http2_resets` ([`Wire`]) |
//! | send frames that carry nothing | `limits.http2_frames` ([`Meter`]); of DATA, h2's own budget as well |
//! | send a head without end (CVE-2024-27316), or one that unpacks to more | `limits.header_bytes`: h2 counts its CONTINUATION frames by it, and what it unpacks to |
//! | not read its answers | [`SEND_BUFFER`] of each stream, then its side is not read either; `limits.send_timeout` ([`Unread`]) |
//! | keep its worker busy | [`TURN`], of which [`IDLE_FRAME`] |

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, header};
use hyper::body::Incoming as Http2Body;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::MAX_HEADERS;
use super::connection::{Answers, HTTP2_PREFACE, Terms};
use super::framing::{Malformed, is_continue};
use super::meter::Meter;
use super::unread::Unread;
use super::wire::{Refused, Told, Wire};
use crate::http1::incoming::Incoming;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::local::LocalExecutor;

/// How often an HTTP/2 client without traffic is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

/// How long an HTTP/2 connection that is overdue may take to end by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// Streams that a client may have reset before the proxy has looked at them; one more ends the connection.
const RESETS_UNSEEN: usize = 20;

/// Streams that the proxy had to reset because the client broke the protocol; one more ends the connection.
const FAULTY_STREAMS: usize = 1024;

/// Bytes of a stream's answer that wait for a client that does not read them, and one piece of its body more.
const SEND_BUFFER: usize = 64 * 1024;

/// Bytes that are read of one connection before the others of its worker have had their turn.
const TURN: usize = 64 * 1024;

/// What a frame that carries nothing takes of a turn beside its bytes: it is as much work as a piece of a body.
const IDLE_FRAME: usize = 512;

/// Serves HTTP/2.
pub(super) async fn serve<S: Answers>(
    io: Upgraded<Stream>,
    wire: &Rc<Wire>,
    terms: &Terms,
    service: S,
) {
    wire.speaks_http2();
    if let Some(why) = terms.refused {
        wire.refuse(why);
    }
    let turn = Rc::new(Cell::new(TURN));
    let meter = Meter::new(terms.limits.http2_frames, HTTP2_PREFACE.len());
    let (begun, wire_of_io) = (Instant::now(), Rc::clone(wire));
    let io = Metered { io, meter, begun, wire: wire_of_io, turn: Rc::clone(&turn) };
    let answering = Rc::clone(wire);
    let service = hyper::service::service_fn(move |request: Request<Http2Body>| {
        let mut request = request.map(Incoming::Http2);
        if let Some(refused) = refused(&request) {
            request.extensions_mut().insert(refused);
        }
        let answer = service.clone().call(request);
        let wire = Rc::clone(&answering);
        async move { answer.await.map(|answer| answer.map(|body| Unread::new(body, wire))) }
    });
    let mut connection = pin!(builder(terms).serve_connection(TokioIo::new(io), service));
    if terms.refused.is_some() {
        // It answers what has come already and ends: it takes a place that it should not have.
        connection.as_mut().graceful_shutdown();
    }
    let mut told = Told::Nothing;
    let mut farewell = pin!(None::<tokio::time::Sleep>);
    poll_fn(|cx| {
        let now = wire.listens(cx);
        if now == Told::Flood {
            wire.floods();
            return Poll::Ready(());
        }
        if now > told {
            // A client is told first (GOAWAY), so that it knows that a request it sends at this moment was not taken.
            connection.as_mut().graceful_shutdown();
            if now == Told::Overdue {
                farewell.set(Some(tokio::time::sleep(FAREWELL)));
            }
            told = now;
        }
        turn.set(TURN);
        // How a connection ends is the client's business; what matters of it was observed with its requests.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        farewell.as_mut().as_pin_mut().map_or(Poll::Pending, |farewell| farewell.poll(cx))
    })
    .await;
}

fn builder(terms: &Terms) -> http2::Builder<LocalExecutor> {
    let header_bytes = u32::try_from(terms.limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(terms.limits.http2_streams)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_local_error_reset_streams(FAULTY_STREAMS)
        .max_header_list_size(header_bytes)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

/// What h2 lets through and HTTP/1 would not: over both the same is served. Here it concerns one stream, not the connection.
fn refused<B>(request: &Request<B>) -> Option<Refused> {
    let headers = request.headers();
    if headers.len() > MAX_HEADERS {
        return Some(Refused::HeadTooLarge);
    }
    // RFC 9113 8.3.1: one name, however often it is said.
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let mut hosts = headers.get_all(header::HOST).iter().map(|host| host.as_bytes());
    let is_other = |host: &[u8]| {
        authority.is_some_and(|authority| !host.eq_ignore_ascii_case(authority.as_bytes()))
    };
    if hosts.next().is_some_and(|host| hosts.next().is_some() || is_other(host)) {
        return Some(Refused::Malformed(Malformed::Host));
    }
    let mut expectations = headers.get_all(header::EXPECT).iter();
    if !expectations.all(|value| is_continue(value.as_bytes())) {
        return Some(Refused::Malformed(Malformed::Expect));
    }
    None
}

/// A stream whose frames are counted on their way to h2, and which is not read for longer than a turn.
struct Metered {
    io: Upgraded<Stream>,
    meter: Meter,
    begun: Instant,
    wire: Rc<Wire>,
    /// Bytes that may still be read before the others have had their turn.
    turn: Rc<Cell<usize>>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.turn.get();
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = out.filled().len();
        let Self { io, meter, begun, wire, turn } = &mut *self;
        ready!(Pin::new(io).poll_read(cx, out))?;
        let read = out.filled().get(before..).unwrap_or_default();
        match meter.read(read, || begun.elapsed()) {
            Ok(idle) => {
                let taken = read.len().saturating_add(idle.saturating_mul(IDLE_FRAME));
                turn.set(left.saturating_sub(taken));
                Poll::Ready(Ok(()))
            }
            Err(flood) => {
                wire.floods();
                Poll::Ready(Err(io::Error::other(flood)))
            }
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.meter.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        self.meter.wrote(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
