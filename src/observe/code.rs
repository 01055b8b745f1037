//! Every answer that the proxy makes itself, and no other: code, status, and what the client is told.
//!
//! `docs/errors.md` is the same list for operators; a test keeps the two equal.

use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

/// Why the proxy answered in the place of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The request is not one that can be understood in only one way.
    Malformed,
    /// The path has `.` or `..` segments, plain or percent-encoded.
    DotSegments,
    /// The API key belongs to neither project.
    UnknownKey,
    /// The chosen side has no key of the role that the client's key has.
    NoKeyForRole,
    /// `vsn` of a WebSocket is a serializer that realtime does not have.
    UnknownVsn,
    /// The path belongs to no service that the proxy serves.
    UnknownPath,
    /// The table is in neither dialect, and `schema.unmapped = "refuse"`.
    Unmapped,
    /// `CONNECT`, `TRACE` and the like.
    MethodNotAllowed,
    /// The client paused longer than `limits.body_idle_timeout` inside a body.
    BodyTimeout,
    /// The body is longer than `limits.body_bytes`.
    BodyTooLarge,
    /// An embed spans two domains, and `schema.cross_schema_embeds = "refuse"`.
    CrossSchemaEmbed,
    /// The bucket map has no words for this on its side, or it would hit files that it does not mean.
    BucketMap,
    /// A copy or a move between buckets that different sides own.
    BucketOwners,
    /// `Sec-WebSocket-Version` is not 13.
    WebsocketVersion,
    /// More than `limits.requests_per_address`.
    TooManyRequests,
    /// The head is longer than `limits.header_bytes`.
    HeadTooLarge,
    /// A defect of the proxy, met by this one request.
    Panic,
    /// A part of storage that can't be split, and has no owner.
    StorageNotSplit,
    /// No connection to the chosen side.
    Unreachable,
    /// The chosen side closed the connection, or answered something that is not HTTP, before its answer began.
    UpstreamBroke,
    /// What stands before the auth service answered in its place.
    AuthUnavailable,
    /// The chosen side answered a WebSocket's handshake with something else than 101.
    HandshakeRefused,
    /// More than `limits.connections`.
    TooManyConnections,
    /// Bodies that have to be read take more than `limits.storage_bodies_bytes` together.
    TooManyBodies,
    /// More than `limits.connections_per_address`.
    TooManyOfAddress,
    /// The chosen side did not answer within `upstream.timeout`.
    UpstreamTimeout,
}

/// What is known of one code.
struct Facts {
    code: &'static str,
    status: StatusCode,
    label: &'static str,
    message: &'static str,
    hint: &'static str,
}

/// The shape of every answer: PostgREST's, so that client libraries show it as they show their own.
#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
    details: Option<&'a str>,
    hint: Option<&'a str>,
}

impl ErrorCode {
    /// Every code, by status.
    pub const ALL: [Self; 26] = [
        Self::Malformed,
        Self::DotSegments,
        Self::UnknownKey,
        Self::NoKeyForRole,
        Self::UnknownVsn,
        Self::UnknownPath,
        Self::Unmapped,
        Self::MethodNotAllowed,
        Self::BodyTimeout,
        Self::BodyTooLarge,
        Self::CrossSchemaEmbed,
        Self::BucketMap,
        Self::BucketOwners,
        Self::WebsocketVersion,
        Self::TooManyRequests,
        Self::HeadTooLarge,
        Self::Panic,
        Self::StorageNotSplit,
        Self::Unreachable,
        Self::UpstreamBroke,
        Self::AuthUnavailable,
        Self::HandshakeRefused,
        Self::TooManyConnections,
        Self::TooManyBodies,
        Self::TooManyOfAddress,
        Self::UpstreamTimeout,
    ];

