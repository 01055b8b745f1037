//! A connection whose HTTP/1 heads have been looked at before the parser sees them.
//!
//! A head reaches the parser only when it is complete and beyond doubt ([`super::framing`]). One that is not is replaced
//! by a harmless stand-in, so that the answer goes the way of all answers (JSON, logged, counted), and nothing
//! is read after it.

use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::MAX_HEADERS;
use super::framing::{self, BodyLength, Head, Malformed};
use super::target;
use super::wire::{Refused, Wire};
use crate::http1::chunks::{BrokenChunk, Chunks};

/// What the parser sees in place of a refused head.
const STAND_IN: &[u8] = b"GET /refused HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// Whether a request is the stand-in. Together with [`Wire::refused`]: a request that came before the refused one on the same
/// connection is served, although the guard has seen both.
#[must_use]
pub fn is_stand_in(path: &str, host: Option<&[u8]>) -> bool {
    path == "/refused" && host == Some(b"refused")
}

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client that was answered early may go on sending, and how much is read before others have their turn.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_READS: usize = 16;

/// How much is read from the socket at once while a head or a chunk is looked at.
const READ_AT_ONCE: usize = 8 * 1024;

/// A byte stream with the guard in its read half.
#[derive(Debug)]
pub struct Guarded<S> {
    io: S,
    wire: Arc<Wire>,
    header_bytes: usize,
    /// Read but not yet delivered.
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that may be delivered.
    cleared: usize,
    /// Bytes at the front of the buffer that hold no end of a head.
    searched: usize,
    part: Part,
    /// Heads that were let through.
    heads: u64,
    /// Every request is refused with this.
    refuse_all: Option<Refused>,
    /// Ends the wait for a client that was answered early and still sends.
    linger: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Part {
    Head,
    Known(u64),
    Chunks(Chunks),
    /// Behind a request for an upgrade: a tunnel's first bytes or the next head, as the answer says.
    Upgrade,
    /// No longer HTTP/1: an upgrade, or HTTP/2.
    Tunnel,
    Refused,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    /// Puts the guard in front of a stream.
    pub fn new(io: S, wire: Arc<Wire>, header_bytes: usize) -> Self {
        Self {
            io,
            wire,
            header_bytes,
            buffer: Vec::new(),
            cleared: 0,
            searched: 0,
            part: Part::Head,
            heads: 0,
            refuse_all: None,
            linger: None,
        }
    }

    /// A stream that carries HTTP/2 (by ALPN): nothing to guard, its frames have lengths of their own.
    pub fn http2(io: S, wire: Arc<Wire>) -> Self {
        Self { part: Part::Tunnel, ..Self::new(io, wire, 0) }
    }

    /// Every request of this connection will be answered with this refusal.
    pub(crate) fn refuse_all(&mut self, why: Refused) {
        self.refuse_all = Some(why);
    }

    /// Reads until it is clear whether the client speaks HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// What the stream says.
    pub async fn speaks_http2(&mut self) -> io::Result<bool> {
        loop {
            let compared = self.buffer.len().min(HTTP2_PREFACE.len());
            if self.buffer.get(..compared) != HTTP2_PREFACE.get(..compared) {
                return Ok(false);
            }
            if compared == HTTP2_PREFACE.len() {
                self.part = Part::Tunnel;
                self.cleared = self.buffer.len();
                self.wire.head_ends();
                return Ok(true);
            }
            if std::future::poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return Ok(false);
            }
        }
    }

    /// Reads some bytes into the buffer; 0 = the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
        self.buffer.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    fn refuse(&mut self, why: Refused) {
        self.wire.refuse(why);
        self.wire.head_ends();
        self.buffer.clear();
        self.buffer.extend_from_slice(STAND_IN);
        self.cleared = STAND_IN.len();
        self.part = Part::Refused;
    }

    /// Looks at what is in the buffer and clears as much of it as can be cleared.
    fn look(&mut self) -> io::Result<()> {
        match &mut self.part {
            Part::Head => self.look_for_head(),
            Part::Known(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                self.cleared = here;
                self.known(here);
            }
            Part::Chunks(chunks) => {
                // The head is gone already, so there is nobody left to answer 400 to: the body breaks off.
                self.cleared = chunks.advance(&self.buffer).map_err(io::Error::other)?;
                if chunks.is_done() {
                    self.part = Part::Head;
                }
            }
            Part::Tunnel => self.cleared = self.buffer.len(),
            Part::Upgrade | Part::Refused => {}
        }
        Ok(())
    }

