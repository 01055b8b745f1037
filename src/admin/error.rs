//! The admin listener's refusals: `{"code","message","details","hint"}` with codes `CUTA…`.
//!
//! The command line reads them back, so that it tells the operator the same words whether the proxy or it itself
//! was asked.

use std::error::Error;
use std::iter::successors;
use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::patience::Late;
use crate::config::live::Refused;
use crate::observe::code::error_body;

/// A refusal. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminError {
    code: &'static str,
    status: StatusCode,
    message: String,
    details: Option<String>,
    hint: &'static str,
    /// Seconds, for the Retry-After header.
    retry_after: Option<u64>,
}

impl AdminError {
    /// Every code with its status, as `docs/errors.md` lists them.
    #[cfg(test)]
    pub(super) const ALL: [(&str, u16); 18] = [
        ("CUTA400", 400),
        ("CUTA401", 401),
        ("CUTA403", 403),
        ("CUTA404", 404),
        ("CUTA405", 405),
        ("CUTA408", 408),
        ("CUTA409", 409),
        ("CUTA4091", 409),
        ("CUTA4092", 409),
        ("CUTA4093", 409),
        ("CUTA412", 412),
        ("CUTA413", 413),
        ("CUTA422", 422),
        ("CUTA4221", 422),
        ("CUTA429", 429),
        ("CUTA500", 500),
        ("CUTA503", 503),
        ("CUTA5031", 503),
    ];

    /// The query, the header or the body says something that can't be meant.
    pub(super) fn bad_request(message: impl Into<String>, hint: &'static str) -> Self {
        Self::new("CUTA400", StatusCode::BAD_REQUEST, message, hint)
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(
            "CUTA401",
            StatusCode::UNAUTHORIZED,
            "the admin token is missing or wrong",
            "Send Authorization: Bearer <admin.token>; the command line takes it from the settings or CUTOVER_ADMIN_TOKEN.",
        )
    }

    /// A web page may have sent this from an operator's browser.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(
            "CUTA403",
            StatusCode::FORBIDDEN,
            message,
            "The admin listener never answers to another site's page, and without a token only to localhost. Configure admin.token to use another name.",
        )
    }

    pub(super) fn not_found() -> Self {
        Self::new(
            "CUTA404",
            StatusCode::NOT_FOUND,
            "the admin listener has no such path",
            "It has / (the console), /healthz, /readyz, /metrics, /status, /explain, /audit, /rollout, /rollout/abort, /replicas and /events.",
        )
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            "CUTA405",
            StatusCode::METHOD_NOT_ALLOWED,
            "this path has no such method",
            "The Allow header names the methods.",
        )
    }

    /// The question would be answered by the proxy itself.
    pub(super) fn no_answer(message: String) -> Self {
        Self::new(
            "CUTA4221",
            StatusCode::UNPROCESSABLE_ENTITY,
            message,
            "Ask about a path that is served.",
        )
    }

    /// Too many wrong tokens; nobody's is looked at for a while.
    pub(super) fn too_many_logins(wait: Duration) -> Self {
        Self {
            retry_after: Some(wait.as_secs().max(1)),
            ..Self::new(
                "CUTA429",
                StatusCode::TOO_MANY_REQUESTS,
                "too many logins with a wrong token",
                "Wait a minute. The command line and the API are not held up.",
            )
        }
    }

    /// Every seat before the charts is taken.
    pub(super) fn too_many_viewers(limit: usize) -> Self {
        Self {
            retry_after: Some(10),
            ..Self::new(
                "CUTA5031",
                StatusCode::SERVICE_UNAVAILABLE,
                format!("{limit} pages watch already"),
                "Close some. The number can be changed and users can be explained without the charts.",
            )
        }
    }

    pub(super) fn internal(message: String) -> Self {
        Self::new(
            "CUTA500",
            StatusCode::INTERNAL_SERVER_ERROR,
            message,
            "This is a defect of the proxy. Ask /rollout what the state is.",
        )
    }

    fn new(
        code: &'static str,
        status: StatusCode,
        message: impl Into<String>,
        hint: &'static str,
    ) -> Self {
        Self { code, status, message: message.into(), details: None, hint, retry_after: None }
    }
}

impl From<Refused> for AdminError {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::PinnedByEnvironment { .. } => Self::new(
                "CUTA409",
                StatusCode::CONFLICT,
                message,
                "Take the variable out of the process's environment and start it again. To put everybody on old without a restart, write force = \"old\" under [rollout] in the settings file.",
            ),
            Refused::Forced { .. } => Self::new(
                "CUTA4091",
                StatusCode::CONFLICT,
                message,
                "Send \"resume\":true, or use `cutover rollout set N --resume`.",
            ),
            Refused::LostRace { .. } => Self::new(
                "CUTA4093",
                StatusCode::CONFLICT,
                message,
                "Read the state again and decide anew; an abort wins such a race by itself.",
            ),
            Refused::Unreachable { .. } => Self::new(
                "CUTA503",
                StatusCode::SERVICE_UNAVAILABLE,
                message,
                "The last number stands. A running proxy takes an abort all the same, and holds it in memory. If the API was asked and did not answer in time, the change may come yet: ask /rollout.",
            ),
            Refused::ReadOnly { .. } => Self::new(
                "CUTA4092",
                StatusCode::CONFLICT,
                message,
                "Change the number where that source comes from (the ConfigMap, the image), and the watcher applies it.",
            ),
            Refused::Stale { .. } => Self::new(
                "CUTA412",
                StatusCode::PRECONDITION_FAILED,
                message,
                "Somebody else made a change. Read the state again and decide anew.",
            ),
            Refused::Faults(faults) => Self {
                details: Some(faults.to_string()),
                ..Self::new(
                    "CUTA422",
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the settings would have faults",
                    "Mend what `cutover check` lists; nothing was changed.",
                )
            },
        }
    }
}

impl From<BytesRejection> for AdminError {
    fn from(rejection: BytesRejection) -> Self {
        let cause: &(dyn Error + 'static) = &rejection;
        if successors(Some(cause), |cause| (*cause).source()).any(|cause| cause.is::<Late>()) {
            return Self::new(
                "CUTA408",
                StatusCode::REQUEST_TIMEOUT,
                Late.to_string(),
                "It has limits.header_timeout, and never less than 2 s. Nothing was changed; send the request again.",
            );
        }
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::new(
                "CUTA413",
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is longer than 64 KiB",
                "A change of the rollout needs a hundred bytes.",
            );
        }
        Self::bad_request(rejection.body_text(), "Send the body again.")
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        let body = error_body(self.code, &self.message, self.details.as_deref(), Some(self.hint));
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = http::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
