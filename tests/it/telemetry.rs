//! Traces and metrics over OTLP: what a collector gets, and that a bad one is nobody's problem but its own.

use std::collections::BTreeMap;

use cutover::side::Side;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::collector::{Collector, Mood, attribute};
use crate::support::kubernetes::{Kubernetes, NAME, NAMESPACE, TOKEN};
use crate::support::realtime::{Realtime, changes, join, joins};
use crate::support::tls::{Authority, acceptor};
use crate::support::upstream::{Seen, response};
use crate::support::websocket::open_with;
use crate::support::world::{ANON_OLD, Setup, World, token};
use crate::support::{eventually, within};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A world that tells this collector all of its traces, and no metrics.
fn traced(collector: &Collector, protocol: &str) -> Setup {
    exporting(&format!("http://{}", collector.address), protocol).set("telemetry.metrics", "false")
}

fn exporting(endpoint: &str, protocol: &str) -> Setup {
    World::start()
        .set("telemetry.endpoint", &format!("{endpoint:?}"))
        .set("telemetry.protocol", &format!("{protocol:?}"))
        .set("telemetry.sample", "100")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `traceparent` that names this span.
fn naming(span: &Span) -> String {
    format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id))
}

fn parent_of(seen: &Seen) -> String {
    seen.header("traceparent").unwrap().to_owned()
}

#[tokio::test]
async fn a_request_is_traced_from_the_client_to_its_side() {
    let collector = Collector::grpc().await;
    let world = traced(&collector, "grpc").rollout(100).await;
    let user = world.as_user("ada").with("traceparent", SAMPLED).with("tracestate", "a=b");
    user.get("/rest/v1/vendor_api_keys?select=id&token=eq.hush").await.served_by(Side::New);
    let spans = collector.has_spans(2).await;
    let [server, client] = spans.as_slice() else { panic!() };
    assert_eq!((server.kind(), client.kind()), (SpanKind::Server, SpanKind::Client));
    assert_eq!(hex(&server.trace_id), TRACE);
    assert_eq!(hex(&server.parent_span_id), "00f067aa0ba902b7");
    assert_eq!(client.parent_span_id, server.span_id);
    let seen = world.new.last();
    assert_eq!(parent_of(&seen), naming(client), "the side's own spans hang below the child");
    assert_eq!(seen.header("tracestate"), Some("a=b"));
    for (key, value) in [
        ("http.route", "/rest/v1/{table}"),
        ("url.path", "/rest/v1/vendor_api_keys"),
        ("cutover.table", "vendor_api_keys"),
        ("cutover.side", "new"),
        ("cutover.reason", "percentage"),
        ("cutover.epoch", "1"),
        ("feature_flag.result.variant", "new"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(&server.attributes, key).as_deref(), Some(value), "{key}");
    }
    let full = attribute(&client.attributes, "url.full").unwrap();
    assert!(full.contains("/rest/v1/api_keys?select=id&token=[redacted]"), "{full}");
    let resource = collector.resources().swap_remove(0);
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("cutover"));
    assert!(!format!("{spans:?}").contains("hush"));
}

#[tokio::test]
async fn the_clients_flag_decides_and_else_the_share_does() {
    let collector = Collector::http().await;
    let world = traced(&collector, "http/protobuf").set("telemetry.sample", "0").await;
    let user = world.as_user("ada");
    let unsampled = user.clone().with("traceparent", UNSAMPLED).with("tracestate", "a=b");
    unsampled.get("/rest/v1/todos").await.served_by(Side::Old);
    assert_eq!(parent_of(&world.old.last()), UNSAMPLED, "kept as it is");
    assert_eq!(world.old.last().header("tracestate"), Some("a=b"));
    user.get("/rest/v1/todos").await.served_by(Side::Old);
    assert!(parent_of(&world.old.last()).ends_with("-00"), "begun, and not recorded");
    user.clone().with("traceparent", SAMPLED).get("/rest/v1/todos").await.served_by(Side::Old);
    // The share is live.
    world.change("telemetry.sample", "100").await;
    user.clone().with("tracestate", "a=b").get("/rest/v1/todos").await.served_by(Side::Old);
    assert_eq!(world.old.last().header("tracestate"), None, "without a parent it means nothing");
    unsampled.get("/rest/v1/todos").await.served_by(Side::Old);
    let spans = collector.has_spans(4).await;
    let traces: Vec<String> = spans.iter().map(|span| hex(&span.trace_id)).collect();
    assert!(traces[0] == TRACE && traces[1] == TRACE, "{traces:?}");
    assert!(traces[2] != TRACE && traces[3] == traces[2], "{traces:?}");
    assert!(spans[2].parent_span_id.is_empty(), "a trace that begins here has no parent");
}

