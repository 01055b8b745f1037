//! Sends one request to one side: on a kept connection if there is one, once more on a fresh one when the kept one turns out
//! stale, and never again after that.

use std::error::Error as _;
use std::future::Future;
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::ext::ReasonPhrase;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::{Broken, ConnectError, ForwardError};
use super::exchange::{Exchange, Message, Waiting};
use super::pool::{Connection, Pool, Stream};
use super::request_body::{BodyState, RequestBody, Uploaded};
use super::response_body::{Again, ResponseBody};
use super::{Project, Settings};
use crate::http1;
use crate::http1::response::Head;
use crate::http1::upgraded::Upgraded;
use crate::side::Side;

/// A request in the words of its side, ready to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Path and query, raw.
    pub target: PathAndQuery,
    /// Everything but Host, which depends on the protocol of the connection.
    pub headers: HeaderMap,
    /// Told when the side says 100 Continue.
    pub continued: Option<Arc<Notify>>,
    /// Whether a safe request without a body may be sent once more when nobody knows whether the first one arrived. Not where a GET can
    /// use something up: a link in a mail, a function.
    pub is_repeatable: bool,
    /// The body.
    pub body: RequestBody,
}

/// What the side answered.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<ResponseBody>,
    /// Whether the first connection was stale, or refused to look at the request, and a second one was needed.
    pub retried: bool,
    /// When the request was sent for the last time.
    pub sent_at: Instant,
    /// How much of the request's body was sent when the answer came.
    pub request_body: Uploaded,
}

impl Pool {
    /// Sends a request and waits for the head of its response, at most `timeout` after the request's last byte.
    ///
    /// # Errors
    /// [`ForwardError`]; with [`ForwardError::Connect`] nothing has been sent.
    pub async fn send(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
        timeout: Duration,
        outgoing: Outgoing,
    ) -> Result<Answer, ForwardError> {
        let Outgoing { method, target, headers, continued, is_repeatable, body } = outgoing;
        let state = body.state();
        let waiting = Waiting { timeout, continued: continued.as_deref(), body: state.as_deref() };
        let mut sending = Sending {
            project: &settings.projects[side],
            // A safe method without a body, on a kept connection that the side may be closing at this moment, may be sent twice even when
            // the first one may have arrived (RFC 9110 9.2.2). Anything else is never repeated.
            is_repeatable: is_repeatable && method.is_safe() && body.is_empty(),
            message: Message { method, target, headers, body },
            begun: None,
            is_kept: true,
            waiting,
            sent_at: Instant::now(),
        };
        let kept = self.reuse(side, settings, sending.sent_at, sending.is_repeatable);
        let first = match kept {
            Some(kept) => kept,
            None => sending.fresh(self, side, settings).await?,
        };
        match sending.once(first, state.clone()).await {
            Ok(response) => return Ok(sending.answer(response, false)),
            Err((ForwardError::Broke(_), true)) => {}
            Err((error, _)) => return Err(error),
        }
        let fresh = sending.fresh(self, side, settings).await?;
        let response = sending.once(fresh, state.clone()).await.map_err(|(error, _)| error)?;
        Ok(sending.answer(response, true))
    }

    /// Sends an upgrade request on a connection of its own. The response may be anything; with a 101 comes the connection itself.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn send_upgrade(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
    ) -> Result<(Response<ResponseBody>, Option<Upgraded<http1::stream::Stream>>), ForwardError>
    {
        let lease = self.connect_for_upgrade(side, settings).await?;
        let mut message = Message { method, target, headers, body: RequestBody::Empty };
        let host = &settings.projects[side].host_header;
        let mut exchange = Exchange::new(lease, false, &mut message, host);
        let waiting = Waiting { timeout: settings.timeout, continued: None, body: None };
        let head = exchange.head(Instant::now(), waiting).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            let (lease, _said) = exchange.into_parts();
            let upgraded = Upgraded::new(lease.link.into_parts());
            return Ok((response_of(head, ResponseBody::empty()), Some(upgraded)));
        }
        Ok((response_on(exchange, head, &message.method, settings.timeout, None)?, None))
    }
}

