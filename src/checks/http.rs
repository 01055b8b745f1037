//! Asks a project as the proxy would: the same connections, certificates, Host and keys, and nothing in between.

use std::rc::Rc;
use std::time::Duration;

use ::http::header::{self, ACCEPT_ENCODING, AUTHORIZATION, USER_AGENT};
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use tungstenite::handshake::client::generate_key;

use crate::forward;
use crate::forward::error::ForwardError;
use crate::forward::names::Resolver;
use crate::forward::pool::Pool;
use crate::forward::request_body::RequestBody;
use crate::forward::send::Outgoing;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::identify::keyring::{Keyring, Role};
use crate::observe::Metrics;
use crate::outbound::AGENT;
use crate::secret::Secret;
use crate::side::Side;
use crate::snapshot::Snapshot;

/// A question to one side: path below the project's URL, headers besides the keys, body.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The method.
    pub method: Method,
    /// Path and query, e.g. `/rest/v1/orders?limit=1`.
    pub target: String,
    /// Headers besides `apikey`, `Authorization`, `Host` and `User-Agent`.
    pub headers: HeaderMap,
    /// The body; empty: none.
    pub body: Bytes,
}

impl Ask {
    /// A `GET` without headers.
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Self { method: Method::GET, target: target.into(), headers, body }
    }

    /// The same with one more header; a value that no header can carry is left out.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
        self
    }
}

