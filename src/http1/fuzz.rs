//! What must hold for any bytes at all that a side may send: for the fuzzer, and for the property beside it.

use bytes::BytesMut;
use http::{HeaderMap, Method, StatusCode};

use super::decoder::{Decoder, Step};
use super::response::read;

/// A response, and what stands behind it.
#[derive(Debug, PartialEq, Eq)]
struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

/// Why there is no whole message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Not {
    Unfinished,
    Broken,
}

/// Reads any bytes as a response, at once and in pieces: it must be the same one.
///
/// # Errors
/// The law that was broken.
pub fn laws(bytes: &[u8]) -> Result<(), String> {
    let Some((size, text)) = bytes.split_first() else { return Ok(()) };
    let method = if size & 0x80 == 0 { Method::GET } else { Method::HEAD };
    let whole = response(&method, std::iter::once(text));
    let pieces = response(&method, text.chunks(usize::from(size & 0x7f) + 1));
    match (&whole, &pieces) {
        // What is broken may be known later: when the head ends, or at its limit.
        (Err(Not::Broken), Err(_)) => Ok(()),
        _ if whole == pieces => Ok(()),
        _ => Err(format!("at once {whole:?}, in pieces {pieces:?}")),
    }
}

/// A body, and what stands behind it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) trailers: HeaderMap,
    /// What was read and belongs to the next message.
    pub(crate) rest: Vec<u8>,
}

fn response<'a>(
    method: &Method,
    mut pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Response, Not> {
    let (mut held, mut seen) = (BytesMut::new(), 0);
    let mut head = loop {
        match read(&mut held, &mut seen).map_err(|_| Not::Broken)? {
            Some(head) => break head,
            None => held.extend_from_slice(pieces.next().ok_or(Not::Unfinished)?),
        }
    };
    let decoder = head.body(method).map_err(|_| Not::Broken)?;
    let body = body(decoder, held, pieces)?;
    Ok(Response { status: head.status, headers: head.headers, body })
}

/// Reads a body to its end, of which `held` is there already.
pub(crate) fn body<'a>(
    mut decoder: Decoder,
    mut held: BytesMut,
    mut pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Body, Not> {
    let mut body = Body::default();
    loop {
        match &mut decoder {
            Decoder::Done => break,
            Decoder::Known(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(held.len());
                body.bytes.extend_from_slice(&held.split_to(most));
                *left -= most as u64;
                if *left == 0 {
                    break;
                }
            }
            Decoder::UntilClose => body.bytes.extend_from_slice(&held.split()),
            Decoder::Chunked(coded) => match coded.step(&mut held).map_err(|_| Not::Broken)? {
                Step::Data(data) => {
                    body.bytes.extend_from_slice(&data);
                    if coded.ends_here(&mut held) {
                        break;
                    }
                    continue;
                }
                Step::Trailers(fields) => {
                    body.trailers = fields;
                    break;
                }
                Step::Done => break,
                Step::More => {}
            },
        }
        match (pieces.next(), &decoder) {
            (Some(piece), _) => held.extend_from_slice(piece),
            (None, Decoder::UntilClose) => break,
            (None, _) => return Err(Not::Unfinished),
        }
    }
    body.rest = held.to_vec();
    pieces.for_each(|piece| body.rest.extend_from_slice(piece));
    Ok(body)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_laws_hold(
            size in any::<u8>(),
            fields in prop::sample::subsequence(vec!["content-length: 5", "transfer-encoding: chunked", "connection: close", "x: y"], 0..4),
            line in prop::sample::select(vec!["HTTP/1.1 200 OK", "HTTP/1.0 200", "HTTP/1.1 304 Not Modified", "HTTP/1.1 100 Continue"]),
            body in prop::collection::vec(prop::sample::select(vec!["5\r\nhello\r\n", "0\r\n", "x: y\r\n", "\r\n", "hello", "1\r\n", "a\r\n"]), 0..6),
        ) {
            let mut bytes = vec![size];
            bytes.extend_from_slice(format!("{line}\r\n{}\r\n\r\n{}", fields.join("\r\n"), body.concat()).as_bytes());
            prop_assert_eq!(laws(&bytes), Ok(()));
        }

        #[test]
        fn the_laws_hold_for_garbage(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(laws(&bytes), Ok(()));
        }
    }
}
