//! One client connection from its first byte to its last: handshake, protocol, drain. Serves any service; it does not know what a
//! request is for.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::Limits;
use super::http1;
use super::http2;
use super::wire::{Refused, Told, Wire};
use crate::http1::incoming::Incoming;
use crate::http1::link::Link;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 3.4).
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
            Box::pin(http2::serve(io, &wire, &terms, service)).await;
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
        Box::pin(http2::serve(io, &wire, &terms, service)).await;
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