    /// The text that clients see and operators grep: `CUT502`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        self.facts().code
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.facts().status
    }

    /// The value of the `kind` label of `cutover_errors_total`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.facts().label
    }

    /// What happened, where there is nothing more exact to say.
    #[must_use]
    pub const fn message(self) -> &'static str {
        self.facts().message
    }

    /// What to do about it.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        self.facts().hint
    }

    /// The JSON body. `None` for message or hint takes the default; `None` for details is `null`, as in PostgREST.
    #[must_use]
    pub fn body(self, message: Option<&str>, details: Option<&str>, hint: Option<&str>) -> Bytes {
        let facts = self.facts();
        error_body(
            facts.code,
            message.unwrap_or(facts.message),
            details,
            Some(hint.unwrap_or(facts.hint)),
        )
    }

    const fn facts(self) -> Facts {
        match self {
            Self::Malformed
            | Self::DotSegments
            | Self::UnknownKey
            | Self::NoKeyForRole
            | Self::UnknownPath
            | Self::Unmapped
            | Self::MethodNotAllowed
            | Self::CrossSchemaEmbed => self.facts_of_refusal(),
            Self::BucketMap | Self::BucketOwners | Self::StorageNotSplit => self.facts_of_storage(),
            Self::UnknownVsn | Self::WebsocketVersion | Self::HandshakeRefused => {
                self.facts_of_websocket()
            }
            Self::BodyTimeout
            | Self::BodyTooLarge
            | Self::HeadTooLarge
            | Self::TooManyConnections
            | Self::TooManyBodies => self.facts_of_limit(),
            Self::TooManyRequests | Self::TooManyOfAddress => self.facts_of_address(),
            Self::Panic
            | Self::Unreachable
            | Self::UpstreamBroke
            | Self::AuthUnavailable
            | Self::UpstreamTimeout => self.facts_of_failure(),
        }
    }

    /// The client asked for what the proxy does not serve.
    const fn facts_of_refusal(self) -> Facts {
        match self {
            Self::DotSegments => Facts {
                code: "CUT4001",
                status: StatusCode::BAD_REQUEST,
                label: "dot_segments",
                message: "the path has dot segments",
                hint: "Send the path without . and .. segments, plain or percent-encoded.",
            },
            Self::UnknownKey => Facts {
                code: "CUT401",
                status: StatusCode::UNAUTHORIZED,
                label: "unknown_key",
                message: "Invalid API key",
                hint: "Use the anon (publishable) or service_role (secret) key of either project.",
            },
            Self::NoKeyForRole => Facts {
                code: "CUT4011",
                status: StatusCode::UNAUTHORIZED,
                label: "no_key_for_role",
                message: "the project that serves this request has no key of this role configured",
                hint: "Configure anon_key and service_role_key for both projects; see `cutover check`.",
            },
            Self::UnknownPath => Facts {
                code: "CUT404",
                status: StatusCode::NOT_FOUND,
                label: "unknown_path",
                message: "no service has this path",
                hint: "Paths begin with /rest/v1, /auth/v1, /storage/v1, /functions/v1, /realtime/v1 or /graphql/v1.",
            },
            Self::Unmapped => Facts {
                code: "CUT4041",
                status: StatusCode::NOT_FOUND,
                label: "unmapped",
                message: "the schema map does not name this table or function",
                hint: "Add it to schema.tables or schema.functions, or set schema.unmapped = \"pass\".",
            },
            Self::MethodNotAllowed => Facts {
                code: "CUT405",
                status: StatusCode::METHOD_NOT_ALLOWED,
                label: "method_not_allowed",
                message: "this method is not served",
                hint: "CONNECT and TRACE are never forwarded.",
            },
            Self::CrossSchemaEmbed => Facts {
                code: "CUT422",
                status: StatusCode::UNPROCESSABLE_ENTITY,
                label: "cross_schema_embed",
                message: "this select embeds tables of two schemas",
                hint: "Ask for the tables separately, or set schema.cross_schema_embeds = \"compat\".",
            },
            // `Malformed`, and nothing else: `facts` sends each code to the list that names it.
            _ => Facts {
                code: "CUT400",
                status: StatusCode::BAD_REQUEST,
                label: "malformed",
                message: "the request can't be understood in only one way",
                hint: "Send well-formed HTTP/1.1 or HTTP/2 with one unambiguous length.",
            },
        }
    }

    /// Two storages are not one.
    const fn facts_of_storage(self) -> Facts {
        match self {
            Self::BucketMap => Facts {
                code: "CUT4221",
                status: StatusCode::UNPROCESSABLE_ENTITY,
                label: "bucket_map",
                message: "the bucket map has no words for this on the side that serves it",
                hint: "See storage.buckets: do it on the project itself, or for each bucket on its own.",
            },
            Self::BucketOwners => Facts {
                code: "CUT4222",
                status: StatusCode::UNPROCESSABLE_ENTITY,
                label: "bucket_owners",
                message: "the two buckets are served by different projects",
                hint: "Download and upload instead, or give both buckets the same owner in storage.owners.",
            },
            // `StorageNotSplit`.
            _ => Facts {
                code: "CUT501",
                status: StatusCode::NOT_IMPLEMENTED,
                label: "storage_not_split",
                message: "this part of storage can't be split between two projects",
                hint: "Set storage.s3 to the side that serves S3; the others need routes.storage to be one side.",
            },
        }
    }

    /// A WebSocket is not opened.
    const fn facts_of_websocket(self) -> Facts {
        match self {
            Self::UnknownVsn => Facts {
                code: "CUT403",
                status: StatusCode::FORBIDDEN,
                label: "unknown_vsn",
                message: "realtime has no serializer of this vsn",
                hint: "Use vsn=1.0.0 or vsn=2.0.0.",
            },
            Self::WebsocketVersion => Facts {
                code: "CUT426",
                status: StatusCode::UPGRADE_REQUIRED,
                label: "websocket_version",
                message: "this version of WebSocket is not served",
                hint: "Send Sec-WebSocket-Version: 13.",
            },
            // `HandshakeRefused`.
            _ => Facts {
                code: "CUT5023",
                status: StatusCode::BAD_GATEWAY,
                label: "handshake_refused",
                message: "the project refused the WebSocket",
                hint: "The status is the project's own: look there.",
            },
        }
    }

    /// A limit was met.
    const fn facts_of_limit(self) -> Facts {
        match self {
            Self::BodyTimeout => Facts {
                code: "CUT408",
                status: StatusCode::REQUEST_TIMEOUT,
                label: "body_timeout",
                message: "the request body did not arrive in time",
                hint: "Send the body without pauses longer than limits.body_idle_timeout.",
            },
            Self::BodyTooLarge => Facts {
                code: "CUT413",
                status: StatusCode::PAYLOAD_TOO_LARGE,
                label: "body_too_large",
                message: "the request body is longer than is allowed",
                hint: "Send less at once, use a resumable upload, or raise limits.body_bytes.",
            },
            Self::HeadTooLarge => Facts {
                code: "CUT431",
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                label: "head_too_large",
                message: "the request head is longer than is allowed",
                hint: "Send fewer or shorter headers (a long in.(…) filter belongs in a POSTed function call), or raise limits.header_bytes.",
            },
            Self::TooManyBodies => Facts {
                code: "CUT5031",
                status: StatusCode::SERVICE_UNAVAILABLE,
                label: "too_many_bodies",
                message: "too many bodies have to be read at once",
                hint: "Nothing was sent to the project: try again shortly. The limit is limits.storage_bodies_bytes.",
            },
            // `TooManyConnections`.
            _ => Facts {
                code: "CUT503",
                status: StatusCode::SERVICE_UNAVAILABLE,
                label: "too_many_connections",
                message: "too many connections",
                hint: "Try again shortly; the limit is limits.connections.",
            },
        }
    }

    /// One client address is at it more than it may.
    const fn facts_of_address(self) -> Facts {
        match self {
            Self::TooManyRequests => Facts {
                code: "CUT429",
                status: StatusCode::TOO_MANY_REQUESTS,
                label: "too_many_requests",
                message: "too many requests from this address",
                hint: "Try again after the seconds in Retry-After; the limit is limits.requests_per_address.",
            },
            // `TooManyOfAddress`.
            _ => Facts {
                code: "CUT5032",
                status: StatusCode::SERVICE_UNAVAILABLE,
                label: "too_many_of_address",
                message: "too many connections from this address",
                hint: "Close some, or use them for more requests; the limit is limits.connections_per_address.",
            },
        }
    }

    /// The chosen side, or the proxy, failed.
    const fn facts_of_failure(self) -> Facts {
        match self {
            Self::Unreachable => Facts {
                code: "CUT502",
                status: StatusCode::BAD_GATEWAY,
                label: "unreachable",
                message: "the project that serves this request can't be reached",
                hint: "Nothing was sent to the project: it is safe to try again.",
            },
            Self::UpstreamBroke => Facts {
                code: "CUT5021",
                status: StatusCode::BAD_GATEWAY,
                label: "upstream_broke",
                message: "the project closed the connection before it answered",
                hint: "The project may have done what was asked: try again only what may be done twice.",
            },
            Self::AuthUnavailable => Facts {
                code: "CUT5022",
                status: StatusCode::BAD_GATEWAY,
                label: "auth_unavailable",
                message: "the auth service is not available",
                hint: "Try again shortly; the session is still good.",
            },
            Self::UpstreamTimeout => Facts {
                code: "CUT504",
                status: StatusCode::GATEWAY_TIMEOUT,
                label: "upstream_timeout",
                message: "the project did not answer in time",
                hint: "The project may have done what was asked: try again only what may be done twice.",
            },
            // `Panic`.
            _ => Facts {
                code: "CUT500",
                status: StatusCode::INTERNAL_SERVER_ERROR,
                label: "panic",
                message: "the proxy failed at this request",
                hint: "This is a defect of the proxy; other requests are not affected. The log has the place.",
            },
        }
    }
}

