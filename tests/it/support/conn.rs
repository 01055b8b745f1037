//! HTTP/1.1, byte by byte, for both ends: the tests' clients and the recording upstreams.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;

use cutover::side::Side;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// Any stream of bytes.
pub trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// One end of a connection.
pub struct Conn {
    stream: Pin<Box<dyn Stream>>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Conn")
    }
}

/// Start line and headers, as they came.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub headers: Vec<(String, String)>,
}

/// A body and how it ended.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Whether it ended where its framing said.
    pub is_whole: bool,
}

/// A response.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub head: Head,
    pub body: Body,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let pair = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers = lines.filter(|line| !line.is_empty()).map(pair).collect();
        Self { start, headers }
    }

    /// The first value of a header.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, v)| v.as_str()).collect()
    }

    fn is_chunked(&self) -> bool {
        self.get("transfer-encoding").is_some_and(|value| value.contains("chunked"))
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length").map(|length| length.parse().unwrap())
    }
}

/// Asks an admin listener, on a connection of its own.
pub async fn ask_admin(admin: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut conn = Conn::open(admin).await;
    let length = body.len();
    conn.send(format!(
        "{method} {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .await;
    conn.answer_to(method).await
}

impl Conn {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::pin(stream), buffer: Vec::new() }
    }

    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::new(stream)
    }

    /// Both directions, to be used at the same time: what is read, and where it is written.
    pub fn split(self) -> (Self, Self) {
        let (read, write) = tokio::io::split(self.stream);
        let mut reader = Self::new(tokio::io::join(read, tokio::io::sink()));
        reader.buffer = self.buffer;
        (reader, Self::new(tokio::io::join(tokio::io::empty(), write)))
    }

    /// Sends bytes; fails when the other end is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("send", self.stream.write_all(bytes.as_ref())).await.unwrap();
        within("flush", self.stream.flush()).await.unwrap();
    }

    /// Sends bytes; `false` when the other end is gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Reads some bytes; 0 = the end, or a reset.
    pub async fn fill(&mut self) -> usize {
        self.buffer.reserve(16 * 1024);
        self.stream.read_buf(&mut self.buffer).await.unwrap_or(0)
    }

    /// Takes exactly so many bytes; fewer when the other end closes.
    pub async fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            if within("bytes", self.fill()).await == 0 {
                return std::mem::take(&mut self.buffer);
            }
        }
        self.buffer.drain(..length).collect()
    }

    /// Whether the other end has closed, and sent nothing before.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && within("the close", self.fill()).await == 0
    }

    /// Bytes up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if self.fill().await == 0 {
                return None;
            }
        }
    }

    /// The next head; `None` when the other end closed.
    pub async fn head(&mut self) -> Option<Head> {
        Some(Head::parse(&self.until(b"\r\n\r\n").await?))
    }

    /// The body that a request's head announces.
    pub async fn request_body(&mut self, head: &Head) -> Body {
        if head.is_chunked() {
            return self.chunked().await;
        }
        self.known(head.length().unwrap_or(0)).await
    }

    async fn known(&mut self, length: usize) -> Body {
        while self.buffer.len() < length {
            if self.fill().await == 0 {
                let bytes = std::mem::take(&mut self.buffer);
                return Body { bytes, ..Body::default() };
            }
        }
        let bytes = self.buffer.drain(..length).collect();
        Body { bytes, is_whole: true, ..Body::default() }
    }

    async fn chunked(&mut self) -> Body {
        let mut body = Body::default();
        loop {
            let Some(line) = self.until(b"\r\n").await else { return body };
            let line = String::from_utf8_lossy(&line).into_owned();
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            let chunk = self.known(size).await;
            body.bytes.extend_from_slice(&chunk.bytes);
            if !chunk.is_whole || self.until(b"\r\n").await.is_none() {
                return body;
            }
        }
        loop {
            let Some(line) = self.until(b"\r\n").await else { return body };
            if line == b"\r\n" {
                body.is_whole = true;
                return body;
            }
            body.trailers.extend(Head::parse(&[b"\r\n", &line[..]].concat()).headers);
        }
    }

    /// One chunk's bytes, empty at the end: for bodies that are watched as they come.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let line = within("a chunk", self.until(b"\r\n")).await.unwrap_or_default();
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).unwrap_or(0);
        let bytes = self.take(size).await;
        self.take(2).await;
        bytes
    }

    /// The head of the next response that is not 1xx (101 is one).
    pub async fn answer_head(&mut self) -> Head {
        let head = within("an answer", self.head()).await;
        head.expect("the connection closed without an answer")
    }

    /// The next response; `method` says whether a body may follow.
    pub async fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.answer_head().await;
        within("a body", self.answer_behind(head, method)).await
    }

    /// The same; `None` when the other end closes first.
    pub async fn try_answer_to(&mut self, method: &str) -> Option<Answer> {
        let head = self.head().await?;
        Some(self.answer_behind(head, method).await)
    }

    async fn answer_behind(&mut self, head: Head, method: &str) -> Answer {
        let status: u16 = head.start.split(' ').nth(1).unwrap().parse().unwrap();
        let has_none = method == "HEAD" || matches!(status, 100..=199 | 204 | 304);
        let body = match has_none {
            true => Body { is_whole: true, ..Body::default() },
            false => self.answer_body(&head).await,
        };
        Answer { status, head, body }
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    async fn answer_body(&mut self, head: &Head) -> Body {
        if head.is_chunked() {
            return self.chunked().await;
        }
        if let Some(length) = head.length() {
            return self.known(length).await;
        }
        while self.fill().await > 0 {}
        Body { bytes: std::mem::take(&mut self.buffer), is_whole: true, ..Body::default() }
    }

    /// Gives the stream away, with what was read of it.
    pub fn into_inner(self) -> (Pin<Box<dyn Stream>>, Vec<u8>) {
        (self.stream, self.buffer)
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body.bytes).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body.bytes).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The side whose upstream answered.
    pub fn side(&self) -> Side {
        let side = self.header("x-upstream").unwrap_or_else(|| panic!("no side: {self:?}"));
        Side::parse(side).unwrap()
    }

    #[track_caller]
    pub fn served_by(&self, side: Side) -> &Self {
        assert_eq!((self.status, self.side()), (200, side), "{self:?}");
        self
    }

    /// An answer of the proxy's own: status, code, JSON.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.json()["code"], code, "{self:?}");
        assert!(self.json()["message"].as_str().is_some_and(|text| !text.is_empty()), "{self:?}");
        let kind = self.header("content-type").unwrap_or_default();
        assert!(kind.starts_with("application/json"), "{self:?}");
        self
    }
}
