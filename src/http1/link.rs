//! One byte stream with what was read of it and not used yet, and what is to be written to it.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::spare;

/// A piece of a body up to this many bytes is copied behind its head, and goes with it in one write; what a copy of more would cost, a
/// second slice does not.
const COPIED: usize = 4 * 1024;

/// The most that is read of a body at once.
const PIECE: usize = 64 * 1024;

/// How much may be waiting to be written before no more is asked for: a reader that is slower than its side is not collected for.
pub const ENOUGH: usize = 128 * 1024;

/// Slices of one write.
const SLICES: usize = 16;

/// Takes bytes from the front; all of them where there are fewer, and then nothing is left to be shared either.
pub(super) fn take(held: &mut BytesMut, length: usize) -> Bytes {
    match length >= held.len() {
        true => std::mem::take(held).freeze(),
        false => held.split_to(length).freeze(),
    }
}

/// A stream, and both its buffers. An idle one holds no memory beside itself.
#[derive(Debug)]
pub struct Link<S> {
    io: S,
    held: BytesMut,
    /// What is to be written first.
    said: Vec<u8>,
    /// How much of `said` has been written.
    written: usize,
    /// How much was ever written.
    taken: u64,
    /// What is to be written behind it: pieces that are too large to be copied.
    queue: VecDeque<Bytes>,
    queued: usize,
    /// What is to be written behind those: what is small, together, so that many small pieces take no more room than their bytes.
    tail: Vec<u8>,
    /// What is to be written begins a message that nothing was written of.
    is_fresh: bool,
}

impl<S> Link<S> {
    /// A stream of which nothing was read yet.
    pub fn new(io: S) -> Self {
        let (held, said) = (BytesMut::new(), Vec::new());
        Self {
            io,
            held,
            said,
            written: 0,
            taken: 0,
            queue: VecDeque::new(),
            queued: 0,
            tail: Vec::new(),
            is_fresh: false,
        }
    }

    /// The stream.
    pub const fn io(&self) -> &S {
        &self.io
    }

    /// The stream.
    pub const fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// The stream, and what was read of it and not used.
    pub fn into_parts(self) -> (S, Bytes) {
        (self.io, self.held.freeze())
    }

    /// What was read and not used yet.
    pub fn held(&self) -> &[u8] {
        &self.held
    }

    /// The same, to be used: whoever takes of it takes it from the front.
    pub const fn held_mut(&mut self) -> &mut BytesMut {
        &mut self.held
    }

    /// Takes bytes from the front of what is held; all of it where it is less.
    pub fn take_held(&mut self, length: usize) -> Bytes {
        take(&mut self.held, length)
    }

    /// Bytes that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.said.len() - self.written + self.queued + self.tail.len()
    }

    /// Bytes that were ever written.
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the next [`Link::poll_flush`] only lets others go first.
    pub const fn begins(&self) -> bool {
        self.is_fresh
    }

    /// Where a head is to be written. Only while nothing else waits: heads do not overtake bodies.
    pub fn say(&mut self) -> &mut Vec<u8> {
        debug_assert!(!self.has_queue(), "a head behind a body that waits");
        if self.said.capacity() == 0 {
            self.said = spare::take();
            self.is_fresh = true;
        }
        &mut self.said
    }

    /// Adds bytes to be written: framing.
    pub fn add(&mut self, bytes: &[u8]) {
        if self.has_queue() {
            self.tail.extend_from_slice(bytes);
        } else {
            self.say().extend_from_slice(bytes);
        }
    }

    fn has_queue(&self) -> bool {
        !self.queue.is_empty() || !self.tail.is_empty()
    }

    /// Adds a piece of a body.
    pub fn pass(&mut self, piece: Bytes) {
        if piece.len() <= COPIED {
            return self.add(&piece);
        }
        if !self.tail.is_empty() {
            let tail = Bytes::from(std::mem::take(&mut self.tail));
            self.queued += tail.len();
            self.queue.push_back(tail);
        }
        self.queued += piece.len();
        self.queue.push_back(piece);
    }

    fn advance(&mut self, written: usize) {
        self.taken += written as u64;
        let of_said = written.min(self.said.len() - self.written);
        self.written += of_said;
        let mut left = written - of_said;
        self.queued -= left;
        while let Some(first) = self.queue.front_mut() {
            if left < first.len() {
                first.advance(left);
                return;
            }
            left -= first.len();
            self.queue.pop_front();
        }
    }
}

