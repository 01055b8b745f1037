//! The path of a request: the seven phases in one function, [`Path::walk`].
//!
//! The phases' knowledge is in their rooms; here is only their order and what one hands to the next. Order is forced by
//! types: what is forwarded is a [`rewrite::Said`], which needs a decision; what is restored needs the
//! [`rewrite::Undo`] that only rewriting makes.

pub mod body;
pub mod explain;
mod forward;
pub mod layers;
pub mod published;
#[cfg(test)]
mod published_tests;
pub mod pure;
mod realtime;
pub mod refusal;
mod restore;
mod rewrite;
mod storage;
mod tokens;
mod traced;
pub mod worker;

use std::cell::OnceCell;
use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;

use crate::http1::incoming::{Incoming, OnUpgrade};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use ipnet::IpNet;

use crate::accept::addresses::Entered;
use crate::accept::listener::Place;
use crate::accept::wire::Wire;
use crate::accept::{self, request};
use crate::chance;
use crate::decide::{Belongs, Decision};
use crate::forward::request_body::{BodyFault, Share};
use crate::identify::Identity;
use crate::identify::client_address::{client_address, is_secure};
use crate::observe::metrics::Held;
use crate::realtime as rooms;
use crate::restore::cors;
use crate::restore::headers::PublicName;
use crate::rewrite::functions;
use crate::rewrite::headers;
use crate::rewrite::keys::KeyPlaces;
use crate::rewrite::rest::{Asked as RestAsked, Resource, resolve};
use crate::rewrite::storage::Endpoint;
use crate::route::Route;
use crate::snapshot::Snapshot;
use crate::sync;
use crate::trace::{Sampler, TRACEPARENT, Trace};
use body::{AnswerBody, Record, Source};
use refusal::Refusal;
use worker::{Taken, Worker};

/// One client connection, as its requests see it.
#[derive(Debug)]
pub struct Client {
    /// What the connection's parts tell each other.
    pub wire: Rc<Wire>,
    /// The peer's address.
    pub peer: IpAddr,
    /// Whether it speaks TLS to us.
    pub is_secure: bool,
    /// Its place among all connections, among those that are counted as open, and among those of its address where these are counted.
    pub place: (Place, Held, Option<Entered>),
}

/// What every answer needs to know of its request, whoever answers.
#[derive(Debug)]
struct About {
    method: Method,
    origin: Option<HeaderValue>,
    reached: Reached,
    /// The request has a body; one that is refused is answered before it is read.
    has_body: bool,
    /// The answer is a preflight's, with CORS headers of its own.
    is_preflight: bool,
    request_id: HeaderValue,
    trace: Trace,
    /// Random bits of this request: its id, its trace, its bucket if nobody asks.
    random: u128,
}

/// How the client reached the proxy, as it said. Its name is read where an answer has need of it, and few have.
#[derive(Debug)]
struct Reached {
    /// In the target: over HTTP/2, or in a target as proxies get them.
    authority: Option<Authority>,
    host: Option<HeaderValue>,
    /// Whether over TLS.
    is_secure: bool,
}

impl Reached {
    fn public(&self) -> PublicName {
        let host = || self.host.as_ref()?.to_str().ok()?.parse().ok();
        let authority = self.authority.clone().or_else(host);
        PublicName { authority, is_secure: self.is_secure }
    }
}

/// A request that was accepted.
#[derive(Debug)]
struct Asked {
    route: Route,
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    /// Taken by forwarding.
    body: Option<Incoming>,
    /// The body instead, where it names buckets and had to be read.
    names: Option<Names>,
    /// There for a WebSocket.
    upgrade: Option<OnUpgrade>,
    /// Where in storage it leads, once somebody has asked.
    endpoint: OnceCell<Endpoint>,
}

/// A body that was read, and what it takes of the worker's memory.
#[derive(Debug)]
struct Names {
    bytes: Bytes,
    _share: Share,
}

