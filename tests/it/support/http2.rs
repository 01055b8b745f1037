//! HTTP/2 clients.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::world::{ANON_OLD, World};

pub type Sender = http2::SendRequest<BoxBody<Bytes, Infallible>>;

/// HTTP/2 with prior knowledge.
pub async fn open(world: &World) -> Sender {
    over(TcpStream::connect(world.address).await.unwrap()).await
}

pub async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Sender {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move {
        connection.await.ok();
    });
    sender
}

pub fn get(path: &str) -> Request<BoxBody<Bytes, Infallible>> {
    Request::get(format!("http://proxy.example{path}"))
        .header("apikey", ANON_OLD)
        .body(Empty::new().boxed())
        .unwrap()
}

/// The whole body, or `None` when it broke off.
pub async fn body(response: Response<Incoming>) -> Option<Bytes> {
    response.into_body().collect().await.ok().map(http_body_util::Collected::to_bytes)
}
