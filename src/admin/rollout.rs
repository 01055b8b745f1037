//! `/rollout`: the number, and its one writer.

use std::net::SocketAddr;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, State as Extract};
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::guard::Caller;
use super::{AdminError, State, ask};
use crate::config::live::{Change, Control, Refused, RolloutState};
use crate::decide::percentage::Percentage;
use crate::side::Side;

/// Characters of a reason; the audit file is for sentences.
const REASON_CHARS: usize = 1_000;
const SHAPE: &str = "Send {\"percentage\":10,\"reason\":\"week 1\"}; \"resume\":true leaves force.";

/// The body of `PUT /rollout`. There is no `force` in it: force is set by abort and left by resume.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Kept as text, so that it is read as exactly as a file is.
    percentage: Option<Box<RawValue>>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    resume: bool,
}

/// The body of `POST /rollout/abort`; it may be empty.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AbortAsked {
    #[serde(default)]
    reason: String,
}

pub(super) async fn show(Extract(state): Extract<State>) -> Result<Response, AdminError> {
    let rollout = ask(&state, Control::rollout).await?;
    Ok(answer(&rollout, state.name.as_deref()))
}

pub(super) async fn set(
    Extract(state): Extract<State>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, AdminError> {
    let change = read_change(&body?)?;
    apply(state, &extensions, &headers, change).await
}

pub(super) async fn abort(
    Extract(state): Extract<State>,
    extensions: Extensions,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, AdminError> {
    let body = body?;
    let asked = if body.is_empty() {
        AbortAsked::default()
    } else {
        serde_json::from_slice(&body).map_err(|error| {
            AdminError::bad_request(error.to_string(), "Send {\"reason\":\"…\"}, or no body.")
        })?
    };
    let change = Change::abort(checked_reason(asked.reason)?);
    apply(state, &extensions, &headers, change).await
}

impl Change {
    /// Percentage 0 and everybody on old, pins and testers too.
    #[must_use]
    pub fn abort(reason: String) -> Self {
        Self {
            percentage: Some(Percentage::ZERO),
            force: Some(Some(Side::Old)),
            reason,
            ..Self::default()
        }
    }
}

fn read_change(body: &[u8]) -> Result<Change, AdminError> {
    let asked: Asked = serde_json::from_slice(body)
        .map_err(|error| AdminError::bad_request(error.to_string(), SHAPE))?;
    let percentage = match asked.percentage {
        Some(raw) => Some(raw.get().parse::<Percentage>().map_err(|allowed| {
            let found: String = raw.get().chars().take(40).collect();
            AdminError::bad_request(format!("percentage: found {found}, allowed: {allowed}"), SHAPE)
        })?),
        None if asked.resume => None,
        None => return Err(AdminError::bad_request("percentage is missing", SHAPE)),
    };
    Ok(Change {
        percentage,
        resume: asked.resume,
        reason: checked_reason(asked.reason)?,
        ..Change::default()
    })
}

fn checked_reason(reason: String) -> Result<String, AdminError> {
    if reason.chars().count() > REASON_CHARS {
        return Err(AdminError::bad_request("reason: more than 1000 characters", SHAPE));
    }
    Ok(reason)
}

async fn apply(
    state: State,
    extensions: &Extensions,
    headers: &HeaderMap,
    change: Change,
) -> Result<Response, AdminError> {
    let is_page = extensions.get::<Caller>().is_some_and(|caller| caller.is_page);
    let who = if is_page { "console" } else { "admin" };
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    let actor = peer.map_or_else(
        || who.to_owned(),
        |ConnectInfo(peer)| format!("{who}:{}", peer.ip().to_canonical()),
    );
    // Judged against the epoch of this moment; `apply` makes sure that it still is.
    let epoch = ask(&state, |control| control.rollout().epoch).await?;
    let change = Change { actor, if_epoch: if_match(headers, epoch)?, ..change };
    let applied = ask(&state, move |control| control.apply(&change)).await?;
    Ok(answer(&applied?, state.name.as_deref()))
}

/// The epoch that `If-Match` asks for: `None` when there is no header, or when it is `*`.
fn if_match(headers: &HeaderMap, actual: u64) -> Result<Option<u64>, AdminError> {
    let malformed = || {
        AdminError::bad_request(
            "If-Match is not a list of quoted epochs",
            "Send the ETag of GET /rollout as it is.",
        )
    };
    let mut expected = None;
    for value in headers.get_all(header::IF_MATCH) {
        for tag in value.to_str().map_err(|_| malformed())?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(None);
            }
            // A weak tag never matches (RFC 9110, 13.1.1).
            let (tag, weak) = tag.strip_prefix("W/").map_or((tag, false), |tag| (tag, true));
            let tag = tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .ok_or_else(malformed)?;
            // A tag that is no number is not ours, and so stale.
            let epoch = tag.parse().unwrap_or(0);
            if epoch == actual && !weak {
                return Ok(Some(actual));
            }
            expected = Some(epoch);
        }
    }
    match expected {
        Some(expected) => Err(Refused::Stale { expected, actual }.into()),
        None => Ok(None),
    }
}