impl<S: AsyncRead + Unpin> Link<S> {
    /// Reads what there is, behind what is held; 0 = the end.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        spare::scratch(|space| {
            let mut space = ReadBuf::new(space);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
            let read = space.filled();
            if self.held.is_empty() {
                // Exactly as much as there is: what is taken whole needs no second owner.
                self.held = BytesMut::with_capacity(read.len());
            }
            self.held.extend_from_slice(read);
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Reads what there is, once, and lends it to `look`; nothing of it is held. Empty = the end.
    ///
    /// # Errors
    /// What the stream says, and what `look` says.
    pub fn poll_read<T, E: From<io::Error>>(
        &mut self,
        cx: &mut Context<'_>,
        look: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Poll<Result<T, E>> {
        debug_assert!(self.held.is_empty(), "what is held comes first");
        spare::scratch(|space| {
            let mut space = ReadBuf::new(space);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut space))?;
            Poll::Ready(look(space.filled()))
        })
    }

    /// Reads more of a body behind what is held: into space of its own where nothing is, so that a large piece is not copied.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.held.is_empty() {
            return self.poll_fill(cx);
        }
        let mut space = BytesMut::with_capacity(PIECE);
        let read = ready!(pin!(self.io.read_buf(&mut space)).poll(cx))?;
        self.hold(space);
        Poll::Ready(Ok(read))
    }

    /// Holds what was read into space of its own. A little in much space is copied: it may have to wait for a slow reader.
    fn hold(&mut self, read: BytesMut) {
        self.held = match read.len() < PIECE / 4 {
            true => BytesMut::from(read.as_ref()),
            false => read,
        };
    }

    /// Takes a piece of a body: what is held, or else what there is to read, without a copy. At most `most` bytes, and fewer as it comes;
    /// empty = the end. `most` is not 0.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>, most: u64) -> Poll<io::Result<Bytes>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if self.held.is_empty() {
            // One byte more than is wanted: a read that fills its space is not known to have read all there is, and would be tried again.
            let mut piece = BytesMut::with_capacity(most.min(PIECE).saturating_add(1));
            ready!(pin!(self.io.read_buf(&mut piece)).poll(cx))?;
            self.hold(piece);
        }
        Poll::Ready(Ok(self.take_held(most)))
    }
}

impl<S: AsyncWrite + Unpin> Link<S> {
    /// Writes everything that waits. What is about to begin lets all others go first whose turn it is already, once: what a busy worker has
    /// to say is then said in one go, and whoever it is said to (on the same machine, a core that sleeps) is woken once for all of it.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.is_fresh) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.poll_flush_now(cx)
    }

    /// The same, at once.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_flush_now(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.is_fresh = false;
        if self.unwritten() > 0 {
            while self.unwritten() > 0 {
                let written = ready!(self.poll_write(cx))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.advance(written);
                if self.written == self.said.len() && self.queue.is_empty() && !self.tail.is_empty()
                {
                    self.said = std::mem::take(&mut self.tail);
                    self.written = 0;
                }
            }
            spare::give(std::mem::take(&mut self.said));
            self.written = 0;
        }
        // Over TLS what was written may not have been sent.
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Closes the stream for writing.
    ///
    /// # Errors
    /// What the stream says.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let said = self.said.get(self.written..).unwrap_or_default();
        if self.queue.is_empty() {
            return Pin::new(&mut self.io).poll_write(cx, said);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let pieces = self.queue.iter().map(Bytes::as_ref);
        let waiting = std::iter::once(said).chain(pieces).filter(|piece| !piece.is_empty());
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(waiting) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let slices = slices.get(..count).unwrap_or_default();
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// A stream that takes a few bytes at a time, and sometimes none.
    struct Slow {
        taken: Vec<u8>,
        steps: Vec<usize>,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            match self.steps.pop() {
                Some(0) => Poll::Pending,
                step => {
                    let length = step.unwrap_or(usize::MAX).min(bytes.len());
                    self.taken.extend_from_slice(&bytes[..length]);
                    Poll::Ready(Ok(length))
                }
            }
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let mut written = 0;
            for slice in slices {
                match self.as_mut().poll_write(cx, slice) {
                    Poll::Ready(Ok(length)) => {
                        written += length;
                        if length < slice.len() {
                            break;
                        }
                    }
                    waits if written == 0 => return waits,
                    _ => break,
                }
            }
            Poll::Ready(Ok(written))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn link(steps: Vec<usize>) -> Link<Slow> {
        Link::new(Slow { taken: Vec::new(), steps })
    }

    proptest! {
        #[test]
        fn everything_goes_in_its_order(
            pieces in prop::collection::vec((any::<bool>(), prop_oneof![1_usize..50, Just(COPIED), Just(COPIED + 1), 5000_usize..20_000]), 1..30),
            steps in prop::collection::vec(0_usize..6000, 0..60),
        ) {
            let (mut link, mut want) = (link(steps), Vec::new());
            let mut cx = Context::from_waker(Waker::noop());
            for (index, (is_framing, length)) in pieces.into_iter().enumerate() {
                let bytes = vec![index as u8; length];
                want.extend_from_slice(&bytes);
                if is_framing { link.add(&bytes) } else { link.pass(Bytes::from(bytes)) }
                let before = link.io.taken.len();
                prop_assert_eq!(link.unwritten(), want.len() - before);
                let _waits = link.poll_flush(&mut cx);
            }
            while link.unwritten() > 0 {
                let _waits = link.poll_flush(&mut cx);
            }
            prop_assert_eq!(&link.io.taken, &want);
        }
    }

    /// A client that sends byte by byte to a side that does not read.
    #[test]
    fn small_pieces_behind_a_large_one_take_the_room_of_their_bytes() {
        let mut link = link(vec![0]);
        link.pass(Bytes::from(vec![0; COPIED + 1]));
        while link.unwritten() < ENOUGH {
            link.pass(Bytes::from_static(b"x"));
        }
        assert_eq!(link.queue.len(), 1);
        assert!(link.tail.capacity() <= 2 * ENOUGH);
    }

    #[tokio::test]
    async fn a_little_that_was_read_into_much_space_does_not_keep_it() {
        let mut link = Link::new(&b"hello"[..]);
        let piece = std::future::poll_fn(|cx| link.poll_piece(cx, u64::MAX)).await.unwrap();
        assert_eq!(piece, "hello");
        assert!(BytesMut::from(piece).capacity() < PIECE / 4);
    }
}
