//! Bodies as they come: how long one is, what of the bytes is its own, and where it ends (RFC 9112 6.3). Pure.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::SizeHint;

use super::chunks::{BrokenChunk, Chunks, Piece};

/// Trailer fields that are read of one body; more are an attack.
const TRAILERS: usize = 100;

/// Where a body is, on its way in.
#[derive(Debug)]
pub enum Decoder {
    /// All of it has been read, or there is none.
    Done,
    /// This many bytes are left.
    Known(u64),
    /// In the chunked coding.
    Chunked(Coded),
    /// All that comes until the connection ends. Responses alone can be so.
    UntilClose,
}

/// A body in the chunked coding.
#[derive(Debug, Default)]
pub struct Coded {
    chunks: Chunks,
    /// The trailer section so far. Bounded by [`super::chunks::LONGEST_CHUNK_LINE`].
    trailer: Vec<u8>,
}

/// What came of a chunked body.
#[derive(Debug)]
pub enum Step {
    /// A piece of the body.
    Data(Bytes),
    /// The fields behind it: it has ended.
    Trailers(HeaderMap),
    /// It has ended.
    Done,
    /// More is needed.
    More,
}

impl Decoder {
    /// A body of known length.
    #[must_use]
    pub const fn known(length: u64) -> Self {
        match length {
            0 => Self::Done,
            _ => Self::Known(length),
        }
    }

    /// A body in the chunked coding.
    #[must_use]
    pub fn chunked() -> Self {
        Self::Chunked(Coded::default())
    }

    /// Whether all of it has been read.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How long the rest is, as far as that is known.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        match self {
            Self::Done => SizeHint::with_exact(0),
            Self::Known(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilClose => SizeHint::default(),
        }
    }
}

impl Coded {
    /// Takes the next piece from the front of what was read.
    ///
    /// # Errors
    /// [`BrokenChunk`]; nothing of the body can be trusted behind it.
    pub fn step(&mut self, held: &mut BytesMut) -> Result<Step, BrokenChunk> {
        loop {
            match self.chunks.piece(held)? {
                Piece::More => {
                    held.clear();
                    return Ok(Step::More);
                }
                Piece::Data(at) => {
                    held.advance(at.start);
                    return Ok(Step::Data(held.split_to(at.len()).freeze()));
                }
                Piece::Trailer(at) => {
                    self.trailer.extend_from_slice(held.get(at.clone()).unwrap_or_default());
                    held.advance(at.end);
                }
                Piece::Done(end) => {
                    held.advance(end);
                    return match self.trailer.is_empty() {
                        true => Ok(Step::Done),
                        false => self.trailers().map(Step::Trailers),
                    };
                }
            }
        }
    }

    /// Takes the end of the body, if it is all here and has no trailers: whoever passes the last piece on can then say that it is the last.
    pub fn ends_here(&self, held: &mut BytesMut) -> bool {
        let mut ahead = self.chunks;
        let mut at = 0;
        loop {
            match ahead.piece(held.get(at..).unwrap_or_default()) {
                Ok(Piece::Done(end)) => {
                    held.advance(at + end);
                    return true;
                }
                // An empty piece is none.
                Ok(Piece::Data(piece)) if piece.is_empty() => at += piece.end,
                _ => return false,
            }
        }
    }

    fn trailers(&mut self) -> Result<HeaderMap, BrokenChunk> {
        let mut section = std::mem::take(&mut self.trailer);
        section.extend_from_slice(b"\r\n");
        let mut fields = [httparse::EMPTY_HEADER; TRAILERS];
        let Ok(httparse::Status::Complete((_, fields))) =
            httparse::parse_headers(&section, &mut fields)
        else {
            return Err(BrokenChunk);
        };
        let mut map = HeaderMap::with_capacity(fields.len());
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BrokenChunk)?;
            map.append(name, HeaderValue::from_bytes(field.value).map_err(|_| BrokenChunk)?);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body's bytes, its trailers, and what is left behind it; `Err` for a broken one, `None` for one that has not ended.
    type Read = Result<Option<(Vec<u8>, HeaderMap, Vec<u8>)>, BrokenChunk>;

