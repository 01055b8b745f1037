//! What identify, decide and rewrite cost together, for the request of the side-by-side bench with a token that the worker has seen:
//! the same whatever the percentage, the size of the map and the number of pins. And with a token that it has not seen.

#![expect(missing_docs, reason = "criterion's macro makes a public function without one")]
#![expect(clippy::unwrap_used, reason = "a bench: whatever fails ends it")]

#[path = "instructions/requests.rs"]
mod requests;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use cutover::identify::cache::TokenCache;
use cutover::path::pure::walk;
use cutover::side::Side;
use cutover::tokens::{Published, exchange};
use requests::{NOW, exchanged, get, object, settings, signed, token};

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn request(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    let (table, file) = (get(&token(0)), object(&token(0)));
    for (name, percentage, tables, pins, cached) in [
        ("to_old", 0, 10, 0, 1000),
        ("to_new", 100, 10, 0, 1000),
        ("half", 50, 10, 0, 1000),
        ("to_new", 100, 10_000, 10_000, 1000),
        ("to_new_token_new", 100, 10, 0, 0),
    ] {
        let (snapshot, cache) = (settings(percentage, tables, pins), TokenCache::new(cached));
        group.bench_function(BenchmarkId::new(name, format!("{tables}_{pins}")), |b| {
            b.iter_batched(
                || table.clone(),
                |request| walk(&snapshot, &cache, PEER, request, black_box(7)),
                BatchSize::SmallInput,
            );
        });
    }
    let (snapshot, cache) = (settings(100, 10, 0), TokenCache::new(1000));
    group.bench_function("object_to_new", |b| {
        b.iter_batched(
            || file.clone(),
            |request| walk(&snapshot, &cache, PEER, request, black_box(7)),
            BatchSize::SmallInput,
        );
    });
    let (settings, published, token) = (exchanged(), Published::default(), signed(0));
    group.bench_function("token_exchanged_hs256", |b| {
        b.iter(|| exchange(&settings, &published, black_box(&token), Side::New, NOW));
    });
    group.finish();
}

criterion_group!(benches, request);
criterion_main!(benches);
