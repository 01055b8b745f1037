//! One client connection from its first byte to its last: handshake, protocol, drain. Serves any service; it does not know what a
//! request is for.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::Limits;
use super::http1;
use super::unread::Unread;
use super::wire::{Refused, Told, Wire};
use crate::http1::incoming::Incoming;
use crate::http1::link::Link;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::local::LocalExecutor;

/// How often an HTTP/2 client without traffic is asked whether it is still there, and how long it may take to say so.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long an HTTP/2 connection that is overdue may take to end by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// What a connection is served with.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The limits that hold for it, from the snapshot at its beginning.
    pub limits: Limits,
    /// Why the connection is refused, if it is: every request is answered so.
    pub refused: Option<Refused>,
}

/// A service whose answers can be sent.
pub trait Answers:
    Service<Request<Incoming>, Response = Response<Self::Body>, Error = Infallible> + Clone + 'static
{
    /// An answer's body.
    type Body: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static;
}

impl<S, B> Answers for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Unpin + 'static,
{
    type Body = B;
}

/// Serves a plain connection: HTTP/1.1, or HTTP/2 with prior knowledge.
pub async fn serve_plain<S: Answers>(stream: Stream, wire: Rc<Wire>, terms: Terms, service: S) {
    let mut link = Link::new(stream);
    let spoken = match terms.refused {
        Some(_) => Ok(false),
        None => poll_fn(|cx| poll_preface(&mut link, &wire, cx)).await,
    };
    match spoken {
        Ok(true) => {
            let io = Upgraded::new(link.into_parts());
            Box::pin(serve_http2(io, &wire, &terms, service)).await;
        }
        Ok(false) => http1::serve(link, &wire, &terms, service).await,
        Err(_) => {}
    }
}

/// Serves a TLS connection: HTTP/2 or HTTP/1.1, as ALPN says.
///
/// # Errors
/// When the handshake fails or takes too long.
pub async fn serve_tls<S: Answers>(
    stream: TcpStream,
    server: Arc<ServerConfig>,
    wire: Rc<Wire>,
    terms: Terms,
    service: S,
) -> io::Result<()> {
    let mut handshake = Box::pin(TlsAcceptor::from(server).accept(stream));
    let stream = poll_fn(|cx| match handshake.as_mut().poll(cx) {
        Poll::Pending if wire.listens(cx) > Told::Leave => {
            Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
        }
        done => done,
    })
    .await?;
    drop(handshake);
    let stream = Stream::Tls(Box::new(stream.into()));
    if stream.is_http2() {
        let io = Upgraded::new((stream, Bytes::new()));
        Box::pin(serve_http2(io, &wire, &terms, service)).await;
    } else {
        http1::serve(Link::new(stream), &wire, &terms, service).await;
    }
    Ok(())
}

/// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge.
fn poll_preface(
    link: &mut Link<Stream>,
    wire: &Wire,
    cx: &mut Context<'_>,
) -> Poll<io::Result<bool>> {
    loop {
        let compared = link.held().len().min(HTTP2_PREFACE.len());
        if link.held().get(..compared) != HTTP2_PREFACE.get(..compared) {
            return Poll::Ready(Ok(false));
        }
        if compared == HTTP2_PREFACE.len() {
            return Poll::Ready(Ok(true));
        }
        match link.poll_fill(cx) {
            Poll::Ready(Ok(0)) => return Poll::Ready(Ok(false)),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            // A client that has not said a word yet loses nothing when the proxy stops.
            Poll::Pending if wire.listens(cx) > Told::Leave => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

async fn serve_http2<S: Answers>(io: Upgraded<Stream>, wire: &Rc<Wire>, terms: &Terms, service: S) {
    wire.speaks_http2();
    if let Some(why) = terms.refused {
        wire.refuse(why);
    }
    let mut builder = http2::Builder::new(LocalExecutor);
    let header_bytes = u32::try_from(terms.limits.header_bytes).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(terms.limits.http2_streams)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    let answering = Rc::clone(wire);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let answer = service.clone().call(request.map(Incoming::Http2));
        let wire = Rc::clone(&answering);
        async move { answer.await.map(|answer| answer.map(|body| Unread::new(body, wire))) }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    if terms.refused.is_some() {
        // It answers what has come already and ends: it takes a place that it should not have.
        connection.as_mut().graceful_shutdown();
    }
    let mut told = Told::Nothing;
    let mut farewell = pin!(None::<tokio::time::Sleep>);
    poll_fn(|cx| {
        let now = wire.listens(cx);
        if now > told {
            // A client is told first (GOAWAY), so that it knows that a request it sends at this moment was not taken.
            connection.as_mut().graceful_shutdown();
            if now == Told::Overdue {
                farewell.set(Some(tokio::time::sleep(FAREWELL)));
            }
            told = now;
        }
        // How a connection ends is the client's business; what matters of it was observed with its requests.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        farewell.as_mut().as_pin_mut().map_or(Poll::Pending, |farewell| farewell.poll(cx))
    })
    .await;
}
