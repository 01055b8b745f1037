//! HTTP/1.1 as the ends of a simulation speak it: the simplest that there is.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tungstenite::protocol::{Role, WebSocketConfig};

use crate::http1::decoder::{Decoder, Step};
use crate::http1::upgraded::Upgraded;

/// Bytes of a block of [`pattern`].
const BLOCK: usize = 256;

/// An end of a connection, with what was read of it.
#[derive(Debug)]
pub(super) struct End {
    pub(super) io: DuplexStream,
    held: BytesMut,
}

/// A head: its lines.
#[derive(Debug)]
pub(super) struct Head(Vec<String>);

pub(super) type WebSocket = WebSocketStream<Upgraded<DuplexStream>>;

impl Head {
    pub(super) fn line(&self) -> &str {
        &self.0[0]
    }

    pub(super) fn field(&self, name: &str) -> Option<&str> {
        self.0.iter().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// A number in the query of a request.
    pub(super) fn number(&self, name: &str) -> Option<usize> {
        let target = self.line().split(' ').nth(1)?;
        let (_, query) = target.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    }

    fn decoder(&self) -> Decoder {
        match self.field("content-length") {
            _ if self.field("transfer-encoding").is_some() => Decoder::chunked(),
            Some(length) => Decoder::known(length.parse().unwrap()),
            None => Decoder::Done,
        }
    }
}

impl End {
    pub(super) fn new(io: DuplexStream) -> Self {
        Self { io, held: BytesMut::new() }
    }

    /// The next head; `None` at the end.
    pub(super) async fn head(&mut self) -> Option<Head> {
        loop {
            if let Some(end) = self.held.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let text = self.held.split_to(end + 4);
                let text = String::from_utf8(text[..end].to_vec()).unwrap();
                return Some(Head(text.split("\r\n").map(str::to_owned).collect()));
            }
            self.fill().await?;
        }
    }

    /// The body behind a head; `None` when it breaks off.
    pub(super) async fn body(&mut self, head: &Head) -> Option<Vec<u8>> {
        let (mut decoder, mut body) = (head.decoder(), Vec::new());
        loop {
            match &mut decoder {
                Decoder::Known(left) => {
                    let step = self.held.len().min(usize::try_from(*left).unwrap());
                    body.extend_from_slice(&self.held.split_to(step));
                    *left -= step as u64;
                    if *left == 0 {
                        return Some(body);
                    }
                }
                Decoder::Chunked(coded) => match coded.step(&mut self.held).ok()? {
                    Step::Data(data) => {
                        body.extend_from_slice(&data);
                        continue;
                    }
                    Step::Done | Step::Trailers(_) => return Some(body),
                    Step::More => {}
                },
                Decoder::Done | Decoder::UntilClose => return Some(body),
            }
            self.fill().await?;
        }
    }

    pub(super) async fn say(&mut self, text: impl AsRef<[u8]>) -> Option<()> {
        self.io.write_all(text.as_ref()).await.ok()
    }

    async fn fill(&mut self) -> Option<()> {
        let read = self.io.read_buf(&mut self.held).await.ok()?;
        (read > 0).then_some(())
    }

    /// From now on a WebSocket.
    pub(super) async fn upgraded(self, role: Role) -> WebSocket {
        let Self { io, held } = self;
        // Cleared before each read, so small ones.
        let config = WebSocketConfig::default().read_buffer_size(1024);
        let io = Upgraded::new((io, held.freeze()));
        WebSocketStream::from_raw_socket(io, role, Some(config)).await
    }
}

/// What a body of this number and length holds: blocks that say whose they are, and which.
pub(super) fn pattern(number: usize, length: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(length + BLOCK);
    while body.len() < length {
        let block = body.len() / BLOCK;
        body.extend_from_slice(format!("{number:>128}/{block:<127}").as_bytes());
    }
    body.truncate(length);
    body
}
