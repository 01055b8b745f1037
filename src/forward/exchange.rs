//! One request and the head of its response on an HTTP/1 connection, in the task of whoever asks: the request's head and what there is of
//! its body go with one write, and both directions are followed at once.

use std::borrow::Cow;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::Body;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{Broken, ForwardError, INTERIM};
use super::lease::Lease;
use super::request_body::{BodyFault, BodyState, RequestBody};
use crate::http1::encoder::{Framing, field, length, request_line};
use crate::http1::link::{ENOUGH, Link};
use crate::http1::response::{Head, read};
use crate::http1::stream::Stream;

/// A request as it can be said on any connection to its side.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) method: Method,
    /// Path and query, raw.
    pub(super) target: PathAndQuery,
    /// Everything but Host.
    pub(super) headers: HeaderMap,
    /// Taken from here when it is sent.
    pub(super) body: RequestBody,
}

/// What is waited for beside the head of the response, and how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting<'a> {
    pub(super) timeout: Duration,
    /// Told when the side says 100 Continue.
    pub(super) continued: Option<&'a Notify>,
    /// What the body tells of its way; `None` where it goes with its head.
    pub(super) body: Option<&'a BodyState>,
}

impl Waiting<'_> {
    /// When the time is over of a request that was sent at `sent_at`. It runs while it is the side's turn: from the request's last byte,
    /// or while it does not take the next one. An upload may take as long as its client goes on sending, which the body itself watches.
    pub(super) fn due(&self, sent_at: Instant) -> Instant {
        let since = self.body.map_or(Some(sent_at), BodyState::sides_turn_since);
        since.unwrap_or_else(Instant::now) + self.timeout
    }
}

/// A request that is being sent, and its response waited for.
#[derive(Debug)]
pub(super) struct Exchange {
    lease: Box<Lease>,
    upload: Upload,
    /// What was read of the head in vain.
    seen: usize,
    interim: u8,
    /// Something of a response has come.
    is_heard: bool,
    /// The connection was used before: a side may have closed it for no reason that has to do with this request.
    is_kept: bool,
    /// The request could not be written; a response may have been sent before that.
    unwritten: Option<io::Error>,
}

impl Exchange {
    /// Says a request on a connection. Nothing is written yet.
    pub(super) fn new(
        mut lease: Box<Lease>,
        is_kept: bool,
        message: &mut Message,
        host: &HeaderValue,
    ) -> Self {
        let framing = say(lease.link.say(), message, host);
        let body = mem::replace(&mut message.body, RequestBody::Empty);
        let upload = Upload::new(body, framing);
        Self { lease, upload, seen: 0, interim: 0, is_heard: false, is_kept, unwritten: None }
    }

    /// The same on another connection: nothing of it was written on the first one.
    pub(super) fn moved_to(mut self, mut lease: Box<Lease>) -> Self {
        mem::swap(&mut self.lease.link, &mut lease.link);
        mem::swap(self.lease.link.io_mut(), lease.link.io_mut());
        Self { lease, is_kept: false, unwritten: None, ..self }
    }

    /// Not a byte of it was written, so that the side can't have seen it.
    pub(super) fn is_unsent(&self) -> bool {
        self.unwritten.is_some() && !self.upload.is_begun
    }

    /// Whether it has no body.
    pub(super) fn is_bare(&self) -> bool {
        self.upload.framing == Framing::None
    }

    /// Whether something of a response has come.
    pub(super) const fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// The connection, and what is not sent yet.
    pub(super) fn into_parts(self) -> (Box<Lease>, Upload) {
        (self.lease, self.upload)
    }

