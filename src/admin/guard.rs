//! Who may speak to the admin listener.
//!
//! With a token, everybody who presents it. Without one (loopback only; the settings guarantee that), every program of
//! this machine, but no web page: a page that an operator opens can make the browser send requests to
//! 127.0.0.1, under its own name (DNS rebinding: the Host is foreign) or across sites (the Origin is foreign).

use std::net::IpAddr;

use axum::extract::{Request, State as Extract};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, header};
use subtle::ConstantTimeEq;

use super::{AdminError, State};
use crate::secret::Secret;

/// Probes come from kubelets and load balancers, which have no token.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

pub(super) async fn guard(
    Extract(state): Extract<State>,
    request: Request,
    next: Next,
) -> Response {
    let open = OPEN_PATHS.contains(&request.uri().path());
    let host = request.uri().authority().map(ToString::to_string);
    let verdict = if open {
        Ok(())
    } else {
        judge(request.method(), host.as_deref(), request.headers(), state.token.as_ref())
    };
    match verdict {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    }
}

/// `authority` is the request target's, which outranks the Host header.
fn judge(
    method: &Method,
    authority: Option<&str>,
    headers: &HeaderMap,
    token: Option<&Secret>,
) -> Result<(), AdminError> {
    let host = authority.or_else(|| text(headers, header::HOST)).unwrap_or_default();
    match token {
        Some(token) if !presents(headers, token) => return Err(AdminError::unauthorized()),
        None if !is_loopback(host) => {
            return Err(AdminError::forbidden("the Host is not this machine's loopback"));
        }
        _ => {}
    }
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && let Some(origin) = headers.get(header::ORIGIN) {
        let own = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host));
        if !own {
            return Err(AdminError::forbidden("the Origin is another site"));
        }
    }
    Ok(())
}

/// In constant time, so that a token can't be guessed byte by byte.
fn presents(headers: &HeaderMap, token: &Secret) -> bool {
    let Some((scheme, presented)) =
        text(headers, header::AUTHORIZATION).and_then(|value| value.split_once(' '))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case("bearer")
        && bool::from(presented.trim().as_bytes().ct_eq(token.expose().as_bytes()))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: Method, pairs: &[(header::HeaderName, &str)], token: Option<&str>) -> u16 {
        let headers =
            pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let token = token.map(Secret::new);
        match judge(&method, None, &headers, token.as_ref()) {
            Ok(()) => 200,
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
    fn another_sites_page_changes_nothing() {
        for (origin, want) in [
            ("http://localhost:8001", 200),
            ("http://localhost:3000", 403),
            ("https://evil.example", 403),
            ("null", 403),
        ] {
            let headers = [(header::HOST, "localhost:8001"), (header::ORIGIN, origin)];
            assert_eq!(status(Method::PUT, &headers, None), want, "{origin}");
            assert_eq!(status(Method::POST, &headers, None), want, "{origin}");
            assert_eq!(status(Method::GET, &headers, None), 200, "{origin}");
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
