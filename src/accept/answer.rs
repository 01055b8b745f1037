//! An answer on a client's HTTP/1 connection: waited for, while the client is still there, and written as it comes.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode, Version, header};
use http_body::{Body, SizeHint};
use hyper::ext::ReasonPhrase;
use tokio::sync::oneshot;

use super::wire::{Told, Wire};
use crate::http1::encoder::{self, Framing};
use crate::http1::field::lists;
use crate::http1::incoming::Shared;
use crate::http1::link::ENOUGH;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;

/// What of a request its answer depends on.
#[derive(Debug)]
pub(super) struct Asked {
    /// The answer has no body, whatever its head says.
    pub(super) is_head: bool,
    /// What the client speaks.
    pub(super) version: Version,
    /// Whether the client wants another request on this connection.
    pub(super) keeps_alive: bool,
    /// Where the connection goes if the answer is 101.
    pub(super) handover: Option<oneshot::Sender<Upgraded<Stream>>>,
}

impl Asked {
    /// What could not be read, or not at all.
    pub(super) const fn refused() -> Self {
        Self { is_head: false, version: Version::HTTP_11, keeps_alive: false, handover: None }
    }
}

/// What follows an answer.
#[derive(Debug)]
pub(super) enum After {
    /// The next request.
    Next,
    /// The end, in good order.
    Close,
    /// The end: the client is gone, or has to see that its answer is not whole.
    Gone,
    /// Another protocol.
    Upgraded(oneshot::Sender<Upgraded<Stream>>),
}

/// Waits for an answer and writes it. When the client goes away the answer is not waited for.
pub(super) async fn exchange<B>(
    shared: &Shared,
    wire: &Wire,
    asked: Asked,
    answering: impl Future<Output = Result<Response<B>, Infallible>>,
) -> After
where
    B: Body<Data = Bytes> + Unpin,
{
    // What it is written from stands here alone, and is not moved any more: a connection is as large as what it holds while it waits.
    let mut sending = None;
    {
        let mut answering = pin!(answering);
        let waiting = poll_fn(|cx| match answering.as_mut().poll(cx) {
            Poll::Ready(Ok(response)) => {
                sending = Some(Sending::new(response, shared, wire, &asked));
                Poll::Ready(())
            }
            Poll::Pending if is_gone(shared, cx) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        });
        waiting.await;
    }
    let Some(sending) = &mut sending else { return After::Gone };
    if poll_fn(|cx| sending.poll(shared, wire, cx)).await.is_err() {
        return After::Gone;
    }
    match asked.handover {
        Some(handover) if sending.switches => After::Upgraded(handover),
        _ if sending.keeps_alive => After::Next,
        _ => After::Close,
    }
}

/// Whether the client has closed its connection. What it sends instead is the next request's, and is kept; then nobody can tell.
fn is_gone(shared: &Shared, cx: &mut Context<'_>) -> bool {
    if shared.is_read(cx) {
        return false;
    }
    let mut link = shared.link.borrow_mut();
    link.held().is_empty()
        && shared.decoder.borrow().is_done()
        && matches!(link.poll_fill(cx), Poll::Ready(Ok(0) | Err(_)))
}

/// Writes everything that waits, unless the client has taken nothing for too long.
fn poll_written(shared: &Shared, wire: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
    let mut link = shared.link.borrow_mut();
    let begins = link.begins();
    match link.poll_flush(cx) {
        Poll::Ready(written) => {
            wire.is_read();
            Poll::Ready(written.map_err(|_| Broken))
        }
        // It only lets others go first.
        Poll::Pending if begins => Poll::Pending,
        Poll::Pending => {
            wire.waits_for_reader(link.taken());
            if wire.listens(cx) < Told::Overdue {
                return Poll::Pending;
            }
            // What the system holds for the client goes with it.
            link.io().will_reset();
            Poll::Ready(Err(Broken))
        }
    }
}

fn closes(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| lists(value.as_bytes(), "close"))
}

