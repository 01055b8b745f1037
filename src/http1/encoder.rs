//! Heads and bodies as they go. Pure: bytes into a buffer.

use std::io::Write as _;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, StatusCode, Version, header};

use super::link::Link;

/// How the end of a body that goes out is said.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, whatever the head says of one.
    None,
    /// By `Content-Length`: this many bytes are left.
    Length(u64),
    /// In the chunked coding, with the trailer fields that the head has announced.
    Chunked(Vec<HeaderName>),
    /// By the end of the connection: for HTTP/1.0.
    Close,
}

/// A body that is shorter than its head has said. What was written can't be taken back: the connection has to break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body ended before its length")]
pub struct TooShort;

/// Whether a field may come behind its message. One that says something of the message itself, of who sent it, of where it goes or of what
/// is to be done with it may not (RFC 9110 6.5.1): a server that adds trailers to the fields would take it for one that was judged with the head.
#[must_use]
pub fn may_trail(name: &HeaderName) -> bool {
    const BEGINNINGS: [&str; 7] =
        ["accept", "content-", "if-", "proxy-", "sb-", "x-cutover-", "x-forwarded-"];
    let name = name.as_str();
    !BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        && !matches!(
            name,
            "apikey"
                | "authorization"
                | "cache-control"
                | "connection"
                | "cookie"
                | "expect"
                | "forwarded"
                | "host"
                | "keep-alive"
                | "max-forwards"
                | "prefer"
                | "range"
                | "set-cookie"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "x-api-key"
                | "x-client-ip"
                | "x-real-ip"
        )
}

