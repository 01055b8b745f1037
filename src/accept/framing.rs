//! Where one HTTP/1 request ends and the next begins, without a doubt.
//!
//! HTTP parsers are lenient where the standard lets them (a bare LF ends a line, a repeated Content-Length is folded,
//! Transfer-Encoding quietly beats Content-Length), and two parsers that are lenient in different ways can be made to
//! disagree about the end of a request: request smuggling. So the bytes are looked at before the parser sees them,
//! and a head that could be read in two ways is refused (RFC 9112 2.2, 5.1, 5.2, 6.1, 6.3, 11.2). Pure: bytes in, verdict out.

use std::ops::Range;

use memchr::memchr;

use super::target::{self, NoTarget};
use crate::http1::field::{Field, Fields, lists};

/// Why a head is refused. The connection is closed after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line ends with a bare LF, or holds a bare CR.
    #[error("a bare CR or LF in the request head")]
    BareLineEnd,
    /// A header line begins with white space.
    #[error("a folded header line")]
    Folded,
    /// A header line without a colon, or whose name is no token up to the colon (white space before it, for instance).
    #[error("a header line without a name that ends at its colon")]
    HeaderName,
    /// A control character in a header's value.
    #[error("a control character in a header")]
    HeaderValue,
    /// Both Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    TwoLengths,
    /// Content-Length more than once, or not a plain number.
    #[error("a Content-Length that is repeated or not a number")]
    ContentLength,
    /// A Transfer-Encoding other than a single `chunked`, or in HTTP/1.0.
    #[error("a Transfer-Encoding other than chunked")]
    TransferEncoding,
    /// Not exactly one Host in HTTP/1.1, or one that is no name of a host; over HTTP/2 one that is not the authority.
    #[error("not exactly one Host header that is a host")]
    Host,
    /// An expectation that is not 100-continue: who understands it in part would wait for what nobody sends.
    #[error("an Expect other than 100-continue")]
    Expect,
    /// A request line without three parts, a method that is no token, or another protocol.
    #[error("a request line that is not HTTP/1")]
    RequestLine,
    /// A target that no URL parser takes.
    #[error("{NoTarget}")]
    Target,
    /// A chunk that breaks the rules of the chunked coding.
    #[error("a broken chunk in the request body")]
    Chunk,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// This many bytes, then the next head.
    Known(u64),
    /// Chunks, then the next head.
    Chunked,
}

/// A head that can be read in one way only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the head, with the empty line at its end.
    pub length: usize,
    /// Where the method stands.
    pub method: Range<usize>,
    /// Where the target stands.
    pub target: Range<usize>,
    /// What has to stand in the target's place ([`target::look`]).
    pub encoded_target: Option<Vec<u8>>,
    /// HTTP/1.0, not 1.1.
    pub is_http_10: bool,
    /// The header lines, in their order.
    pub fields: Fields,
    /// What follows.
    pub body: BodyLength,
    /// Whether it asks for another protocol: until that is answered, nobody knows what the bytes behind it are.
    pub upgrades: bool,
    /// Whether the client wants another request on this connection (RFC 9112 9.3).
    pub keeps_alive: bool,
    /// Whether the client waits for 100 Continue before it sends the body (RFC 9110 10.1.1).
    pub expects_continue: bool,
}

/// Looks for a complete head at the beginning of `bytes`; `None` when more bytes are needed.
/// `searched` bytes are known to hold no end of a head, so that a head in many pieces is not read from its start each time: then it is read
/// when its end has come.
///
/// # Errors
/// [`Malformed`] when the head could be read in two ways.
pub fn head(bytes: &[u8], searched: usize) -> Result<Option<Head>, Malformed> {
    // One empty line before a request is a habit of old clients and harmless (RFC 9112 2.2).
    let start = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let from = searched.saturating_sub(3).max(start);
    if searched > 0 && end_of_head(bytes, from)?.is_none() {
        return Ok(None);
    }
    let mut reader = Reader::new();
    let mut at = start;
    while let Some(newline) = memchr(b'\n', bytes.get(at..).unwrap_or_default()) {
        let line = bytes.get(at..at + newline).and_then(|line| line.strip_suffix(b"\r"));
        let line = line.ok_or(Malformed::BareLineEnd)?;
        match (line.is_empty(), at == start) {
            (_, true) => reader.request_line(line, at)?,
            (true, false) => return reader.finish(at + newline + 1).map(Some),
            (false, false) => reader.header(line, at)?,
        }
        at += newline + 1;
    }
    Ok(None)
}

