//! What a traced request looks like as spans: one of the server, and below it one of the client for each time that a side was asked. Names
//! are those of OpenTelemetry's semantic conventions for HTTP (1.37); ours begin with `cutover.`.
//!
//! No header and no body is in a span, nor a targeting key; paths and queries are redacted as in the access log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Version;
use http::uri::{Authority, PathAndQuery};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, SpanFlags, Status};

use super::value::{number, text, truth};
use crate::counted::Kind;
use crate::decide::Reason;
use crate::observe::redact::redact;
use crate::observe::span::{Outcome, Traced, Try};
use crate::observe::{Ending, Finished, MethodClass};
use crate::route::Route;

/// The flag that is on the rollout.
const FLAG: &str = "rollout";
/// Bytes of a host name (RFC 1035 2.3.4) with its port; clients choose it.
const HOST_BYTES: usize = 261;

/// The names of tables and functions, by slot.
pub(super) type Names = [(Kind, Arc<str>)];

/// The spans of a request that is over; the server's comes first.
pub(super) fn spans(traced: &Traced, names: &Names) -> Vec<Span> {
    let template = template(&traced.finished, names);
    let mut spans = Vec::with_capacity(1 + traced.tries.len());
    spans.push(server(traced, template, names));
    spans.extend(traced.tries.iter().map(|one| client(traced, one, template)));
    spans
}

fn server(traced: &Traced, template: Option<&'static str>, names: &Names) -> Span {
    let Traced { trace, finished, .. } = traced;
    let mut attributes = vec![
        text("http.request.method", finished.method.as_str()),
        text("url.scheme", scheme(traced.is_secure)),
        text("network.protocol.name", "http"),
        text("network.protocol.version", version(traced.version)),
    ];
    if let Some(target) = &traced.target {
        let shown = redact(target.as_str());
        let (path, query) = shown.split_once('?').map_or((&*shown, None), |(p, q)| (p, Some(q)));
        attributes.push(text("url.path", path));
        attributes.extend(query.map(|query| text("url.query", query)));
    }
    attributes.extend(template.map(|template| text("http.route", template)));
    if let Some(authority) = &traced.authority {
        address(&mut attributes, authority, traced.is_secure);
    }
    if finished.ending != Ending::ClientGone {
        attributes.push(number("http.response.status_code", finished.status));
    }
    decision(&mut attributes, finished, names);
    let error = error(finished);
    attributes.extend(error.as_ref().map(|error| text("error.type", error.as_str())));
    let parent = trace.parent.map(|parent| parent.span.to_be_bytes().to_vec());
    let is_remote = if parent.is_some() { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
    Span {
        trace_id: trace.own.trace.to_be_bytes().to_vec(),
        span_id: trace.own.span.to_be_bytes().to_vec(),
        parent_span_id: parent.unwrap_or_default(),
        trace_state: state(traced),
        flags: flags() | is_remote,
        name: name(finished.method, template),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(traced.began),
        end_time_unix_nano: nanos(traced.began + finished.elapsed),
        attributes,
        status: status(error.is_some()),
        ..Span::default()
    }
}

fn client(traced: &Traced, one: &Try, template: Option<&'static str>) -> Span {
    let mut attributes = vec![
        text("http.request.method", one.method.as_str()),
        text("url.full", full(one)),
        text("cutover.side", one.side.as_str()),
    ];
    address(&mut attributes, &one.authority, one.is_tls);
    if one.is_resent {
        attributes.push(number("http.request.resend_count", 1));
    }
    let begun = traced.began + one.after;
    let (end, error) = match one.end {
        Some((lasted, Outcome::Answered(status, protocol))) => {
            attributes.push(number("http.response.status_code", status));
            attributes.push(text("network.protocol.version", version(protocol)));
            // For a client 4xx is an error too.
            (begun + lasted, (status >= 400).then(|| status.to_string()))
        }
        Some((lasted, Outcome::Failed(code))) => (begun + lasted, Some(code.label().to_owned())),
        None => (traced.began + traced.finished.elapsed, Some(unended(&traced.finished))),
    };
    attributes.extend(error.as_ref().map(|error| text("error.type", error.as_str())));
    Span {
        trace_id: traced.trace.own.trace.to_be_bytes().to_vec(),
        span_id: one.span.to_be_bytes().to_vec(),
        parent_span_id: traced.trace.own.span.to_be_bytes().to_vec(),
        trace_state: state(traced),
        flags: flags(),
        name: name(one.method, template),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: nanos(begun),
        end_time_unix_nano: nanos(end.max(begun)),
        attributes,
        status: status(error.is_some()),
        ..Span::default()
    }
}

/// Why a try has no end of its own.
fn unended(finished: &Finished) -> String {
    match finished.code {
        Some(code) => code.label().to_owned(),
        None => Ending::ClientGone.label().to_owned(),
    }
}

/// Which side, why, and what is known of the rollout.
fn decision(attributes: &mut Vec<KeyValue>, finished: &Finished, names: &Names) {
    let Finished { side, reason, bucket, route, counted, .. } = *finished;
    attributes.push(text("cutover.side", side.map_or("none", |side| side.as_str())));
    attributes.push(text("cutover.route", route.map_or("other", |route| route.as_str())));
    attributes.push(number("cutover.epoch", i64::try_from(finished.epoch).unwrap_or(i64::MAX)));
    if let (Some(side), Some(reason)) = (side, reason) {
        attributes.push(text("cutover.reason", reason.as_str()));
        attributes.push(text("feature_flag.key", FLAG));
        attributes.push(text("feature_flag.provider.name", env!("CARGO_PKG_NAME")));
        attributes.push(text("feature_flag.result.variant", side.as_str()));
        attributes.push(text("feature_flag.result.reason", flag_reason(reason)));
    }
    attributes.extend(bucket.map(|bucket| number("cutover.bucket", bucket.number())));
    if let Some((kind, name)) = counted.and_then(|slot| names.get(slot.index())) {
        let key = match kind {
            Kind::Table => "cutover.table",
            Kind::Function => "cutover.function",
        };
        attributes.push(text(key, &**name));
    }
    attributes.extend(finished.code.map(|code| text("cutover.code", code.code())));
    if finished.ending != Ending::Complete {
        attributes.push(text("cutover.ending", finished.ending.label()));
    }
    for (key, is_so) in [
        ("cutover.fell_back", finished.fell_back),
        ("cutover.found_elsewhere", finished.found_elsewhere),
        ("cutover.left_alone", finished.left_alone),
    ] {
        attributes.extend(is_so.then(|| truth(key, true)));
    }
}

/// Our reasons in OpenFeature's words.
const fn flag_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Forced | Reason::Owner => "static",
        Reason::Override | Reason::Service | Reason::Pin | Reason::Rule => "targeting_match",
        Reason::DomainCap | Reason::Percentage | Reason::Anonymous => "split",
    }
}