#[tokio::test]
async fn what_s3_has_signed_is_traced_and_not_touched() {
    let collector = Collector::grpc().await;
    let world = traced(&collector, "grpc").set("storage.s3", "\"new\"").await;
    let signature = "AWS4-HMAC-SHA256 Credential=k/20260101/r/s3/aws4_request, SignedHeaders=host;traceparent, Signature=ab";
    let client = world.as_user("ada").without("apikey").with("authorization", signature);
    client.get("/storage/v1/s3/avatars/x").await.served_by(Side::New);
    let begun = parent_of(&world.new.last());
    client.clone().with("traceparent", SAMPLED).get("/storage/v1/s3/avatars/x").await;
    assert_eq!(parent_of(&world.new.last()), SAMPLED);
    let spans = collector.has_spans(4).await;
    assert_eq!(begun, naming(&spans[1]), "one that was not signed");
    assert_eq!(hex(&spans[2].trace_id), TRACE);
}

#[tokio::test]
async fn a_fallback_is_a_second_child() {
    let collector = Collector::grpc().await;
    let world = traced(&collector, "grpc")
        .rollout(100)
        .set("projects.new.url", "\"http://127.0.0.1:1\"")
        .set("rollout.on_new_unavailable", "\"old_for_reads\"")
        .await;
    world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
    let spans = collector.has_spans(3).await;
    let of = |span: &Span, key| attribute(&span.attributes, key);
    assert_eq!(of(&spans[0], "cutover.fell_back").as_deref(), Some("true"));
    assert_eq!(of(&spans[1], "error.type").as_deref(), Some("unreachable"));
    assert_eq!(of(&spans[2], "http.response.status_code").as_deref(), Some("200"));
    assert_eq!(parent_of(&world.old.last()), naming(&spans[2]));
    assert_ne!(spans[1].span_id, spans[2].span_id);
}

#[tokio::test]
async fn a_socket_of_realtime_is_traced_to_its_handshake() {
    let collector = Collector::grpc().await;
    let world = traced(&collector, "grpc").await;
    let side = Realtime::on(&world.old);
    let path = format!("/realtime/v1/websocket?apikey={ANON_OLD}");
    let mut socket = open_with(&world, &path, &[("traceparent", SAMPLED)]).await.unwrap();
    let said = join("changes", &changes("notes"), Some(&token("ada")), "1");
    joins(&mut socket, &said, 1).await;
    side.has_heard(1).await;
    let spans = collector.has_spans(1).await;
    assert_eq!(spans[0].name, "GET /realtime/v1/*");
    let status = attribute(&spans[0].attributes, "http.response.status_code");
    assert_eq!(status.as_deref(), Some("101"));
    assert_eq!(hex(&spans[0].parent_span_id), "00f067aa0ba902b7");
    assert_eq!(parent_of(&world.old.last()), naming(&spans[0]), "what is dialled later is below");
}

#[tokio::test]
async fn what_the_proxy_answers_itself_and_what_fails_is_traced_too() {
    let collector = Collector::grpc().await;
    let world = traced(&collector, "grpc").await;
    world.as_user("ada").get("/pg/tables").await;
    world.old.answers(|_| response("503 Service Unavailable", "", "{}"));
    world.as_user("ada").get("/rest/v1/todos").await;
    let spans = collector.has_spans(3).await;
    let of = |span: &Span, key| attribute(&span.attributes, key);
    assert_eq!(of(&spans[0], "cutover.code").as_deref(), Some("CUT404"));
    assert_eq!(of(&spans[0], "cutover.side").as_deref(), Some("none"));
    assert_eq!(of(&spans[1], "error.type").as_deref(), Some("503"));
    assert!(spans[0].status.is_none() && spans[1].status.is_some());
}

#[tokio::test]
async fn exports_carry_the_operators_headers_and_trust_their_ca() {
    let authority = Authority::new();
    let collector = Collector::tls(acceptor(&authority.issues("localhost"), &["h2"])).await;
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let world = exporting(&endpoint, "grpc")
        .file("ca.pem", &authority.pem)
        .set("telemetry.ca", "\"ca.pem\"")
        .set("telemetry.headers", "\"authorization=Bearer%20t0ken,x-scope=a\"")
        .set("telemetry.metrics", "false")
        .await;
    world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
    collector.has_spans(2).await;
    let headers = collector.headers().swap_remove(0);
    assert_eq!(
        (&headers["authorization"], &headers["x-scope"]),
        (&"Bearer t0ken".parse().unwrap(), &"a".parse().unwrap())
    );
}

