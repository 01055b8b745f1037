//! Very many clients that do nothing: what one of them costs, and that nobody else feels them. 2,000 of them; `CUTOVER_CROWD=19000` for more, as
//! far as the limit of open files goes (`ulimit -n`), of which this process and the proxy's need one each per client.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use cutover::side::Side;

use crate::support::conn::Conn;
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, within};

/// What an idle connection may cost of the proxy's memory, in bytes: less than a buffer and a half. A build without optimisation takes twice of what the release takes.
const MOST: u64 = 8_192;

/// A line of `/proc/PID/status` in kB.
fn memory(process: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn crowd() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a test's own size")]
    let asked = std::env::var("CUTOVER_CROWD").ok();
    asked.map_or(2_000, |count| count.parse().unwrap())
}

const GET: &str = "GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\n";

/// How long requests of another client take: the median and the slowest of so many.
async fn asks(conn: &mut Conn, count: usize) -> (Duration, Duration) {
    let mut times = Vec::new();
    for _ in 0..count {
        let asked = Instant::now();
        conn.send(format!("{GET}apikey: {ANON_OLD}\r\n\r\n")).await;
        conn.answer().await.served_by(Side::Old);
        times.push(asked.elapsed());
    }
    times.sort();
    (times[count / 2], times[count - 1])
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn thousands_of_idle_clients_cost_little_and_slow_nobody() {
    let count = crowd();
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    let setup = World::start()
        .set("limits.connections", "1000000")
        .set("limits.idle_timeout", "\"10m\"")
        .set("limits.header_timeout", "\"10m\"")
        .set("log.format", "\"json\"");
    let (folder, _keys): (_, BTreeMap<String, String>) = setup.write(&old, &new);
    let proxy = Process::serve(folder.path()).await;
    let mut other = Conn::open(proxy.address).await;
    let (alone, alone_slowest) = asks(&mut other, 200).await;
    let before = memory(proxy.id(), "VmRSS");
    let mut crowd = Vec::with_capacity(count);
    for _ in 0..count {
        crowd.push(within("a connection", Conn::open(proxy.address)).await);
    }
    let open = async || proxy.metric("cutover_client_connections_open", "").await;
    eventually("all of them open", async || open().await == (count + 1) as f64).await;
    let (silent, silent_slowest) = asks(&mut other, 200).await;
    let of_silent = memory(proxy.id(), "VmRSS").saturating_sub(before) * 1024 / count as u64;
    // Now each has been served once, and is kept alive.
    for conn in &mut crowd {
        conn.send(format!("{GET}apikey: {ANON_OLD}\r\n\r\n")).await;
        conn.answer().await.served_by(Side::Old);
    }
    let (kept, kept_slowest) = asks(&mut other, 200).await;
    let of_kept = memory(proxy.id(), "VmRSS").saturating_sub(before) * 1024 / count as u64;
    println!(
        "{count} connections; a connection's memory: {of_silent} bytes before its first request, {of_kept} after it; \
         another client's request: {alone:?} (slowest of 200: {alone_slowest:?}) alone, {silent:?} ({silent_slowest:?}) beside \
         those that said nothing, {kept:?} ({kept_slowest:?}) beside those that were served"
    );
    assert!(of_silent < MOST && of_kept < MOST, "{of_silent} and {of_kept} bytes each");
    // The slowest is what the machine did at that moment.
    assert!(silent.max(kept) < Duration::from_millis(500), "{silent:?} and {kept:?}");
    // They leave all at once.
    drop(crowd);
    eventually("none of them left", async || open().await == 1.0).await;
    asks(&mut other, 1).await;
}