/// Writes the head of an answer, and says how its body has to be framed (RFC 9112 6).
fn head(
    out: &mut Vec<u8>,
    parts: &Parts,
    asked: &Asked,
    keeps_alive: bool,
    size: &SizeHint,
) -> Framing {
    let Parts { status, headers, .. } = parts;
    let reason = parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
    encoder::status_line(out, asked.version, *status, reason);
    // These two say nothing of a body, and a client would wait for one (RFC 9110 8.6).
    let is_bare = status.is_informational() || *status == StatusCode::NO_CONTENT;
    for (name, value) in headers {
        // Said once, below, and only as it is kept: two lengths, or a length and a coding, could be read in two ways.
        if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
            encoder::field(out, name.as_str(), value.as_bytes());
        }
    }
    let said = said_length(headers);
    let has_none = asked.is_head || *status == StatusCode::NOT_MODIFIED;
    let framing = match said.or_else(|| size.exact()) {
        _ if is_bare => Framing::None,
        Some(length) => {
            // Where there is no body its length is the side's to say.
            if said.is_some() || !has_none {
                encoder::length(out, length);
            }
            if has_none { Framing::None } else { Framing::Length(length) }
        }
        None if has_none => Framing::None,
        None if asked.version == Version::HTTP_10 => Framing::Close,
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::chunked(headers)
        }
    };
    if !headers.contains_key(header::CONNECTION) {
        match (keeps_alive && framing != Framing::Close, asked.version) {
            (true, Version::HTTP_10) => out.extend_from_slice(b"connection: keep-alive\r\n"),
            (true, _) => {}
            (false, _) => out.extend_from_slice(b"connection: close\r\n"),
        }
    }
    if !headers.contains_key(header::DATE) && !status.is_informational() {
        encoder::field(out, "date", date().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    framing
}

fn said_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What an answer without a date gets (RFC 9110 6.6.1): those of the proxy's own.
#[expect(clippy::disallowed_methods, reason = "a date is a fact of the clock")]
fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// A body on its way to the client.
struct Sending<B> {
    /// The answer is 101.
    switches: bool,
    /// Another request may follow.
    keeps_alive: bool,
    framing: Framing,
    /// Dropped when its end was seen.
    body: Option<B>,
    trailers: Option<HeaderMap>,
}

/// The answer can't be sent to its end.
struct Broken;

impl<B: Body<Data = Bytes> + Unpin> Sending<B> {
    /// Says the head of an answer. Its headers are not needed while the body goes, which may take long.
    fn new(response: Response<B>, shared: &Shared, wire: &Wire, asked: &Asked) -> Self {
        let (parts, body) = response.into_parts();
        let switches = parts.status == StatusCode::SWITCHING_PROTOCOLS;
        let keeps_alive =
            asked.keeps_alive && !closes(&parts.headers) && wire.told() == Told::Nothing;
        let framing = {
            let mut link = shared.link.borrow_mut();
            head(link.say(), &parts, asked, keeps_alive || switches, &body.size_hint())
        };
        let keeps_alive = keeps_alive && framing != Framing::Close;
        Self { switches, keeps_alive, framing, body: Some(body), trailers: None }
    }

    /// Writes as it comes, together with what comes at once, and never far ahead of what the client reads.
    fn poll(
        &mut self,
        shared: &Shared,
        wire: &Wire,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        loop {
            let is_waiting = match self.fill(shared, cx) {
                Ok(is_waiting) => is_waiting,
                Err(broken) => {
                    self.breaks_off(shared, cx);
                    return Poll::Ready(Err(broken));
                }
            };
            ready!(poll_written(shared, wire, cx))?;
            match (&self.body, is_waiting) {
                (None, _) => return Poll::Ready(Ok(())),
                (Some(_), true) if is_gone(shared, cx) => return Poll::Ready(Err(Broken)),
                (Some(_), true) => return Poll::Pending,
                (Some(_), false) => {}
            }
        }
    }

    /// Takes of the body what there is, as far as it is enough for now; answers whether it has to be waited for.
    fn fill(&mut self, shared: &Shared, cx: &mut Context<'_>) -> Result<bool, Broken> {
        while let Some(body) = &mut self.body {
            if shared.link.borrow().unwritten() >= ENOUGH {
                return Ok(false);
            }
            let is_over = match body.is_end_stream() {
                true => true,
                false => match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Pending => return Ok(true),
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Err(_))) => return Err(Broken),
                    Poll::Ready(Some(Ok(frame))) => {
                        let mut link = shared.link.borrow_mut();
                        match frame.into_data() {
                            Ok(piece) => self.framing.data(&mut link, piece),
                            Err(frame) => self.trailers = frame.into_trailers().ok(),
                        }
                        false
                    }
                },
            };
            if is_over {
                self.body = None;
                let mut link = shared.link.borrow_mut();
                self.framing.end(&mut link, self.trailers.as_ref()).map_err(|_| Broken)?;
            }
        }
        Ok(false)
    }

    /// The client gets what there was, as far as it takes it now, and has to see that it is not all.
    fn breaks_off(&self, shared: &Shared, cx: &mut Context<'_>) {
        let mut link = shared.link.borrow_mut();
        let _written = link.poll_flush_now(cx);
        if self.framing == Framing::Close {
            // The end of the connection would be the end of the body, so it must not look like an end.
            link.io().will_reset();
        }
    }
}
