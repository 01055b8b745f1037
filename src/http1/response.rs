//! The head of a response: what it says, and how long its body is (RFC 9112 4 and 6.3). Pure.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use memchr::memchr_iter;

use super::decoder::Decoder;
use super::field::{self, Field, Fields};
use super::link::take;

/// Bytes of a response's head. Generous: a side may repeat a long query in `Content-Location` and `Link`.
pub const HEAD_BYTES: usize = 400 * 1024;

/// Fields of a response's head.
pub const FIELDS: usize = 100;

/// What is no head of a response, or can't be followed by a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenHead {
    /// Not HTTP/1.0 or HTTP/1.1.
    #[error("what came is no HTTP/1 response: {0}")]
    Syntax(#[from] httparse::Error),
    /// Longer than [`HEAD_BYTES`].
    #[error("the head of the response is too long")]
    TooLong,
    /// A status below 100.
    #[error("the response has no known status")]
    Status,
    /// `Content-Length` is no number, or is several.
    #[error("the response has no clear length")]
    Length,
    /// HTTP/1.0 has no transfer codings.
    #[error("a coded body in HTTP/1.0")]
    Coding,
}

/// The head of a response.
#[derive(Debug)]
pub struct Head {
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The status; 1xx too.
    pub status: StatusCode,
    /// The words behind the status, where they are others than usual.
    pub reason: Option<Bytes>,
    /// The fields. Their values are parts of what was read, without a copy.
    pub headers: HeaderMap,
    /// The connection may be used again behind the body.
    pub keeps_alive: bool,
    coding: Coding,
    length: Length,
}

/// What the fields say of the body's coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    /// Another one is the last: only the connection's end can end the body.
    Other,
}

/// What the fields say of the body's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    None,
    Known(u64),
    /// The same number more than once.
    Repeated(u64),
    Broken,
}

/// Reads a head from the front of what is held, and takes it; `None` = more is needed. `seen` is what was held when that was said last,
/// 0 at the beginning: a head that comes in many pieces is not read anew for each.
///
/// # Errors
/// [`BrokenHead`].
pub fn read(held: &mut BytesMut, seen: &mut usize) -> Result<Option<Head>, BrokenHead> {
    if *seen > 0 && !may_end(held, seen.saturating_sub(2)) {
        return more(held, seen);
    }
    let mut space = [const { MaybeUninit::uninit() }; FIELDS];
    let mut found = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut found, held, &mut space)?;
    let httparse::Status::Complete(length) = parsed else {
        return more(held, seen);
    };
    if length > HEAD_BYTES {
        return Err(BrokenHead::TooLong);
    }
    *seen = 0;
    let status =
        StatusCode::from_u16(found.code.unwrap_or_default()).map_err(|_| BrokenHead::Status)?;
    let version = if found.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let mut head = Head {
        version,
        status,
        reason: found
            .reason
            .filter(|reason| Some(*reason) != status.canonical_reason())
            .map(|reason| Bytes::copy_from_slice(reason.as_bytes())),
        headers: field::map(found.headers.len()),
        keeps_alive: version == Version::HTTP_11,
        coding: Coding::None,
        length: Length::None,
    };
    let within = |part: &[u8]| {
        let from = part.as_ptr().addr().saturating_sub(held.as_ptr().addr());
        from..from + part.len()
    };
    let place = |field: &httparse::Header<'_>| {
        Field::new(within(field.name.as_bytes()), within(field.value))
    };
    let fields: Fields = found.headers.iter().map(place).collect();
    let text = take(held, length);
    let mut closes = false;
    for field in fields {
        // The parser has looked at both.
        let (name, value) = field.read(&text).map_err(|_| httparse::Error::HeaderValue)?;
        closes |= head.note(&name, &value);
        head.headers.append(name, value);
    }
    head.keeps_alive &= !closes;
    Ok(Some(head))
}