/// A request on its way, whatever connection it goes on.
struct Sending<'a> {
    project: &'a Project,
    message: Message,
    /// It was said on a connection that took nothing of it.
    begun: Option<Exchange>,
    is_repeatable: bool,
    is_kept: bool,
    waiting: Waiting<'a>,
    sent_at: Instant,
}

/// Why there is no response, and whether the request may be sent once more.
type Failed = (ForwardError, bool);

/// Why there is no response over HTTP/2, and the request if not a byte of it was sent.
type Http2Failed = (ForwardError, Option<Box<Request<RequestBody>>>);

impl Sending<'_> {
    fn answer(&self, response: Response<ResponseBody>, retried: bool) -> Answer {
        let request_body = self.waiting.body.map_or(Uploaded::Whole, BodyState::uploaded);
        Answer { response, retried, sent_at: self.sent_at, request_body }
    }

    /// A connection that nobody has used, or has room for one more.
    async fn fresh(
        &mut self,
        pool: &Rc<Pool>,
        side: Side,
        settings: &Settings,
    ) -> Result<Connection, ConnectError> {
        self.is_kept = false;
        let fresh = Box::pin(pool.connect(side, settings)).await;
        self.sent_at = Instant::now();
        fresh
    }

    async fn once(
        &mut self,
        connection: Connection,
        state: Option<Rc<BodyState>>,
    ) -> Result<Response<ResponseBody>, Failed> {
        match connection {
            Connection::Http1(lease) => {
                let host = &self.project.host_header;
                let exchange = match self.begun.take() {
                    Some(begun) => begun.moved_to(lease),
                    None => Exchange::new(lease, self.is_kept, &mut self.message, host),
                };
                self.http1(exchange, state).await
            }
            Connection::Http2(stream) => {
                if self.begun.take().is_some_and(|begun| !begun.is_bare()) {
                    // A side that has just begun to speak HTTP/2, and a body that is in the words of HTTP/1.
                    return Err((Broken::Ended.into(), false));
                }
                Box::pin(self.http2(stream, state)).await
            }
        }
    }

    async fn http1(
        &mut self,
        mut exchange: Exchange,
        state: Option<Rc<BodyState>>,
    ) -> Result<Response<ResponseBody>, Failed> {
        match exchange.head(self.sent_at, self.waiting).await {
            Ok(head) if head.status == StatusCode::SWITCHING_PROTOCOLS => {
                Err((ForwardError::Switched, false))
            }
            Ok(head) => {
                if let Some(state) = &state {
                    state.answered();
                }
                let response =
                    response_on(exchange, head, &self.message.method, self.waiting.timeout, state);
                response.map_err(|error| (error, false))
            }
            Err(error) if self.is_kept && exchange.is_unsent() => {
                self.begun = Some(exchange);
                Err((error, true))
            }
            Err(error) => Err((error, self.is_kept && self.is_repeatable && !exchange.is_heard())),
        }
    }

    async fn http2(
        &mut self,
        mut stream: Stream,
        state: Option<Rc<BodyState>>,
    ) -> Result<Response<ResponseBody>, Failed> {
        // hyper does not tell of a 100 Continue over HTTP/2, where it would save little: the body goes at once.
        if let Some(continued) = self.waiting.continued {
            continued.notify_one();
        }
        let message = &mut self.message;
        let (headers, body) =
            (message.headers.clone(), Spare::of(&message.body, self.waiting.body));
        let mut request = Request::new(mem::replace(&mut message.body, RequestBody::Empty));
        *request.method_mut() = message.method.clone();
        *request.uri_mut() = absolute(self.project, message.target.clone());
        *request.headers_mut() = mem::take(&mut message.headers);
        request.headers_mut().remove(header::HOST);
        match head(stream.sender.try_send_request(request), self.sent_at, self.waiting).await {
            Ok(response) => {
                let (mut parts, incoming) = response.into_parts();
                // HTTP/2 has no such field; what is passed on beside it would cut the body or split the answer (RFC 9112 6.3).
                if parts.headers.contains_key(header::TRANSFER_ENCODING) {
                    parts.headers.remove(header::CONTENT_LENGTH);
                }
                let body = ResponseBody::http2(incoming, stream, state);
                Ok(Response::from_parts(parts, body))
            }
            Err((error, unsent)) => {
                let body = match unsent {
                    Some(unsent) => Some(unsent.into_body()),
                    None if is_unseen(&error) => body.again(self.waiting.body),
                    None => (self.is_kept && self.is_repeatable).then_some(RequestBody::Empty),
                };
                let may_go_again = body.is_some();
                message.body = body.unwrap_or(RequestBody::Empty);
                message.headers = headers;
                Err((error, may_go_again))
            }
        }
    }
}

