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
use tokio::time::{Instant, Sleep};

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

/// How long an HTTP/2 connection that is overdue may take to end by itself, when nothing is under way on it.
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
        answering.stream_opens();
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
    let mut farewell = pin!(None::<Sleep>);
    poll_fn(|cx| {
        let now = wire.listens(cx);
        if now == Told::Flood {
            wire.floods();
            return Poll::Ready(());
        }
        if now > told {
            // A client is told first (GOAWAY). What it has sent before it knows is served as ever: h2 takes new streams until the client has
            // acknowledged the PING behind the GOAWAY, and then says which was the last.
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
        poll_farewell(farewell.as_mut(), wire, cx)
    })
    .await;
}

/// Waits for the end of a farewell, if there is one. What came before the client knew of it is not cut: after its answer the connection ends
/// by itself, or by the next farewell if the client says nothing.
fn poll_farewell(
    mut farewell: Pin<&mut Option<Sleep>>,
    wire: &Wire,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let Some(waiting) = farewell.as_mut().as_pin_mut() else { return Poll::Pending };
        ready!(waiting.poll(cx));
        if wire.may_end(FAREWELL) {
            return Poll::Ready(());
        }
        farewell.set(Some(tokio::time::sleep(FAREWELL)));
    }
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::watch;
    use tokio::task::{LocalSet, spawn_local};

    use super::*;
    use crate::accept::Limits;
    use crate::accept::connection::serve_plain;
    use crate::accept::fixture::limits;
    use crate::accept::wire::{Stage, Watchdog};

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const PING_FRAME: u8 = 6;
    const GOAWAY: u8 = 7;
    const END_STREAM: u8 = 1;
    const ACK: u8 = 1;
    const END_HEADERS: u8 = 4;

    /// A client of few words (RFC 9113 4.1).
    struct Client {
        io: DuplexStream,
        /// What it was asked, whether it is still there.
        asked: Vec<u8>,
    }

    impl Client {
        async fn say(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
            let head = [0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
            self.io.write_all(&[&head, payload].concat()).await.unwrap();
        }

        /// The next frame of a kind, its payload; `None` at the end.
        async fn hear(&mut self, wanted: u8) -> Option<Vec<u8>> {
            loop {
                let mut head = [0; 9];
                self.io.read_exact(&mut head).await.ok()?;
                let mut payload =
                    vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
                self.io.read_exact(&mut payload).await.ok()?;
                if head[3] == wanted {
                    return Some(payload);
                }
                if head[3] == PING_FRAME {
                    self.asked = payload;
                }
            }
        }
    }

    /// A POST without a body, in literals that are not indexed (RFC 7541 6.2.2).
    fn post() -> Vec<u8> {
        let fields =
            [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        let field = |(name, value): (&str, &str)| {
            [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()]
                .concat()
        };
        fields.into_iter().flat_map(field).collect()
    }

    /// Waits until it is told that the connection ends, asks for something that takes longer than a farewell, and maybe says that it has heard.
    async fn asks_too_late(mut client: Client, hears: bool) {
        client.io.write_all(HTTP2_PREFACE).await.unwrap();
        client.say(SETTINGS, 0, 0, &[]).await;
        client.hear(GOAWAY).await.expect("a farewell");
        client.say(HEADERS, END_HEADERS | END_STREAM, 1, &post()).await;
        assert_eq!(client.hear(DATA).await.as_deref(), Some(&b"done"[..]), "hears: {hears}");
        if hears {
            let asked = std::mem::take(&mut client.asked);
            client.say(PING_FRAME, ACK, 0, &asked).await;
        }
        while client.hear(GOAWAY).await.is_some() {}
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_its_client_knew_of_the_end_is_answered() {
        for hears in [true, false] {
            let (mine, theirs) = duplex(64 * 1024);
            // So short that nobody is asked before whether he is there.
            let limits = Limits { idle_timeout: PING / 2, ..limits() };
            let (dog, wire) = (Watchdog::default(), Rc::new(Wire::new(&limits)));
            dog.watch(&wire);
            let (_end, ending) = watch::channel(Stage::Serving);
            let serving = Rc::clone(&wire);
            let service = tower::service_fn(move |_request| {
                let wire = Rc::clone(&serving);
                async move {
                    wire.request_begins();
                    tokio::time::sleep(2 * FAREWELL).await;
                    wire.request_ends(Instant::now(), true);
                    Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"done"))))
                }
            });
            let terms = Terms { limits, refused: None };
            let play = LocalSet::new();
            play.spawn_local(async move { dog.run(ending).await });
            let run = async {
                let serving =
                    spawn_local(serve_plain(Stream::Memory(theirs), wire, terms, service));
                asks_too_late(Client { io: mine, asked: Vec::new() }, hears).await;
                tokio::time::timeout(2 * FAREWELL, serving).await.expect("the end").unwrap();
            };
            play.run_until(run).await;
        }
    }
}
