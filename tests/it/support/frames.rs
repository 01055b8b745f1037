//! HTTP/2 frame by frame, with header blocks of literals: what a library refuses to send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long the proxy may take to end what it has had enough of. (benches/flood has this file alone.)
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const INITIAL_WINDOW: u16 = 4;

/// A frame, with a payload of any length.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// An integer with a prefix of seven bits, as lengths have (RFC 7541 5.1).
fn length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return out.push(length as u8);
    }
    out.push(127);
    let mut left = length - 127;
    while left >= 128 {
        out.push((left % 128) as u8 | 128);
        left /= 128;
    }
    out.push(left as u8);
}

/// A header block of literals that are not indexed (RFC 7541 6.2.2), whatever stands in them. One character is one byte.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for part in [name, value] {
            let bytes: Vec<u8> = part.chars().map(|c| u8::try_from(c).unwrap()).collect();
            length(&mut out, bytes.len());
            out.extend_from_slice(&bytes);
        }
    }
    out
}

/// The fields that every request has.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
}

/// A GET that is whole.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&request("GET", path)))
}

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer, with its body.
    Answered(String),
    /// RST_STREAM with this code.
    Reset(u32),
    /// The connection ended, with the code of its GOAWAY if there was one.
    Closed(Option<u32>),
}

/// One connection.
pub struct Frames {
    pub read: OwnedReadHalf,
    pub write: OwnedWriteHalf,
    held: Vec<u8>,
}

impl Frames {
    /// Opens a connection and says hello, with these settings.
    pub async fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (read, write) = stream.into_split();
        let mut frames = Self { read, write, held: Vec::new() };
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        frames.send(&[PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await;
        frames
    }

    /// Sends bytes; `false` when the other end is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` when the connection has ended. What asks for an acknowledgement gets it.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(head) = self.held.get(..9) {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let (kind, flags) = (head[3], head[4]);
                let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
                if self.held.len() >= 9 + length {
                    let payload = self.held[9..9 + length].to_vec();
                    self.held.drain(..9 + length);
                    if matches!(kind, SETTINGS | PING) && flags & ACK == 0 {
                        let echoed = if kind == PING { &payload[..] } else { &[] };
                        self.send(&frame(kind, ACK, 0, echoed)).await;
                    }
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            if self.read.read_buf(&mut self.held).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads until this stream has ended.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut body, mut gone) = (String::new(), None);
        while let Some(frame) = self.next().await {
            match frame.kind {
                GOAWAY => gone = Some(frame.code()),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.code()),
                DATA if frame.stream == stream => body += &String::from_utf8_lossy(&frame.payload),
                _ => {}
            }
            let ends = matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0;
            if frame.stream == stream && ends {
                return Outcome::Answered(body);
            }
        }
        Outcome::Closed(gone)
    }

    /// Reads until the connection has ended; the code of its GOAWAY if there was one.
    pub async fn end(&mut self) -> Option<u32> {
        let mut gone = None;
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY {
                gone = Some(frame.code());
            }
        }
        gone
    }
}

/// What became of a flood.
#[derive(Clone, Copy, Debug)]
pub struct Flooded {
    /// Pieces that were taken.
    pub sent: u32,
    /// Whether the other end closed the connection.
    pub was_closed: bool,
    /// The code of its GOAWAY if there was one.
    pub code: Option<u32>,
}

/// Sends so many pieces, as fast as they are taken, and reads what comes without a word.
pub async fn flood(frames: Frames, times: u32, piece: impl Fn(u32) -> Vec<u8>) -> Flooded {
    let Frames { mut read, mut write, held } = frames;
    let reading = tokio::spawn(async move {
        let (mut held, mut code) = (held, None);
        loop {
            while let Some(head) = held.get(..9) {
                let whole = 9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let kind = head[3];
                let Some(frame) = held.get(..whole) else { break };
                if kind == GOAWAY {
                    code = Some(u32::from_be_bytes(frame[13..17].try_into().unwrap()));
                }
                held.drain(..whole);
            }
            if read.read_buf(&mut held).await.unwrap_or(0) == 0 {
                return code;
            }
        }
    });
    let mut sent = 0;
    while sent < times && !reading.is_finished() {
        // Some at a time, as an enemy would.
        let bytes: Vec<u8> = (sent..times.min(sent + 64)).flat_map(&piece).collect();
        if write.write_all(&bytes).await.is_err() {
            break;
        }
        sent = times.min(sent + 64);
    }
    let ended = tokio::time::timeout(PATIENCE, reading).await;
    let was_closed = ended.is_ok();
    Flooded { sent, was_closed, code: ended.ok().and_then(Result::ok).flatten() }
}
