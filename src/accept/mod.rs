//! Phase 1: is this a request that we serve, within the limits, and framed without a doubt?

pub mod addresses;
mod answer;
pub mod connection;
pub mod framing;
pub mod fuzz;
mod http1;
mod http2;
pub mod listener;
pub mod meter;
pub mod request;
pub mod target;
pub mod tls;
mod unread;
pub mod wire;

use std::time::Duration;

use ipnet::IpNet;

use addresses::Pace;

/// The most header lines of a request; more is answered 431.
pub const MAX_HEADERS: usize = 100;

/// What is let in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Adds `x-cutover-*` headers to responses (`debug_headers`).
    pub debug_headers: bool,
    /// Networks whose `X-Forwarded-For` is believed for the client's address (`trusted_proxies`).
    pub trusted_proxies: Vec<IpNet>,
    /// Limits on one connection and one request.
    pub limits: Limits,
}

/// Every limit on what a client may send (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open client connections over all workers; one more is answered 503.
    pub connections: usize,
    /// The same of one client address; 0 = no limit.
    pub connections_per_address: u64,
    /// Requests of one client address; one more is answered 429. `per_second` = 0: no limit.
    pub pace: Pace,
    /// Bytes of a request head, request line included; more is answered 431.
    pub header_bytes: usize,
    /// Bytes of a request body; 0 = no limit; more is answered 413.
    pub body_bytes: u64,
    /// Bytes of a WebSocket frame from a client, and of a whole message of realtime from either end; more closes with 1009.
    pub frame_bytes: u64,
    /// From the first byte of a head to its last; closed after that.
    pub header_timeout: Duration,
    /// Between two pieces of a request body; closed after that.
    pub body_idle_timeout: Duration,
    /// How long a kept-alive connection may stay without a request.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer; closed after that.
    pub send_timeout: Duration,
    /// Concurrent HTTP/2 streams of one connection.
    pub http2_streams: u32,
    /// Requests of one HTTP/2 connection that its client gave up before their answer, beyond those that were answered; one more ends it.
    pub http2_resets: u32,
    /// HTTP/2 frames of one connection that carry nothing, per second; ten seconds' worth may come at once, and more ends it.
    pub http2_frames: u32,
}

#[cfg(test)]
mod fixture;
