//! Headers that end at this proxy, and those that it sets itself.

use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::route::Route;

/// Hop-by-hop headers (RFC 9110 7.6.1, RFC 9113 8.2.2). `Trailer` stays: it announces what is passed on.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What a client could use to pretend to be our gateway, our proxy, or another client (`supabase-wire.md` 1.3).
const CLIENT_CLAIMS: [HeaderName; 11] = [
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("sb-api-key"),
    HeaderName::from_static("sb-forwarded-for"),
    HeaderName::from_static("cf-connecting-ip"),
    HeaderName::from_static("cf-connecting-ipv6"),
    HeaderName::from_static("true-client-ip"),
    HeaderName::from_static("proxy-authorization"),
    OVERRIDE_SIDE,
    OVERRIDE_TOKEN,
    HeaderName::from_static("x-client-ip"),
];

/// Names a side for this request; counts only with the token.
pub const OVERRIDE_SIDE: HeaderName = HeaderName::from_static("x-cutover-side");
/// The token that makes it count.
pub const OVERRIDE_TOKEN: HeaderName = HeaderName::from_static("x-cutover-override-token");
/// Kept or made, and passed on.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED: &str = "x-forwarded-";
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// What the proxy knows of the client, for the headers that it sets anew.
#[derive(Clone, Copy, Debug)]
pub struct ClientFacts {
    /// Its address.
    pub address: IpAddr,
    /// Whether it speaks TLS to us.
    pub is_secure: bool,
}

/// Removes the headers that end here: hop-by-hop ones, those that `Connection` names, and framing that the next connection makes
/// anew. Works for requests and responses.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Whether the request asks for a WebSocket (RFC 6455 4.1): the only upgrade that is passed on.
#[must_use]
pub fn is_websocket(method: &Method, headers: &HeaderMap) -> bool {
    let has_token = |name: &HeaderName, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    method == Method::GET
        && has_token(&header::UPGRADE, "websocket")
        && has_token(&header::CONNECTION, "upgrade")
}

/// Makes a request's headers fit for the side: strips what ends here or could deceive, and sets anew what the side may rely on.
/// Keys, profile and Host are set by others.
pub fn prepare(headers: &mut HeaderMap, route: Route, client: ClientFacts, is_websocket: bool) {
    let wants_trailers =
        headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if is_websocket {
        // A handshake has no body, whatever it says.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    for name in &CLIENT_CLAIMS {
        headers.remove(name);
    }
    let forwarded: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(X_FORWARDED)).cloned().collect();
    for name in forwarded {
        headers.remove(name);
    }
    if route == Route::Realtime {
        headers.remove(X_API_KEY);
    }
    // SQL can see cookies; no service but auth (OAuth 1) and people's own functions has a use for them (trap 42).
    if !matches!(route, Route::Auth | Route::Functions) {
        headers.remove(header::COOKIE);
    }
    join_cookies(headers);
    if let Ok(address) = HeaderValue::from_str(&client.address.to_string()) {
        headers.insert(X_FORWARDED_FOR, address);
    }
    headers.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if client.is_secure { "https" } else { "http" }),
    );
}

/// HTTP/2 clients may send each cookie in a line of its own; over HTTP/1 there is one line (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()))
    {
        headers.insert(header::COOKIE, joined);
    }
}

/// The request's id: the client's own if it can stand in a log line, else `made`.
#[must_use]
pub fn request_id(headers: &HeaderMap, made: u128) -> HeaderValue {
    let fits = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= 128 && bytes.iter().all(u8::is_ascii_graphic)
    };
    match headers.get(&REQUEST_ID).filter(fits) {
        Some(id) => id.clone(),
        None => HeaderValue::from_str(&format!("{made:032x}"))
            .unwrap_or(HeaderValue::from_static("unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
            })
            .collect()
    }

    const CLIENT: ClientFacts =
        ClientFacts { address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), is_secure: true };

    #[test]
    fn trap_37_hop_by_hop_headers_and_those_that_connection_names_end_here() {
        let mut map = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
            ("prefer", "count=exact"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("trailer", "x-sum"), ("prefer", "count=exact")]));
    }

    #[test]
    fn what_could_deceive_the_side_is_replaced() {
        let mut map = headers(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-anything", "evil"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("sb-api-key", "evil"),
            ("sb-forwarded-for", "6.6.6.6"),
            ("x-cutover-side", "new"),
            ("x-cutover-override-token", "secret"),
            ("cookie", "a=b"),
            ("te", "trailers"),
            ("origin", "https://app"),
        ]);
        prepare(&mut map, Route::Rest, CLIENT, false);
        let want = headers(&[
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("te", "trailers"),
            ("origin", "https://app"),
        ]);
        assert_eq!(map, want);
    }

    #[test]
    fn x_api_key_ends_here_on_realtime_alone_and_cookies_everywhere_but_auth_and_functions() {
        for route in Route::ALL {
            let mut map = headers(&[("x-api-key", "k"), ("cookie", "a=b")]);
            prepare(&mut map, route, CLIENT, false);
            assert_eq!(map.contains_key("x-api-key"), route != Route::Realtime, "{route}");
            assert_eq!(
                map.contains_key("cookie"),
                matches!(route, Route::Auth | Route::Functions),
                "{route}"
            );
        }
    }

    #[test]
    fn cookie_crumbs_become_one_line() {
        let mut map = headers(&[("cookie", "a=b"), ("cookie", "c=d")]);
        prepare(&mut map, Route::Auth, CLIENT, false);
        assert_eq!(map.get_all("cookie").iter().collect::<Vec<_>>(), ["a=b; c=d"]);
    }

    #[test]
    fn only_websockets_are_upgraded() {
        let ask =
            |connection, upgrade| headers(&[("connection", connection), ("upgrade", upgrade)]);
        assert!(is_websocket(&Method::GET, &ask("keep-alive, Upgrade", "WebSocket")));
        assert!(!is_websocket(&Method::GET, &ask("keep-alive", "websocket")));
        assert!(!is_websocket(&Method::GET, &ask("upgrade", "h2c")));
        assert!(!is_websocket(&Method::POST, &ask("upgrade", "websocket")));
    }

    #[test]
    fn ids_are_kept_or_made() {
        assert_eq!(request_id(&headers(&[("x-request-id", "abc-1")]), 7), "abc-1");
        for bad in ["", "a b", &"x".repeat(129)] {
            assert_eq!(
                request_id(&headers(&[("x-request-id", bad)]), 7),
                "00000000000000000000000000000007"
            );
        }
    }
}
