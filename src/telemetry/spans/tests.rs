use http::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use proptest::prelude::*;

use super::*;
use crate::counted;
use crate::decide::bucket::{Bucket, Hash};
use crate::observe::ErrorCode;
use crate::side::Side;
use crate::trace::{Sampler, Trace};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_static(PARENT));
    headers.insert("tracestate", HeaderValue::from_static("a=b"));
    headers
}

/// A request of a user to a table, answered by new.
fn traced() -> Traced {
    let registry = counted::Names::new(5);
    let slots = registry.assign([(Kind::Table, "todos"), (Kind::Function, "match_memories")]);
    let finished = Finished {
        side: Some(Side::New),
        route: Some(Route::Rest),
        status: 200,
        reason: Some(Reason::Percentage),
        counted: Some(slots.of(Kind::Table, Some(0))),
        bucket: Some(Bucket::of(
            Hash::Sha256,
            "onasis-core-v2",
            "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11",
        )),
        elapsed: Duration::from_millis(30),
        ending: Ending::Complete,
        ..Finished::new(MethodClass::Get, 7)
    };
    let headers = headers();
    let trace = Trace::of(headers.get("traceparent"), 9, Some(Sampler::default()));
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    Traced {
        target: Some(PathAndQuery::from_static("/rest/v1/todos?select=id&apikey=hush")),
        authority: Some(Authority::from_static("api.example.com")),
        is_secure: true,
        version: Version::HTTP_2,
        tries: vec![asked(&trace, 0)],
        ..Traced::new(trace, &headers, began, finished)
    }
}

fn asked(trace: &Trace, n: u64) -> Try {
    Try {
        span: trace.own.child(n).span,
        side: Side::New,
        method: MethodClass::Get,
        target: PathAndQuery::from_static("/rest/v1/todos?apikey=hush"),
        authority: Authority::from_static("user:hunter2@new.example.com:8443"),
        is_tls: true,
        after: Duration::from_millis(5),
        end: Some((Duration::from_millis(20), Outcome::Answered(200, Version::HTTP_11))),
        is_resent: false,
    }
}

fn names() -> Vec<(Kind, Arc<str>)> {
    let registry = counted::Names::new(5);
    drop(registry.assign([(Kind::Table, "todos"), (Kind::Function, "match_memories")]));
    registry.list()
}