/// The index behind the empty line. Refuses bare line ends on the way, so that they never wait for more bytes.
fn end_of_head(bytes: &[u8], from: usize) -> Result<Option<usize>, Malformed> {
    let mut at = from;
    while let Some(offset) = memchr(b'\n', bytes.get(at..).unwrap_or_default()) {
        let newline = at + offset;
        if newline == 0 || bytes.get(newline - 1) != Some(&b'\r') {
            return Err(Malformed::BareLineEnd);
        }
        if newline >= 3 && bytes.get(newline - 3..newline) == Some(b"\r\n\r") {
            return Ok(Some(newline + 1));
        }
        at = newline + 1;
    }
    Ok(None)
}

/// A head while its lines are read.
struct Reader {
    head: Head,
    hosts: usize,
    content_length: Option<u64>,
    is_chunked: bool,
    /// What `Connection` says: close, keep-alive.
    connection: (bool, bool),
}

impl Reader {
    fn new() -> Self {
        let head = Head {
            length: 0,
            method: 0..0,
            target: 0..0,
            encoded_target: None,
            is_http_10: false,
            fields: Fields::new(),
            body: BodyLength::Known(0),
            upgrades: false,
            keeps_alive: true,
            expects_continue: false,
        };
        Self { head, hosts: 0, content_length: None, is_chunked: false, connection: (false, false) }
    }

    fn request_line(&mut self, line: &[u8], at: usize) -> Result<(), Malformed> {
        if memchr(b'\r', line).is_some() {
            return Err(Malformed::BareLineEnd);
        }
        let mut parts = line.split(|byte| *byte == b' ');
        let (method, target, version) = (parts.next(), parts.next(), parts.next());
        let (Some(method), Some(target), None) = (method, target, parts.next()) else {
            return Err(Malformed::RequestLine);
        };
        if !is_token(method) {
            return Err(Malformed::RequestLine);
        }
        self.head.method = at..at + method.len();
        let start = at + method.len() + 1;
        self.head.target = start..start + target.len();
        self.head.encoded_target = target::look(target).map_err(|NoTarget| Malformed::Target)?;
        match version {
            Some(b"HTTP/1.1") => Ok(()),
            Some(b"HTTP/1.0") => {
                self.head.is_http_10 = true;
                Ok(())
            }
            _ => Err(Malformed::RequestLine),
        }
    }

    fn header(&mut self, line: &[u8], at: usize) -> Result<(), Malformed> {
        // A CR alone is looked for where something is wrong already: it is allowed in no part of a line.
        let wrong = |why| if memchr(b'\r', line).is_some() { Malformed::BareLineEnd } else { why };
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(wrong(Malformed::Folded));
        }
        // Names are short: one look at each byte is less than a search.
        let colon = line.iter().position(|byte| !TOKEN[usize::from(*byte)]).unwrap_or(line.len());
        if colon == 0 || line.get(colon) != Some(&b':') {
            return Err(wrong(Malformed::HeaderName));
        }
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default();
        // Folded over all bytes instead of a search, so that the compiler can look at many at once.
        if value
            .iter()
            .fold(false, |bad, byte| bad | ((*byte < b' ') & (*byte != b'\t')) | (*byte == 0x7f))
        {
            return Err(wrong(Malformed::HeaderValue));
        }
        let from = at + colon + 1 + (value.len() - value.trim_ascii_start().len());
        let value = value.trim_ascii();
        self.head.fields.push(Field::new(at..at + name.len(), from..from + value.len()));
        self.about_the_message(name, value)
    }

    /// Headers that say where the message ends, and what becomes of its connection.
    fn about_the_message(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        // Most names are none of these; their length tells without a comparison.
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if !value.iter().all(|byte| HOST[usize::from(*byte)]) {
                    return Err(Malformed::Host);
                }
                self.hosts += 1;
            }
            6 if name.eq_ignore_ascii_case(b"expect") => {
                if !is_continue(value) {
                    return Err(Malformed::Expect);
                }
                self.head.expects_continue = true;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.head.upgrades = true,
            10 if name.eq_ignore_ascii_case(b"connection") => {
                self.connection.0 |= lists(value, "close");
                self.connection.1 |= lists(value, "keep-alive");
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_length(value).ok_or(Malformed::ContentLength)?;
                if self.content_length.replace(length).is_some() {
                    return Err(Malformed::ContentLength);
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed::TransferEncoding);
                }
                self.is_chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(self, length: usize) -> Result<Head, Malformed> {
        let Self { mut head, hosts, content_length, is_chunked, connection } = self;
        if hosts > 1 || (hosts == 0 && !head.is_http_10) {
            return Err(Malformed::Host);
        }
        head.body = match (is_chunked, content_length) {
            (true, Some(_)) => return Err(Malformed::TwoLengths),
            (true, None) if head.is_http_10 => return Err(Malformed::TransferEncoding),
            (true, None) => BodyLength::Chunked,
            (false, length) => BodyLength::Known(length.unwrap_or(0)),
        };
        head.length = length;
        let (closes, keeps) = connection;
        head.keeps_alive = !closes && (!head.is_http_10 || keeps);
        // HTTP/1.0 knows no 100 (RFC 9110 10.1.1).
        head.expects_continue &= !head.is_http_10;
        Ok(head)
    }
}

