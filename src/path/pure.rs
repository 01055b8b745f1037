//! The pure half of a request, from its head to what its side is sent: phases 2 to 4 without a worker, a socket or a clock. The path calls
//! the parts; [`walk`] calls them all, for those who measure them.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode};

use super::rewrite::{Own, Undo, say};
use super::{Asked, Caller, text};
use crate::accept::request;
use crate::decide::{Decision, Question, decide};
use crate::identify::cache::TokenCache;
use crate::identify::claims;
use crate::identify::client_address::{client_address, is_secure};
use crate::identify::credentials::Credentials;
use crate::identify::identify;
use crate::identify::keyring::UnknownKeys;
use crate::rewrite::headers::{OVERRIDE_SIDE, OVERRIDE_TOKEN, request_id};
use crate::rewrite::keys::KeyPlaces;
use crate::route::Route;
use crate::side::Side;
use crate::snapshot::Snapshot;
use crate::trace::{TRACEPARENT, Trace};

impl Asked {
    /// A request without body or upgrade.
    pub(super) fn bare(
        route: Route,
        method: Method,
        target: PathAndQuery,
        headers: HeaderMap,
    ) -> Self {
        let (body, names, upgrade, endpoint) = (None, None, None, OnceCell::new());
        Self { route, method, target, headers, body, names, upgrade, endpoint }
    }

    /// Phase 2.
    pub(super) fn caller(&self, snapshot: &Snapshot, tokens: &TokenCache, peer: IpAddr) -> Caller {
        let Snapshot { identify: settings, keyring, decide, accept, .. } = snapshot;
        let query = self.target.query();
        let credentials = Credentials::of(&self.headers, query, keyring);
        // A stranger is about to be refused; it shall not push out anybody's token before.
        let is_refused = credentials.has_unknown_key() && keyring.unknown == UnknownKeys::Refuse;
        let mut read = |token: &str| match is_refused {
            true => Arc::new(claims::read(token, &decide.wanted)),
            false => tokens.read(token, &decide.wanted),
        };
        let identity = identify(&self.headers, query, &credentials, settings, keyring, &mut read);
        let address = client_address(peer, &self.headers, &accept.trusted_proxies);
        Caller { identity, keys: KeyPlaces::of(&credentials), address }
    }

    /// Phase 3. `random`: fresh random bits.
    pub(super) fn decide(&self, snapshot: &Snapshot, caller: &Caller, random: u32) -> Decision {
        // Without a token of the operator's own, nobody's counts.
        let override_ask = match snapshot.decide.override_token {
            Some(_) => self.override_ask(),
            None => None,
        };
        // The domain is asked for its cap alone.
        let has_caps = !snapshot.decide.domains.is_empty();
        let resource = if has_caps { self.resource(snapshot) } else { None };
        let question = Question {
            identity: &caller.identity,
            route: self.route,
            belongs: self.belongs(snapshot),
            domain: resource.and_then(|resource| resource.domain()),
            override_ask,
            client: caller.address,
            random,
        };
        decide(&question, &snapshot.decide)
    }

    fn override_ask(&self) -> Option<(Side, &str)> {
        let side = text(&self.headers, &OVERRIDE_SIDE).and_then(Side::parse)?;
        Some((side, text(&self.headers, &OVERRIDE_TOKEN).unwrap_or_default()))
    }
}

/// What a side is sent, and what undoes it in the answer.
#[derive(Debug)]
pub struct Sent {
    /// Which side, and why.
    pub decision: Decision,
    /// Path and query.
    pub target: PathAndQuery,
    /// The headers, without Host.
    pub headers: HeaderMap,
    undo: Undo,
}

impl Sent {
    /// Says an answer's headers in the client's words again, as far as its route needs it.
    pub fn restore(&self, headers: &mut HeaderMap) {
        if let Some(rest) = &self.undo.rest {
            rest.headers(headers);
        }
    }
}

/// Phases 2 to 4 of a request without a body, from a client at `peer` that speaks plain HTTP. `random`: fresh random bits.
///
/// # Errors
/// The status of a request that is refused.
pub fn walk(
    snapshot: &Snapshot,
    tokens: &TokenCache,
    peer: IpAddr,
    request: Request<()>,
    random: u128,
) -> Result<Sent, StatusCode> {
    let (parts, ()) = request.into_parts();
    let route =
        request::route(&parts.method, parts.uri.path()).map_err(|_| StatusCode::NOT_FOUND)?;
    let is_secure = is_secure(peer, &parts.headers, &snapshot.accept.trusted_proxies, false);
    let request_id = request_id(&parts.headers, random);
    let trace = Trace::of(parts.headers.get(TRACEPARENT), random, None);
    let target = parts.uri.into_parts().path_and_query.ok_or(StatusCode::NOT_FOUND)?;
    let (method, headers) = (parts.method, parts.headers);
    let mut asked = Asked::bare(route, method, target, headers);
    let caller = asked.caller(snapshot, tokens, peer);
    let decision = asked.decide(snapshot, &caller, random as u32);
    let own = Own { is_secure, request_id: &request_id, trace };
    let mut said = say(snapshot, &mut asked, &caller, decision.side, is_secure)
        .map_err(|refusal| refusal.response().0.status)?;
    said.sign(own);
    Ok(Sent { decision, target: said.target, headers: said.headers, undo: said.undo })
}
