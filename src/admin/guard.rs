//! Who may speak to the admin listener.
//!
//! With a token, everybody who presents it, and the console's page with a session that began with it. Without one
//! (loopback only; the settings guarantee that), every program of this machine and the console's page. No other web
//! page in any case: a page that an operator opens can make the browser send requests to 127.0.0.1, under its own
//! name (DNS rebinding: the Host is foreign) or across sites (Origin and Sec-Fetch-Site say so).

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};

use super::console::session::{Key, Sessions};
use super::{AdminError, State, console};
use crate::secret::Secret;

/// Probes come from kubelets and load balancers, which have no token.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// The page before its login. It holds no data.
const OPEN_PATHS: [&str; 3] = [console::PAGE, "/login", "/session"];

/// The page sends it with whatever it asks. Another site's page can't: a browser asks for leave first, and gets none.
const PAGE_HEADER: &str = "x-cutover-console";

/// Who asks, as far as anybody has to know.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Caller {
    /// The console's page, not a program.
    pub(super) is_page: bool,
    /// The page's session, when it is signed in.
    pub(super) session: Option<Key>,
}

/// What of a request is judged.
struct Asked<'a> {
    method: &'a Method,
    path: &'a str,
    /// The request target's authority, which outranks the Host header.
    host: &'a str,
    headers: &'a HeaderMap,
}

pub(super) async fn guard(
    Extract(state): Extract<State>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let verdict = if PROBES.contains(&path) {
        Ok(Caller::default())
    } else {
        let headers = request.headers();
        let host = request.uri().authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| text(headers, header::HOST)).unwrap_or_default();
        let asked = Asked { method: request.method(), path, host, headers };
        judge(&asked, state.token.as_ref(), &state.console.sessions)
    };
    match verdict {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

fn judge(
    asked: &Asked<'_>,
    token: Option<&Secret>,
    sessions: &Sessions,
) -> Result<Caller, AdminError> {
    if token.is_none() && !is_loopback(asked.host) {
        return Err(AdminError::forbidden("the Host is not this machine's loopback"));
    }
    if let Some(why) = asked.is_from_another_site() {
        return Err(AdminError::forbidden(why));
    }
    let Some(token) = token else {
        return Ok(Caller { is_page: asked.headers.contains_key(PAGE_HEADER), session: None });
    };
    if asked.headers.contains_key(header::AUTHORIZATION) {
        let is_right = presents(asked.headers, token);
        return if is_right { Ok(Caller::default()) } else { Err(AdminError::unauthorized()) };
    }
    let session = sessions.of(asked.headers, asked.host, Instant::now());
    let is_open = OPEN_PATHS.contains(&asked.path) || asked.path.starts_with(console::FILES);
    if session.is_none() && !is_open {
        return Err(AdminError::unauthorized());
    }
    // A browser adds the cookie by itself; this header it does not.
    if session.is_some() && asked.is_change() && !asked.headers.contains_key(PAGE_HEADER) {
        return Err(AdminError::forbidden("a change with a session needs the page's own header"));
    }
    Ok(Caller { is_page: session.is_some(), session })
}

impl Asked<'_> {
    fn is_change(&self) -> bool {
        !matches!(*self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Whether a browser says that another site's page asks, and how it is seen. Programs send neither header. Another
    /// port of the same machine is another site here, though its page would bring the cookie.
    fn is_from_another_site(&self) -> Option<&'static str> {
        // Reads as well: what a browser sends in the clear to another machine has no Sec-Fetch-Site.
        for origin in self.headers.get_all(header::ORIGIN) {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            if !origin.is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(self.host)) {
                return Some("the Origin is another site");
            }
        }
        let is_navigation = !self.is_change() && self.says("sec-fetch-mode", &["navigate"]);
        let is_own = match self.headers.get("sec-fetch-site") {
            None => true,
            Some(_) if self.is_change() => self.says("sec-fetch-site", &["same-origin"]),
            // `none`: the operator typed the address.
            Some(_) => is_navigation || self.says("sec-fetch-site", &["same-origin", "none"]),
        };
        (!is_own).then_some("Sec-Fetch-Site says that another site's page asks")
    }

    fn says(&self, name: &str, words: &[&str]) -> bool {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.is_some_and(|value| words.contains(&value))
    }
}

fn presents(headers: &HeaderMap, token: &Secret) -> bool {
    let Some((scheme, presented)) =
        text(headers, header::AUTHORIZATION).and_then(|value| value.split_once(' '))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer") && token.is(presented.trim())
}

