//! A client's HTTP/1 connection: heads in, one request at a time through the service, answers out. All of it is one task, and the
//! service's part of it too.
//!
//! A head reaches the service only when it is complete and beyond doubt ([`super::framing`]). One that is not is answered by the service
//! all the same ([`Wire::refused`]), so that the answer goes the way of all answers (JSON, logged, counted), and nothing is read after it.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri, Version};
use tokio::sync::oneshot;

use super::MAX_HEADERS;
use super::answer::{self, After, Asked};
use super::connection::{Answers, Terms};
use super::framing::{self, BodyLength, Head, Malformed};
use super::target;
use super::wire::{Refused, Told, Wire};
use crate::http1::chunks::Chunks;
use crate::http1::decoder::Decoder;
use crate::http1::field;
use crate::http1::incoming::{Incoming, Shared};
use crate::http1::link::Link;
use crate::http1::reading::poll_frame;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;

/// How long the last bytes may take to go, and a client that was answered early may go on sending.
const LINGER: Duration = Duration::from_millis(500);

/// How long a client with another protocol is silent before it is asked whether it is still there; after twice that it is not.
const ALIVE: Duration = Duration::from_secs(60);

/// How much of a body that nobody wanted is read to keep its connection.
const READ_ON: usize = 16;

/// Serves a connection to its end.
pub(super) async fn serve(
    link: Link<Stream>,
    wire: &Rc<Wire>,
    terms: &Terms,
    mut service: impl Answers,
) {
    let shared = Shared::new(link);
    loop {
        let mut searched = 0;
        let next = poll_fn(|cx| poll_request(&shared, wire, terms, &mut searched, cx)).await;
        let Some((request, asked)) = next else { break };
        let answering = service.call(request);
        let after = answer::exchange(&shared, wire, asked, answering).await;
        if matches!(after, After::Next | After::Close) {
            // A body may be on its way still when its request has been answered, and whoever sends it on is the one who reads here.
            poll_fn(|cx| if shared.is_read(cx) { Poll::Pending } else { Poll::Ready(()) }).await;
        }
        match after {
            After::Next if poll_fn(|cx| Poll::Ready(reads_on(&shared, cx))).await => {}
            After::Next | After::Close => break,
            After::Gone => return,
            After::Upgraded(handover) => {
                shared.link.borrow().io().asks_whether_it_lives(ALIVE);
                if let Ok(shared) = Rc::try_unwrap(shared) {
                    let upgraded = Upgraded::new(shared.link.into_inner().into_parts());
                    // Whoever asked for it may have gone.
                    let _gone = handover.send(upgraded);
                }
                return;
            }
        }
    }
    // A client that does not read could keep even a close from ending.
    let _late = tokio::time::timeout(LINGER, poll_fn(|cx| poll_close(&shared, wire, cx))).await;
}

/// The next request; `None` when there is none any more.
fn poll_request(
    shared: &Rc<Shared>,
    wire: &Wire,
    terms: &Terms,
    searched: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<Option<(Request<Incoming>, Asked)>> {
    let mut link = shared.link.borrow_mut();
    loop {
        if !link.held().is_empty() {
            match look(&mut link, terms, searched) {
                Ok(Some((head, bytes))) => {
                    wire.head_ends();
                    drop(link);
                    return Poll::Ready(Some(request(shared, &head, bytes)));
                }
                Ok(None) => wire.head_begins(),
                Err(why) => {
                    wire.refuse(why);
                    wire.head_ends();
                    return Poll::Ready(Some((Request::new(Incoming::Empty), Asked::refused())));
                }
            }
        }
        match link.poll_fill(cx) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(None),
            Poll::Ready(Ok(_)) => {}
            // When the proxy stops, a head that has begun is waited for, and one that hasn't is not.
            Poll::Pending => match wire.listens(cx) {
                Told::Nothing | Told::Leave => return Poll::Pending,
                Told::Stop if !link.held().is_empty() => return Poll::Pending,
                Told::Stop | Told::Overdue | Told::Flood => return Poll::Ready(None),
            },
        }
    }
}