/// The kind of an error of this server; a client that asks for the wrong thing, or goes away, is none.
fn error(finished: &Finished) -> Option<String> {
    match (finished.ending, finished.status, finished.code) {
        (Ending::ClientGone, ..) => None,
        (_, 500.., Some(code)) => Some(code.label().to_owned()),
        (_, status @ 500.., None) => Some(status.to_string()),
        (Ending::Complete, ..) => None,
        (ending, ..) => Some(ending.label().to_owned()),
    }
}

fn status(is_error: bool) -> Option<Status> {
    is_error.then(|| Status { code: StatusCode::Error.into(), message: String::new() })
}

/// The route as low-cardinality text, which names of spans have to be.
fn template(finished: &Finished, names: &Names) -> Option<&'static str> {
    let kind = finished.counted.and_then(|slot| names.get(slot.index())).map(|(kind, _)| *kind);
    Some(match (finished.route?, kind) {
        (Route::Rest, Some(Kind::Table)) => "/rest/v1/{table}",
        (Route::Rest, Some(Kind::Function)) => "/rest/v1/rpc/{function}",
        (Route::Rest, None) => "/rest/v1/*",
        (Route::Auth, _) => "/auth/v1/*",
        (Route::Storage, _) => "/storage/v1/*",
        (Route::Functions, _) => "/functions/v1/*",
        (Route::Realtime, _) => "/realtime/v1/*",
        (Route::Graphql, _) => "/graphql/v1/*",
    })
}

fn name(method: MethodClass, template: Option<&str>) -> String {
    let method = if method == MethodClass::Other { "HTTP" } else { method.as_str() };
    template.map_or_else(|| method.to_owned(), |template| format!("{method} {template}"))
}

fn address(attributes: &mut Vec<KeyValue>, authority: &Authority, is_secure: bool) {
    // `Authority` may hold user info, which `host` leaves out.
    let host = authority.host();
    if host.len() <= HOST_BYTES {
        attributes.push(text("server.address", host.trim_matches(['[', ']'])));
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        attributes.push(number("server.port", port));
    }
}

fn full(one: &Try) -> String {
    let target: &PathAndQuery = &one.target;
    let host = one.authority.host();
    let port = one.authority.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{host}{port}{}", scheme(one.is_tls), redact(target.as_str()))
}

const fn scheme(is_secure: bool) -> &'static str {
    if is_secure { "https" } else { "http" }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

fn state(traced: &Traced) -> String {
    let state = traced.state.as_ref().and_then(|state| state.to_str().ok());
    state.unwrap_or_default().to_owned()
}

/// Sampled, and it is known whether the parent is somebody else's.
const fn flags() -> u32 {
    1 | SpanFlags::ContextHasIsRemoteMask as u32
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
