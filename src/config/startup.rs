//! Settings that are read once, at start: sockets, threads, logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::secret::Secret;
use crate::telemetry;

/// What can't change while the process lives.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Plain HTTP listener.
    pub listen: SocketAddr,
    /// Worker threads; never 0.
    pub workers: usize,
    /// TLS listener.
    pub tls: Option<TlsListener>,
    /// Admin listener.
    pub admin: SocketAddr,
    /// Admin token; always there when the admin listener is not on loopback.
    pub admin_token: Option<Secret>,
    /// How long a stop waits for requests in flight.
    pub drain_timeout: Duration,
    /// How long a flip takes to close the sockets whose side changed (`realtime.drain`).
    pub realtime_drain: Duration,
    /// Tables and functions that are counted by name (`limits.counted_names`).
    pub counted_names: usize,
    /// What leaves for a collector; `None`: nothing.
    pub telemetry: Option<telemetry::Settings>,
    /// How lines are written.
    pub log: Log,
    /// The ConfigMap that is followed through the Kubernetes API.
    pub kubernetes: Option<Kubernetes>,
    /// Where the replicas' admin listeners are.
    pub peers: Peers,
}

/// `[kubernetes]`, when it names a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Namespace; `None`: the pod's own.
    pub namespace: Option<String>,
    /// Name of the ConfigMap.
    pub name: String,
    /// Where the API is; `None`: where the pod's environment says.
    pub api: Option<Api>,
    /// After how long the API ends a watch; a watch that is silent for longer is dead.
    pub watch_timeout: Duration,
    /// How often the ConfigMap is listed anew although the watch is well.
    pub resync: Duration,
    /// How long a write may take.
    pub write_timeout: Duration,
    /// How long a start waits for the first answer.
    pub start_timeout: Duration,
}

/// An API server outside of the cluster's own environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Base URL.
    pub url: String,
    /// File with a bearer token; read again when it changes.
    pub token_file: Option<PathBuf>,
    /// PEM of its CA.
    pub ca: Option<PathBuf>,
}

/// Who else serves the same number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// `host:port` of admin listeners; each address of a host is one replica. Empty: this process alone.
    pub hosts: Vec<String>,
    /// How long all of them may take to answer.
    pub timeout: Duration,
}

/// `[tls]`
#[derive(Clone, Debug)]
pub struct TlsListener {
    /// Address.
    pub listen: SocketAddr,
    /// PEM certificate chain; read again when it changes.
    pub cert: PathBuf,
    /// PEM private key; read again when it changes.
    pub key: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// One JSON object per line, or text for people.
    pub json: bool,
    /// `error`, `warn`, `info`, `debug`, `trace`, or a tracing-subscriber filter.
    pub level: String,
    /// One line per request.
    pub access: bool,
}
