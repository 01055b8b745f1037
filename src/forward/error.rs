//! Why no answer came from the side.

use std::io;

use super::request_body::BodyFault;
use crate::http1::response::BrokenHead;

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
    /// The handshake of HTTP/2 failed.
    #[error("{0}")]
    Handshake(hyper::Error),
}

/// How the connection broke before the head of an answer.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The side closed it.
    #[error("the side closed the connection")]
    Ended,
    /// It can't be written to or read from.
    #[error(transparent)]
    Stream(io::Error),
    /// What the side said is no HTTP.
    #[error(transparent)]
    Head(#[from] BrokenHead),
    /// The side went on to say that there will be an answer.
    #[error("more than {INTERIM} answers before the answer")]
    Interim,
    /// Over HTTP/2.
    #[error(transparent)]
    Http2(hyper::Error),
}

/// Answers with a status of 1xx to one request: more are no progress but a side that has lost its way.
pub(super) const INTERIM: u8 = 100;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ForwardError {
    /// No connection; nothing was sent.
    #[error("can't connect: {0}")]
    Connect(#[from] ConnectError),
    /// The side closed, or spoke no HTTP, before the head of an answer.
    #[error("no answer: {0}")]
    Broke(#[from] Broken),
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
