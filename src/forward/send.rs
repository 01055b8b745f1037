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
use super::response_body::{Carrier, ResponseBody};
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
    /// Whether a safe request without a body may be sent once more when nobody knows whether the first one arrived. Not where a GET can
    /// use something up: a link in a mail, a function.
    pub is_repeatable: bool,
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
        let Outgoing { method, target, headers, continued, is_repeatable, body, body_state } =
            outgoing;
        let project = &settings.projects[side];
        let mut request = request_of(method, Uri::from(target), headers, body);
        if let Some(continued) = continued.clone() {
            hyper::ext::on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    continued.notify_one();
                }
            });
        }

        let sending = Sending { body: &body_state, continued: continued.as_deref(), timeout };
        let mut retried = false;
        if let Some(connection) = self.reuse(side, settings).await {
            let spare = if is_repeatable { spare_of(&request) } else { None };
            let sent_at = Instant::now();
            match once(connection, project, request, sending).await {
                Ok(response) => return Ok(answer(response, retried, sent_at, &body_state)),
                Err(Failed { error, unsent }) => match unsent.map(|unsent| *unsent).or(spare) {
                    Some(again) if matches!(error, ForwardError::Broke(_)) => request = again,
                    _ => return Err(error),
                },
            }
            retried = true;
        }
        let connection = self.connect(side, settings).await?;
        let sent_at = Instant::now();
        let sent = once(connection, project, request, sending).await;
        sent.map(|response| answer(response, retried, sent_at, &body_state))
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
        method: Method,
        target: PathAndQuery,
        mut headers: HeaderMap,
    ) -> Result<Response<Incoming>, ForwardError> {
        let mut sender = self.connect_for_upgrade(side, settings).await?;
        headers.insert(header::HOST, settings.projects[side].host_header.clone());
        let request = request_of(method, Uri::from(target), headers, RequestBody::Empty);
        match tokio::time::timeout(settings.timeout, sender.send_request(request)).await {
            Ok(sent) => sent.map_err(ForwardError::Broke),
            Err(_) => Err(ForwardError::Timeout),
        }
    }
}

fn request_of(
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: RequestBody,
) -> Request<RequestBody> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request
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

/// What goes with a request whatever connection it goes on.
#[derive(Clone, Copy)]
struct Sending<'a> {
    body: &'a Rc<BodyState>,
    continued: Option<&'a Notify>,
    timeout: Duration,
}

async fn once(
    connection: Connection,
    project: &Project,
    mut request: Request<RequestBody>,
    sending: Sending<'_>,
) -> Result<Response<ResponseBody>, Failed> {
    let Sending { body, continued, timeout } = sending;
    match connection {
        Connection::Http1(mut lease) => {
            request.headers_mut().insert(header::HOST, project.host_header.clone());
            if request.uri().authority().is_some() {
                // It comes back from an HTTP/2 connection that could not take it.
                let target = request.uri().path_and_query().cloned();
                *request.uri_mut() = target.map(Uri::from).unwrap_or_default();
            }
            let response = head(lease.sender.try_send_request(request), body, timeout).await?;
            Ok(response_with(response, Carrier::Http1(lease), body))
        }
        Connection::Http2(mut stream) => {
            request.headers_mut().remove(header::HOST);
            *request.uri_mut() = absolute(project, request.uri().path_and_query());
            // hyper does not tell of a 100 Continue over HTTP/2, where it would save little: the body goes at once.
            if let Some(continued) = continued {
                continued.notify_one();
            }
            let response = head(stream.sender.try_send_request(request), body, timeout).await?;
            Ok(response_with(response, Carrier::Http2(stream), body))
        }
    }
}

fn response_with(
    response: Response<Incoming>,
    carrier: Carrier,
    request_body: &Rc<BodyState>,
) -> Response<ResponseBody> {
    let (mut parts, incoming) = response.into_parts();
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        // The coding has won (RFC 9112 6.3); a length that is passed on beside it would cut the body or split the answer.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    let body = ResponseBody::new(incoming, carrier, Rc::clone(request_body), &parts.headers);
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
    let (method, uri, headers) =
        (request.method().clone(), request.uri().clone(), request.headers().clone());
    Some(request_of(method, uri, headers, RequestBody::Empty))
}