    fn look_for_head(&mut self) {
        self.wire.head_begins();
        match framing::head(&self.buffer, self.searched) {
            Err(why) => self.refuse(Refused::Malformed(why)),
            Ok(Some(head)) if self.is_too_large(&head) => self.refuse(Refused::HeadTooLarge),
            Ok(None) if self.buffer.len() > self.header_bytes => self.refuse(Refused::HeadTooLarge),
            Ok(None) => self.searched = self.buffer.len(),
            Ok(Some(_)) if self.refuse_all.is_some() => self.refuse(Refused::TooManyConnections),
            Ok(Some(head)) => self.clear_head(head),
        }
    }

    fn is_too_large(&self, head: &Head) -> bool {
        head.length > self.header_bytes
            || head.headers > MAX_HEADERS
            || head.target.len() > target::LONGEST
            || head.encoded_target.as_ref().is_some_and(|encoded| encoded.len() > target::LONGEST)
    }

    fn clear_head(&mut self, head: Head) {
        let next = match head.body {
            BodyLength::Known(0) if head.upgrades => Part::Upgrade,
            BodyLength::Known(0) => Part::Head,
            BodyLength::Known(length) => Part::Known(length),
            BodyLength::Chunked => Part::Chunks(Chunks::default()),
        };
        // What of a chunked body is here already is looked at before its head is let go: now there still is an answer.
        if let Part::Chunks(chunks) = &next {
            let here = self.buffer.get(head.length..).unwrap_or_default();
            if let Err(BrokenChunk) = { *chunks }.advance(here) {
                return self.refuse(Refused::Malformed(Malformed::Chunk));
            }
        }
        self.wire.head_ends();
        self.heads += 1;
        self.cleared = head.length;
        if let Some(encoded) = head.encoded_target {
            self.cleared = head.length - head.target.len() + encoded.len();
            self.buffer.splice(head.target, encoded);
        }
        self.part = next;
    }

    /// `here` bytes of a body of known length went by.
    fn known(&mut self, here: usize) {
        if let Part::Known(left) = &mut self.part {
            *left -= here as u64;
            if *left == 0 {
                self.part = Part::Head;
            }
        }
    }

