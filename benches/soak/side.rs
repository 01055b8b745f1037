//! A side that answers in the soak's own words, and fails now and then.
//!
//! `x-soak` is the request's number, `x-soak-size` how long an answer it wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use cutover::side::Side;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::support::conn::{Conn, Head};
use crate::tally::Tally;

/// One of so many requests fails.
const ONE_OF: u64 = 200;
/// Longer than the proxy waits for an answer.
const HANGS: Duration = Duration::from_secs(4);

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset before a byte of the answer.
    Reset,
    /// It closes in the middle of the head.
    CutHead,
    /// It closes in the middle of a body of known length.
    CutBody,
    /// It closes in the middle of a chunked body.
    CutChunk,
    /// The answer is not HTTP.
    Garbage,
    /// There is no answer in time.
    Hangs,
    /// A second answer follows that nobody asked for.
    Unasked,
    /// The answer comes in drops, whole.
    Drops,
}

const FAULTS: [Fault; 8] = [
    Fault::Reset,
    Fault::CutHead,
    Fault::CutBody,
    Fault::CutChunk,
    Fault::Garbage,
    Fault::Hangs,
    Fault::Unasked,
    Fault::Drops,
];

impl Fault {
    /// Whether a client may see something else than its whole answer.
    pub const fn is_felt(self) -> bool {
        !matches!(self, Self::Unasked | Self::Drops)
    }
}

/// One side.
pub struct Upstream {
    pub address: SocketAddr,
    away: watch::Sender<bool>,
}

impl Upstream {
    pub async fn start(side: Side, tally: &Tally) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (away, is_away) = watch::channel(false);
        tokio::spawn(listen(listener, is_away, side, tally.clone()));
        Self { address, away }
    }

    /// Refuses everybody and closes every connection, for so long.
    pub async fn is_away_for(&self, time: Duration) {
        self.away.send(true).unwrap();
        tokio::time::sleep(time).await;
        self.away.send(false).unwrap();
    }
}

async fn listen(listener: TcpListener, mut away: watch::Receiver<bool>, side: Side, tally: Tally) {
    let address = listener.local_addr().unwrap();
    let everybody = away.clone();
    let mut listener = Some(listener);
    loop {
        let Some(open) = &listener else {
            away.wait_for(|away| !away).await.unwrap();
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            listener = Some(socket.listen(1024).unwrap());
            continue;
        };
        tokio::select! {
            accepted = open.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (tally, mut away) = (tally.clone(), everybody.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _end = serve(stream, side, &tally) => {}
                        _gone = away.wait_for(|away| *away) => {}
                    }
                });
            }
            // Ends with the program.
            gone = away.wait_for(|away| *away) => match gone {
                Ok(_) => listener = None,
                Err(_) => return,
            },
        }
    }
}

/// A head as this side means it.
struct Asked {
    number: u64,
    size: usize,
    is_write: bool,
}

async fn serve(stream: TcpStream, side: Side, tally: &Tally) -> Option<Infallible> {
    stream.set_nodelay(true).unwrap();
    let raw = SockRef::from(&stream).try_clone().unwrap();
    let mut conn = Conn::new(stream);
    loop {
        let head = conn.head().await?;
        if head.get("upgrade").is_some() {
            let is_realtime = head.start.contains("/realtime/");
            return converse(head, conn, is_realtime).await;
        }
        let number = |name: &str| head.get(name).and_then(|text| text.parse().ok());
        let asked = Asked {
            number: number("x-soak").unwrap_or_default(),
            size: usize::try_from(number("x-soak-size").unwrap_or_default()).unwrap(),
            is_write: !head.start.starts_with("GET "),
        };
        if asked.is_write {
            tally.wrote(asked.number, side);
        }
        let body = conn.request_body(&head).await;
        if !body.is_whole {
            tally.count("body of a client that left in the middle, cut at its side as well");
            return None;
        }
        let answer = answer(side, &asked, &body.bytes);
        let fault = chosen(asked.number).filter(|fault| tally.injects(asked.number, *fault));
        let whole = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        );
        match fault {
            None => conn.try_send(&whole).await.then_some(())?,
            Some(fault) => {
                // Closing it is a reset then.
                let linger = (fault == Fault::Reset).then_some(Duration::ZERO);
                raw.set_linger(linger).unwrap();
                fails(fault, &mut conn, &whole, &answer).await?;
            }
        }
    }
}

