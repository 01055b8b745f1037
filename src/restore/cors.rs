//! Cross-origin requests: the proxy answers preflights itself (they carry no user, so they can't be routed; trap 14) and
//! replaces the upstream's headers, because two `Access-Control-Allow-Origin` are worse than none.

use http::header::{self, HeaderValue};
use http::{HeaderMap, Method};

use super::Cors;
use crate::rewrite::headers::remove_where;

/// What scripts may read of a response (`supabase-wire.md` 1.4), and the proxy's own.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Content-Range, Content-Location, Location, Content-Profile, Preference-Applied, Range-Unit, Content-Encoding, \
     ETag, Proxy-Status, X-Supabase-Api-Version, x-sb-error-code, sb-error-code, x-relay-error, x-sb-edge-region, \
     Upload-Offset, Upload-Length, Upload-Expires, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, \
     sb-request-id, Retry-After, x-request-id, x-cutover-side, x-cutover-reason, x-cutover-bucket, x-cutover-epoch",
);
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// For a preflight that asks for no header by name.
const USUAL_HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, apikey, x-client-info, content-type, accept-profile, content-profile, prefer",
);

/// Whether this is a preflight. A plain `OPTIONS` (PostgREST, TUS) is a request like any other.
#[must_use]
pub fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers of a preflight's answer. An origin that is not allowed gets none, which the browser reads as "no".
#[must_use]
pub fn preflight(cors: &Cors, asked: &HeaderMap) -> HeaderMap {
    let mut answer = HeaderMap::new();
    let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.insert(header::VARY, HeaderValue::from_static(vary));
    let Some(origin) = allowed(cors, asked.get(header::ORIGIN)) else { return answer };
    allow(cors, origin, &mut answer);
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    let headers =
        asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(USUAL_HEADERS);
    answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, headers);
    if let Ok(seconds) = HeaderValue::from_str(&cors.max_age.as_secs().to_string()) {
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, seconds);
    }
    answer
}

/// Replaces whatever the upstream said about cross-origin use by what this proxy says. `origin` is the request's.
pub fn apply(cors: &Cors, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
    remove_where(headers, |name| name.starts_with("access-control-"), |_, _| {});
    if !cors.origins.is_empty() {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    if let (Some(_), Some(value)) = (origin, allowed(cors, origin)) {
        allow(cors, value, headers);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

fn allow(cors: &Cors, origin: HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    // Never together with `*`: browsers refuse it, and settings refuse it first.
    if cors.credentials && !cors.origins.is_empty() {
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// The value of `Access-Control-Allow-Origin`, if the origin may ask.
fn allowed(cors: &Cors, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
    if cors.origins.is_empty() {
        return Some(HeaderValue::from_static("*"));
    }
    let origin = origin?;
    cors.origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn cors(origins: &[&str], credentials: bool) -> Cors {
        let origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        Cors { origins, credentials, max_age: Duration::from_secs(600) }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn trap_14_only_a_real_preflight_is_answered_here() {
        let full = [("origin", "https://a"), ("access-control-request-method", "POST")];
        assert!(is_preflight(&Method::OPTIONS, &headers(&full)));
        assert!(!is_preflight(&Method::GET, &headers(&full)));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&full[..1])));
        assert!(!is_preflight(&Method::OPTIONS, &headers(&full[1..])));
    }

    #[test]
    fn any_origin_gets_a_star_and_the_headers_that_it_asked_for() {
        let asked = headers(&[
            ("origin", "https://a"),
            ("access-control-request-headers", "x-new, apikey"),
        ]);
        let answer = preflight(&cors(&[], false), &asked);
        assert_eq!(answer["access-control-allow-origin"], "*");
        assert_eq!(answer["access-control-allow-headers"], "x-new, apikey");
        assert_eq!(answer["access-control-max-age"], "600");
        assert!(!answer.contains_key("access-control-allow-credentials"));
    }

    #[test]
    fn listed_origins_are_echoed_and_others_get_nothing() {
        let listed = cors(&["https://a"], true);
        let answer = preflight(&listed, &headers(&[("origin", "https://a")]));
        assert_eq!(answer["access-control-allow-origin"], "https://a");
        assert_eq!(answer["access-control-allow-credentials"], "true");
        let answer = preflight(&listed, &headers(&[("origin", "https://b")]));
        assert!(!answer.contains_key("access-control-allow-origin"));
        assert!(answer.contains_key("vary"));
    }

    #[test]
    fn upstream_headers_are_replaced_and_never_doubled() {
        let mut response = headers(&[
            ("access-control-allow-origin", "*"),
            ("access-control-allow-origin", "https://upstream"),
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x"),
            ("vary", "accept"),
        ]);
        apply(
            &cors(&["https://a"], false),
            Some(&HeaderValue::from_static("https://a")),
            &mut response,
        );
        let values: Vec<_> = response.get_all("access-control-allow-origin").iter().collect();
        assert_eq!(values, ["https://a"]);
        assert!(!response.contains_key("access-control-allow-credentials"));
        assert!(
            response["access-control-expose-headers"].to_str().unwrap().contains("Content-Range")
        );
        assert_eq!(response.get_all("vary").iter().count(), 2);
        let mut plain = headers(&[("access-control-allow-origin", "*")]);
        apply(&cors(&["https://a"], false), None, &mut plain);
        assert!(!plain.contains_key("access-control-allow-origin"));
    }
}
