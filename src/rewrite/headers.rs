//! Headers that end at this proxy, and those that it sets itself.

use std::io::Write;
use std::net::IpAddr;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use crate::route::Route;
use crate::trace::write_hex;

/// Names a side for this request; counts only with the token.
pub const OVERRIDE_SIDE: HeaderName = HeaderName::from_static("x-cutover-side");
/// The token that makes it count.
pub const OVERRIDE_TOKEN: HeaderName = HeaderName::from_static("x-cutover-override-token");
/// Kept or made, and passed on.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Hop-by-hop headers (RFC 9110 7.6.1, RFC 9113 8.2.2). `Trailer` stays: it announces what is passed on. The length first: most names
/// are none of these, and are seen to be none without a comparison.
fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name == "te",
        7 => name == "upgrade",
        10 => matches!(name, "connection" | "keep-alive"),
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        _ => false,
    }
}

/// What a client could use to pretend to be our gateway, our proxy, or another client (`supabase-wire.md` 1.3).
fn is_client_claim(name: &str) -> bool {
    match name.len() {
        9 => matches!(name, "forwarded" | "x-real-ip"),
        10 => name == "sb-api-key",
        11 => name == "x-client-ip",
        14 => name == "true-client-ip" || name == OVERRIDE_SIDE.as_str(),
        16 => matches!(name, "sb-forwarded-for" | "cf-connecting-ip"),
        18 => name == "cf-connecting-ipv6",
        19 => name == "proxy-authorization",
        24 => name == OVERRIDE_TOKEN.as_str(),
        _ => false,
    }
}

/// Whether a client's header ends here.
fn ends_here(name: &str, route: Route) -> bool {
    is_hop_by_hop(name)
        || is_client_claim(name)
        || name.starts_with("x-forwarded-")
        || match name {
            "x-api-key" => route == Route::Realtime,
            // SQL can see cookies; no service but auth (OAuth 1) and people's own functions has a use for them (trap 42).
            "cookie" => !matches!(route, Route::Auth | Route::Functions),
            _ => false,
        }
}

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
    strip(headers, is_hop_by_hop);
}

/// Removes every header that `is_theirs` says, which has to say `Connection` and `TE`, and those that `Connection` names. Answers `TE`.
fn strip(headers: &mut HeaderMap, is_theirs: impl Fn(&str) -> bool) -> Option<HeaderValue> {
    let (mut connections, mut te) = (Vec::new(), None);
    if has_repeated(headers) {
        connections.extend(headers.get_all(header::CONNECTION).iter().skip(1).cloned());
    }
    let mut connection = None;
    remove_where(headers, is_theirs, |name, value| {
        if name == header::CONNECTION {
            connection = Some(value);
        } else if name == header::TE {
            te = Some(value);
        }
    });
    for value in connection.iter().chain(&connections) {
        let options = value.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in options.filter(|option| !is_usual(option)) {
            headers.remove(name);
        }
    }
    te
}

/// What nearly every `Connection` says: options, and names that end here anyway.
fn is_usual(option: &str) -> bool {
    ["keep-alive", "close", "upgrade"].iter().any(|usual| option.eq_ignore_ascii_case(usual))
}

/// Whether any header has more than one line.
pub(super) fn has_repeated(headers: &HeaderMap) -> bool {
    headers.len() != headers.keys_len()
}