/// Numbers by name and attributes, as the page would show them.
fn numbers(collector: &Collector) -> BTreeMap<String, f64> {
    let mut numbers = BTreeMap::new();
    for metric in collector.metrics() {
        let points = match metric.data.unwrap() {
            Data::Gauge(gauge) => gauge.data_points,
            Data::Sum(sum) => sum.data_points,
            Data::Histogram(histogram) => {
                for point in histogram.data_points {
                    let key = format!("{} {}", metric.name, labels(&point.attributes));
                    numbers.insert(format!("{key} count"), point.count as f64);
                    numbers.insert(format!("{key} sum"), point.sum.unwrap());
                }
                continue;
            }
            other => panic!("{other:?}"),
        };
        for point in points {
            let value = match point.value.unwrap() {
                number_data_point::Value::AsInt(n) => n as f64,
                number_data_point::Value::AsDouble(n) => n,
            };
            numbers.insert(format!("{} {}", metric.name, labels(&point.attributes)), value);
        }
    }
    numbers
}

fn labels(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> String {
    let value = |key: &str| attribute(attributes, key).unwrap();
    attributes.iter().map(|a| value(&a.key)).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn metrics_are_those_of_the_page() {
    let collector = Collector::grpc().await;
    let mut world = exporting(&format!("http://{}", collector.address), "grpc")
        .rollout(100)
        .set("telemetry.metrics_interval", "\"1h\"")
        .await;
    for _ in 0..3 {
        world.as_user("ada").get("/rest/v1/vendor_api_keys").await.served_by(Side::New);
    }
    world.as_user("ada").post("/rest/v1/rpc/match_memories", "{}").await.served_by(Side::New);
    world.as_user("ada").get("/pg/tables").await;
    world.is_quiet().await;
    let page = world.metrics().await;
    world.begin_stop().await;
    let numbers = numbers(&collector);
    for (name, prometheus, attributes) in [
        ("http.server.request.duration", "cutover_request_duration_seconds", "new,rest,GET,2xx"),
        ("http.server.request.duration", "cutover_request_duration_seconds", "new,rest,POST,2xx"),
        ("http.server.request.duration", "cutover_request_duration_seconds", "none,other,GET,4xx"),
        ("http.client.request.duration", "cutover_upstream_duration_seconds", "new,rest"),
        ("cutover.requests", "cutover_requests_total", "new,rest,GET,2xx"),
        ("cutover.errors", "cutover_errors_total", "unknown_path,none"),
        ("cutover.decisions", "cutover_decisions_total", "percentage,new"),
        (
            "cutover.resource_requests",
            "cutover_resource_requests_total",
            "table,vendor_api_keys,new",
        ),
        (
            "cutover.resource_requests",
            "cutover_resource_requests_total",
            "function,match_memories,new",
        ),
        ("cutover.rollout_percentage", "cutover_rollout_percentage", ""),
        ("cutover.config_epoch", "cutover_config_epoch", ""),
        ("http.server.active_requests", "cutover_requests_in_flight", ""),
    ] {
        let values: Vec<String> = attributes.split(',').map(|v| format!("=\"{v}\"")).collect();
        let of = |ending: &str| {
            let series = page.lines().find(|line| {
                line.strip_prefix(&format!("{prometheus}{ending}"))
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && (attributes.is_empty() || values.iter().all(|value| line.contains(value)))
            });
            let series = series.unwrap_or_else(|| panic!("{prometheus} {attributes}: {page}"));
            series.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
        };
        let endings: &[&str] =
            if name.ends_with(".duration") { &["_count", "_sum"] } else { &[""] };
        for ending in endings {
            let key = format!("{name} {attributes}{}", ending.replace('_', " "));
            assert_eq!(numbers.get(&key), Some(&of(ending)), "{key}: {numbers:#?}");
        }
    }
    let resource = collector.resources().swap_remove(0);
    assert!(attribute(&resource, "service.instance.id").is_some());
}

#[tokio::test]
async fn the_watch_of_a_configmap_is_among_the_metrics() {
    let collector = Collector::grpc().await;
    let api = Kubernetes::start(&[("V2_ROLLOUT_PERCENTAGE", "5")]).await;
    let mut world = exporting(&format!("http://{}", collector.address), "grpc")
        .file("token", TOKEN)
        .set("telemetry.metrics_interval", "\"1h\"")
        .set("kubernetes.configmap", &format!("\"{NAMESPACE}/{NAME}\""))
        .set("kubernetes.api_url", &format!("{:?}", api.url()))
        .set("kubernetes.token_file", "\"token\"")
        .await;
    world.begin_stop().await;
    let numbers = numbers(&collector);
    assert_eq!(numbers.get("cutover.kubernetes_connected "), Some(&1.0), "{numbers:#?}");
}

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_no_request() {
    let collector = Collector::http().await;
    collector.is(Mood::Hangs);
    let mut world = traced(&collector, "http/protobuf")
        .set("telemetry.queue", "2")
        .set("telemetry.timeout", "\"3s\"")
        .set("drain_timeout", "\"1m\"")
        .await;
    let user = world.as_user("ada");
    user.get("/rest/v1/todos").await.served_by(Side::Old);
    eventually("the exporter to wait", async || collector.asked() == 1).await;
    for _ in 0..20 {
        user.get("/rest/v1/todos").await.served_by(Side::Old);
    }
    let dropped =
        async || world.metric("cutover_telemetry_dropped_total", "reason=\"queue\"").await;
    // Two of the twenty wait; each has two spans.
    eventually("the others to be counted", async || dropped().await == 36.0).await;
    assert_eq!(collector.spans().len(), 0);
    within("the stop, which does not wait for it", world.begin_stop()).await;
}

/// As when the collector's machine is gone without a word: the connection is there, and nobody behind it.
#[tokio::test]
async fn a_dead_connection_is_not_used_again() {
    let collector = Collector::grpc().await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = front.local_addr().unwrap();
    let behind = collector.address;
    tokio::spawn(async move {
        let (_dead, _) = front.accept().await.unwrap();
        loop {
            let (mut stream, _) = front.accept().await.unwrap();
            let mut collector = TcpStream::connect(behind).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut collector).await });
        }
    });
    let world = exporting(&format!("http://{address}"), "grpc")
        .set("telemetry.metrics", "false")
        .set("telemetry.timeout", "\"500ms\"")
        .await;
    world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
    eventually("the spans to arrive", async || collector.spans().len() == 2).await;
}

