//! Phase 5: sends the request to its side and waits, bounded, for the answer.

mod dial;
pub mod error;
mod exchange;
pub mod frames;
mod lease;
#[cfg(test)]
pub(crate) mod memory;
pub mod names;
pub mod pool;
pub mod request_body;
pub mod response_body;
pub mod send;
pub mod tunnel;

use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri};
use serde::{Deserialize, Serialize};

use crate::side::{Pair, Side};

/// Where a project is and how to reach it. Checked: the URL has no path, query or user info.
#[derive(Clone, Debug)]
pub struct Project {
    /// Whether to speak TLS (`https`).
    pub tls: bool,
    /// Host to dial, without brackets around an IPv6 address.
    pub dial_host: String,
    /// Port to dial.
    pub dial_port: u16,
    /// What to send as Host / :authority (`projects.*.host`, default: the URL's own).
    pub authority: Authority,
    /// The same, ready as a header value.
    pub host_header: HeaderValue,
    /// Path prefix of the URL, empty or `/prefix` without a slash at its end.
    pub path_prefix: String,
    /// PEM of a private CA (`projects.*.ca`), already read.
    pub ca_pem: Option<String>,
}

/// What to do when the new side can't be reached (`rollout.on_new_unavailable`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnNewUnavailable {
    /// Answer 502.
    #[default]
    Fail,
    /// GET and HEAD go to old; writes never.
    OldForReads,
}

/// Both projects and how long to wait for them (`[projects]`, `[upstream]`).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where both projects are.
    pub projects: Pair<Project>,
    /// For a TCP (and TLS) connection to be made.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub timeout: Duration,
    /// The same for functions, which may take 150 s to their first byte (`supabase-wire.md` 6.1).
    pub functions_timeout: Duration,
    /// How long an idle connection is kept for reuse.
    pub idle_timeout: Duration,
    /// Idle connections kept per worker and side.
    pub idle_connections: usize,
    /// For how long a connection is used for new requests. A busy one would otherwise never learn that the name has another address.
    pub connection_lifetime: Duration,
    /// What to do when new can't be reached.
    pub on_new_unavailable: OnNewUnavailable,
}

/// Settings that lead to a URL of a side's, and the target there: at the project itself with the project's Host, or elsewhere (published
/// keys may be) with the URL's own. The project's CA counts for both. `None` for a text that is no URL.
#[must_use]
pub fn leading_to(settings: &Settings, side: Side, url: &str) -> Option<(Settings, PathAndQuery)> {
    let url: Uri = url.parse().ok()?;
    let target = url.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let tls = url.scheme() == Some(&Scheme::HTTPS);
    let authority = url.authority()?.clone();
    let mut settings = settings.clone();
    let project = &mut settings.projects[side];
    let dial_host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let dial_port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    if (tls, &dial_host, dial_port) != (project.tls, &project.dial_host, project.dial_port) {
        let host_header = HeaderValue::from_str(authority.as_str()).ok()?;
        let ca_pem = project.ca_pem.take();
        let path_prefix = String::new();
        *project =
            Project { tls, dial_host, dial_port, authority, host_header, path_prefix, ca_pem };
    }
    Some((settings, target))
}