    fn read(text: &[u8], piece: usize) -> Read {
        let (mut coded, mut body, mut held) = (Coded::default(), Vec::new(), BytesMut::new());
        let mut parts = text.chunks(piece);
        loop {
            match coded.step(&mut held)? {
                Step::Data(data) => body.extend_from_slice(&data),
                Step::Trailers(map) => return Ok(Some((body, map, rest(&held, parts)))),
                Step::Done => {
                    return Ok(Some((body, HeaderMap::new(), rest(&held, parts))));
                }
                Step::More => match parts.next() {
                    Some(part) => held.extend_from_slice(part),
                    None => return Ok(None),
                },
            }
        }
    }

    fn rest(held: &[u8], parts: std::slice::Chunks<'_, u8>) -> Vec<u8> {
        held.iter().chain(parts.flatten()).copied().collect()
    }

    #[test]
    fn bodies_come_whole_whatever_the_pieces() {
        let text = b"5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\nGET /";
        let with_trailers = b"5\r\nhello\r\n0\r\nX-Sum: a\r\nx-more:b \r\n\r\nGET /";
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("a"));
        trailers.insert("x-more", HeaderValue::from_static("b"));
        for piece in 1..text.len() {
            let want = (b"hello0123456789".to_vec(), HeaderMap::new(), b"GET /".to_vec());
            assert_eq!(read(text, piece), Ok(Some(want)), "{piece}");
            let want = (b"hello".to_vec(), trailers.clone(), b"GET /".to_vec());
            assert_eq!(read(with_trailers, piece), Ok(Some(want)), "{piece}");
        }
        assert_eq!(read(b"5\r\nhello\r\n", 64), Ok(None));
    }

    #[test]
    fn broken_trailers_break_the_body() {
        for text in ["0\r\nno colon\r\n\r\n", "0\r\na b: c\r\n\r\n", "0\r\n folded\r\n\r\n"] {
            assert_eq!(read(text.as_bytes(), 64), Err(BrokenChunk), "{text:?}");
        }
        let many = format!("0\r\n{}\r\n", "a:b\r\n".repeat(TRAILERS + 1));
        assert_eq!(read(many.as_bytes(), 64), Err(BrokenChunk));
    }

    #[test]
    fn an_end_that_is_here_is_known() {
        for (behind, ends, left) in [
            ("\r\n0\r\n\r\nGET", true, "GET"),
            ("\r\n0\r\n\r", false, "\r\n0\r\n\r"),
            ("\r\n0\r\na: b\r\n\r\n", false, "\r\n0\r\na: b\r\n\r\n"),
            ("\r\n1\r\na\r\n0\r\n\r\n", false, "\r\n1\r\na\r\n0\r\n\r\n"),
            ("broken", false, "broken"),
            ("", false, ""),
        ] {
            let mut coded = Coded::default();
            let mut held = BytesMut::from(format!("5\r\nhello{behind}").as_str());
            assert!(matches!(coded.step(&mut held), Ok(Step::Data(data)) if data == "hello"));
            assert_eq!(coded.ends_here(&mut held), ends, "{behind:?}");
            assert_eq!(held, left, "{behind:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), piece in 1_usize..20) {
            let _read = read(&bytes, piece);
        }

        #[test]
        fn what_the_encoder_says_is_read_back(body in prop::collection::vec(any::<u8>(), 1..300), cuts in 1_usize..50, piece in 1_usize..20) {
            let mut text = Vec::new();
            for part in body.chunks(cuts) {
                text.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                text.extend_from_slice(part);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\nnext");
            prop_assert_eq!(read(&text, piece), Ok(Some((body, HeaderMap::new(), b"next".to_vec()))));
        }
    }
}