/// An end of a head may stand at or behind `from`: two line ends with nothing between them.
fn may_end(held: &[u8], from: usize) -> bool {
    let tail = held.get(from..).unwrap_or_default();
    memchr_iter(b'\n', tail).any(|at| {
        let behind = tail.get(at + 1..).unwrap_or_default();
        behind.starts_with(b"\n") || behind.starts_with(b"\r\n")
    })
}

fn more(held: &[u8], seen: &mut usize) -> Result<Option<Head>, BrokenHead> {
    if held.len() > HEAD_BYTES {
        return Err(BrokenHead::TooLong);
    }
    *seen = held.len();
    Ok(None)
}

impl Head {
    /// Takes note of what a field says about the message itself; whether it says that the connection closes.
    fn note(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        if name == header::CONTENT_LENGTH {
            self.length = self.length.and(value);
        } else if name == header::TRANSFER_ENCODING {
            let last = value.to_str().unwrap_or_default().rsplit(',').next().unwrap_or_default();
            let is_chunked = last.trim().eq_ignore_ascii_case("chunked");
            self.coding = if is_chunked { Coding::Chunked } else { Coding::Other };
        } else if name == header::CONNECTION {
            self.keeps_alive |= field::lists(value.as_bytes(), "keep-alive");
            return field::lists(value.as_bytes(), "close");
        }
        false
    }

    /// How the body of this response to a request of this method comes (RFC 9112 6.3). A length beside a coding is dropped, for the coding
    /// wins: passed on, it would cut the body or split the answer. One that stands there twice is said once.
    ///
    /// # Errors
    /// [`BrokenHead`]: nothing behind this head can be read.
    pub fn body(&mut self, method: &Method) -> Result<Decoder, BrokenHead> {
        if self.coding != Coding::None && self.length != Length::None {
            self.headers.remove(header::CONTENT_LENGTH);
        }
        let is_bare = method == Method::HEAD
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bare {
            return Ok(Decoder::Done);
        }
        match (self.coding, self.length) {
            (Coding::None, Length::None) => Ok(Decoder::UntilClose),
            (Coding::None, Length::Known(length)) => Ok(Decoder::known(length)),
            (Coding::None, Length::Repeated(length)) => {
                self.headers.insert(header::CONTENT_LENGTH, length.into());
                Ok(Decoder::known(length))
            }
            (Coding::None, Length::Broken) => Err(BrokenHead::Length),
            _ if self.version == Version::HTTP_10 => Err(BrokenHead::Coding),
            (Coding::Chunked, _) => Ok(Decoder::chunked()),
            (Coding::Other, _) => Ok(Decoder::UntilClose),
        }
    }
}

impl Length {
    /// With one more field. A list of equal numbers is what proxies make of several fields, and is taken like them.
    fn and(self, value: &HeaderValue) -> Self {
        value.as_bytes().split(|byte| *byte == b',').fold(self, |length, text| {
            match (length, digits(text.trim_ascii())) {
                (Self::None, Some(one)) => Self::Known(one),
                (Self::Known(one) | Self::Repeated(one), Some(other)) if one == other => {
                    Self::Repeated(one)
                }
                _ => Self::Broken,
            }
        })
    }
}

