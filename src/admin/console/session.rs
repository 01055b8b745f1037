//! Who is signed in to the console. A browser's event stream can't carry an Authorization header, so the page
//! changes the admin token for a cookie once.
//!
//! Sessions live in this process's memory: a restart ends them all, and so does taking the token away. The cookie is
//! named by the port, because browsers share cookies between the ports of a host, and two replicas may be forwarded
//! to two ports of the same machine.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, Extension, State as Extract};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::admin::guard::Caller;
use crate::admin::{AdminError, State};
use crate::identify::cookies;

/// A session that nobody used for so long is over.
const IDLE: Duration = Duration::from_secs(12 * 60 * 60);
/// A session is over after this time even if it is used.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Sessions at a time; one more takes the place of the one that was not used for longest.
const SESSIONS: usize = 64;
/// Wrong tokens within [`WINDOW`], from everybody together; then logins wait. The command line does not.
const WRONG_TOKENS: usize = 10;
const WINDOW: Duration = Duration::from_secs(60);

const COOKIE: &str = "cutover_session";

/// A session's name in memory: a hash of what the cookie holds, so that neither a look-up's time nor a dump of the
/// table tells a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::admin) struct Key([u8; 32]);

#[derive(Clone, Copy)]
struct Session {
    begun: Instant,
    used: Instant,
}

/// Those who are signed in.
#[derive(Default)]
pub(in crate::admin) struct Sessions(Mutex<HashMap<Key, Session>>);

/// The times of wrong tokens, oldest first.
#[derive(Debug, Default)]
pub(in crate::admin) struct Logins(Mutex<VecDeque<Instant>>);

impl Key {
    fn of(cookie: &str) -> Self {
        Self(Sha256::digest(cookie).into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("open", &self.lock().len()).finish()
    }
}

impl Session {
    fn is_live(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) < IDLE
            && now.saturating_duration_since(self.begun) < LONGEST
    }
}

impl Sessions {
    /// Begins a session; the answer is the cookie's value, 256 random bits.
    pub(super) fn begin(&self, now: Instant) -> String {
        let cookie = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.is_live(now));
        if sessions.len() >= SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used);
            if let Some(key) = oldest.map(|(key, _)| *key) {
                sessions.remove(&key);
            }
        }
        sessions.insert(Key::of(&cookie), Session { begun: now, used: now });
        cookie
    }

    /// The session of the request's cookie, which counts as used; `None` when there is none or it is over.
    pub(in crate::admin) fn of(
        &self,
        headers: &HeaderMap,
        host: &str,
        now: Instant,
    ) -> Option<Key> {
        let name = cookie_name(host);
        let mut sessions = self.lock();
        let key = cookies(headers)
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| Key::of(value))
            .find(|key| sessions.get(key).is_some_and(|session| session.is_live(now)))?;
        sessions.get_mut(&key)?.used = now;
        Some(key)
    }

    /// Whether the session is not over. Asking does not count as use.
    pub(super) fn is_live(&self, key: Key, now: Instant) -> bool {
        self.lock().get(&key).is_some_and(|session| session.is_live(now))
    }

    fn end(&self, key: Key) {
        self.lock().remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logins {
    /// How long the next try has to wait; `None` when it may be made.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let mut wrong = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.retain(|at| now.saturating_duration_since(*at) < WINDOW);
        let oldest = wrong.front().filter(|_| wrong.len() >= WRONG_TOKENS)?;
        Some(WINDOW.saturating_sub(now.saturating_duration_since(*oldest)))
    }

    fn failed(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(now);
    }
}

/// The body of `POST /login`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    token: String,
}

/// What `GET /session` says, to everybody.
#[derive(Serialize)]
struct Standing {
    /// Whether there is a token at all.
    login: bool,
    signed_in: bool,
}

pub(in crate::admin) async fn standing(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
) -> Response {
    let login = state.token.is_some();
    Json(Standing { login, signed_in: !login || caller.session.is_some() }).into_response()
}