#[tokio::test]
async fn a_collector_that_is_away_busy_or_refuses_is_counted_and_nothing_else() {
    for mood in [None, Some(Mood::IsBusy), Some(Mood::Refuses)] {
        for protocol in ["grpc", "http/protobuf"] {
            let collector = match protocol {
                "grpc" => Collector::grpc().await,
                _ => Collector::http().await,
            };
            if let Some(mood) = mood {
                collector.is(mood);
            }
            let address =
                mood.map_or_else(|| "127.0.0.1:1".to_owned(), |_| collector.address.to_string());
            let world = exporting(&format!("http://{address}"), protocol)
                .set("telemetry.metrics", "false")
                .await;
            world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
            let failed = "signal=\"traces\",result=\"failure\"";
            eventually("the failure to be counted", async || {
                world.metric("cutover_telemetry_exports_total", failed).await >= 1.0
            })
            .await;
            let lost = if mood == Some(Mood::Refuses) { 2.0 } else { 0.0 };
            eventually(&format!("{lost} lost with {mood:?} over {protocol}"), async || {
                world.metric("cutover_telemetry_dropped_total", "reason=\"export\"").await == lost
            })
            .await;
            world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
        }
    }
}

#[tokio::test]
async fn a_busy_collector_is_asked_again_and_a_partial_answer_is_counted() {
    let collector = Collector::grpc().await;
    collector.is(Mood::IsBusy);
    let world = traced(&collector, "grpc").await;
    world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
    eventually("the first try", async || collector.asked() >= 1).await;
    collector.is(Mood::TakesAllBut(1));
    collector.has_spans(2).await;
    eventually("the refused one to be counted", async || {
        world.metric("cutover_telemetry_dropped_total", "reason=\"export\"").await == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_stop_sends_what_waits() {
    let collector = Collector::grpc().await;
    let mut world = traced(&collector, "grpc").await;
    for _ in 0..5 {
        world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
    }
    world.begin_stop().await;
    assert_eq!(collector.spans().len(), 10);
}

#[tokio::test]
async fn without_an_endpoint_nothing_is_traced() {
    let world = World::start().set("telemetry.sample", "100").await;
    let user = world.as_user("ada").with("traceparent", SAMPLED);
    user.get("/rest/v1/todos").await.served_by(Side::Old);
    assert_eq!(parent_of(&world.old.last()), SAMPLED, "the client's own, as it came");
}