/// Digits alone: no sign, and nothing that does not fit.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> Result<Head, BrokenHead> {
        let mut held = BytesMut::from(text);
        read(&mut held, &mut 0).map(|head| head.unwrap_or_else(|| panic!("unfinished: {text:?}")))
    }

    /// How the body of a response with these fields comes, in short, and the length that is passed on.
    fn body(line: &str, fields: &str, method: &Method) -> (String, Option<String>) {
        let mut head = head(&format!("{line}\r\n{fields}\r\n")).unwrap();
        let body = match head.body(method) {
            Ok(Decoder::Done) => "none".to_owned(),
            Ok(Decoder::Known(length)) => length.to_string(),
            Ok(Decoder::Chunked(_)) => "chunked".to_owned(),
            Ok(Decoder::UntilClose) => "until close".to_owned(),
            Err(broken) => format!("{broken:?}"),
        };
        let lengths = head.headers.get_all(header::CONTENT_LENGTH);
        let lengths: Vec<_> = lengths.iter().map(|v| v.to_str().unwrap().to_owned()).collect();
        assert!(lengths.len() < 2 || body == "none" || body == "Length", "{lengths:?}");
        (body, lengths.into_iter().next())
    }

    const OK: &str = "HTTP/1.1 200 OK";

    #[test]
    fn bodies_are_as_long_as_the_head_says() {
        for (line, fields, want, passed) in [
            (OK, "content-length: 5\r\n", "5", Some("5")),
            (OK, "content-length: 0\r\n", "none", Some("0")),
            (OK, "content-length: 5\r\ncontent-length: 5\r\n", "5", Some("5")),
            (OK, "content-length: 5, 5\r\n", "5", Some("5")),
            (OK, "content-length: 5\r\ncontent-length: 6\r\n", "Length", Some("5")),
            (OK, "content-length: 5, 6\r\n", "Length", Some("5, 6")),
            (OK, "content-length: +5\r\n", "Length", Some("+5")),
            (OK, "content-length: \r\n", "Length", Some("")),
            (
                OK,
                "content-length: 18446744073709551616\r\n",
                "Length",
                Some("18446744073709551616"),
            ),
            (OK, "transfer-encoding: chunked\r\n", "chunked", None),
            (OK, "Transfer-Encoding: gzip, Chunked\r\ncontent-length: 5\r\n", "chunked", None),
            (OK, "content-length: x\r\ntransfer-encoding: chunked\r\n", "chunked", None),
            (OK, "transfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n", "until close", None),
            (OK, "", "until close", None),
            ("HTTP/1.0 200 OK", "", "until close", None),
            ("HTTP/1.0 200 OK", "content-length: 5\r\n", "5", Some("5")),
            ("HTTP/1.0 200 OK", "transfer-encoding: chunked\r\n", "Coding", None),
            ("HTTP/1.1 204 No Content", "content-length: 5\r\n", "none", Some("5")),
            ("HTTP/1.1 304 Not Modified", "content-length: 5\r\n", "none", Some("5")),
            ("HTTP/1.1 103 Early Hints", "transfer-encoding: chunked\r\n", "none", None),
            ("HTTP/1.1 205 Reset Content", "content-length: 5\r\n", "5", Some("5")),
        ] {
            let (read, length) = body(line, fields, &Method::GET);
            assert_eq!((read.as_str(), length.as_deref()), (want, passed), "{line} {fields:?}");
        }
        let (read, length) = body(OK, "content-length: 5\r\n", &Method::HEAD);
        assert_eq!((read.as_str(), length.as_deref()), ("none", Some("5")));
    }

    #[test]
    fn whether_the_connection_stays_is_read() {
        for (line, fields, want) in [
            (OK, "", true),
            (OK, "connection: close\r\n", false),
            (OK, "connection: x, Close\r\nconnection: keep-alive\r\n", false),
            ("HTTP/1.0 200 OK", "", false),
            ("HTTP/1.0 200 OK", "connection: Keep-Alive\r\n", true),
            ("HTTP/1.0 200 OK", "connection: close\r\nconnection: keep-alive\r\n", false),
        ] {
            let head = head(&format!("{line}\r\n{fields}\r\n")).unwrap();
            assert_eq!(head.keeps_alive, want, "{line} {fields:?}");
        }
    }

    #[test]
    fn unusual_words_behind_a_status_are_kept() {
        for (line, want) in [
            (OK, None),
            ("HTTP/1.1 200", Some("")),
            ("HTTP/1.1 200 ", Some("")),
            ("HTTP/1.1 200 Fine, thanks", Some("Fine, thanks")),
            ("HTTP/1.1 299 Odd", Some("Odd")),
        ] {
            let head = head(&format!("{line}\r\n\r\n")).unwrap();
            assert_eq!(head.reason.as_deref(), want.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 099 Low\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: a\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
            "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
            "HTTP/1.1 200 OK\r\na : c\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
        ] {
            assert!(head(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_limits_hold_at_their_edges() {
        let fields = |count: usize| format!("{OK}\r\n{}\r\n", "a: b\r\n".repeat(count));
        assert_eq!(head(&fields(FIELDS)).unwrap().headers.len(), FIELDS);
        let refused = head(&fields(FIELDS + 1)).unwrap_err();
        assert_eq!(refused, BrokenHead::Syntax(httparse::Error::TooManyHeaders));

        let frame = format!("{OK}\r\nlong: \r\n\r\n").len();
        let long = |length: usize| format!("{OK}\r\nlong: {}\r\n\r\n", "x".repeat(length - frame));
        assert!(head(&long(HEAD_BYTES)).is_ok());
        assert_eq!(head(&long(HEAD_BYTES + 1)).unwrap_err(), BrokenHead::TooLong);
        let (mut endless, mut seen) = (BytesMut::from(&long(HEAD_BYTES + 9)[..HEAD_BYTES]), 0);
        assert!(read(&mut endless, &mut seen).unwrap().is_none());
        endless.extend_from_slice(b"x");
        assert_eq!(read(&mut endless, &mut seen).unwrap_err(), BrokenHead::TooLong);
    }

    #[test]
    fn a_head_comes_whole_wherever_it_is_cut() {
        for end in ["\r\n", "\n"] {
            let lines =
                [OK, "X-One:  a b ", "x-two:", "x-one: \u{e4}", "Content-Length: 5", "", ""];
            let text = format!("{}hello", lines.join(end));
            for cut in 1..text.len() - 5 {
                let (first, second) = text.as_bytes().split_at(cut);
                let (mut held, mut seen) = (BytesMut::from(first), 0);
                assert!(read(&mut held, &mut seen).unwrap().is_none(), "{cut}");
                held.extend_from_slice(second);
                let mut head = read(&mut held, &mut seen).unwrap().unwrap();
                assert_eq!((seen, &held[..]), (0, &b"hello"[..]));
                let ones: Vec<_> = head.headers.get_all("x-one").iter().collect();
                assert_eq!(
                    ones,
                    ["a b", "\u{e4}"]
                        .map(|v| HeaderValue::from_bytes(v.as_bytes()).unwrap())
                        .iter()
                        .collect::<Vec<_>>()
                );
                assert_eq!(head.headers["x-two"], "");
                assert!(matches!(head.body(&Method::GET), Ok(Decoder::Known(5))));
            }
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_pieces_change_nothing(
            text in "(HTTP/1\\.[01] [0-9]{3} ?[a-z]{0,3}\r?\n)?([a-zA-Z-]{0,9}: ?[ -~]{0,9}\r?\n){0,4}(\r?\n)?[ -~\r\n]{0,20}",
            piece in 1_usize..30,
        ) {
            let mut whole = BytesMut::from(text.as_str());
            let at_once = read(&mut whole, &mut 0);
            let (mut held, mut seen, mut read_in_pieces) = (BytesMut::new(), 0, Ok(None));
            let mut parts = text.as_bytes().chunks(piece);
            while matches!(read_in_pieces, Ok(None)) {
                let Some(part) = parts.next() else { break };
                held.extend_from_slice(part);
                read_in_pieces = read(&mut held, &mut seen);
            }
            match (at_once, read_in_pieces) {
                (Ok(Some(one)), Ok(Some(other))) => {
                    prop_assert_eq!(one.headers, other.headers);
                    prop_assert_eq!(one.status, other.status);
                    held.extend(parts.flatten());
                    prop_assert_eq!(whole, held);
                }
                // What is broken may be known later: when the head ends, or at its limit.
                (Err(_), Ok(None) | Err(_)) | (Ok(None), Ok(None)) => {}
                (one, other) => prop_assert!(false, "{:?} and {:?}", one, other),
            }
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut held = BytesMut::from(&bytes[..]);
            if let Ok(Some(mut head)) = read(&mut held, &mut 0) {
                let _body = head.body(&Method::GET);
            }
        }
    }
}