pub(in crate::admin) async fn login(
    Extract(state): Extract<State>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, AdminError> {
    const SHAPE: &str = "Send {\"token\":\"…\"}.";
    let Some(token) = &state.token else {
        return Err(AdminError::bad_request(
            "there is no token, and so no login",
            "Open the page.",
        ));
    };
    // What the parser says of a body could hold a piece of a token.
    let asked: Asked = serde_json::from_slice(&body?)
        .map_err(|_| AdminError::bad_request("the body is not a login", SHAPE))?;
    let now = Instant::now();
    let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    if let Some(wait) = state.console.logins.wait(now) {
        return Err(AdminError::too_many_logins(wait));
    }
    if !token.is(&asked.token) {
        state.console.logins.failed(now);
        tracing::warn!(?peer, "console: login refused, wrong token");
        return Err(AdminError::unauthorized());
    }
    tracing::info!(?peer, "console: login");
    let cookie = state.console.sessions.begin(now);
    Ok(answer(&headers, &format!("{cookie}; Path=/; HttpOnly; SameSite=Strict")))
}

pub(in crate::admin) async fn logout(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Response {
    if let Some(key) = caller.session {
        state.console.sessions.end(key);
    }
    answer(&headers, "; Path=/; HttpOnly; SameSite=Strict; Max-Age=0")
}

/// 204 with the cookie set. `Secure` where the browser came by https, through a proxy that ends TLS.
fn answer(headers: &HeaderMap, rest: &str) -> Response {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let is_secure = text("origin").is_some_and(|origin| origin.starts_with("https://"))
        || text("x-forwarded-proto").is_some_and(|proto| proto.eq_ignore_ascii_case("https"));
    let secure = if is_secure { "; Secure" } else { "" };
    let name = cookie_name(text("host").unwrap_or_default());
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(value) = HeaderValue::try_from(format!("{name}={rest}{secure}")) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

fn cookie_name(host: &str) -> String {
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| {
        !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    port.map_or_else(|| COOKIE.to_owned(), |port| format!("{COOKIE}_{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cookie: &str) -> HeaderMap {
        let cookie = format!("a=b; cutover_session_8001={cookie}; c");
        HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())])
    }

    #[test]
    fn a_session_ends_when_nobody_uses_it_and_at_its_longest() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let cookie = sessions.begin(start);
        assert_eq!(cookie.len(), 43, "256 bits");
        let is_open = |host, now| sessions.of(&with(&cookie), host, now).is_some();
        assert!(is_open("localhost:8001", start + IDLE - Duration::from_secs(1)));
        assert!(!is_open("localhost:8002", start), "another port's console");
        assert!(!is_open("localhost:8001", start + 2 * IDLE), "idle since its last use");
        let mut now = start;
        while now + IDLE / 2 < start + LONGEST {
            now += IDLE / 2;
            assert!(is_open("localhost:8001", now));
        }
        assert!(!is_open("localhost:8001", start + LONGEST), "used all the time");
    }

    #[test]
    fn asking_is_no_use_and_an_end_is_an_end() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let cookie = sessions.begin(start);
        let key = sessions.of(&with(&cookie), "h:8001", start).unwrap();
        assert!(sessions.is_live(key, start + IDLE / 2));
        assert!(!sessions.is_live(key, start + IDLE));
        sessions.end(key);
        assert!(!sessions.is_live(key, start));
        assert!(sessions.of(&with(&cookie), "h:8001", start).is_none());
        assert!(sessions.of(&with(""), "h:8001", start).is_none());
    }

    #[test]
    fn there_are_never_more_sessions_than_the_limit_and_the_longest_unused_goes() {
        let sessions = Sessions::default();
        let start = Instant::now();
        let second = |i: usize| start + Duration::from_secs(i as u64);
        let cookies: Vec<String> = (0..SESSIONS).map(|i| sessions.begin(second(i))).collect();
        // The first is used again, so the second is the one that goes.
        assert!(sessions.of(&with(&cookies[0]), "h:8001", second(SESSIONS)).is_some());
        sessions.begin(second(SESSIONS + 1));
        assert_eq!(sessions.lock().len(), SESSIONS);
        let is_open =
            |i: usize| sessions.of(&with(&cookies[i]), "h:8001", second(SESSIONS + 2)).is_some();
        assert_eq!((is_open(0), is_open(1), is_open(2)), (true, false, true));
    }

    #[test]
    fn wrong_tokens_make_the_next_try_wait() {
        let logins = Logins::default();
        let start = Instant::now();
        for _ in 0..WRONG_TOKENS {
            assert_eq!(logins.wait(start), None);
            logins.failed(start);
        }
        assert_eq!(logins.wait(start), Some(WINDOW));
        assert_eq!(logins.wait(start + WINDOW / 2), Some(WINDOW / 2));
        assert_eq!(logins.wait(start + WINDOW), None);
    }

    #[test]
    fn no_cookie_is_in_a_debug() {
        let sessions = Sessions::default();
        let cookie = sessions.begin(Instant::now());
        assert!(!format!("{sessions:?}{:?}", Key::of(&cookie)).contains(&cookie[..8]));
    }
}