/// Who asked, and with what.
#[derive(Debug)]
struct Caller {
    identity: Identity,
    keys: KeyPlaces,
    address: IpAddr,
}

/// Why a request ends before it is forwarded.
enum Stop {
    Refused(Refusal),
    /// A preflight: the answer's headers.
    Preflight(HeaderMap),
}

impl<E: Into<Refusal>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// One request on its way.
struct Path {
    worker: Rc<Worker>,
    client: Rc<Client>,
    snapshot: Taken,
    about: About,
    record: Record,
}

/// Serves one request. Never fails: whatever goes wrong is an answer.
///
/// What happens seldom on the way (a new connection, another protocol, a body that is read) is boxed there: a future is as large as the largest
/// thing that it may wait for, and is moved when it is made.
pub async fn handle(
    worker: Rc<Worker>,
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Infallible> {
    let snapshot = worker.snapshot();
    let record = Record::begin(&worker, &client.wire, request.method(), snapshot.epoch);
    let sampler = worker.shared.spans.is_some().then_some(snapshot.sampler);
    let about = About::of(&request, &client, &snapshot.accept.trusted_proxies, sampler);
    let mut path = Path { worker, client, snapshot, about, record };
    // Of a request that could not be read, method and path are not known.
    let is_known = path.client.wire.refused().is_none();
    let target = request.uri().path_and_query().filter(|_| is_known);
    path.record.line(request.method(), target, &path.about.request_id, path.about.trace.own);
    path.trace(&request, target);
    let (mut parts, source) = match path.walk(request).await {
        Ok(answer) => answer,
        Err(stop) => path.answer_itself(stop),
    };
    path.restore_common(&mut parts);
    path.record.finished.status = parts.status.as_u16();
    let is_head = path.about.method == Method::HEAD;
    let source = if is_head { source.for_head(&mut parts.headers) } else { source };
    Ok(Response::from_parts(parts, AnswerBody::new(source, Some(path.record))))
}

impl Path {
    /// The seven phases. (The seventh, observe, is the end of [`Record`], which the answer's body carries to the
    /// client's last byte.)
    async fn walk(
        &mut self,
        request: Request<Incoming>,
    ) -> Result<(http::response::Parts, Source), Stop> {
        let mut asked = self.accept(request)?;
        let caller = self.identify(&asked);
        if asked.route == Route::Storage {
            Box::pin(self.read_names(&mut asked, &caller)).await?;
        }
        if let Some(upgrade) = asked.take_realtime_upgrade() {
            return Ok(self.open_realtime(upgrade, asked, caller)?);
        }
        let decision = self.decide(&asked, &caller);
        let spare = self.spare(&asked, decision);
        let said = self.rewrite(&mut asked, &caller, decision.side).await?;
        let answer = self.forward(asked, &caller, decision, said, spare).await?;
        Ok(self.restore(answer).await)
    }

    /// Phase 1.
    fn accept(&mut self, mut request: Request<Incoming>) -> Result<Asked, Stop> {
        // Over HTTP/2 one stream may be refused, and the connection goes on.
        let of_stream = || request.extensions().get().copied();
        if let Some(refused) = self.client.wire.refused().or_else(of_stream) {
            return Err(refused.into());
        }
        if self.snapshot.accept.limits.pace.per_second > 0 {
            self.keeps_pace(request.headers())?;
        }
        let method = request.method().clone();
        let route = request::route(&method, request.uri().path())?;
        self.record.finished.route = Some(route);
        if cors::is_preflight(&method, request.headers()) {
            return Err(Stop::Preflight(cors::preflight(
                &self.snapshot.restore.cors,
                request.headers(),
            )));
        }
        let limit = self.snapshot.accept.limits.body_bytes;
        if limit > 0 && http_body::Body::size_hint(request.body()).lower() > limit {
            return Err(Refusal::from(BodyFault::TooLarge).into());
        }
        let can_upgrade = matches!(route, Route::Realtime | Route::Functions);
        let upgrade = (can_upgrade && headers::is_websocket(&method, request.headers()))
            .then(|| request.body_mut().take_upgrade())
            .flatten();
        let (parts, body) = request.into_parts();
        let target =
            parts.uri.into_parts().path_and_query.unwrap_or(PathAndQuery::from_static("/"));
        let asked = Asked::bare(route, method, target, parts.headers);
        Ok(Asked { body: Some(body), upgrade, ..asked })
    }

    /// Counts the request for its client's address.
    fn keeps_pace(&self, headers: &HeaderMap) -> Result<(), Stop> {
        let accept::Settings { trusted_proxies, limits, .. } = &self.snapshot.accept;
        let address = client_address(self.client.peer, headers, trusted_proxies);
        let now = self.record.began().into_std();
        Ok(self.worker.shared.addresses.asks(address, limits.pace, now)?)
    }

    /// Phase 2.
    fn identify(&self, asked: &Asked) -> Caller {
        asked.caller(&self.snapshot, &self.worker.tokens, self.client.peer)
    }

    /// Phase 3.
    fn decide(&mut self, asked: &Asked, caller: &Caller) -> Decision {
        let decision = asked.decide(&self.snapshot, caller, self.about.random as u32);
        let finished = &mut self.record.finished;
        finished.side = Some(decision.side);
        finished.reason = Some(decision.reason);
        finished.bucket = decision.bucket;
        decision
    }

    /// An answer of the proxy's own.
    fn answer_itself(&mut self, stop: Stop) -> (http::response::Parts, Source) {
        match stop {
            Stop::Preflight(headers) => {
                self.about.is_preflight = true;
                let (mut parts, ()) = Response::new(()).into_parts();
                parts.status = StatusCode::NO_CONTENT;
                parts.headers = headers;
                (parts, Source::Own(Bytes::new()))
            }
            Stop::Refused(refusal) => {
                if refusal.closes() || self.about.has_body {
                    self.client.wire.answered_early();
                }
                self.record.finished.code = Some(refusal.code);
                let (parts, body) = refusal.response();
                (parts, Source::Own(body))
            }
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Asked {
    /// The table or function, on the route that has them.
    fn resource<'s>(&self, snapshot: &'s Snapshot) -> Option<Resource<'s>> {
        (self.route == Route::Rest).then(|| resolve(&snapshot.rewrite, &self.rest()))
    }

    /// The side of the thing that is asked for, if it has one of its own.
    fn belongs(&self, snapshot: &Snapshot) -> Belongs {
        let tail = self.route.tail(self.target.path());
        match self.route {
            Route::Functions => functions::belongs(&snapshot.rewrite.functions, tail),
            Route::Storage => self.endpoint().belongs(&snapshot.rewrite.storage, &self.storage()),
            Route::Realtime => rooms::belongs(&snapshot.realtime, tail),
            Route::Rest | Route::Auth | Route::Graphql => Belongs::ToRoute,
        }
    }

    fn rest(&self) -> RestAsked<'_> {
        RestAsked {
            method: &self.method,
            tail: self.route.tail(self.target.path()),
            query: self.target.query(),
            headers: &self.headers,
        }
    }
}

impl About {
    fn of(
        request: &Request<Incoming>,
        client: &Client,
        trusted: &[IpNet],
        sampler: Option<Sampler>,
    ) -> Self {
        let random = chance::random();
        Self {
            method: request.method().clone(),
            origin: request.headers().get(header::ORIGIN).cloned(),
            reached: Reached {
                authority: request.uri().authority().cloned(),
                host: request.headers().get(header::HOST).cloned(),
                is_secure: is_secure(client.peer, request.headers(), trusted, client.is_secure),
            },
            has_body: !http_body::Body::is_end_stream(request.body()),
            is_preflight: false,
            request_id: headers::request_id(request.headers(), random),
            trace: Trace::of(request.headers().get(TRACEPARENT), random, sampler),
            random,
        }
    }
}