/// An attribute as text.
fn attribute(span: &Span, key: &str) -> Option<String> {
    let mut found = span.attributes.iter().filter(|attribute| attribute.key == key);
    let value = found.next()?.value.as_ref()?.value.as_ref()?;
    assert!(found.next().is_none(), "{key} twice");
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_request_is_one_span_of_a_server_and_one_of_a_client() {
    let traced = traced();
    let spans = spans(&traced, &names());
    let [server, client] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(server.name, "GET /rest/v1/{table}");
    assert_eq!((server.kind(), client.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!(server.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
    assert_eq!(server.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert_eq!((server.flags, client.flags), (0x301, 0x101));
    assert_eq!((&*server.trace_state, &*client.trace_state), ("a=b", "a=b"));
    assert_eq!(client.parent_span_id, server.span_id);
    assert_eq!(client.trace_id, server.trace_id);
    let times = |span: &Span| (span.start_time_unix_nano, span.end_time_unix_nano);
    assert_eq!(times(server), (1_000_000_000, 1_030_000_000));
    assert_eq!(times(client), (1_005_000_000, 1_025_000_000));
    assert!(server.status.is_none() && client.status.is_none());
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.scheme", "https"),
        ("url.path", "/rest/v1/todos"),
        ("url.query", "select=id&apikey=[redacted]"),
        ("http.route", "/rest/v1/{table}"),
        ("http.response.status_code", "200"),
        ("server.address", "api.example.com"),
        ("server.port", "443"),
        ("network.protocol.version", "2"),
        ("feature_flag.key", "rollout"),
        ("feature_flag.result.variant", "new"),
        ("feature_flag.result.reason", "split"),
        ("cutover.side", "new"),
        ("cutover.reason", "percentage"),
        ("cutover.bucket", "711"),
        ("cutover.route", "rest"),
        ("cutover.table", "todos"),
        ("cutover.epoch", "7"),
    ] {
        assert_eq!(attribute(server, key).as_deref(), Some(value), "{key}");
    }
    for (key, value) in [
        ("url.full", "https://new.example.com:8443/rest/v1/todos?apikey=[redacted]"),
        ("server.address", "new.example.com"),
        ("server.port", "8443"),
        ("http.response.status_code", "200"),
        ("network.protocol.version", "1.1"),
        ("cutover.side", "new"),
    ] {
        assert_eq!(attribute(client, key).as_deref(), Some(value), "{key}");
    }
    for key in ["error.type", "cutover.code", "cutover.ending", "cutover.fell_back"] {
        assert_eq!(attribute(server, key), None, "{key}");
    }
}

#[test]
fn errors_are_whose_fault_they_are() {
    let of = |ending, status, code| {
        let mut traced = traced();
        traced.finished = Finished { ending, status, code, ..traced.finished };
        let server = spans(&traced, &names()).swap_remove(0);
        assert_eq!(attribute(&server, "error.type").is_some(), server.status.is_some());
        attribute(&server, "error.type")
    };
    for (ending, status, code, error) in [
        (Ending::Complete, 404, None, None),
        (Ending::Complete, 401, Some(ErrorCode::UnknownKey), None),
        (Ending::Complete, 503, None, Some("503")),
        (Ending::Complete, 502, Some(ErrorCode::Unreachable), Some("unreachable")),
        (Ending::ClientGone, 499, None, None),
        (Ending::ResponseCut, 200, None, Some("response_cut")),
    ] {
        assert_eq!(of(ending, status, code).as_deref(), error, "{ending:?} {status}");
    }
    let mut traced = traced();
    for (end, error) in [
        (Some((Duration::ZERO, Outcome::Answered(404, Version::HTTP_2))), "404"),
        (Some((Duration::ZERO, Outcome::Failed(ErrorCode::UpstreamTimeout))), "upstream_timeout"),
        (None, "client_gone"),
    ] {
        traced.tries[0].end = end;
        let client = spans(&traced, &names()).swap_remove(1);
        assert_eq!(attribute(&client, "error.type").as_deref(), Some(error));
        assert!(
            client.status.is_some() && client.end_time_unix_nano >= client.start_time_unix_nano
        );
    }
}

#[test]
fn a_request_that_was_refused_has_a_span_without_a_side() {
    let headers = HeaderMap::new();
    let trace = Trace::of(None, 9, Some(Sampler::new(10_000)));
    let finished = Finished {
        status: 404,
        code: Some(ErrorCode::UnknownPath),
        ending: Ending::Complete,
        ..Finished::new(MethodClass::Other, 1)
    };
    let traced = Traced::new(trace, &headers, SystemTime::UNIX_EPOCH, finished);
    let spans = spans(&traced, &names());
    let [server] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((server.name.as_str(), server.flags), ("HTTP", 0x101));
    assert!(server.parent_span_id.is_empty());
    assert_eq!(attribute(server, "cutover.side").as_deref(), Some("none"));
    assert_eq!(attribute(server, "cutover.code").as_deref(), Some("CUT404"));
    assert_eq!(attribute(server, "feature_flag.key"), None);
}

#[test]
fn each_try_is_a_span_of_its_own() {
    let mut traced = traced();
    let second = Try { is_resent: true, ..asked(&traced.trace, 1) };
    traced.tries.push(second);
    let spans = spans(&traced, &names());
    assert_eq!(spans.len(), 3);
    assert_ne!(spans[1].span_id, spans[2].span_id);
    assert_eq!(spans[2].parent_span_id, spans[0].span_id);
    assert_eq!(attribute(&spans[2], "http.request.resend_count").as_deref(), Some("1"));
}

proptest! {
    /// Whatever a client puts where secrets are put, it is in no attribute of any span.
    #[test]
    fn no_secret_of_a_request_is_in_a_span(
        path in "(/[a-z]{1,6}){1,4}",
        name in prop::sample::select(vec!["apikey", "token", "access_token", "code", "x.password", "Signature"]),
        secret in "Q[A-Z]{8}[A-Za-z0-9._-]{0,40}",
        key in "(sb_secret_|sb_publishable_|eyJ)[A-Za-z0-9]{12,30}",
    ) {
        let target = format!("{path}/{key}?a=b&{name}={secret}&c={key}");
        let mut traced = traced();
        let target = PathAndQuery::try_from(target).unwrap();
        traced.target = Some(target.clone());
        traced.authority = Authority::try_from(format!("user:{secret}@host")).ok();
        traced.tries[0].target = target;
        for span in spans(&traced, &names()) {
            let shown = format!("{span:?}");
            prop_assert!(!shown.contains(&secret) && !shown.contains(&key), "{}", shown);
            prop_assert!(!shown.contains("hunter2"), "{}", shown);
        }
    }
}
