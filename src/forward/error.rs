//! Why no answer came from the side.

use std::io;

use super::request_body::BodyFault;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name is unknown, the port closed, the network away.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// `upstream.connect_timeout` is over.
    #[error("no connection within the connect timeout")]
    Timeout,
    /// The project's CA or host name can't be used.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
    /// The HTTP handshake failed.
    #[error("{0}")]
    Handshake(hyper::Error),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection; nothing was sent.
    #[error("can't connect: {0}")]
    Connect(#[from] ConnectError),
    /// The side closed, or spoke no HTTP, before the head of an answer.
    #[error("no answer: {0}")]
    Broke(hyper::Error),
    /// The side answered 101 to a request that asked for no upgrade.
    #[error("the side switched protocols unasked")]
    Switched,
    /// The head of an answer did not come in time.
    #[error("no answer in time")]
    Timeout,
    /// The client's own body is at fault.
    #[error("{0}")]
    Body(BodyFault),
}