/// Looks for a head in what is held, and takes it; `None` when more is needed.
fn look(
    link: &mut Link<Stream>,
    terms: &Terms,
    searched: &mut usize,
) -> Result<Option<(Head, Bytes)>, Refused> {
    let limit = terms.limits.header_bytes;
    let head = match framing::head(link.held(), *searched).map_err(Refused::Malformed)? {
        Some(head) if is_too_large(&head, limit) => return Err(Refused::HeadTooLarge),
        None if link.held().len() > limit => return Err(Refused::HeadTooLarge),
        None => {
            *searched = link.held().len();
            return Ok(None);
        }
        Some(head) => match terms.refused {
            Some(why) => return Err(why),
            None => head,
        },
    };
    // What of a chunked body is here already is looked at before its head is let go: now there still is an answer.
    if head.body == BodyLength::Chunked {
        let here = link.held().get(head.length..).unwrap_or_default();
        let looked = Chunks::default().advance(here);
        looked.map_err(|_| Refused::Malformed(Malformed::Chunk))?;
    }
    let bytes = link.take_held(head.length);
    Ok(Some((head, bytes)))
}

fn is_too_large(head: &Head, limit: usize) -> bool {
    head.length > limit
        || head.fields.len() > MAX_HEADERS
        || head.target.len() > target::LONGEST
        || head.encoded_target.as_ref().is_some_and(|encoded| encoded.len() > target::LONGEST)
}

/// A head in the types that the service knows, with its body and what its answer depends on.
fn request(shared: &Rc<Shared>, head: &Head, bytes: Bytes) -> (Request<Incoming>, Asked) {
    let (handover, body) = match head.body {
        BodyLength::Known(0) if head.upgrades => {
            let (handover, upgraded) = oneshot::channel();
            (Some(handover), Incoming::Upgrade(upgraded))
        }
        BodyLength::Known(length) => {
            (None, shared.body(Decoder::known(length), head.expects_continue))
        }
        BodyLength::Chunked => (None, shared.body(Decoder::chunked(), head.expects_continue)),
    };
    let method = bytes.get(head.method.clone()).unwrap_or_default();
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(method).unwrap_or_default();
    *request.uri_mut() = match &head.encoded_target {
        // What framing lets through can be parsed.
        None => Uri::from_maybe_shared(bytes.slice(head.target.clone())).unwrap_or_default(),
        Some(encoded) => Uri::try_from(encoded.as_slice()).unwrap_or_default(),
    };
    *request.version_mut() = if head.is_http_10 { Version::HTTP_10 } else { Version::HTTP_11 };
    *request.headers_mut() = headers(head, &bytes);
    let asked = Asked {
        is_head: request.method() == Method::HEAD,
        version: request.version(),
        keeps_alive: head.keeps_alive,
        handover,
    };
    (request, asked)
}

fn headers(head: &Head, bytes: &Bytes) -> HeaderMap {
    let mut headers = field::map(head.fields.len());
    for field in &head.fields {
        // It can be read: framing has looked at it.
        if let Ok((name, value)) = field.read(bytes) {
            headers.append(name, value);
        }
    }
    headers
}

/// Reads what is left of a body that the service did not want, if it is here; answers whether the next head can follow.
fn reads_on(shared: &Shared, cx: &mut Context<'_>) -> bool {
    let (mut link, mut decoder) = (shared.link.borrow_mut(), shared.decoder.borrow_mut());
    for _ in 0..READ_ON {
        if decoder.is_done()
            || shared.owes_continue.get()
            || !matches!(poll_frame(&mut link, &mut decoder, cx), Poll::Ready(Some(Ok(_))))
        {
            break;
        }
    }
    decoder.is_done()
}

/// Closes the connection. Closing a socket with unread bytes in it resets the connection, and the answer would be lost with it: what a
/// client still sends after it was answered early is read and forgotten.
fn poll_close(shared: &Shared, wire: &Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut link = shared.link.borrow_mut();
    ready!(link.poll_flush(cx))?;
    ready!(link.poll_shutdown(cx))?;
    while wire.lingers() {
        link.held_mut().clear();
        if ready!(link.poll_fill(cx))? == 0 {
            break;
        }
    }
    Poll::Ready(Ok(()))
}
