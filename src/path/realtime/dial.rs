//! The other half: a socket to a side, opened with the client's own handshake in the words of that side.

use std::rc::Rc;

use http::header::{self, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode};
use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use super::ground::Facts;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::identify::credentials::Credentials;
use crate::observe::ErrorCode;
use crate::path::refusal::Refusal;
use crate::path::rewrite::Own;
use crate::path::worker::Worker;
use crate::path::{Asked, Caller};
use crate::rewrite::keys::KeyPlaces;
use crate::route::Route;
use crate::side::Side;
use crate::snapshot::Snapshot;
use crate::trace::Trace;

/// What is kept of the client's handshake, to be said to either side at any time.
#[derive(Debug)]
pub(super) struct Opening {
    /// The client's path and query, raw.
    pub(super) target: PathAndQuery,
    /// The client's headers, as they came.
    pub(super) headers: HeaderMap,
    /// Whether the client speaks TLS to us.
    pub(super) is_secure: bool,
    pub(super) request_id: HeaderValue,
    /// Its spans at the side hang below the handshake's.
    pub(super) trace: Trace,
}

/// Why there is no socket to a side.
#[derive(Debug)]
pub(super) struct NoSocket {
    pub(super) code: ErrorCode,
    /// What the side answered instead of 101.
    pub(super) status: Option<StatusCode>,
}

impl From<Refusal> for NoSocket {
    fn from(refusal: Refusal) -> Self {
        Self { code: refusal.code, status: None }
    }
}

impl From<ErrorCode> for NoSocket {
    fn from(code: ErrorCode) -> Self {
        Self { code, status: None }
    }
}

/// Opens a socket to a side. Bounded by `upstream.connect_timeout` and `upstream.timeout`.
///
/// # Errors
/// [`NoSocket`].
pub(super) async fn dial(
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    opening: &Opening,
    facts: &Facts,
    side: Side,
) -> Result<Upgraded<Stream>, NoSocket> {
    let key = generate_key();
    let (target, headers) = handshake(worker, snapshot, opening, facts, side, &key).await?;
    let sending = worker.pool.send_upgrade(side, &snapshot.forward, Method::GET, target, headers);
    let (response, upgraded) = sending.await.map_err(|error| {
        tracing::warn!(%side, %error, "no WebSocket to the side");
        NoSocket::from(Refusal::from(&error))
    })?;
    let status = response.status();
    let Some(upgraded) = upgraded else {
        tracing::warn!(%side, status = status.as_u16(), "the side refused a WebSocket");
        return Err(NoSocket { code: ErrorCode::HandshakeRefused, status: Some(status) });
    };
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
    {
        tracing::warn!(%side, "the side's 101 is not the answer to this handshake");
        return Err(ErrorCode::UpstreamBroke.into());
    }
    Ok(upgraded)
}

/// Path, query and headers of the handshake. Keys are looked up anew: they may have changed since the client came.
async fn handshake(
    worker: &Worker,
    snapshot: &Snapshot,
    opening: &Opening,
    facts: &Facts,
    side: Side,
    key: &str,
) -> Result<(PathAndQuery, HeaderMap), Refusal> {
    let Opening { target, headers, is_secure, request_id, trace } = opening;
    let credentials = Credentials::of(headers, target.query(), &snapshot.keyring);
    let caller = Caller {
        identity: facts.identity.clone(),
        keys: KeyPlaces::of(&credentials),
        address: facts.address,
    };
    let mut asked = Asked {
        route: Route::Realtime,
        method: Method::GET,
        target: target.clone(),
        headers: headers.clone(),
        names: None,
        body: None,
        upgrade: None,
    };
    let own = Own { is_secure: *is_secure, request_id, trace: *trace };
    let mut said = worker.rewrite(snapshot, &mut asked, &caller, side, own).await?;
    let headers = &mut said.headers;
    let key = HeaderValue::from_str(key).map_err(|_| Refusal::of(ErrorCode::Malformed))?;
    let handshake: [(HeaderName, HeaderValue); 4] = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
        (header::SEC_WEBSOCKET_KEY, key),
    ];
    for (name, value) in handshake {
        headers.insert(name, value);
    }
    headers.remove(header::CONTENT_LENGTH);
    // What would be compressed could not be read here.
    headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
    Ok((said.target, said.headers))
}
