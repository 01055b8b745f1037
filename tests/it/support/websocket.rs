//! WebSocket clients, and an upstream that echoes.

use futures_util::StreamExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::conn::Conn;
use super::upstream::{Seen, Upstream};
use super::within;
use super::world::{ANON_OLD, World};

pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub async fn open(world: &World, path: &str) -> Result<Socket, Error> {
    open_with(world, path, &[]).await
}

/// Opens a socket with headers of its own.
pub async fn open_with(
    world: &World,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", world.address).into_client_request().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let connecting = tokio_tungstenite::connect_async(request);
    within("a WebSocket", connecting).await.map(|(socket, _)| socket)
}

/// A handshake byte by byte, of a client with old's key.
pub fn upgrade(path: &str) -> String {
    format!(
        "GET {path}?apikey={ANON_OLD}&vsn=1.0.0 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The realtime socket of a client with old's key.
pub async fn realtime(world: &World) -> Socket {
    let path = format!("/realtime/v1/websocket?apikey={ANON_OLD}&vsn=1.0.0");
    open(world, &path).await.unwrap()
}

/// A function's socket, which is tunnelled, of a client with old's key.
pub async fn function(world: &World) -> Socket {
    open(world, &format!("/functions/v1/chat?apikey={ANON_OLD}&vsn=1.0.0")).await.unwrap()
}

/// Accepts upgrades and answers each message with itself, until the client closes.
pub fn echoes(upstream: &Upstream) {
    let gone = upstream.notes_gone();
    upstream.does(move |seen, conn| {
        let gone = gone.clone();
        async move {
            let mut socket = accept(seen, conn).await;
            while let Some(Ok(message)) = socket.next().await {
                if (message.is_text() || message.is_binary())
                    && futures_util::SinkExt::send(&mut socket, message).await.is_err()
                {
                    break;
                }
            }
            gone();
            None
        }
    });
}

/// The upstream's end of a WebSocket.
pub async fn accept(
    seen: Seen,
    mut conn: Conn,
) -> WebSocketStream<std::pin::Pin<Box<dyn super::conn::Stream>>> {
    let key = derive_accept_key(seen.header("sec-websocket-key").unwrap().as_bytes());
    conn.send(format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {key}\r\n\r\n"
    ))
    .await;
    let (stream, read) = conn.into_inner();
    WebSocketStream::from_partially_read(stream, read, Role::Server, None).await
}

/// The close code that comes next, after any messages.
pub async fn close_code(socket: &mut Socket) -> Option<u16> {
    loop {
        match within("a close frame", socket.next()).await {
            Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return None,
        }
    }
}
