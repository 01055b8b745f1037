//! The chunked coding, byte-exact (RFC 9112 7.1).

use std::ops::Range;

use memchr::memchr2;

/// The coding's rules are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a broken chunk in the body")]
pub struct BrokenChunk;

/// Follows a chunked body to its end, byte-exact (RFC 9112 7.1).
#[derive(Clone, Copy, Debug, Default)]
pub struct Chunks {
    at: ChunkPart,
    /// Bytes of the current size line or of the trailer section: bounded, so that neither can grow without end.
    line: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkPart {
    #[default]
    SizeStart,
    Size(u64),
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

/// The longest size line or trailer section that is followed; longer ones are an attack, not a body.
pub const LONGEST_CHUNK_LINE: usize = 8 * 1024;

/// What comes next of a chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of the body itself stand here; what is before them is framing.
    Data(Range<usize>),
    /// Bytes of the trailer section stand here, line ends included; what is before them is framing.
    Trailer(Range<usize>),
    /// The body has ended: this many bytes still belonged to it.
    Done(usize),
    /// All of the bytes were framing, and more is needed.
    More,
}

impl Chunks {
    /// Goes through `bytes` and answers how many of them belong to the body; when the body has ended, that is fewer
    /// than all or [`Chunks::is_done`].
    ///
    /// # Errors
    /// [`BrokenChunk`].
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, BrokenChunk> {
        let mut at = 0;
        loop {
            match self.piece(bytes.get(at..).unwrap_or_default())? {
                Piece::Data(piece) | Piece::Trailer(piece) => at += piece.end,
                Piece::Done(end) => return Ok(at + end),
                Piece::More => return Ok(bytes.len()),
            }
        }
    }

    /// Goes through `bytes` as far as the end of the next piece.
    ///
    /// # Errors
    /// [`BrokenChunk`].
    pub fn piece(&mut self, bytes: &[u8]) -> Result<Piece, BrokenChunk> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.at {
                ChunkPart::Done => return Ok(Piece::Done(at)),
                ChunkPart::Data(left) => {
                    let step = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    let left = left - step as u64;
                    self.at = if left == 0 { ChunkPart::DataCr } else { ChunkPart::Data(left) };
                    return Ok(Piece::Data(at..at + step));
                }
                ChunkPart::TrailerStart | ChunkPart::Trailer if *byte != b'\r' => {
                    let rest = bytes.get(at..).unwrap_or_default();
                    let step = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                    self.long(step.max(1))?;
                    self.at = self.next(*byte)?;
                    return Ok(Piece::Trailer(at..at + step));
                }
                ChunkPart::TrailerLf if *byte == b'\n' => {
                    self.long(1)?;
                    self.at = self.next(*byte)?;
                    return Ok(Piece::Trailer(at..at + 1));
                }
                _ => {
                    self.long(1)?;
                    self.at = self.next(*byte)?;
                    at += 1;
                }
            }
        }
        Ok(if self.is_done() { Piece::Done(at) } else { Piece::More })
    }

    /// Whether the last byte of the body has been seen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at == ChunkPart::Done
    }

    /// Counts bytes that are no data.
    fn long(&mut self, bytes: usize) -> Result<(), BrokenChunk> {
        self.line += bytes;
        if self.line > LONGEST_CHUNK_LINE { Err(BrokenChunk) } else { Ok(()) }
    }

    fn next(&mut self, byte: u8) -> Result<ChunkPart, BrokenChunk> {
        use ChunkPart as P;
        let next = match (self.at, byte) {
            (P::SizeStart, _) => P::Size(hex(byte)?),
            (P::Size(size), b'\r') | (P::Extension(size), b'\r') => P::SizeLf(size),
            (P::Size(size), b';') => P::Extension(size),
            // 15 hex digits at most: the size fits, with room.
            (P::Size(size), _) if size >> 56 == 0 => P::Size(size << 4 | hex(byte)?),
            (P::Extension(size), _) if byte != b'\n' => P::Extension(size),
            (P::SizeLf(0), b'\n') => P::TrailerStart,
            (P::SizeLf(size), b'\n') => P::Data(size),
            (P::DataCr, b'\r') => P::DataLf,
            (P::DataLf, b'\n') => P::SizeStart,
            (P::TrailerStart, b'\r') => P::EndLf,
            (P::Trailer, b'\r') => P::TrailerLf,
            (P::TrailerStart | P::Trailer, _) if byte != b'\n' => P::Trailer,
            (P::TrailerLf, b'\n') => P::TrailerStart,
            (P::EndLf, b'\n') => P::Done,
            _ => return Err(BrokenChunk),
        };
        // A trailer section is bounded as a whole, a size line by itself.
        if matches!(next, P::Data(_) | P::SizeStart) {
            self.line = 0;
        }
        Ok(next)
    }
}

fn hex(byte: u8) -> Result<u64, BrokenChunk> {
    char::from(byte).to_digit(16).map(u64::from).ok_or(BrokenChunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn follow(text: &[u8], piece: usize) -> Result<(usize, bool), BrokenChunk> {
        let mut chunks = Chunks::default();
        let mut taken = 0;
        for part in text.chunks(piece) {
            taken += chunks.advance(part)?;
            if chunks.is_done() {
                break;
            }
        }
        Ok((taken, chunks.is_done()))
    }

    #[test]
    fn chunks_are_followed_to_their_last_byte() {
        let body = "5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: a\r\n\r\n";
        let text = format!("{body}GET / HTTP/1.1\r\n");
        for piece in 1..text.len() {
            assert_eq!(follow(text.as_bytes(), piece), Ok((body.len(), true)), "{piece}");
        }
        assert_eq!(follow(b"0\r\n\r\n", 64), Ok((5, true)));
        assert_eq!(follow(b"3\r\nab", 64), Ok((5, false)));
    }

    #[test]
    fn broken_chunks_are_refused() {
        for text in [
            "\r\n",
            "g\r\n",
            "5\nhello",
            "5 \r\nhello",
            "-5\r\n",
            "0x5\r\nhello\r\n",
            "1\r\nab",
            "1\r\na\n",
            "fffffffffffffffff\r\n",
            "5;a\nb\r\n",
            "0\r\na\n",
            "0\r\n\n",
            " 5\r\nhello\r\n",
        ] {
            assert_eq!(follow(text.as_bytes(), 64), Err(BrokenChunk), "{text:?}");
        }
        let long = format!("1;{}", "x".repeat(LONGEST_CHUNK_LINE));
        assert_eq!(follow(long.as_bytes(), 64), Err(BrokenChunk));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(LONGEST_CHUNK_LINE / 6 + 1));
        assert_eq!(follow(trailers.as_bytes(), 64), Err(BrokenChunk));
    }

    proptest! {
        #[test]
        fn never_panics_and_always_goes_on(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut chunks = Chunks::default();
            let _verdict = chunks.advance(&bytes);
        }
    }
}
