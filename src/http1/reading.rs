//! A body, read from its stream.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncRead;

use super::chunks::BrokenChunk;
use super::decoder::{Decoder, Step};
use super::link::Link;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyBroke {
    /// The stream failed.
    #[error(transparent)]
    Stream(#[from] io::Error),
    /// It ended before the body did.
    #[error("the connection ended before the body did")]
    Ended,
    /// Its coding is broken.
    #[error(transparent)]
    Coding(#[from] BrokenChunk),
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// The next piece of a body. Once it has failed there is nothing more to be had of the stream.
///
/// # Errors
/// [`BodyBroke`].
pub fn poll_frame<S: AsyncRead + Unpin>(
    link: &mut Link<S>,
    decoder: &mut Decoder,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyBroke>>> {
    loop {
        let frame = match decoder {
            Decoder::Done => return Poll::Ready(None),
            Decoder::Known(left) => {
                let piece = ready!(link.poll_piece(cx, *left))?;
                if piece.is_empty() {
                    return Poll::Ready(Some(Err(BodyBroke::Ended)));
                }
                *left -= piece.len() as u64;
                if *left == 0 {
                    *decoder = Decoder::Done;
                }
                Frame::data(piece)
            }
            Decoder::UntilClose => {
                let piece = ready!(link.poll_piece(cx, u64::MAX))?;
                if piece.is_empty() {
                    *decoder = Decoder::Done;
                    continue;
                }
                Frame::data(piece)
            }
            Decoder::Chunked(coded) => match coded.step(link.held_mut())? {
                Step::Data(piece) => {
                    if coded.ends_here(link.held_mut()) {
                        *decoder = Decoder::Done;
                    }
                    Frame::data(piece)
                }
                Step::Trailers(trailers) => {
                    *decoder = Decoder::Done;
                    Frame::trailers(trailers)
                }
                Step::Done => {
                    *decoder = Decoder::Done;
                    continue;
                }
                Step::More => match ready!(link.poll_more(cx))? {
                    0 => return Poll::Ready(Some(Err(BodyBroke::Ended))),
                    _ => continue,
                },
            },
        };
        return Poll::Ready(Some(Ok(frame)));
    }
}
