//! Sends one request to one side: on a kept connection if there is one, once more on a fresh one when the kept one turns out
//! stale, and never again after that.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::ForwardError;
use super::pool::{Connection, Pool};
use super::request_body::{BodyState, RequestBody, Uploaded};
use super::response_body::ResponseBody;
use super::{Project, Settings};
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
    /// The body.
    pub body: RequestBody,
    /// What the body tells.
    pub body_state: Rc<BodyState>,
}

/// What the side answered.
#[derive(Debug)]
pub struct Answer {
    /// The response.
    pub response: Response<ResponseBody>,
    /// Whether the first connection was stale and a second one was needed.
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
        let Outgoing { method, target, headers, continued, body, body_state } = outgoing;
        let project = &settings.projects[side];
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(target);
        *request.headers_mut() = headers;
        if let Some(continued) = continued {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    continued.notify_one();
                }
            });
        }

        if let Some(connection) = self.reuse(side, settings).await {
            let spare = spare_of(&request);
            let sent_at = Instant::now();
            match once(connection, project, request, &body_state, timeout).await {
                Ok(response) => return Ok(answer(response, false, sent_at, &body_state)),
                Err(Failed { error, unsent }) => {
                    self.forget_shared(side);
                    match unsent.map(|unsent| *unsent).or(spare) {
                        Some(again) if matches!(error, ForwardError::Broke(_)) => request = again,
                        _ => return Err(error),
                    }
                }
            }
            let connection = self.connect(side, settings).await?;
            let sent_at = Instant::now();
            let sent = once(connection, project, request, &body_state, timeout).await;
            return sent
                .map(|response| answer(response, true, sent_at, &body_state))
                .map_err(|failed| failed.error);
        }
        let connection = self.connect(side, settings).await?;
        let sent_at = Instant::now();
        let sent = once(connection, project, request, &body_state, timeout).await;
        sent.map(|response| answer(response, false, sent_at, &body_state))
            .map_err(|failed| failed.error)
    }

    /// Sends an upgrade request on a connection of its own. The response may be anything; a 101 can be upgraded.
    ///
    /// # Errors
    /// [`ForwardError`].
    pub async fn send_upgrade(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
        outgoing: Outgoing,
    ) -> Result<Response<Incoming>, ForwardError> {
        let mut sender = self.connect_for_upgrade(side, settings).await?;
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = outgoing.method;
        *request.uri_mut() = Uri::from(outgoing.target);
        *request.headers_mut() = outgoing.headers;
        request.headers_mut().insert(header::HOST, settings.projects[side].host_header.clone());
        match tokio::time::timeout(settings.timeout, sender.send_request(request)).await {
            Ok(sent) => sent.map_err(ForwardError::Broke),
            Err(_) => Err(ForwardError::Timeout),
        }
    }
}

fn answer(
    response: Response<ResponseBody>,
    retried: bool,
    sent_at: Instant,
    body: &BodyState,
) -> Answer {
    Answer { response, retried, sent_at, request_body: body.uploaded() }
}

/// A request that failed, and itself if not a byte of it was sent.
struct Failed {
    error: ForwardError,
    unsent: Option<Box<Request<RequestBody>>>,
}

async fn once(
    connection: Connection,
    project: &Project,
    mut request: Request<RequestBody>,
    body: &Rc<BodyState>,
    timeout: Duration,
) -> Result<Response<ResponseBody>, Failed> {
    match connection {
        Connection::Http1(mut lease) => {
            request.headers_mut().insert(header::HOST, project.host_header.clone());
            let response = head(lease.sender.try_send_request(request), body, timeout).await?;
            Ok(response_with(response, Some(lease), body))
        }
        Connection::Http2(mut sender) => {
            request.headers_mut().remove(header::HOST);
            *request.uri_mut() = absolute(project, request.uri().path_and_query());
            let response = head(sender.try_send_request(request), body, timeout).await?;
            Ok(response_with(response, None, body))
        }
    }
}

fn response_with(
    response: Response<Incoming>,
    lease: Option<super::pool::Lease>,
    request_body: &Rc<BodyState>,
) -> Response<ResponseBody> {
    let (mut parts, incoming) = response.into_parts();
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        // The coding has won (RFC 9112 6.3); a length that is passed on beside it would cut the body or split the answer.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let body = ResponseBody::new(incoming, lease, Rc::clone(request_body), &parts.headers);
    Response::from_parts(parts, body)
}

/// HTTP/2 has scheme and authority where HTTP/1 has Host (RFC 9113 8.3.1).
fn absolute(project: &Project, target: Option<&PathAndQuery>) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if project.tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(project.authority.clone());
    parts.path_and_query = Some(target.cloned().unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(parts).unwrap_or_default()
}

/// Waits for the head of a response. The time runs while it is the side's turn: from the request's last byte, or while it does not
/// take the next one. An upload may take as long as its client goes on sending, which the body itself watches.
async fn head(
    sending: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
    body: &BodyState,
    timeout: Duration,
) -> Result<Response<Incoming>, Failed> {
    let mut sending = pin!(sending);
    let mut alarm = pin!(tokio::time::sleep(timeout));
    loop {
        tokio::select! {
            biased;
            sent = sending.as_mut() => return headed(sent, body),
            () = alarm.as_mut() => {
                let since = body.sides_turn_since().unwrap_or_else(Instant::now);
                let due = since + timeout;
                if due <= Instant::now() {
                    return Err(Failed { error: ForwardError::Timeout, unsent: None });
                }
                alarm.as_mut().reset(due);
            }
        }
    }
}

fn headed(
    sent: Result<Response<Incoming>, TrySendError<Request<RequestBody>>>,
    body: &BodyState,
) -> Result<Response<Incoming>, Failed> {
    match sent {
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            Err(Failed { error: ForwardError::Switched, unsent: None })
        }
        Ok(response) => {
            body.answered();
            Ok(response)
        }
        Err(mut error) => {
            let unsent = error.take_message().map(Box::new);
            let error = match body.fault() {
                Some(fault) => ForwardError::Body(fault),
                None => ForwardError::Broke(error.into_error()),
            };
            Err(Failed { error, unsent })
        }
    }
}

/// A copy of a request that may be sent twice even when the first one may have arrived: a safe method without a body, on a
/// kept connection that the side may be closing at this moment (RFC 9110 9.2.2). Anything else is never repeated.
fn spare_of(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !(request.method().is_safe() && request.body().is_empty()) {
        return None;
    }
    let mut spare = Request::new(RequestBody::Empty);
    *spare.method_mut() = request.method().clone();
    *spare.uri_mut() = request.uri().clone();
    *spare.headers_mut() = request.headers().clone();
    Some(spare)
}