/// A body that was sent, to be sent once more.
enum Spare {
    Read(Bytes),
    /// As much as the body itself has kept.
    Client,
}

impl Spare {
    fn of(body: &RequestBody, state: Option<&BodyState>) -> Self {
        if let Some(state) = state {
            state.keep();
        }
        match body {
            RequestBody::Empty => Self::Read(Bytes::new()),
            RequestBody::Read(bytes) => Self::Read(bytes.clone()),
            RequestBody::Client(_) => Self::Client,
        }
    }

    fn again(self, state: Option<&BodyState>) -> Option<RequestBody> {
        let bytes = match self {
            Self::Read(bytes) => bytes,
            Self::Client => state?.again()?,
        };
        Some(if bytes.is_empty() { RequestBody::Empty } else { RequestBody::Read(bytes) })
    }
}

/// The side says that it has not looked at the request: it refused its stream, or goes away with an earlier one as its last
/// (RFC 9113 6.8 and 8.7). Then it may be sent again, whatever it is.
fn is_unseen(error: &ForwardError) -> bool {
    let ForwardError::Broke(Broken::Http2(error)) = error else { return false };
    let cause = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| {
        let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
        cause.is_remote() && (cause.is_go_away() || is_refused)
    })
}

/// The response whose head was read on a connection.
fn response_on(
    exchange: Exchange,
    mut head: Head,
    method: &Method,
    timeout: Duration,
    state: Option<Rc<BodyState>>,
) -> Result<Response<ResponseBody>, ForwardError> {
    let decoder = head.body(method).map_err(Broken::Head)?;
    let again = Again::of(head.keeps_alive, &decoder, &head.headers);
    let body = ResponseBody::http1(exchange.into_parts(), timeout, decoder, again, state);
    Ok(response_of(head, body))
}

fn response_of(head: Head, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers;
    if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
        response.extensions_mut().insert(reason);
    }
    response
}

/// HTTP/2 has scheme and authority where HTTP/1 has Host (RFC 9113 8.3.1).
fn absolute(project: &Project, target: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if project.tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(project.authority.clone());
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).unwrap_or_default()
}

/// Waits for the head of a response over HTTP/2.
async fn head(
    sending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
    sent_at: Instant,
    waiting: Waiting<'_>,
) -> Result<Response<Incoming>, Http2Failed> {
    let mut sending = pin!(sending);
    let mut alarm = pin!(tokio::time::sleep_until(sent_at + waiting.timeout));
    loop {
        tokio::select! {
            biased;
            sent = sending.as_mut() => return headed(sent, waiting.body),
            () = alarm.as_mut() => {
                let due = waiting.due(sent_at);
                if due <= Instant::now() {
                    return Err((ForwardError::Timeout, None));
                }
                alarm.as_mut().reset(due);
            }
        }
    }
}

fn headed(
    sent: Result<Response<Incoming>, TrySendError<Request<RequestBody>>>,
    body: Option<&BodyState>,
) -> Result<Response<Incoming>, Http2Failed> {
    match sent {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err((ForwardError::Switched, None))
        }
        Ok(response) => {
            if let Some(body) = body {
                body.answered();
            }
            Ok(response)
        }
        Err(mut error) => {
            let unsent = error.take_message().map(Box::new);
            let error = match body.and_then(BodyState::fault) {
                Some(fault) => ForwardError::Body(fault),
                None => Broken::Http2(error.into_error()).into(),
            };
            Err((error, unsent))
        }
    }
}
