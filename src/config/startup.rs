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