/// Removes every header whose name `is_out` says, and tells `gone` of each with its first value. Goes through what is there instead of
/// asking for what might be: a header map takes longer to say that it does not have a name than it takes to look at one that it has.
pub fn remove_where(
    headers: &mut HeaderMap,
    is_out: impl Fn(&str) -> bool,
    mut gone: impl FnMut(HeaderName, HeaderValue),
) {
    /// So many at a time are remembered without asking for memory; most messages have one or two.
    const AT_A_TIME: usize = 8;
    loop {
        let mut found = [const { None::<HeaderName> }; AT_A_TIME];
        let names = headers.keys().filter(|name| is_out(name.as_str()));
        let mut count = 0;
        for (place, name) in found.iter_mut().zip(names) {
            *place = Some(name.clone());
            count += 1;
        }
        for name in found.into_iter().take(count).flatten() {
            if let Some(value) = headers.remove(&name) {
                gone(name, value);
            }
        }
        if count < AT_A_TIME {
            return;
        }
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
    let te = strip(headers, |name| ends_here(name, route));
    if te.is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if is_websocket {
        // A handshake has no body, whatever it says.
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if matches!(route, Route::Auth | Route::Functions) {
        join_cookies(headers);
    }
    headers.insert(X_FORWARDED_FOR, address(client.address));
    headers.insert(
        X_FORWARDED_PROTO,
        HeaderValue::from_static(if client.is_secure { "https" } else { "http" }),
    );
}

/// An address as a header's value, without the detour over a text of its own, or for most over formatting.
fn address(address: IpAddr) -> HeaderValue {
    /// The longest is an IPv6 address that ends like an IPv4 one.
    const LONGEST: usize = 45;
    let mut text = [0; LONGEST];
    let length = match address {
        IpAddr::V4(address) => write_ipv4(&mut text, address.octets()),
        IpAddr::V6(address) => {
            let mut rest = text.as_mut_slice();
            write!(rest, "{address}").map_or(0, |()| LONGEST - rest.len())
        }
    };
    let text = text.get(..length).unwrap_or_default();
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static(""))
}

/// Writes `a.b.c.d`, and answers how many bytes that took.
fn write_ipv4(text: &mut [u8], octets: [u8; 4]) -> usize {
    let mut place = text.iter_mut();
    let mut length = 0;
    let mut put = |byte| {
        if let Some(place) = place.next() {
            *place = byte;
            length += 1;
        }
    };
    for (n, octet) in octets.into_iter().enumerate() {
        if n > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    length
}

/// HTTP/2 clients may send each cookie in a line of its own; over HTTP/1 there is one line (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if !has_repeated(headers) || headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())) {
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
        None => {
            let mut text = [0; 32];
            write_hex(&mut text, made);
            HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("unknown"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    /// What [`prepare`] does, as it is told: one name after the other.
    fn prepare_plainly(headers: &mut HeaderMap, route: Route, client: ClientFacts, upgrades: bool) {
        let wants_trailers =
            headers.get("te").is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
        strip_plainly(headers);
        if wants_trailers {
            headers.insert("te", HeaderValue::from_static("trailers"));
        }
        if upgrades {
            headers.remove("content-length");
            headers.insert("connection", HeaderValue::from_static("upgrade"));
            headers.insert("upgrade", HeaderValue::from_static("websocket"));
        }
        for name in CLAIMS {
            headers.remove(name);
        }
        let forwarded: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-forwarded-"))
            .cloned()
            .collect();
        for name in forwarded {
            headers.remove(name);
        }
        if route == Route::Realtime {
            headers.remove("x-api-key");
        }
        if !matches!(route, Route::Auth | Route::Functions) {
            headers.remove("cookie");
        }
        let crumbs: Vec<&[u8]> =
            headers.get_all("cookie").iter().map(HeaderValue::as_bytes).collect();
        if crumbs.len() > 1 {
            let joined = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice())).unwrap();
            headers.insert("cookie", joined);
        }
        headers.insert("x-forwarded-for", client.address.to_string().parse().unwrap());
        let scheme = if client.is_secure { "https" } else { "http" };
        headers.insert("x-forwarded-proto", HeaderValue::from_static(scheme));
    }

    fn strip_plainly(headers: &mut HeaderMap) {
        let named: Vec<HeaderName> = headers
            .get_all("connection")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
        for name in HOP_BY_HOP {
            headers.remove(name);
        }
    }

    const HOP_BY_HOP: [&str; 6] =
        ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

    const CLAIMS: [&str; 11] = [
        "forwarded",
        "x-real-ip",
        "sb-api-key",
        "sb-forwarded-for",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "true-client-ip",
        "proxy-authorization",
        "x-cutover-side",
        "x-cutover-override-token",
        "x-client-ip",
    ];

    /// Names of every kind, and some that look like them.
    fn any_name() -> impl Strategy<Value = String> {
        let usual = ["cookie", "x-api-key", "content-length", "apikey", "x-forwarded", "tea"];
        let listed: Vec<&str> = HOP_BY_HOP.into_iter().chain(CLAIMS).chain(usual).collect();
        prop_oneof![
            6 => prop::sample::select(listed).prop_map(str::to_owned),
            1 => "x-forwarded-[a-c]{0,2}",
            2 => "[a-c]{1,2}",
        ]
    }

    fn any_value() -> impl Strategy<Value = Vec<u8>> {
        let option = prop_oneof![
            any_name(),
            Just("Keep-Alive".to_owned()),
            Just("close".to_owned()),
            Just("Trailers".to_owned()),
            Just("B".to_owned()),
            Just("é ,".to_owned()),
        ];
        let list = prop::collection::vec(option, 0..3);
        list.prop_map(|options| options.join(" , ").into_bytes())
    }

    proptest! {
        #[test]
        fn one_pass_does_what_one_name_after_the_other_does(
            pairs in prop::collection::vec((any_name(), any_value()), 0..24),
            route in prop::sample::select(Route::ALL.to_vec()),
            upgrades: bool,
            is_secure: bool,
            address: IpAddr,
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &pairs {
                let name = name.parse::<HeaderName>().unwrap();
                map.append(name, HeaderValue::from_bytes(value).unwrap());
            }
            let client = ClientFacts { address, is_secure };
            let (mut plain, mut stripped, mut stripped_plainly) = (map.clone(), map.clone(), map.clone());
            prepare(&mut map, route, client, upgrades);
            prepare_plainly(&mut plain, route, client, upgrades);
            prop_assert_eq!(map, plain);
            strip_hop_by_hop(&mut stripped);
            strip_plainly(&mut stripped_plainly);
            prop_assert_eq!(stripped, stripped_plainly);
        }
    }

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