/// The JSON of an answer that the proxy, or its admin listener, makes itself.
#[must_use]
pub fn error_body(code: &str, message: &str, details: Option<&str>, hint: Option<&str>) -> Bytes {
    // Four strings always serialize; an empty body in the impossible case still carries the status.
    serde_json::to_vec(&Body { code, message, details, hint })
        .map_or_else(|_| Bytes::new(), Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_is_its_own_and_begins_with_its_status() {
        let mut codes = BTreeSet::new();
        let mut labels = BTreeSet::new();
        for (i, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert!(ErrorCode::ALL[i + 1..].iter().all(|other| *other != code), "{code:?} twice");
            assert!(codes.insert(code.code()), "{} twice", code.code());
            assert!(labels.insert(code.label()), "{} twice", code.label());
            let prefix = format!("CUT{}", code.status().as_u16());
            assert!(code.code().starts_with(&prefix), "{} has status {prefix}", code.code());
            assert!(!code.message().is_empty() && !code.hint().is_empty());
        }
    }

    #[test]
    fn the_body_has_four_keys_and_escapes_what_it_is_told() {
        let body = ErrorCode::Unmapped.body(Some("no \"x\"\n"), None, None);
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["code"], "CUT4041");
        assert_eq!(read["message"], "no \"x\"\n");
        assert_eq!(read["details"], serde_json::Value::Null);
        assert_eq!(read["hint"], ErrorCode::Unmapped.hint());
        assert_eq!(read.as_object().unwrap().len(), 4);
    }

    #[test]
    fn the_operators_table_lists_every_code_with_its_status_and_label() {
        let page = include_str!("../../docs/errors.md");
        for code in ErrorCode::ALL {
            let row =
                format!("| `{}` | {} | `{}` |", code.code(), code.status().as_u16(), code.label());
            assert!(page.contains(&row), "docs/errors.md has no row {row}");
        }
        let rows = page.lines().filter(|line| line.starts_with("| `CUT")).count();
        let proxy = ErrorCode::ALL.len();
        let admin = page.lines().filter(|line| line.starts_with("| `CUTA")).count();
        assert_eq!(rows - admin, proxy, "docs/errors.md lists a code that does not exist");
    }
}
