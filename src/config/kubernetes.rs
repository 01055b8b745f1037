//! `[kubernetes]`: which ConfigMap is followed, where its API is, who the other replicas are.

use std::path::Path;

use super::fault::Fault;
use super::merged::Merged;
use super::startup::{Api, Kubernetes, Peers};
use super::value::{Typed, quoted};

const CONFIGMAP: &str = "kubernetes.configmap";
const PEERS: &str = "kubernetes.peers";

/// Reads the section, or adds to the faults.
pub(crate) fn read(
    merged: &Merged,
    directory: &Path,
    faults: &mut Vec<Fault>,
) -> (Option<Kubernetes>, Peers) {
    let peers = Peers {
        hosts: hosts(merged.text(PEERS)).unwrap_or_else(|found| {
            let allowed = "host:port, or several of them with commas between";
            faults.push(Fault::new(merged.source(PEERS), PEERS, quoted(&found), allowed));
            Vec::new()
        }),
        timeout: merged.duration("kubernetes.peers_timeout"),
    };
    let text = merged.text(CONFIGMAP);
    if text.is_empty() {
        return (None, peers);
    }
    let (namespace, name) =
        text.rsplit_once('/').map_or((None, text), |(ns, name)| (Some(ns), name));
    if !is_subdomain(name) || !namespace.is_none_or(is_label) {
        let allowed = "a ConfigMap's name, or namespace/name: lower-case letters, digits, - and .";
        faults.push(Fault::new(merged.source(CONFIGMAP), CONFIGMAP, quoted(text), allowed));
        return (None, peers);
    }
    let path = |key| {
        Some(merged.text(key)).filter(|text| !text.is_empty()).map(|text| directory.join(text))
    };
    let api = match merged.value("kubernetes.api_url") {
        Typed::Url(url) => Some(Api {
            url: url.below(""),
            token_file: path("kubernetes.token_file"),
            ca: path("kubernetes.ca"),
        }),
        _ => None,
    };
    let kubernetes = Kubernetes {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        api,
        watch_timeout: merged.duration("kubernetes.watch_timeout"),
        resync: merged.duration("kubernetes.resync"),
        write_timeout: merged.duration("kubernetes.write_timeout"),
        start_timeout: merged.duration("kubernetes.start_timeout"),
    };
    (Some(kubernetes), peers)
}

/// The hosts of a list; the one that is none as an error.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let good = part.rsplit_once(':').is_some_and(|(host, port)| {
                let visible = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '@' | '?' | '#');
                let one_host =
                    !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
                !host.is_empty()
                    && host.chars().all(visible)
                    && one_host
                    && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if good { Ok(part.to_owned()) } else { Err(part.to_owned()) }
        })
        .collect()
}

/// RFC 1123, as Kubernetes asks of a namespace.
fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| plain(b) || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1123, as Kubernetes asks of a ConfigMap's name.
fn is_subdomain(text: &str) -> bool {
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !part.is_empty()
            && part.bytes().all(|b| plain(b) || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_allows() {
        for (text, good) in [
            ("cutover-rollout", true),
            ("a.b-c.d", true),
            ("", false),
            ("Cutover", false),
            ("a..b", false),
            ("-a", false),
            ("a_b", false),
            ("a b", false),
        ] {
            assert_eq!(is_subdomain(text), good, "{text}");
        }
        assert!(is_label("prod-1") && !is_label("a.b") && !is_label(&"a".repeat(64)));
        assert!(is_subdomain(&"a".repeat(253)) && !is_subdomain(&"a".repeat(254)));
    }

    #[test]
    fn peers_are_hosts_with_ports() {
        let list = |text: &str| hosts(text).unwrap();
        assert_eq!(list(""), Vec::<String>::new());
        assert_eq!(list("cutover-replicas:8001"), ["cutover-replicas:8001"]);
        assert_eq!(list("a:1, 127.0.0.1:2 ,[::1]:3"), ["a:1", "127.0.0.1:2", "[::1]:3"]);
        for bad in ["a", ":1", "a:", "a:0", "a:65536", "::1:3", "http://a:1", "a:1,b", "a b:1"] {
            assert!(hosts(bad).is_err(), "{bad}");
        }
    }
}