/// Writes a request's first line.
pub fn request_line(out: &mut Vec<u8>, method: &Method, target: &str) {
    for part in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Writes a response's first line, with the usual words for its status where no others are given.
pub fn status_line(out: &mut Vec<u8>, version: Version, status: StatusCode, reason: Option<&[u8]>) {
    if (version, status, reason) == (Version::HTTP_11, StatusCode::OK, None) {
        return out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    }
    let version = if version == Version::HTTP_10 { "HTTP/1.0 " } else { "HTTP/1.1 " };
    let reason = reason.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().as_bytes());
    for part in [version.as_bytes(), status.as_str().as_bytes(), b" ", reason, b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Writes fields, each on a line of its own.
pub fn fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    for (name, value) in headers {
        field(out, name.as_str(), value.as_bytes());
    }
}

/// Writes one field.
pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes a `Content-Length`.
pub fn length(out: &mut Vec<u8>, length: u64) {
    // Writing into a Vec can't fail.
    let _written = write!(out, "content-length: {length}\r\n");
}

impl Framing {
    /// The chunked coding; trailers are passed on where the head announces them (RFC 9110 6.6.2).
    #[must_use]
    pub fn chunked(headers: &HeaderMap) -> Self {
        let announced = headers
            .get_all(header::TRAILER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            .filter(may_trail);
        Self::Chunked(announced.collect())
    }

    /// Adds a piece of the body to what is to be written. What is more than was announced is left out: whoever reads would take it for
    /// the next message.
    pub fn data<S>(&mut self, link: &mut Link<S>, mut piece: Bytes) {
        match self {
            Self::None => {}
            Self::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                piece.truncate(most);
                *left -= piece.len() as u64;
                link.pass(piece);
            }
            // An empty chunk would be the end.
            Self::Chunked(_) if piece.is_empty() => {}
            Self::Chunked(_) => {
                let mut size = [0; 18];
                link.add(chunk_size(&mut size, piece.len()));
                link.pass(piece);
                link.add(b"\r\n");
            }
            Self::Close => link.pass(piece),
        }
    }

    /// Adds the end of the body.
    ///
    /// # Errors
    /// [`TooShort`].
    pub fn end<S>(
        &mut self,
        link: &mut Link<S>,
        trailers: Option<&HeaderMap>,
    ) -> Result<(), TooShort> {
        match self {
            Self::None | Self::Close | Self::Length(0) => Ok(()),
            Self::Length(_) => Err(TooShort),
            Self::Chunked(announced) => {
                let mut end = b"0\r\n".to_vec();
                for (name, value) in trailers.into_iter().flatten() {
                    if announced.contains(name) {
                        field(&mut end, name.as_str(), value.as_bytes());
                    }
                }
                end.extend_from_slice(b"\r\n");
                link.add(&end);
                Ok(())
            }
        }
    }
}

/// A chunk's first line: its size in hexadecimal.
fn chunk_size(space: &mut [u8; 18], size: usize) -> &[u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut at = space.len() - 2;
    space[at..].copy_from_slice(b"\r\n");
    let mut left = size;
    loop {
        at -= 1;
        space[at] = DIGITS[left & 0xf];
        left >>= 4;
        if left == 0 || at == 0 {
            return &space[at..];
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn said(
        framing: &mut Framing,
        pieces: &[&'static str],
        trailers: Option<&HeaderMap>,
    ) -> String {
        let mut link = Link::new(());
        for piece in pieces {
            framing.data(&mut link, Bytes::from_static(piece.as_bytes()));
        }
        let ended = framing.end(&mut link, trailers);
        let text = String::from_utf8(link.say().clone()).unwrap();
        if ended.is_ok() { text } else { format!("{text} and is too short") }
    }

    #[test]
    fn bodies_are_framed_as_their_heads_say() {
        assert_eq!(said(&mut Framing::Length(5), &["he", "llo"], None), "hello");
        assert_eq!(said(&mut Framing::Length(4), &["he", "llo"], None), "hell");
        assert_eq!(said(&mut Framing::Length(6), &["hello"], None), "hello and is too short");
        assert_eq!(said(&mut Framing::None, &["hello"], None), "");
        assert_eq!(said(&mut Framing::Close, &["hello"], None), "hello");
        let mut chunked = Framing::chunked(&HeaderMap::new());
        let text = said(&mut chunked, &["hello", "", "0123456789abcdefg"], None);
        assert_eq!(text, "5\r\nhello\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n");
    }

    #[test]
    fn trailers_pass_where_they_were_announced_and_may() {
        let mut headers = HeaderMap::new();
        headers.append(
            "trailer",
            HeaderValue::from_static("X-Sum, content-length, x-forwarded-for, apikey"),
        );
        headers.append("trailer", HeaderValue::from_static("x-more"));
        let mut trailers = HeaderMap::new();
        for name in ["x-sum", "x-more", "content-length", "x-secret", "x-forwarded-for", "apikey"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        let text = said(&mut Framing::chunked(&headers), &["a"], Some(&trailers));
        assert_eq!(text, "1\r\na\r\n0\r\nx-sum: 1\r\nx-more: 1\r\n\r\n");
        let text = said(&mut Framing::chunked(&HeaderMap::new()), &["a"], Some(&trailers));
        assert_eq!(text, "1\r\na\r\n0\r\n\r\n");
    }

    #[test]
    fn sizes_are_hexadecimal() {
        for size in [0, 1, 15, 16, 4095, 65_536, usize::MAX] {
            assert_eq!(chunk_size(&mut [0; 18], size), format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn heads_are_said_in_lines() {
        let mut out = Vec::new();
        status_line(&mut out, Version::HTTP_10, StatusCode::NOT_FOUND, None);
        status_line(&mut out, Version::HTTP_11, StatusCode::from_u16(299).unwrap(), None);
        status_line(&mut out, Version::HTTP_11, StatusCode::OK, Some(b"Fine"));
        request_line(&mut out, &Method::PATCH, "/a?b");
        length(&mut out, 12);
        let want = "HTTP/1.0 404 Not Found\r\nHTTP/1.1 299 \r\nHTTP/1.1 200 Fine\r\nPATCH /a?b HTTP/1.1\r\ncontent-length: 12\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }
}
