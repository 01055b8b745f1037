//! The client's half of a WebSocket's handshake (RFC 6455 4.2), answered here: at this moment nobody knows yet which side will hear
//! what the client says (trap 22).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{self, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, Response, StatusCode};
use tungstenite::handshake::derive_accept_key;

use crate::identify::query;
use crate::observe::ErrorCode;
use crate::path::refusal::Refusal;
use crate::realtime::session::Version;

/// The one version of WebSocket that there is (RFC 6455 4.1).
const WEBSOCKET_VERSION: &[u8] = b"13";
/// The subprotocol under which Phoenix passes a token beside other subprotocols.
const PHOENIX: &str = "phoenix";

/// A handshake that can be answered.
#[derive(Debug)]
pub(super) struct Accepted {
    /// How messages are written on this connection.
    pub(super) version: Version,
    accept: HeaderValue,
    protocol: Option<HeaderValue>,
}

impl Accepted {
    /// Looks at a handshake.
    ///
    /// # Errors
    /// 426 for another version than 13, 400 for a key that is none, 403 for a `vsn` that no serializer has: as Phoenix answers them.
    pub(super) fn of(headers: &HeaderMap, query: Option<&str>) -> Result<Self, Refusal> {
        let version = headers.get(header::SEC_WEBSOCKET_VERSION);
        if version.is_none_or(|version| version.as_bytes().trim_ascii() != WEBSOCKET_VERSION) {
            return Err(Refusal::of(ErrorCode::WebsocketVersion));
        }
        let accept = headers.get(header::SEC_WEBSOCKET_KEY).and_then(accept).ok_or_else(|| {
            Refusal::details(ErrorCode::Malformed, &"Sec-WebSocket-Key is not 16 bytes in base64")
        })?;
        let version = match query.and_then(|query| query::value(query, "vsn")) {
            None => Version::default(),
            Some(vsn) => serializer(&vsn).ok_or_else(|| Refusal::of(ErrorCode::UnknownVsn))?,
        };
        Ok(Self { version, accept, protocol: protocol(headers) })
    }

    /// The 101.
    pub(super) fn response(self) -> Parts {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        let headers = &mut parts.headers;
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        parts
    }
}

/// The answer to a key; `None` when the key is not 16 bytes in base64.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let key = key.as_bytes().trim_ascii();
    let bytes = STANDARD.decode(key).ok()?;
    (bytes.len() == 16).then(|| HeaderValue::from_str(&derive_accept_key(key)).ok())?
}

/// Which serializer a `vsn` asks for. The server has one for `~> 1.0.0` and one for `~> 2.0.0`: the last number is free, and nothing
/// may be missing.
fn serializer(vsn: &str) -> Option<Version> {
    let (major, patch) = vsn.split_once(".0.")?;
    let is_number = !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit());
    match major {
        "1" if is_number => Some(Version::V1),
        "2" if is_number => Some(Version::V2),
        _ => None,
    }
}

/// The subprotocol to choose: a browser that asked for one ends a connection on which none is chosen.
fn protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = || {
        headers
            .get_all(header::SEC_WEBSOCKET_PROTOCOL)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
    };
    let chosen = offered().find(|name| *name == PHOENIX).or_else(|| offered().next())?;
    HeaderValue::from_str(chosen).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn usual() -> HeaderMap {
        headers(&[
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ])
    }

    #[test]
    fn the_key_of_the_rfc_has_the_answer_of_the_rfc() {
        let parts = Accepted::of(&usual(), None).unwrap().response();
        assert_eq!(parts.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(parts.headers[header::SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(parts.headers.get(header::SEC_WEBSOCKET_PROTOCOL), None);
    }

    #[test]
    fn keys_and_versions_are_checked() {
        for (name, value, code) in [
            (header::SEC_WEBSOCKET_VERSION, Some("12"), ErrorCode::WebsocketVersion),
            (header::SEC_WEBSOCKET_VERSION, None, ErrorCode::WebsocketVersion),
            (header::SEC_WEBSOCKET_KEY, Some("dGhlIHNhbXBsZSBub25jZQ"), ErrorCode::Malformed),
            (header::SEC_WEBSOCKET_KEY, Some("AAAA"), ErrorCode::Malformed),
            (header::SEC_WEBSOCKET_KEY, None, ErrorCode::Malformed),
        ] {
            let mut headers = usual();
            match value {
                Some(value) => drop(headers.insert(&name, value.parse().unwrap())),
                None => drop(headers.remove(&name)),
            }
            assert_eq!(Accepted::of(&headers, None).unwrap_err().code, code, "{name}: {value:?}");
        }
    }

    #[test]
    fn a_vsn_is_one_that_the_server_has() {
        let of = |query: Option<&str>| Accepted::of(&usual(), query).map(|a| a.version);
        for (query, version) in [
            (None, Version::V1),
            (Some("apikey=k"), Version::V1),
            (Some("apikey=k&vsn=1.0.0"), Version::V1),
            (Some("vsn=2.0.0&apikey=k"), Version::V2),
            (Some("vsn=2.0.17"), Version::V2),
        ] {
            assert_eq!(of(query).unwrap(), version, "{query:?}");
        }
        for vsn in ["", "2", "2.0", "2.0.", "2.1.0", "3.0.0", "02.0.0", "2.0.0-rc", "2.0.x"] {
            let refused = of(Some(&format!("vsn={vsn}"))).unwrap_err();
            assert_eq!(refused.code, ErrorCode::UnknownVsn, "{vsn}");
        }
    }

    #[test]
    fn one_of_the_offered_subprotocols_is_chosen() {
        for (offered, chosen) in [
            ("phoenix", "phoenix"),
            ("a, b", "a"),
            ("base64url.bearer.phx.abc, phoenix", "phoenix"),
        ] {
            let mut headers = usual();
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
            let parts = Accepted::of(&headers, None).unwrap().response();
            assert_eq!(parts.headers[header::SEC_WEBSOCKET_PROTOCOL], chosen);
        }
    }
}
