//! The only place where errors become answers. Each names its cause by a code of `docs/errors.md`, and whose fault it is by
//! its status: 4xx the client's, 502 and 504 the side's, 500 ours.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use crate::accept::addresses::TooSoon;
use crate::accept::request::NotServed;
use crate::accept::wire::Refused;
use crate::forward::error::ForwardError;
use crate::forward::request_body::BodyFault;
use crate::observe::ErrorCode;
use crate::rewrite::keys::KeyRefused;
use crate::rewrite::{rest, storage};

/// An answer that the proxy makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What happened.
    pub code: ErrorCode,
    message: Option<String>,
    details: Option<String>,
    hint: Option<String>,
    /// The connection can't be used any more: where the next request begins is not known.
    closes: bool,
    /// Whole seconds after which it is worth another try.
    retry_after: Option<u64>,
}

impl Refusal {
    /// A refusal in the words of its code.
    #[must_use]
    pub const fn of(code: ErrorCode) -> Self {
        Self { code, message: None, details: None, hint: None, closes: false, retry_after: None }
    }

    /// A refusal that says more.
    pub(super) fn details(code: ErrorCode, details: &impl ToString) -> Self {
        Self { details: Some(details.to_string()), ..Self::of(code) }
    }

    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    /// Whether the rest of the request's body is not read.
    #[must_use]
    pub const fn closes(&self) -> bool {
        self.closes
    }

    /// Code and message, for whoever only explains.
    #[must_use]
    pub fn in_short(&self) -> (&'static str, String) {
        let message =
            self.message.as_deref().map_or_else(|| self.code.message().to_owned(), str::to_owned);
        (self.code.code(), message)
    }

    /// The answer: JSON in PostgREST's shape, also for HEAD (see [`super::body::Source::for_head`]), and never an empty 404, which clients
    /// read as success (trap 44).
    #[must_use]
    pub fn response(&self) -> (http::response::Parts, Bytes) {
        let (message, details, hint) =
            (self.message.as_deref(), self.details.as_deref(), self.hint.as_deref());
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = self.code.status();
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        parts.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.closes {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(seconds) = self.retry_after {
            parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if parts.status == StatusCode::METHOD_NOT_ALLOWED {
            let allow = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
            parts.headers.insert(header::ALLOW, allow);
        }
        if parts.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110 15.5.22, RFC 6455 4.4.
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            parts.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        (parts, self.code.body(message, details, hint))
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(why) => Self::details(ErrorCode::Malformed, &why).closing(),
            Refused::HeadTooLarge => Self::of(ErrorCode::HeadTooLarge).closing(),
            Refused::TooManyConnections => Self::of(ErrorCode::TooManyConnections).closing(),
            Refused::TooManyOfAddress => Self::of(ErrorCode::TooManyOfAddress).closing(),
        }
    }
}

impl From<TooSoon> for Refusal {
    fn from(TooSoon(wait): TooSoon) -> Self {
        // RFC 9110 10.2.3 knows whole seconds only; who comes back earlier than it has to is refused again.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { retry_after: Some(seconds), ..Self::of(ErrorCode::TooManyRequests) }
    }
}

impl From<NotServed> for Refusal {
    fn from(why: NotServed) -> Self {
        Self::of(match why {
            NotServed::DotSegments => ErrorCode::DotSegments,
            NotServed::UnknownPath => ErrorCode::UnknownPath,
            NotServed::Method => ErrorCode::MethodNotAllowed,
        })
    }
}

impl From<KeyRefused> for Refusal {
    fn from(why: KeyRefused) -> Self {
        match why {
            KeyRefused::Unknown => Self::of(ErrorCode::UnknownKey),
            KeyRefused::NoneForRole(_) => Self::of(ErrorCode::NoKeyForRole),
        }
    }
}

impl From<rest::Refusal> for Refusal {
    fn from(refusal: rest::Refusal) -> Self {
        let code = match refusal {
            rest::Refusal::CrossSchemaEmbed { .. } => ErrorCode::CrossSchemaEmbed,
            rest::Refusal::Unmapped { .. } => ErrorCode::Unmapped,
        };
        Self {
            message: Some(refusal.message()),
            details: Some(refusal.details().to_owned()),
            hint: Some(refusal.hint().to_owned()),
            ..Self::of(code)
        }
    }
}

impl From<storage::Refused> for Refusal {
    fn from(refused: storage::Refused) -> Self {
        use storage::Refused::{Collides, Foreign, Owners, S3, Several, Shared, Unreadable};
        let code = match refused {
            Unreadable => ErrorCode::Malformed,
            Shared | Several | Collides => ErrorCode::BucketMap,
            Owners => ErrorCode::BucketOwners,
            S3 | Foreign => ErrorCode::StorageNotSplit,
        };
        Self::details(code, &refused)
    }
}

/// The causes of a failed connection are the operator's to know, not the client's: they name hosts.
impl From<&ForwardError> for Refusal {
    fn from(error: &ForwardError) -> Self {
        match error {
            ForwardError::Connect(_) => Self::of(ErrorCode::Unreachable),
            ForwardError::Broke(_) | ForwardError::Switched => Self::of(ErrorCode::UpstreamBroke),
            ForwardError::Timeout => Self::of(ErrorCode::UpstreamTimeout),
            ForwardError::Body(fault) => (*fault).into(),
        }
    }
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::TooLarge => Self::of(ErrorCode::BodyTooLarge),
            BodyFault::Idle => Self::of(ErrorCode::BodyTimeout),
            BodyFault::Broken => Self::of(ErrorCode::Malformed),
            BodyFault::NoRoom => Self::of(ErrorCode::TooManyBodies),
        }
        .closing()
    }
}