fn is_loopback(authority: &str) -> bool {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(literal) => literal.split_once(']').unwrap_or_default(),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    // A port or nothing: whatever else stands there, somebody may read the name out of it.
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
        && (host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback()))
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, pairs: &[(header::HeaderName, &str)], token: Option<&str>) -> u16 {
        let headers: HeaderMap =
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let token = token.map(Secret::new);
        let host = text(&headers, header::HOST).unwrap_or_default();
        let asked = Asked { method: &method, path: "/rollout", host, headers: &headers };
        match judge(&asked, token.as_ref(), &Sessions::default()) {
            Ok(_) => 200,
            Err(refused) => refused.into_response().status().as_u16(),
        }
    }

    #[test]
    fn without_a_token_only_loopback_names_are_answered() {
        for (host, want) in [
            ("localhost", 200),
            ("LOCALHOST:8001", 200),
            ("127.0.0.1:8001", 200),
            ("127.9.9.9", 200),
            ("[::1]:8001", 200),
            ("[::ffff:127.0.0.1]:8001", 200),
            ("evil.example:8001", 403),
            ("localhost.evil.example", 403),
            ("localhost.", 403),
            ("127.0.0.1.", 403),
            ("localhost:8001.evil.example", 403),
            ("localhost:8001@evil.example", 403),
            ("localhost:", 403),
            ("[::1].evil.example", 403),
            ("[::1]evil.example:8001", 403),
            ("[::1", 403),
            ("::1", 403),
            ("2130706433", 403),
            ("0x7f.1", 403),
            ("0.0.0.0:8001", 403),
            ("[::]:8001", 403),
            ("127.0.0.1.evil.example", 403),
            ("10.0.0.1", 403),
            ("[::2]", 403),
            ("", 403),
        ] {
            assert_eq!(status(Method::GET, &[(header::HOST, host)], None), want, "{host}");
        }
        assert_eq!(status(Method::GET, &[], None), 403, "no Host at all");
    }

    #[test]
    fn another_sites_page_changes_nothing_and_reads_nothing() {
        for (host, origin, want) in [
            ("localhost:8001", "http://localhost:8001", 200),
            ("localhost:8001", "https://localhost:8001", 200),
            ("localhost:8001", "http://LOCALHOST:8001", 200),
            ("localhost", "http://localhost", 200),
            ("[::1]:8001", "http://[::1]:8001", 200),
            ("localhost:8001", "http://localhost:3000", 403),
            ("localhost:8001", "http://localhost", 403),
            ("localhost:8001", "http://localhost.:8001", 403),
            ("localhost:8001", "http://127.0.0.1:8001", 403),
            ("[::1]:8001", "http://[::2]:8001", 403),
            ("localhost:8001", "https://evil.example", 403),
            ("localhost:8001", "http://localhost:8001.evil.example", 403),
            ("localhost:8001", "http://evil.example/localhost:8001", 403),
            ("localhost:8001", "localhost:8001", 403),
            ("localhost:8001", "null", 403),
            ("localhost:8001", "", 403),
        ] {
            let headers = [(header::HOST, host), (header::ORIGIN, origin)];
            for method in [Method::PUT, Method::POST, Method::GET] {
                assert_eq!(status(method.clone(), &headers, None), want, "{method} {origin}");
            }
        }
        let two = [
            (header::HOST, "localhost:8001"),
            (header::ORIGIN, "http://localhost:8001"),
            (header::ORIGIN, "https://evil.example"),
        ];
        assert_eq!(status(Method::PUT, &two, None), 403, "one of two");
    }

    #[test]
    fn what_the_browser_says_of_the_asking_page_counts() {
        const SITE: header::HeaderName = header::HeaderName::from_static("sec-fetch-site");
        const MODE: header::HeaderName = header::HeaderName::from_static("sec-fetch-mode");
        for (method, site, mode, want) in [
            (Method::GET, "same-origin", "cors", 200),
            (Method::GET, "none", "navigate", 200),
            // A link on another page; its answer is shown to the operator, not to that page.
            (Method::GET, "cross-site", "navigate", 200),
            (Method::GET, "cross-site", "no-cors", 403),
            (Method::GET, "same-site", "cors", 403),
            (Method::PUT, "same-origin", "cors", 200),
            (Method::PUT, "same-site", "cors", 403),
            (Method::PUT, "cross-site", "cors", 403),
            (Method::POST, "cross-site", "navigate", 403),
            (Method::POST, "none", "navigate", 403),
        ] {
            let headers = [(header::HOST, "localhost:8001"), (SITE, site), (MODE, mode)];
            assert_eq!(status(method.clone(), &headers, None), want, "{method} {site} {mode}");
        }
    }

    #[test]
    fn a_token_is_asked_for_and_then_the_name_does_not_matter() {
        let host = (header::HOST, "cutover.internal");
        for (authorization, want) in [
            ("Bearer right", 200),
            ("bearer right", 200),
            ("Bearer  right", 200),
            ("Bearer wrong", 401),
            ("Bearer righ", 401),
            ("Bearer right2", 401),
            ("Basic right", 401),
            ("right", 401),
            ("", 401),
        ] {
            let headers = [host.clone(), (header::AUTHORIZATION, authorization)];
            assert_eq!(status(Method::GET, &headers, Some("right")), want, "{authorization}");
        }
        let local = [(header::HOST, "localhost")];
        assert_eq!(status(Method::GET, &local, Some("right")), 401, "loopback needs it too");
    }
}
