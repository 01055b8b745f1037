//! What telemetry costs a request on its worker: switched off, with a trace that is not recorded, and with one that is. Only the last one may
//! allocate.

#![expect(missing_docs, reason = "criterion's macro makes a public function without one")]

use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use cutover::observe::span::{Outcome, Spans, Traced, Try};
use cutover::observe::{Finished, MethodClass, Metrics};
use cutover::side::Side;
use cutover::trace::{Sampler, TRACEPARENT, Trace};
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderValue, Version};

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

fn headers(parent: Option<&'static str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("accept", HeaderValue::from_static("*/*"));
    headers.insert("apikey", HeaderValue::from_static("anon"));
    if let Some(parent) = parent {
        headers.insert(TRACEPARENT, HeaderValue::from_static(parent));
    }
    headers
}

/// What the path does for one request with one answer.
fn request(
    headers: &mut HeaderMap,
    sampler: Option<Sampler>,
    began: SystemTime,
) -> Option<Box<Traced>> {
    let trace = Trace::of(headers.get(TRACEPARENT), black_box(0x1234_5678_9abc), sampler);
    let mut traced = trace.own.is_sampled.then(|| {
        let target = Some(PathAndQuery::from_static("/rest/v1/todos?select=id"));
        let authority = Some(Authority::from_static("api.example.com"));
        let finished = Finished::new(MethodClass::Get, 1);
        let traced = Traced::new(trace, headers, began, finished);
        Box::new(Traced { target, authority, ..traced })
    });
    trace.write(trace.own, headers);
    if let Some(traced) = &mut traced {
        let child = traced.trace.own.child(0);
        trace.write(child, headers);
        traced.tries.push(Try {
            span: child.span,
            side: Side::New,
            method: MethodClass::Get,
            target: PathAndQuery::from_static("/rest/v1/todos?select=id"),
            authority: Authority::from_static("new.example.com"),
            is_tls: true,
            after: Duration::from_micros(50),
            end: Some((Duration::from_millis(2), Outcome::Answered(200, Version::HTTP_2))),
            is_resent: false,
        });
    }
    traced
}

fn telemetry(c: &mut Criterion) {
    let mut group = c.benchmark_group("telemetry");
    let began = SystemTime::UNIX_EPOCH;
    let (all, none) = (Some(Sampler::new(10_000)), Some(Sampler::new(0)));
    for (name, parent, sampler) in [
        ("off_without_parent", None, None),
        ("off_with_parent", Some(SAMPLED), None),
        ("sampled_out_without_parent", None, none),
        ("sampled_out_with_parent", Some(UNSAMPLED), all),
    ] {
        let headers = headers(parent);
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || headers.clone(),
                |headers| request(headers, sampler, began),
                criterion::BatchSize::SmallInput,
            );
        });
    }
    let metrics = Metrics::new(1);
    let shard = metrics.shard(0);
    for (name, length) in [("sampled", 1 << 20), ("sampled_and_the_queue_is_full", 1)] {
        let (spans, mut queue) = Spans::queue(length);
        let headers = headers(Some(SAMPLED));
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || {
                    // Somebody empties it, but not at this worker's expense.
                    while length > 1 && queue.try_recv().is_ok() {}
                    headers.clone()
                },
                |headers| {
                    if let Some(traced) = request(headers, all, began) {
                        spans.send(traced, &shard);
                    }
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, telemetry);
criterion_main!(benches);
