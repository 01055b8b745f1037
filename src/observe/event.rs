//! What the path tells about a request when it is over.

use std::time::Duration;

use super::code::ErrorCode;
use crate::counted::Slot;
use crate::decide::Reason;
use crate::decide::bucket::Bucket;
use crate::route::Route;
use crate::side::Side;

/// A finished request: the whole of what is counted and logged of it. It holds no text of the user.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The side that answered; `None` when the proxy answered itself.
    pub side: Option<Side>,
    /// The service; `None` when the path belongs to none.
    pub route: Option<Route>,
    /// The table or function of REST, as the operator's map calls it.
    pub counted: Option<Slot>,
    /// The method.
    pub method: MethodClass,
    /// The status that the client saw.
    pub status: u16,
    /// The rule that chose the side; `None` when no decision was reached.
    pub reason: Option<Reason>,
    /// The bucket, when one was computed.
    pub bucket: Option<Bucket>,
    /// The snapshot that served the request.
    pub epoch: u64,
    /// From the request's head to the end of its answer.
    pub elapsed: Duration,
    /// From the last try's first byte sent to the head of the side's answer.
    pub upstream_elapsed: Option<Duration>,
    /// The proxy's own answer, if it made one.
    pub code: Option<ErrorCode>,
    /// How the answer ended.
    pub ending: Ending,
    /// Sent again on a fresh connection because a kept-alive one was stale.
    pub retried: bool,
    /// Decided for new, served by old: `rollout.on_new_unavailable = "old_for_reads"`.
    pub fell_back: bool,
    /// A read of storage that one side didn't have and the other did: `storage.fallback`. `side` is the one that had it.
    pub found_elsewhere: bool,
    /// Something that the translation does not know, or an answer too long for it: those bytes were left alone.
    pub left_alone: bool,
}

impl Finished {
    /// A request of which nothing is known yet; the path fills in what it learns.
    #[must_use]
    pub const fn new(method: MethodClass, epoch: u64) -> Self {
        Self {
            side: None,
            route: None,
            counted: None,
            method,
            status: 0,
            reason: None,
            bucket: None,
            epoch,
            elapsed: Duration::ZERO,
            upstream_elapsed: None,
            code: None,
            ending: Ending::Complete,
            retried: false,
            fell_back: false,
            found_elsewhere: false,
            left_alone: false,
        }
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The client got all of it.
    #[default]
    Complete,
    /// The side cut its body half-way, and so the client's was cut.
    ResponseCut,
    /// The client cut its own body half-way.
    RequestCut,
    /// The client went away before the end of the answer.
    ClientGone,
    /// A WebSocket frame was longer than `limits.frame_bytes`: closed with 1009.
    FrameTooLarge,
    /// An end of a WebSocket took no frame for `realtime.send_timeout`: closed with 1013. Or a client took nothing of its answer for
    /// `limits.send_timeout`: cut.
    TooSlow,
    /// A client's HTTP/2 connection went beyond `limits.http2_frames` or `limits.http2_resets`: closed.
    Flood,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 7] = [
        Self::Complete,
        Self::ResponseCut,
        Self::RequestCut,
        Self::ClientGone,
        Self::FrameTooLarge,
        Self::TooSlow,
        Self::Flood,
    ];

    /// The `kind` label of `cutover_errors_total`; `complete` is never counted there.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ResponseCut => "response_cut",
            Self::RequestCut => "request_cut",
            Self::ClientGone => "client_gone",
            Self::FrameTooLarge => "frame_too_large",
            Self::TooSlow => "too_slow",
            Self::Flood => "flood",
        }
    }
}

/// A method as metrics see it: clients can invent methods, and must not invent series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodClass {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// Any other.
    Other,
}

impl MethodClass {
    /// Every class, in the order of the metrics' label.
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Options,
        Self::Other,
    ];

    /// The `method` label; `_OTHER` as OpenTelemetry writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "_OTHER",
        }
    }
}

impl From<&http::Method> for MethodClass {
    fn from(method: &http::Method) -> Self {
        Self::ALL.into_iter().find(|class| class.as_str() == method.as_str()).unwrap_or(Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invented_method_is_other() {
        for (method, class) in [
            (http::Method::GET, MethodClass::Get),
            (http::Method::OPTIONS, MethodClass::Options),
            (http::Method::TRACE, MethodClass::Other),
            (http::Method::from_bytes(b"_OTHER").unwrap(), MethodClass::Other),
            (http::Method::from_bytes(b"get").unwrap(), MethodClass::Other),
        ] {
            assert_eq!(MethodClass::from(&method), class, "{method}");
        }
    }
}