/// The number, and which replica says so.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    rollout: &'a RolloutState,
    name: Option<&'a str>,
}

fn answer(rollout: &RolloutState, name: Option<&str>) -> Response {
    let mut response = Json(Shown { rollout, name }).into_response();
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", rollout.epoch)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_read_exactly_from_the_text_of_the_number() {
        for (number, want) in [
            ("0", Some(0)),
            ("100", Some(10_000)),
            ("33.33", Some(3_333)),
            ("10.0", Some(1_000)),
            ("10.001", None),
            ("10.0000000000000001", None),
            ("1e1", None),
            ("-0", None),
            ("-1", None),
            ("100.01", None),
            ("\"10\"", None),
            ("true", None),
            ("[10]", None),
        ] {
            let change = read_change(format!("{{\"percentage\":{number}}}").as_bytes());
            let read = change.ok().and_then(|change| change.percentage).map(Percentage::hundredths);
            assert_eq!(read, want, "{number}");
        }
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        for body in [
            "",
            "null",
            "[]",
            "{}",
            "{\"percentage\":10",
            "{\"percentage\":null}",
            "{\"reason\":\"x\"}",
            "{\"percentage\":10,\"force\":\"old\"}",
            "{\"percentage\":10,\"percentage\":20}",
            "{\"percentage\":10,\"resume\":\"yes\"}",
            "{\"percentage\":10,\"reason\":7}",
            "{\"percentage\":10} x",
        ] {
            assert!(read_change(body.as_bytes()).is_err(), "{body}");
        }
        let long = format!("{{\"percentage\":1,\"reason\":\"{}\"}}", "x".repeat(REASON_CHARS + 1));
        assert!(read_change(long.as_bytes()).is_err());
        let resume = read_change(b"{\"resume\":true}").unwrap();
        assert!(resume.resume && resume.percentage.is_none() && resume.force.is_none());
    }

    #[test]
    fn if_match_is_read_as_rfc_9110_says() {
        for (value, want) in [
            ("\"7\"", Ok(Some(7))),
            ("*", Ok(None)),
            ("\"6\", \"7\"", Ok(Some(7))),
            ("\"6\"", Err(412)),
            ("W/\"7\"", Err(412)),
            ("\"seven\"", Err(412)),
            ("7", Err(400)),
            ("\"7", Err(400)),
            ("", Err(400)),
        ] {
            let headers = HeaderMap::from_iter([(header::IF_MATCH, value.parse().unwrap())]);
            let got =
                if_match(&headers, 7).map_err(|refused| refused.into_response().status().as_u16());
            assert_eq!(got, want, "{value}");
        }
        assert_eq!(if_match(&HeaderMap::new(), 7), Ok(None));
    }
}