/// Bytes of a token (RFC 9110 5.6.2).
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+'
            | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Bytes of a host with its port (RFC 9110 7.2, RFC 3986 3.2.2).
const HOST: [bool; 256] = {
    let mut table = TOKEN;
    let mut more = b"(),;=:[]".as_slice();
    while let [byte, rest @ ..] = more {
        table[*byte as usize] = true;
        more = rest;
    }
    let mut fewer = b"#^`|".as_slice();
    while let [byte, rest @ ..] = fewer {
        table[*byte as usize] = false;
        fewer = rest;
    }
    table
};

/// Whether an `Expect` is the one that there is (RFC 9110 10.1.1).
#[must_use]
pub fn is_continue(expect: &[u8]) -> bool {
    expect.eq_ignore_ascii_case(b"100-continue")
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| TOKEN[usize::from(*byte)])
}

/// Digits only: no sign, no list, no white space (RFC 9110 8.6), and not more than the length of anything that is counted with a sign: a
/// side that counts so would read another number.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let length = std::str::from_utf8(value).ok()?.parse::<i64>().ok()?;
    u64::try_from(length).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Malformed> {
        head(text.as_bytes(), 0)
    }

    /// The lines of a head, as it was read.
    fn lines(text: &str, head: &Head) -> Vec<String> {
        let first = format!("{} {}", &text[head.method.clone()], &text[head.target.clone()]);
        let field = |field: &Field| format!("{}={}", &text[field.name()], &text[field.value()]);
        std::iter::once(first).chain(head.fields.iter().map(field)).collect()
    }

    #[test]
    fn plain_heads_pass() {
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
        let known = "POST /a?b HTTP/1.1\r\nhost:a\r\ncontent-length: \t12 \r\n\r\n";
        for (text, body, want) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", BodyLength::Known(0), &["GET /", "Host=a"][..]),
            ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", BodyLength::Known(0), &["GET /", "Host=a"]),
            ("GET / HTTP/1.0\r\n\r\n", BodyLength::Known(0), &["GET /"]),
            (known, BodyLength::Known(12), &["POST /a?b", "host=a", "content-length=12"]),
            (chunked, BodyLength::Chunked, &["POST /", "Host=a", "Transfer-Encoding=Chunked"]),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nx-empty:\r\ny:  \r\n\r\n",
                BodyLength::Known(0),
                &["GET /", "Host=a", "x-empty=", "y="],
            ),
        ] {
            let head = read(text).unwrap().unwrap();
            assert_eq!((head.length, head.body), (text.len(), body), "{text:?}");
            assert_eq!(lines(text, &head), want, "{text:?}");
        }
    }

    #[test]
    fn what_becomes_of_the_connection_is_read() {
        let head = |version: &str, fields: &str| {
            read(&format!("GET / {version}\r\nHost: a\r\n{fields}\r\n")).unwrap().unwrap()
        };
        for (version, fields, keeps_alive) in [
            ("HTTP/1.1", "", true),
            ("HTTP/1.1", "Connection: close\r\n", false),
            ("HTTP/1.1", "Connection: x, Close\r\n", false),
            ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
            ("HTTP/1.0", "", false),
            ("HTTP/1.0", "connection: Keep-Alive\r\n", true),
        ] {
            assert_eq!(head(version, fields).keeps_alive, keeps_alive, "{version} {fields:?}");
        }
        assert!(head("HTTP/1.1", "Expect: 100-Continue\r\n").expects_continue);
        assert!(!head("HTTP/1.0", "Expect: 100-Continue\r\n").expects_continue);
        assert!(head("HTTP/1.1", "Upgrade: websocket\r\n").upgrades);
        assert!(head("HTTP/1.0", "").is_http_10);
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        use Malformed as M;
        for (text, why) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", M::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", M::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", M::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", M::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n", M::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\nX\rY\r\n\r\n", M::BareLineEnd),
            ("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", M::BareLineEnd),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", M::BareLineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", M::Folded),
            ("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", M::Folded),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", M::HeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length\t: 1\r\n\r\n", M::HeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", M::HeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", M::HeaderName),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                M::TwoLengths,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
                M::TwoLengths,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
                M::ContentLength,
            ),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", M::ContentLength),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", M::ContentLength),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", M::ContentLength),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x10\r\n\r\n", M::ContentLength),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                M::TransferEncoding,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                M::TransferEncoding,
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                M::TransferEncoding,
            ),
            (
                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                M::TransferEncoding,
            ),
            ("GET / HTTP/1.1\r\n\r\n", M::Host),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", M::Host),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", M::RequestLine),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", M::RequestLine),
            ("GET /\r\nHost: a\r\n\r\n", M::RequestLine),
            ("GET /\tHTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", M::Target),
            ("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", M::RequestLine),
            ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", M::Target),
            ("GET / HTTP/1.1\r\nHost: a\r\nX(Y: b\r\n\r\n", M::HeaderName),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", M::HeaderValue),
            ("GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", M::HeaderValue),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
                M::HeaderValue,
            ),
        ] {
            assert_eq!(read(text), Err(why), "{text:?}");
        }
    }

    #[test]
    fn fields_that_others_may_read_in_another_way_are_refused() {
        use Malformed as M;
        for (field, want) in [
            ("Host: a b", Err(M::Host)),
            ("Host: a/b", Err(M::Host)),
            ("Host: user@a", Err(M::Host)),
            ("Host: a#b", Err(M::Host)),
            ("Host: \u{e9}", Err(M::Host)),
            ("Host: a.b-c_d~:8080", Ok(())),
            ("Host: [fe80::1%25en0]:80", Ok(())),
            ("Host:", Ok(())),
            ("Host: a\r\nExpect: 100-Continue", Ok(())),
            ("Host: a\r\nExpect: x", Err(M::Expect)),
            ("Host: a\r\nExpect: 100-continue, x", Err(M::Expect)),
            ("Host: a\r\nContent-Length: 9223372036854775807", Ok(())),
            ("Host: a\r\nContent-Length: 9223372036854775808", Err(M::ContentLength)),
        ] {
            let head = read(&format!("POST / HTTP/1.1\r\n{field}\r\n\r\n"));
            assert_eq!(head.map(|head| assert!(head.is_some())), want, "{field:?}");
        }
    }

    #[test]
    fn a_bare_line_end_is_refused_before_the_head_is_complete() {
        assert_eq!(read("GET / HTTP/1.1\nHost"), Err(Malformed::BareLineEnd));
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r"), Ok(None));
    }

    proptest! {
        #[test]
        fn never_panics_and_pieces_do_not_matter(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let cut = cut.min(bytes.len());
            if head(&bytes[..cut], 0) == Ok(None) {
                // A head that comes in pieces is looked at again when it has come to its end, or can't.
                let resumed = head(&bytes, cut);
                prop_assert!(resumed == Ok(None) || resumed == head(&bytes, 0));
            }
        }
    }
}