/// Which requests fail is in their number: the same in every run.
fn chosen(number: u64) -> Option<Fault> {
    let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let which = usize::try_from(hash / ONE_OF).unwrap() % FAULTS.len();
    hash.is_multiple_of(ONE_OF).then_some(FAULTS[which])
}

/// `None` = the connection is not used again.
async fn fails(fault: Fault, conn: &mut Conn, whole: &str, answer: &str) -> Option<()> {
    let head = whole.len() - answer.len();
    match fault {
        Fault::Reset => None,
        Fault::Garbage => {
            conn.try_send("HTP/1.1 two hundred\r\n\r\n").await;
            None
        }
        Fault::CutHead => {
            conn.try_send(&whole[..head / 2]).await;
            None
        }
        Fault::CutBody => {
            conn.try_send(&whole[..head + answer.len() / 2]).await;
            None
        }
        Fault::CutChunk => {
            let size = answer.len();
            conn.try_send(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{}",
                &answer[..size / 2]
            ))
            .await;
            None
        }
        Fault::Hangs => {
            tokio::time::sleep(HANGS).await;
            None
        }
        Fault::Unasked => {
            conn.try_send(format!("{whole}HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison"))
                .await;
            Some(())
        }
        Fault::Drops => {
            for piece in whole.as_bytes().chunks(whole.len().div_ceil(8)) {
                conn.try_send(piece).await.then_some(())?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Some(())
        }
    }
}

/// The request's number, what came of it, and as much more as it wants.
fn answer(side: Side, asked: &Asked, body: &[u8]) -> String {
    let Asked { number, size, .. } = asked;
    let (length, sum) = (body.len(), sum(body));
    let text = format!(
        "{{\"side\":\"{side}\",\"number\":{number},\"length\":{length},\"sum\":{sum},\"pad\":\""
    );
    let pad = size.saturating_sub(text.len() + 2);
    text + &"x".repeat(pad) + "\"}"
}

/// A sum of bytes that depends on their order.
pub fn sum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum: u32, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)))
}

/// The other end of a socket: an echo, or as much of Realtime as joins and heartbeats need.
async fn converse(head: Head, mut conn: Conn, is_realtime: bool) -> Option<Infallible> {
    let key = derive_accept_key(head.get("sec-websocket-key")?.as_bytes());
    conn.try_send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {key}\r\n\r\n"
        ))
        .await
        .then_some(())?;
    let (stream, read) = conn.into_inner();
    let mut socket = WebSocketStream::from_partially_read(stream, read, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        let reply = match &message {
            Message::Text(text) if is_realtime => phoenix(text),
            Message::Text(_) | Message::Binary(_) => Some(message),
            _ => None,
        };
        if let Some(reply) = reply {
            socket.send(reply).await.ok()?;
        }
    }
    None
}

fn phoenix(text: &str) -> Option<Message> {
    let said: Value = serde_json::from_str(text).ok()?;
    let response = match said["event"].as_str()? {
        "phx_join" => {
            let mut changes = said["payload"]["config"]["postgres_changes"].clone();
            for (id, change) in changes.as_array_mut().into_iter().flatten().enumerate() {
                change["id"] = json!(id + 1);
            }
            json!({ "postgres_changes": changes })
        }
        "heartbeat" => json!({}),
        _ => return None,
    };
    let reply = json!({
        "topic": said["topic"], "event": "phx_reply", "ref": said["ref"],
        "payload": { "status": "ok", "response": response },
    });
    Some(Message::text(reply.to_string()))
}