    fn deliver(&mut self, out: &mut ReadBuf<'_>) {
        let length = self.cleared.min(out.remaining());
        out.put_slice(self.buffer.get(..length).unwrap_or_default());
        if length == self.buffer.len() {
            // An idle connection keeps no buffer.
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..length);
        }
        self.cleared -= length;
        self.searched = 0;
    }

    /// Reads and forgets what a client still sends after it was answered early. Closing a socket with unread bytes in
    /// it resets the connection, and the answer would be lost with it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        for _ in 0..LINGER_READS {
            let mut space = [MaybeUninit::uninit(); READ_AT_ONCE];
            let mut space = ReadBuf::uninit(&mut space);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {}
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Bodies of known length and tunnels need no look: straight into the caller's buffer, without a copy.
    fn poll_straight(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        match self.part {
            Part::Known(left) if left < out.remaining() as u64 => {
                let space = out.initialize_unfilled_to(usize::try_from(left).unwrap_or(0));
                let mut limited = ReadBuf::new(space);
                ready!(Pin::new(&mut self.io).poll_read(cx, &mut limited))?;
                let read = limited.filled().len();
                out.advance(read);
            }
            _ => ready!(Pin::new(&mut self.io).poll_read(cx, out))?,
        }
        self.known(out.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.wire.is_tunnel() && !matches!(this.part, Part::Refused) {
            this.part = Part::Tunnel;
        }
        loop {
            if this.cleared == 0 && !this.buffer.is_empty() {
                this.look()?;
            }
            if this.cleared > 0 {
                this.deliver(out);
                return Poll::Ready(Ok(()));
            }
            match this.part {
                // Nothing is read after a refusal; the answer closes the connection.
                Part::Refused => return Poll::Pending,
                Part::Upgrade if !this.wire.waits_for(this.heads, cx) => this.part = Part::Head,
                Part::Upgrade if this.buffer.len() >= READ_AT_ONCE => return Poll::Pending,
                Part::Known(_) | Part::Tunnel => return this.poll_straight(cx, out),
                Part::Head | Part::Chunks(_) | Part::Upgrade => {
                    if ready!(this.poll_fill(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
        if self.wire.lingers() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const GET: &str = "GET /a HTTP/1.1\r\nhost: a\r\n\r\n";

    fn guarded() -> (DuplexStream, Guarded<DuplexStream>, Arc<Wire>) {
        let (client, server) = duplex(1 << 20);
        let wire = Arc::new(Wire::new());
        (client, Guarded::new(server, Arc::clone(&wire), 512), wire)
    }

    async fn read_all(guarded: &mut Guarded<DuplexStream>) -> String {
        let mut all = Vec::new();
        guarded.read_to_end(&mut all).await.unwrap();
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn good_requests_pass_byte_for_byte_in_pieces_of_any_size() {
        let chunked = "POST /b HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let known = "POST /c HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
        let text = [GET, chunked, known, GET, known].concat();
        for piece in [1, 2, 7, 31, text.len()] {
            let (mut client, mut guarded, wire) = guarded();
            let sent = text.clone();
            let writer = tokio::spawn(async move {
                for part in sent.as_bytes().chunks(piece) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            assert_eq!(read_all(&mut guarded).await, text, "{piece}");
            assert_eq!(wire.refused(), None);
            writer.await.unwrap();
        }
    }

    async fn first_read(text: &str) -> (String, Option<Refused>) {
        let (mut client, mut guarded, wire) = guarded();
        client.write_all(text.as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = guarded.read(&mut buffer).await.unwrap();
        (String::from_utf8(buffer[..length].to_vec()).unwrap(), wire.refused())
    }

    #[tokio::test]
    async fn a_doubtful_head_is_replaced_and_nothing_after_it_is_read() {
        let smuggle = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 30\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n";
        let (seen, refused) = first_read(smuggle).await;
        assert_eq!(seen.as_bytes(), STAND_IN);
        assert_eq!(refused, Some(Refused::Malformed(Malformed::TwoLengths)));
    }

    #[tokio::test]
    async fn the_head_limit_holds_at_its_edge() {
        let head = |length: usize| {
            let pad = length - "GET / HTTP/1.1\r\nhost: a\r\nx: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(pad))
        };
        assert_eq!(first_read(&head(512)).await, (head(512), None));
        assert_eq!(first_read(&head(513)).await.1, Some(Refused::HeadTooLarge));
        assert_eq!(first_read(&"x".repeat(513)).await.1, Some(Refused::HeadTooLarge));
        let many = |count: usize| {
            format!("GET / HTTP/1.1\r\nhost:a\r\n{}\r\n", "a:\r\n".repeat(count - 1))
        };
        assert_eq!(first_read(&many(MAX_HEADERS)).await.1, None);
        assert_eq!(first_read(&many(MAX_HEADERS + 1)).await.1, Some(Refused::HeadTooLarge));
    }

    #[tokio::test]
    async fn an_earlier_good_request_is_not_lost_to_a_later_bad_one() {
        let (mut client, mut guarded, wire) = guarded();
        client.write_all(format!("{GET}GET /b HTTP/1.1\nhost: a\n\n").as_bytes()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let length = guarded.read(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..length], wire.refused()), (GET.as_bytes(), None));
        let length = guarded.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], STAND_IN);
    }

    #[tokio::test]
    async fn prior_knowledge_of_http2_is_recognised() {
        for (text, is_http2) in
            [(HTTP2_PREFACE, true), (GET.as_bytes(), false), (b"PRI * HTTP/1.1\r\n", false)]
        {
            let (mut client, mut guarded, _wire) = guarded();
            client.write_all(text).await.unwrap();
            assert_eq!(guarded.speaks_http2().await.unwrap(), is_http2);
            let mut buffer = vec![0; 4096];
            if is_http2 {
                let length = guarded.read(&mut buffer).await.unwrap();
                assert_eq!(&buffer[..length], text, "nothing is lost");
            }
        }
    }
}
