//! What leaves for an OpenTelemetry collector: spans of the requests that are traced, and the same numbers that the metrics page shows.
//!
//! Workers hand over facts through a bounded queue and never wait; everything else happens on a thread of its own. A collector that is
//! slow, away or out of its mind costs spans, which are counted, and never a request. Without `telemetry.endpoint` nothing of this runs.

pub mod export;
mod metrics;
mod spans;
mod value;
mod wire;

use std::time::Duration;

use http::{HeaderMap, Uri};

/// `[telemetry]`, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the collector listens: scheme, host, port, and a path that the signals' own paths follow (OTLP over HTTP alone).
    pub endpoint: Uri,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Sent with every export; their values are marked as sensitive.
    pub headers: HeaderMap,
    /// PEM of a private CA, already read.
    pub ca_pem: Option<String>,
    /// For one export, from the first packet to the answer.
    pub timeout: Duration,
    /// Whether requests are traced.
    pub traces: bool,
    /// Whether numbers are exported.
    pub metrics: bool,
    /// Between two exports of the numbers.
    pub metrics_interval: Duration,
    /// Requests that may wait to be exported.
    pub queue: usize,
    /// `service.name`.
    pub service_name: String,
}

/// How OTLP is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// Protobuf in the bodies of POSTs.
    Http,
}
