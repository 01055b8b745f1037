//! A soak: a real `cutover serve` between two sides that fail now and then, at half of the load that it can take here, with a changed
//! percentage every ten seconds, outages of a side every minute, clients that leave in the middle, uploads, and sockets of both kinds.
//!
//! Every answer is held against what was asked: its own number and size (no two answers are ever mixed up), the side that the
//! percentage says at that moment, and a body that ends where its framing said. What goes wrong without a fault that was injected, or an
//! outage of that side at that moment, is unexplained, and fails the soak. So does a write that arrives twice, memory that grows, and
//! a descriptor or gauge that does not come back when everybody has left, or a soak in which too little happened to say so.
//!
//! CUTOVER_BIN names the program, if it is another than cargo's. `make soak` takes an hour, `make soak QUICK=1` five minutes; SOAK_SECONDS any time, SOAK_RATE so many requests a second in place of half load.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a soak: whatever fails ends it, and printing is its purpose"
)]
#![expect(clippy::disallowed_methods, reason = "a bench has no command line of its own")]
#![allow(
    unreachable_pub,
    missing_docs,
    reason = "the tests' support is not for readers of this crate"
)]

#[allow(
    dead_code,
    unused_imports,
    clippy::expect_used,
    reason = "the soak asks for less than the tests"
)]
#[path = "../../tests/it/support/mod.rs"]
mod support;

#[path = "../serving.rs"]
mod serving;

/// Everybody who asks.
mod client;
/// What happens meanwhile: the percentage, and outages.
mod events;
/// The process: memory, descriptors, gauges, log.
mod process;
/// The two sides.
mod side;
/// Everybody who listens.
mod socket;
/// What was seen, and whether it is explained.
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::side::{Pair, Side};

use client::Load;
use events::History;
use process::{Process, Sample};
use side::Upstream;
use tally::Tally;

/// Everything that the tasks share.
pub struct Soak {
    pub tally: Tally,
    pub history: History,
    pub sides: Pair<Upstream>,
    pub proxy: Process,
}

/// How often the figures are taken.
const SAMPLED: Duration = Duration::from_secs(1);
/// How often they are printed.
const PRINTED: usize = 30;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let lasts = Duration::from_secs(setting("SOAK_SECONDS").unwrap_or(3600));
    let tally = Tally::default();
    let sides = Pair {
        old: Upstream::start(Side::Old, &tally).await,
        new: Upstream::start(Side::New, &tally).await,
    };
    let proxy = Process::serve(&sides);
    let base = proxy.sample().await;
    println!("idle: {base}");
    let soak = Arc::new(Soak { tally, history: History::default(), sides, proxy });

    let most = client::calibrate(&soak).await;
    let rate = setting("SOAK_RATE").unwrap_or(most / 2);
    println!(
        "at most {most} requests/s here; the soak asks {rate} a second for {} s",
        lasts.as_secs()
    );
    let until = Instant::now() + lasts;
    let load = Load::start(&soak, rate, until);
    let events = tokio::spawn(events::run(Arc::clone(&soak), until));
    let samples = watch(&soak, until).await;
    events.await.unwrap();
    load.ends().await;

    let quiet = soak.proxy.becomes_quiet().await;
    println!("\nafter everybody has left: {quiet}");
    let mut failures = verdict(&soak, &base, &quiet, &samples);
    failures.extend(too_little(&soak.tally, rate, lasts.as_secs()));
    soak.proxy.stops().await;
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if !failures.is_empty() {
        std::process::exit(1);
    }
    println!("nothing unexplained, nothing left behind");
}

/// Takes the figures until the end.
async fn watch(soak: &Soak, until: Instant) -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut ticks = tokio::time::interval(SAMPLED);
    while Instant::now() < until {
        ticks.tick().await;
        let sample = soak.proxy.sample().await;
        if samples.len() % PRINTED == 0 {
            println!("{:>5} s  {sample}  {}", samples.len(), soak.tally);
        }
        samples.push(sample);
    }
    samples
}

/// What must not be.
fn verdict(soak: &Soak, base: &Sample, quiet: &Sample, samples: &[Sample]) -> Vec<String> {
    let mut failures = soak.tally.report();
    let mut fail = |is: bool, text: String| {
        if is {
            failures.push(text);
        }
    };
    // The first fifth fills caches and pools.
    let warmed = &samples[samples.len() / 5..samples.len() * 2 / 5];
    let warm = mean(warmed);
    let end = mean(&samples[samples.len() * 4 / 5..]);
    println!(
        "resident memory: {base_kb} kB idle, {warm} kB in the second fifth, {end} kB in the last",
        base_kb = base.memory
    );
    fail(end > warm + warm / 20 + 2048, format!("memory grew from {warm} kB to {end} kB"));
    let held = quiet.descriptors.saturating_sub(quiet.upstreams);
    fail(
        held > base.descriptors + 2,
        format!("{held} descriptors are open, {} were in the beginning", base.descriptors),
    );
    // The runtime's threads for files and names come with the work, and stay while anybody asks the admin listener.
    let most = warmed.iter().map(|sample| sample.threads).max().unwrap_or(base.threads);
    fail(quiet.threads > most, format!("{} threads, {most} in the second fifth", quiet.threads));

    fail(quiet.clients + quiet.sockets + quiet.flying > 0, format!("something is left: {quiet}"));
    for line in soak.proxy.complaints() {
        fail(true, format!("the proxy said: {line}"));
    }
    failures
}

/// What has to have happened for the verdict to say anything; a machine with other things to do gets a part of it done.
fn too_little(tally: &Tally, rate: u64, seconds: u64) -> Vec<String> {
    let requests = tally.requests();
    [
        ("requests", requests, rate * seconds / 4),
        ("messages", tally.messages(), 1),
        // About one request in two hundred is failed.
        ("faults", tally.counted("fault: "), requests / 2_000),
        // There is one every ten seconds, and an outage every minute, but none at the very end.
        ("changes", tally.counted("change of the percentage"), (seconds / 20).saturating_sub(1)),
        ("outages", tally.counted("outage of "), seconds / 120),
    ]
    .into_iter()
    .filter(|(_, count, least)| count < least)
    .map(|(what, count, least)| format!("{count} {what} show nothing: it takes {least}"))
    .collect()
}

fn mean(samples: &[Sample]) -> u64 {
    let sum: u64 = samples.iter().map(|sample| sample.memory).sum();
    sum / u64::try_from(samples.len().max(1)).unwrap()
}
