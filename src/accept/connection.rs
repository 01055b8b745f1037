//! One client connection from its first byte to its last: handshake, protocol, watchdog, drain. Serves any service;
//! it does not know what a request is for.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::Limits;
use super::guarded::Guarded;
use super::wire::{Refused, Wire};
use crate::local::LocalExecutor;

/// How often an HTTP/2 client without traffic is asked whether it is still there, and how long it may take to say so.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// What the HTTP/1 parser can hold by its own default.
const PARSER_BYTES: usize = 400 * 1024;

/// What a connection is served with.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The limits that hold for it, from the snapshot at its beginning.
    pub limits: Limits,
    /// Turns true when the proxy stops.
    pub drain: watch::Receiver<bool>,
    /// The connection is one too many: every request is answered 503.
    pub is_refused: bool,
}

impl Terms {
    /// Waits for a connection's beginning: no longer than for a head, and not at all once the proxy stops, because a client that has not
    /// said a word yet loses nothing.
    async fn begins<T>(&self, beginning: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut drain = self.drain.clone();
        tokio::select! {
            begun = tokio::time::timeout(self.limits.header_timeout, beginning) => begun?,
            _stop = drain.wait_for(|stop| *stop) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// Serves a plain connection: HTTP/1.1, or HTTP/2 with prior knowledge.
pub async fn serve_plain<S, B>(stream: TcpStream, wire: Arc<Wire>, terms: Terms, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut guarded = Guarded::new(stream, Arc::clone(&wire), terms.limits.header_bytes);
    if terms.is_refused {
        guarded.refuse_all(Refused::TooManyConnections);
    } else {
        match terms.begins(guarded.speaks_http2()).await {
            Ok(true) => return serve_http2(guarded, &wire, terms, service).await,
            Ok(false) => {}
            Err(_) => return,
        }
    }
    serve_http1(guarded, &wire, terms, service).await;
}

/// Serves a TLS connection: HTTP/2 or HTTP/1.1, as ALPN says.
///
/// # Errors
/// When the handshake fails or takes too long.
pub async fn serve_tls<S, B>(
    stream: TcpStream,
    server: Arc<ServerConfig>,
    wire: Arc<Wire>,
    terms: Terms,
    service: S,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let handshake = TlsAcceptor::from(server).accept(stream);
    let stream = terms.begins(handshake).await?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_http2 {
        wire.head_ends();
        if terms.is_refused {
            wire.refuse(Refused::TooManyConnections);
        }
        serve_http2(Guarded::http2(stream, Arc::clone(&wire)), &wire, terms, service).await;
    } else {
        let mut guarded = Guarded::new(stream, Arc::clone(&wire), terms.limits.header_bytes);
        if terms.is_refused {
            guarded.refuse_all(Refused::TooManyConnections);
        }
        serve_http1(guarded, &wire, terms, service).await;
    }
    Ok(())
}

async fn serve_http1<I, S, B>(io: Guarded<I>, wire: &Wire, terms: Terms, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http1::Builder::new();
    // How many headers there may be was looked at by the guard: the parser's own limit is the same, and saying it again
    // would cost an allocation per request. Nor may the parser have less room than a head that the guard lets through.
    builder.timer(TokioTimer::new()).header_read_timeout(None);
    let header_bytes = terms.limits.header_bytes;
    if header_bytes > PARSER_BYTES / 2 {
        builder.max_buf_size(header_bytes * 2);
    }
    let connection = pin!(builder.serve_connection(TokioIo::new(io), service).with_upgrades());
    watch_over(connection, wire, terms, |connection| connection.graceful_shutdown()).await;
}

async fn serve_http2<I, S, B>(io: Guarded<I>, wire: &Wire, terms: Terms, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + 'static,
    S::Future: 'static,
    B: Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    let header_bytes = u32::try_from(terms.limits.header_bytes).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(terms.limits.http2_streams)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    if terms.is_refused {
        // It answers what has come already and ends: it takes a place that it should not have.
        connection.as_mut().graceful_shutdown();
    }
    watch_over(connection, wire, terms, |connection| connection.graceful_shutdown()).await;
}

/// How long a connection that is overdue may take to end by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs a connection to its end, which is the first of: its own; a head that is too slow; idleness; and, after the proxy began to
/// stop, the end of the request in flight.
async fn watch_over<C, E>(
    mut connection: Pin<&mut C>,
    wire: &Wire,
    terms: Terms,
    stop: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = Result<(), E>>,
{
    let Terms { limits, mut drain, .. } = terms;
    let first_look = limits.header_timeout.min(limits.idle_timeout);
    let mut alarm = pin!(tokio::time::sleep_until(Instant::now() + first_look));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            // How a connection ends is the client's business; what matters of it was observed with its requests.
            _end = connection.as_mut() => return,
            () = alarm.as_mut() => match wire.next_look(limits.header_timeout, limits.idle_timeout) {
                Some(next) => alarm.as_mut().reset(next),
                // An HTTP/2 client is told first (GOAWAY), so that it knows that a request it sends at this moment was not taken.
                None if !is_stopping => {
                    is_stopping = true;
                    stop(connection.as_mut());
                    alarm.as_mut().reset(Instant::now() + FAREWELL);
                }
                None => return,
            },
            _changed = drain.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                stop(connection.as_mut());
            }
        }
    }
}