    /// Sends, and waits for the head of the response: 101 or the final one.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub(super) async fn head(
        &mut self,
        sent_at: Instant,
        waiting: Waiting<'_>,
    ) -> Result<Head, ForwardError> {
        let mut due = sent_at + waiting.timeout;
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(head) = self.poll_head(waiting.continued, cx) {
                    return Poll::Ready(head);
                }
                ready!(self.lease.alarm.poll_due(due, cx));
                due = waiting.due(sent_at);
                if due <= Instant::now() {
                    return Poll::Ready(Err(ForwardError::Timeout));
                }
            }
        })
        .await
    }

    fn poll_head(
        &mut self,
        continued: Option<&Notify>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Head, ForwardError>> {
        self.send(cx)?;
        if !self.upload.is_begun && self.unwritten.is_none() {
            // What a kept connection has to say before it was asked is no answer.
            return Poll::Pending;
        }
        loop {
            let link = &mut self.lease.link;
            if link.held().len() > self.seen {
                match read(link.held_mut(), &mut self.seen).map_err(Broken::Head)? {
                    Some(head) if is_interim(head.status) => {
                        self.interim += 1;
                        if self.interim > INTERIM {
                            return Poll::Ready(Err(Broken::Interim.into()));
                        }
                        if let (StatusCode::CONTINUE, Some(continued)) = (head.status, continued) {
                            continued.notify_one();
                            self.send(cx)?;
                        }
                        continue;
                    }
                    Some(head) => return Poll::Ready(Ok(head)),
                    None => {}
                }
            }
            match ready!(link.poll_fill(cx)) {
                Ok(0) => return Poll::Ready(Err(self.broken(Broken::Ended))),
                Ok(_) => self.is_heard = true,
                Err(error) => return Poll::Ready(Err(self.broken(Broken::Stream(error)))),
            }
        }
    }

    /// Sends on. A side that does not take the request to its end may have said why: its response is read all the same.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), ForwardError> {
        if self.upload.is_whole || self.unwritten.is_some() {
            return Ok(());
        }
        match self.upload.poll(&mut self.lease.link, cx) {
            Poll::Ready(Err(Unsent::Body(fault))) => Err(ForwardError::Body(fault)),
            Poll::Ready(Err(Unsent::Stream(error))) => {
                self.unwritten = Some(error);
                // On another connection there is a better answer to be had than a goodbye.
                if self.is_kept && self.is_unsent() {
                    return Err(self.broken(Broken::Ended));
                }
                Ok(())
            }
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    /// The first thing that went wrong.
    fn broken(&self, last: Broken) -> ForwardError {
        ForwardError::Broke(match &self.unwritten {
            Some(error) => Broken::Stream(error.kind().into()),
            None => last,
        })
    }
}

/// Whether another head follows.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Writes the head of a request: Host first, and one field at most that says how long its body is.
fn say(out: &mut Vec<u8>, message: &Message, host: &HeaderValue) -> Framing {
    let Message { method, target, headers, body } = message;
    let target = match target.as_str() {
        bare if bare.starts_with('?') => Cow::Owned(format!("/{bare}")),
        target => Cow::Borrowed(target),
    };
    request_line(out, method, &target);
    field(out, "host", host.as_bytes());
    let mut says_length = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    for (name, value) in headers {
        if name == header::CONTENT_LENGTH {
            says_length = true;
        } else if name != header::HOST && name != header::TRANSFER_ENCODING {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    let framing = match body.size_hint().exact() {
        Some(0) | None if body.is_end_stream() => {
            if says_length {
                length(out, 0);
            }
            Framing::None
        }
        Some(exact) => {
            length(out, exact);
            Framing::Length(exact)
        }
        // They nearly never have a body, also where none was ruled out.
        None if matches!(*method, Method::GET | Method::HEAD) => Framing::None,
        None => {
            field(out, "transfer-encoding", b"chunked");
            Framing::chunked(headers)
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

/// Why a request could not be sent to its end.
#[derive(Debug)]
pub(super) enum Unsent {
    /// The client's body is at fault.
    Body(BodyFault),
    /// The connection does not take it.
    Stream(io::Error),
}

/// What is still to be sent of a request.
#[derive(Debug)]
pub(super) struct Upload {
    body: RequestBody,
    framing: Framing,
    /// The last of it has been handed to the link.
    is_said: bool,
    /// Something was written.
    is_begun: bool,
    /// All was written.
    is_whole: bool,
}

impl Upload {
    fn new(body: RequestBody, framing: Framing) -> Self {
        // A body that its head says nothing of is not asked for.
        let is_said = framing == Framing::None;
        let body = if is_said { RequestBody::Empty } else { body };
        Self { body, framing, is_said, is_begun: false, is_whole: false }
    }

    /// Whether all of it was written.
    pub(super) const fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Sends on; ready when all was written.
    pub(super) fn poll(
        &mut self,
        link: &mut Link<Stream>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>> {
        loop {
            let waits = self.fill(link, cx).map_err(Unsent::Body)?;
            let before = link.unwritten();
            let flushed = link.poll_flush(cx);
            self.is_begun |= link.unwritten() < before;
            ready!(flushed).map_err(Unsent::Stream)?;
            if self.is_said {
                self.is_whole = true;
                return Poll::Ready(Ok(()));
            }
            if waits {
                return Poll::Pending;
            }
        }
    }

    /// Takes of the body what there is, as long as the side keeps up; whether the client is waited for.
    fn fill(&mut self, link: &mut Link<Stream>, cx: &mut Context<'_>) -> Result<bool, BodyFault> {
        while !self.is_said && link.unwritten() < ENOUGH {
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) else {
                return Ok(true);
            };
            let trailers = match next.transpose()?.map(http_body::Frame::into_data) {
                Some(Ok(data)) => {
                    self.framing.data(link, data);
                    if !self.body.is_end_stream() {
                        continue;
                    }
                    None
                }
                Some(Err(frame)) => frame.into_trailers().ok(),
                None => None,
            };
            self.framing.end(link, trailers.as_ref()).map_err(|_| BodyFault::Broken)?;
            self.is_said = true;
            self.body = RequestBody::Empty;
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::rc::{Rc, Weak};

    use bytes::Bytes;
    use socket2::SockRef;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::observe::{Gauge, Metrics};
    use crate::side::Side;

    fn said(
        method: Method,
        target: &'static str,
        fields: &[(&str, &str)],
        body: &'static str,
    ) -> (String, Framing) {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                header::HeaderName::from_bytes(name.as_bytes()).unwrap(),
                value.parse().unwrap(),
            );
        }
        let message = Message {
            method,
            target: PathAndQuery::from_static(target),
            headers,
            body: RequestBody::Read(Bytes::from_static(body.as_bytes())),
        };
        let mut out = Vec::new();
        let framing = say(&mut out, &message, &HeaderValue::from_static("side"));
        (String::from_utf8(out).unwrap(), framing)
    }

    #[test]
    fn one_length_goes_and_one_host() {
        let get = "GET /a?b HTTP/1.1\r\nhost: side\r\n";
        for (fields, rest) in [
            (&[][..], "\r\n"),
            (&[("host", "client"), ("a", "b")][..], "a: b\r\n\r\n"),
            (
                &[("content-length", "0"), ("transfer-encoding", "x")][..],
                "content-length: 0\r\n\r\n",
            ),
        ] {
            let (text, framing) = said(Method::GET, "/a?b", fields, "");
            assert_eq!((text, framing), (format!("{get}{rest}"), Framing::None), "{fields:?}");
        }
        for (method, body, length) in [
            (Method::POST, "", Some("content-length: 0\r\n")),
            (Method::PUT, "", Some("content-length: 0\r\n")),
            (Method::PATCH, "", Some("content-length: 0\r\n")),
            (Method::DELETE, "", None),
            (Method::OPTIONS, "", None),
            (Method::POST, "12345", Some("content-length: 5\r\n")),
            (Method::DELETE, "12345", Some("content-length: 5\r\n")),
        ] {
            let (text, framing) =
                said(method.clone(), "/", &[("content-length", "7")][..body.len().min(1)], body);
            let want =
                format!("{method} / HTTP/1.1\r\nhost: side\r\n{}\r\n", length.unwrap_or_default());
            let whole = if body.is_empty() { Framing::None } else { Framing::Length(5) };
            assert_eq!((text, framing), (want, whole));
        }
        assert!(said(Method::GET, "?a", &[], "").0.starts_with("GET /?a HTTP/1.1\r\n"));
    }

    /// Both ends of a connection.
    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(connecting, listener.accept());
        (ours.unwrap(), theirs.unwrap().0)
    }

    fn lease(stream: TcpStream) -> Box<Lease> {
        let shard = Metrics::new(0).shard(0);
        let open = shard.hold(Gauge::UpstreamConnections(Side::Old));
        Lease::new(Stream::Plain(stream), Rc::default(), Side::Old, Weak::new(), open)
    }

    #[tokio::test]
    async fn what_a_dead_connection_did_not_take_goes_whole_on_another() {
        let waiting = Waiting { timeout: Duration::from_secs(9), continued: None, body: None };
        for goodbye in ["", "HTTP/1.1 408 Late\r\n\r\n"] {
            let (ours, mut theirs) = pair().await;
            theirs.write_all(goodbye.as_bytes()).await.unwrap();
            SockRef::from(&theirs).set_linger(Some(Duration::ZERO)).unwrap();
            drop(theirs);
            // The reset is here.
            ours.ready(Interest::ERROR).await.unwrap();
            let mut message = Message {
                method: Method::POST,
                target: PathAndQuery::from_static("/"),
                headers: HeaderMap::new(),
                body: RequestBody::Read(Bytes::from(vec![b'x'; 100_000])),
            };
            let host = HeaderValue::from_static("side");
            let mut exchange = Exchange::new(lease(ours), true, &mut message, &host);
            let error = exchange.head(Instant::now(), waiting).await.unwrap_err();
            assert!(matches!(error, ForwardError::Broke(Broken::Stream(_))), "{error}");
            assert!(exchange.is_unsent());

            let (ours, mut theirs) = pair().await;
            let mut exchange = exchange.moved_to(lease(ours));
            let answering = async {
                let mut seen = Vec::new();
                while !seen.ends_with(&[b'x'; 100_000]) {
                    assert!(theirs.read_buf(&mut seen).await.unwrap() > 0);
                }
                theirs.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                seen
            };
            let (head, seen) = tokio::join!(exchange.head(Instant::now(), waiting), answering);
            assert_eq!(head.unwrap().status, StatusCode::OK);
            assert!(
                seen.starts_with(
                    b"POST / HTTP/1.1\r\nhost: side\r\ncontent-length: 100000\r\n\r\nx"
                )
            );
            assert!(exchange.into_parts().1.is_whole());
        }
    }
}
