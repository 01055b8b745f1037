//! Phase 6: says the side's answer as the client's own project would have said it.

pub mod cors;
pub mod encoding;
pub mod fuzz;
pub mod headers;
pub mod rest;
pub mod storage;
mod words;

use std::time::Duration;

/// What is needed to restore responses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How cross-origin requests are answered.
    pub cors: Cors,
    /// Error bodies up to this many bytes are read and restored; longer ones pass (`limits.error_body_bytes`).
    pub error_body_bytes: usize,
}

/// `[cors]`: the proxy answers preflights and replaces the upstream's headers (`supabase-wire.md` 1.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Allowed origins, each exact as browsers send them; empty = any (`*`).
    pub origins: Vec<String>,
    /// Whether credentials are allowed; only together with listed origins.
    pub credentials: bool,
    /// How long a browser may keep a preflight's answer.
    pub max_age: Duration,
}
