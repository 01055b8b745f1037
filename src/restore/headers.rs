//! Response headers that name the project's own host: the client knows only the proxy's.

use http::header::{self, HeaderValue};
use http::uri::Authority;
use http::{HeaderMap, Uri};

/// How the client reached the proxy.
#[derive(Clone, Debug)]
pub struct PublicName {
    /// Host and port, as the client wrote them.
    pub authority: Option<Authority>,
    /// Whether over TLS.
    pub is_secure: bool,
}

/// Rewrites a `Location` whose host is the project's own to the proxy's; all others (an OAuth provider's, an
/// application's, PostgREST's root-relative ones) are left alone (trap 13).
pub fn restore_location(headers: &mut HeaderMap, project: &Authority, public: &PublicName) {
    let Some(public_authority) = &public.authority else { return };
    let Some(location) = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()) else {
        return;
    };
    let Ok(uri) = location.parse::<Uri>() else { return };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return };
    if !is_same_host(authority, scheme, project) {
        return;
    }
    // Everything behind the authority keeps its bytes, a fragment included: only `Uri` would lose it.
    let behind = location.split_once("://").map_or("", |(_, rest)| rest);
    let tail = behind.get(authority.as_str().len()..).unwrap_or_default();
    let scheme = if public.is_secure { "https" } else { "http" };
    if let Ok(value) = HeaderValue::from_str(&format!("{scheme}://{public_authority}{tail}")) {
        headers.insert(header::LOCATION, value);
    }
}

fn is_same_host(found: &Authority, scheme: &str, project: &Authority) -> bool {
    let default = if scheme == "https" { 443 } else { 80 };
    let port = |authority: &Authority| authority.port_u16();
    found.host().eq_ignore_ascii_case(project.host())
        && (port(found) == port(project)
            || port(found).unwrap_or(default) == port(project).unwrap_or(default))
}

/// Takes the `Domain` out of each cookie: it names the project's host, and the browser would drop the cookie (trap 42).
pub fn restore_cookies(headers: &mut HeaderMap) {
    if !headers.contains_key(header::SET_COOKIE) {
        return;
    }
    let cookies: Vec<HeaderValue> = headers
        .get_all(header::SET_COOKIE)
        .iter()
        .filter_map(|value| {
            let is_domain = |part: &&[u8]| {
                let name = part.split(|byte| *byte == b'=').next().unwrap_or_default();
                name.trim_ascii().eq_ignore_ascii_case(b"domain")
            };
            let parts = value.as_bytes().split(|byte| *byte == b';');
            let kept: Vec<&[u8]> = parts.filter(|part| !is_domain(part)).collect();
            HeaderValue::from_bytes(&kept.join(&b';')).ok()
        })
        .collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(location: &str, project: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, location.parse().unwrap());
        let public =
            PublicName { authority: Some("api.example.com".parse().unwrap()), is_secure: true };
        restore_location(&mut headers, &project.parse().unwrap(), &public);
        headers[header::LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn trap_13_only_the_projects_own_host_is_replaced() {
        for (location, want) in [
            (
                "https://old.supabase.co/auth/v1/verify?a=%2F#x",
                "https://api.example.com/auth/v1/verify?a=%2F#x",
            ),
            ("https://OLD.supabase.co:443/x", "https://api.example.com/x"),
            ("https://old.supabase.co", "https://api.example.com"),
            ("https://old.supabase.co:8443/x", "https://old.supabase.co:8443/x"),
            (
                "https://github.com/login?redirect_uri=https://old.supabase.co/auth/v1/callback",
                "https://github.com/login?redirect_uri=https://old.supabase.co/auth/v1/callback",
            ),
            ("https://old.supabase.co.evil.com/x", "https://old.supabase.co.evil.com/x"),
            ("/todos?id=eq.1", "/todos?id=eq.1"),
            ("myapp://callback#token", "myapp://callback#token"),
            ("not a uri at all", "not a uri at all"),
        ] {
            assert_eq!(restored(location, "old.supabase.co"), want);
        }
        assert_eq!(
            restored("http://127.0.0.1:9000/x", "127.0.0.1:9000"),
            "https://api.example.com/x"
        );
    }

    #[test]
    fn cookies_lose_their_domain_and_nothing_else() {
        let mut headers = HeaderMap::new();
        headers.append(
            header::SET_COOKIE,
            "__cf_bm=a=b; path=/; Domain=supabase.co; Secure".parse().unwrap(),
        );
        headers.append(header::SET_COOKIE, "x=1".parse().unwrap());
        headers.append(header::SET_COOKIE, HeaderValue::from_bytes(b"n=\xe9; domain=a").unwrap());
        restore_cookies(&mut headers);
        let cookies: Vec<_> =
            headers.get_all(header::SET_COOKIE).iter().map(HeaderValue::as_bytes).collect();
        assert_eq!(cookies, [b"__cf_bm=a=b; path=/; Secure".as_slice(), b"x=1", b"n=\xe9"]);
    }
}
