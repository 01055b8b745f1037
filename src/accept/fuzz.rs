//! What must hold for any bytes at all that a client may send over HTTP/1: for the fuzzer, and for the properties beside it.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use super::framing::{self, BodyLength, Head};
use crate::http1::decoder::Decoder;
use crate::http1::fuzz::{Body, Not, body};

/// Header lines that the other parser is given room for. A head with more is refused by its number (`super::MAX_HEADERS`).
const ROOM: usize = 256;

/// A request, and what stands behind it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    head: Head,
    body: Body,
}

/// Reads any bytes as a request, at once and in pieces: it must be the same one. A head that is taken must be what another parser reads
/// there, and a body in chunks must end where a reader ends that knows nothing but the standard.
///
/// # Errors
/// The law that was broken.
pub fn laws(bytes: &[u8]) -> Result<(), String> {
    let Some((size, text)) = bytes.split_first() else { return Ok(()) };
    let whole = request(std::iter::once(text));
    let pieces = request(text.chunks(usize::from(*size) + 1));
    match (&whole, &pieces) {
        // What is broken may be known later: when the head ends.
        (Err(Not::Broken), Err(_)) => {}
        _ if whole == pieces => {}
        _ => return Err(format!("at once {whole:?}, in pieces {pieces:?}")),
    }
    if let Ok(Some(head)) = framing::head(text, 0) {
        read_by_another(&head, text)?;
    }
    let Ok(Request { head, body }) = whole else { return Ok(()) };
    if head.body == BodyLength::Chunked {
        let behind = text.get(head.length..).unwrap_or_default();
        let plain = plain_chunks(behind).ok_or("a plain reader finds no end of the chunks")?;
        if plain != (body.bytes, body.rest) {
            return Err(format!("a plain reader reads {plain:?}"));
        }
    }
    Ok(())
}

fn request<'a>(mut pieces: impl Iterator<Item = &'a [u8]>) -> Result<Request, Not> {
    let (mut held, mut searched) = (BytesMut::new(), 0);
    let head = loop {
        match framing::head(&held, searched).map_err(|_| Not::Broken)? {
            Some(head) => break head,
            None => searched = held.len(),
        }
        held.extend_from_slice(pieces.next().ok_or(Not::Unfinished)?);
    };
    let decoder = match head.body {
        BodyLength::Known(length) => Decoder::known(length),
        BodyLength::Chunked => Decoder::chunked(),
    };
    let _head = held.split_to(head.length.min(held.len()));
    Ok(Request { body: body(decoder, held, pieces)?, head })
}

/// A parser that many servers use. It may refuse what we take (nobody gets the client's own bytes), but must not read another request.
fn read_by_another(head: &Head, text: &[u8]) -> Result<(), String> {
    let mut room = [httparse::EMPTY_HEADER; ROOM];
    let mut other = httparse::Request::new(&mut room);
    let Ok(read) = other.parse(text) else { return Ok(()) };
    if read != httparse::Status::Complete(head.length) {
        return Err(format!("a head of {} bytes is {read:?} to another parser", head.length));
    }
    let at = |place: &std::ops::Range<usize>| text.get(place.clone()).unwrap_or_default();
    if other.method.map(str::as_bytes) != Some(at(&head.method))
        || other.path.map(str::as_bytes) != Some(at(&head.target))
        || other.version != Some(u8::from(!head.is_http_10))
    {
        return Err(format!("another parser reads {other:?}"));
    }
    let bytes = Bytes::copy_from_slice(text);
    let ours = head.fields.iter().map(|field| field.read(&bytes).ok());
    let theirs = other.headers.iter().map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    });
    if ours.eq(theirs) { Ok(()) } else { Err(format!("another parser reads {other:?}")) }
}

/// Chunks read as RFC 9112 7.1 has them, in the simplest way: the data, and what stands behind the body.
fn plain_chunks(mut text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut data = Vec::new();
    loop {
        let line;
        (line, text) = plain_line(text)?;
        let digits = line.split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        if size == 0 {
            break;
        }
        data.extend_from_slice(text.get(..size)?);
        text = text.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let line;
        (line, text) = plain_line(text)?;
        if line.is_empty() {
            return Some((data, text.to_vec()));
        }
    }
}

/// A line without its end, and what comes after it.
fn plain_line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.windows(2).position(|pair| pair == b"\r\n")?;
    Some((text.get(..end)?, text.get(end + 2..)?))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{select, subsequence};

    use super::*;

    const LINES: [&str; 12] = [
        "host: a",
        "Host:\ta \t",
        "content-length: 5",
        "content-length : 5",
        "transfer-encoding: chunked",
        "transfer-encoding: gzip, chunked",
        "connection: close, keep-alive",
        "expect: 100-continue",
        " folded",
        "x: \u{e4}",
        "x:",
        "y: 1\r",
    ];
    const CHUNKS: [&str; 10] = [
        "5\r\nhello\r\n",
        "5;a=\"b\"\r\nhello\r\n",
        "05\r\nhello\r\n",
        "0\r\n",
        "x: y\r\n",
        "\r\n",
        "hello",
        "5\nhello\r\n",
        "fffffffffffffff0\r\n",
        "GET / HTTP/1.1\r\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn the_laws_hold(
            size in any::<u8>(),
            line in select(vec!["GET / HTTP/1.1", "\r\nPOST /rest/v1/a?b=\"c\" HTTP/1.1", "PUT http://a/ HTTP/1.0", "GET  / HTTP/1.1"]),
            // Most that are drawn at random are refused, and say nothing of the body.
            fields in prop_oneof![subsequence(LINES.to_vec(), 0..6), Just(vec!["host: a", "transfer-encoding: chunked"])],
            body in vec(select(CHUNKS.to_vec()), 0..4),
            end in select(vec!["", "0\r\n\r\n", "0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n"]),
        ) {
            let head = format!("{line}\r\n{}\r\n\r\n", fields.join("\r\n"));
            let bytes = [&[size], head.as_bytes(), body.concat().as_bytes(), end.as_bytes()].concat();
            prop_assert_eq!(laws(&bytes), Ok(()));
        }

        #[test]
        fn the_laws_hold_for_garbage(bytes in vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(laws(&bytes), Ok(()));
        }
    }
}
