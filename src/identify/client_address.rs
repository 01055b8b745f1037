//! The client's own address: the peer's, unless the peer is a proxy that we trust.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The address nearest to us that is not a trusted proxy. `X-Forwarded-For` is read from its end: whatever stands
/// left of the first stranger was written by the stranger and proves nothing.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut nearest = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(nearest) {
        return nearest;
    }
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for entry in value.to_str().unwrap_or_default().rsplit(',') {
            let Some(address) = parse(entry.trim()) else { return nearest };
            nearest = address;
            if !is_trusted(nearest) {
                return nearest;
            }
        }
    }
    nearest
}

/// Whether the client itself speaks TLS: to us, or to a trusted proxy in front of us that says so.
#[must_use]
pub fn is_secure(
    peer: IpAddr,
    headers: &HeaderMap,
    trusted: &[IpNet],
    speaks_tls_to_us: bool,
) -> bool {
    let peer = peer.to_canonical();
    if !trusted.iter().any(|network| network.contains(&peer)) {
        return speaks_tls_to_us;
    }
    match headers.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok()) {
        // The nearest proxy's word is the last.
        Some(protocols) => protocols
            .rsplit(',')
            .next()
            .is_some_and(|last| last.trim().eq_ignore_ascii_case("https")),
        None => speaks_tls_to_us,
    }
}

/// An address, also with a port behind it as some proxies write it.
fn parse(entry: &str) -> Option<IpAddr> {
    let address = entry
        .parse()
        .or_else(|_| entry.parse::<std::net::SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| entry.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>());
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_a_trusted_proxys_word_or_our_own_eyes() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        for (peer, said, own, want) in [
            ("10.0.0.1", Some("https"), false, true),
            ("10.0.0.1", Some("http"), true, false),
            ("10.0.0.1", Some("http, https"), false, true),
            ("10.0.0.1", None, true, true),
            ("192.0.2.1", Some("https"), false, false),
            ("192.0.2.1", Some("http"), true, true),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(X_FORWARDED_PROTO, said.parse().unwrap());
            }
            assert_eq!(
                is_secure(peer.parse().unwrap(), &headers, &trusted, own),
                want,
                "{peer} {said:?}"
            );
        }
    }

    #[test]
    fn believes_only_trusted_proxies() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        for (peer, forwarded, want) in [
            ("192.0.2.1", &["1.1.1.1"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.7, 10.2.2.2"], "198.51.100.7"),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["nonsense, 10.3.3.3"], "10.3.3.3"),
            ("::ffff:10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append(X_FORWARDED_FOR, value.parse().unwrap());
            }
            let found = client_address(peer.parse().unwrap(), &headers, &trusted);
            assert_eq!(found, want.parse::<IpAddr>().unwrap(), "{peer} {forwarded:?}");
        }
    }
}