/// What is presented to the project.
#[derive(Clone, Copy, Debug)]
pub enum As<'t> {
    /// Nothing.
    Nobody,
    /// The side's key of a role, as `apikey` and as bearer.
    Key(Role),
    /// A user's token, with the side's anon key.
    User(&'t str),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, whole.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The side could not be reached, or broke off before its answer's head.
    #[error(transparent)]
    Forward(#[from] ForwardError),
    /// The answer was cut, or longer than was asked for.
    #[error("the answer was cut or is too long: {0}")]
    Body(String),
    /// The side answered something else than 101 to the handshake of a WebSocket.
    #[error("the WebSocket was refused with {0}")]
    NoSocket(StatusCode),
    /// No whole answer within the time.
    #[error("no whole answer within {0:?}")]
    Late(Duration),
    /// The settings have no such key for the side.
    #[error("no {0} is configured for this project")]
    NoKey(&'static str),
    /// The question can't be said in HTTP.
    #[error("the request can't be made: {0}")]
    Malformed(String),
}

/// Asks both sides. Like a worker's connections it belongs to one thread: use it inside a `LocalSet`.
#[derive(Debug)]
pub struct Http {
    pool: Rc<Pool>,
    settings: forward::Settings,
    keyring: Keyring,
    /// For a whole answer.
    timeout: Duration,
    /// Bytes of an answer's body.
    body_bytes: usize,
}

impl Http {
    /// A client with the settings' projects and keys; `timeout` is for each whole answer, of at most `body_bytes`.
    #[must_use]
    pub fn new(snapshot: &Snapshot, timeout: Duration, body_bytes: usize) -> Self {
        let pool = Pool::new(Metrics::new(0).shard(0), Resolver::default());
        let (settings, keyring) = (snapshot.forward.clone(), snapshot.keyring.clone());
        Self { pool, settings, keyring, timeout, body_bytes }
    }

    /// Sends one request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub async fn ask(&self, side: Side, who: As<'_>, ask: Ask) -> Result<Answer, NoAnswer> {
        let exchange = self.exchange(side, who, ask);
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or(Err(NoAnswer::Late(self.timeout)))
    }

    /// The same to a URL that is not below the project's: where its keys are published.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub async fn get_url(&self, side: Side, url: &str) -> Result<Answer, NoAnswer> {
        let (settings, target) = forward::leading_to(&self.settings, side, url)
            .ok_or_else(|| NoAnswer::Malformed("no URL".to_owned()))?;
        let headers = own_headers(HeaderMap::new());
        let exchange = self.send(side, &settings, target, Method::GET, headers, Bytes::new());
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or(Err(NoAnswer::Late(self.timeout)))
    }

    /// Opens a WebSocket with the side's key of a role in the headers. The caller speaks on it and bounds the time.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub async fn socket(
        &self,
        side: Side,
        role: Role,
        target: &str,
    ) -> Result<Upgraded<Stream>, NoAnswer> {
        let mut headers = own_headers(HeaderMap::new());
        headers.remove(ACCEPT_ENCODING);
        self.present(side, As::Key(role), &mut headers)?;
        // Realtime takes the key from the query, as from a browser, and reads no Authorization.
        headers.remove(AUTHORIZATION);
        let key = HeaderValue::try_from(generate_key())
            .map_err(|error| NoAnswer::Malformed(error.to_string()))?;
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
        let key = self.keyring.key_for(side, role).map_or("", |key| key.text.expose());
        let target = self.target(side, &format!("{target}&apikey={key}"))?;
        let sending = self.pool.send_upgrade(side, &self.settings, Method::GET, target, headers);
        let (response, upgraded) = sending.await?;
        upgraded.ok_or(NoAnswer::NoSocket(response.status()))
    }

    /// The certificate that the side shows, as DER; `None` without TLS.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub async fn certificate(&self, side: Side) -> Result<Option<Vec<u8>>, NoAnswer> {
        let shown = self.pool.certificate(side, &self.settings).await;
        shown.map_err(|error| NoAnswer::Forward(ForwardError::Connect(error)))
    }

    fn target(&self, side: Side, target: &str) -> Result<PathAndQuery, NoAnswer> {
        let prefix = &self.settings.projects[side].path_prefix;
        PathAndQuery::try_from(format!("{prefix}{target}"))
            .map_err(|error| NoAnswer::Malformed(error.to_string()))
    }

    async fn exchange(&self, side: Side, who: As<'_>, ask: Ask) -> Result<Answer, NoAnswer> {
        let target = self.target(side, &ask.target)?;
        let mut headers = own_headers(ask.headers);
        self.present(side, who, &mut headers)?;
        self.send(side, &self.settings, target, ask.method, headers, ask.body).await
    }

    async fn send(
        &self,
        side: Side,
        settings: &forward::Settings,
        target: PathAndQuery,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, NoAnswer> {
        let outgoing = Outgoing {
            is_repeatable: matches!(method, Method::GET | Method::HEAD),
            method,
            target,
            headers,
            continued: None,
            body: match body.is_empty() {
                true => RequestBody::Empty,
                false => RequestBody::Read(body),
            },
        };
        let sent = self.pool.send(side, settings, self.timeout, outgoing).await;
        let answer = sent.map_err(|error| match error {
            // Whichever of the two clocks strikes first, it was this long.
            ForwardError::Timeout => NoAnswer::Late(self.timeout),
            error => error.into(),
        })?;
        let (head, body) = answer.response.into_parts();
        let body = Limited::new(body, self.body_bytes).collect().await;
        let body = body.map_err(|error| NoAnswer::Body(error.to_string()))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    fn present(&self, side: Side, who: As<'_>, headers: &mut HeaderMap) -> Result<(), NoAnswer> {
        let role = match who {
            As::Nobody => return Ok(()),
            As::Key(role) => role,
            As::User(_) => Role::Anon,
        };
        let missing = match role {
            Role::Anon => "anon_key",
            Role::Service => "service_role_key",
        };
        let key = self.keyring.key_for(side, role).ok_or(NoAnswer::NoKey(missing))?;
        headers.insert(HeaderName::from_static("apikey"), key.header.clone());
        let bearer = match who {
            As::User(token) => Secret::new(token)
                .bearer()
                .map_err(|error| NoAnswer::Malformed(error.to_string()))?,
            As::Nobody | As::Key(_) => key.bearer.clone(),
        };
        headers.insert(AUTHORIZATION, bearer);
        Ok(())
    }
}

fn own_headers(mut headers: HeaderMap) -> HeaderMap {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, AGENT);
    headers
}
