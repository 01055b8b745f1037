//! From a change of the percentage to the last request decided by the old number: 200 changes by file and 200 by the
//! admin API, under load. Prints the distribution; asserts nothing about time, because machines are shared.
//!
//! Measured from just before the write to the arrival of the last answer whose epoch is an old one, so the request's own way
//! through proxy and upstream is included: an upper bound.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: whatever fails ends it, and printing is its purpose"
)]

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cutover::app::Proxy;
use cutover::config::live::{Control, Sources};
use cutover::forward::names::Resolver;
use cutover::observe::log::Dropped;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CHANGES: usize = 200;
const CONNECTIONS: usize = 16;
/// After this long without an answer of the old epoch a change is taken to be complete.
const QUIET: Duration = Duration::from_millis(30);

/// When the last answer of each epoch arrived, in nanoseconds after the start. Bounded by the number of changes.
struct LastSeen {
    start: Instant,
    epochs: Vec<AtomicU64>,
}

impl LastSeen {
    fn note(&self, epoch: usize) {
        if let Some(last) = self.epochs.get(epoch) {
            last.fetch_max(
                u64::try_from(self.start.elapsed().as_nanos()).unwrap(),
                Ordering::Relaxed,
            );
        }
    }

    /// The latest answer of any epoch before `epoch`.
    fn last_before(&self, epoch: u64) -> u64 {
        let end = usize::try_from(epoch).unwrap().min(self.epochs.len());
        self.epochs[..end].iter().map(|last| last.load(Ordering::Relaxed)).max().unwrap_or(0)
    }
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let upstream = runtime.block_on(upstream());
    let config = folder.path().join("config.toml");
    fs::write(&config, text(upstream, 10)).unwrap();
    let sources = Sources { file: Some(config.clone()), environment: BTreeMap::new() };
    let (control, startup, _warnings) = Control::start(sources).unwrap();
    let live = Arc::clone(control.live());
    let proxy = Proxy::start(control, &startup, Dropped::default(), Resolver::default()).unwrap();

    let seen = Arc::new(LastSeen {
        start: Instant::now(),
        epochs: (0..2 * CHANGES + 10).map(|_| AtomicU64::new(0)).collect(),
    });
    let stop = Arc::new(AtomicBool::new(false));
    let load: Vec<_> = (0..CONNECTIONS)
        .map(|user| runtime.spawn(ask(proxy.address, user, Arc::clone(&seen), Arc::clone(&stop))))
        .collect();

    let epoch = || live.load().epoch;
    let by_file = changes(&seen, epoch, |percentage| replace(&config, &text(upstream, percentage)));
    show("file written (atomic rename)", by_file);
    let admin = proxy.admin_address;
    let by_admin = changes(&seen, epoch, |percentage| runtime.block_on(put(admin, percentage)));
    show("admin API (PUT /rollout)", by_admin);

    stop.store(true, Ordering::Relaxed);
    let requests: u64 = load.into_iter().map(|task| runtime.block_on(task).unwrap()).sum();
    println!("flip: {requests} requests over {CONNECTIONS} connections, none failed");
    proxy.stop();
}

fn text(upstream: SocketAddr, percentage: usize) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nworkers = 1\ndebug_headers = true\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\naccess = false\n\
         [projects.old]\nurl = \"http://{upstream}\"\n[projects.new]\nurl = \"http://{upstream}\"\n\
         [rollout]\npercentage = {percentage}\n"
    )
}

fn replace(config: &Path, text: &str) {
    let part = config.with_extension("part");
    fs::write(&part, text).unwrap();
    fs::rename(&part, config).unwrap();
}

/// Makes the changes one after the other; answers how long after each the last old decision arrived.
fn changes(seen: &LastSeen, epoch: impl Fn() -> u64, change: impl Fn(usize)) -> Vec<Duration> {
    (0..CHANGES)
        .map(|n| {
            let before = epoch();
            let began = u64::try_from(seen.start.elapsed().as_nanos()).unwrap();
            change(if n % 2 == 0 { 50 } else { 10 });
            let limit = Instant::now() + Duration::from_secs(10);
            while epoch() == before {
                assert!(Instant::now() < limit, "the change never came");
                std::thread::sleep(Duration::from_micros(50));
            }
            // Long enough for every connection to have had its next answer.
            std::thread::sleep(QUIET);
            Duration::from_nanos(seen.last_before(epoch()).saturating_sub(began))
        })
        .collect()
}

fn show(what: &str, mut delays: Vec<Duration>) {
    delays.sort();
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    println!(
        "flip: {what}: {} changes, last old decision after p50 {:.2} ms, p90 {:.2} ms, max {:.2} ms",
        delays.len(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
}

/// An upstream that answers everything at once.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut buffer = vec![0; 8192];
                while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n[]";
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Asks again and again as one user; answers how often.
async fn ask(proxy: SocketAddr, user: usize, seen: Arc<LastSeen>, stop: Arc<AtomicBool>) -> u64 {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "GET /rest/v1/todos?select=id HTTP/1.1\r\nhost: bench\r\nx-api-key: user-{user}\r\n\r\n"
    );
    let mut buffer = vec![0; 4096];
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut length = 0;
        while !buffer[..length].ends_with(b"\r\n\r\n[]") {
            let read = stream.read(&mut buffer[length..]).await.unwrap();
            assert!(read > 0, "the proxy closed the connection");
            length += read;
        }
        let answer = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let epoch = answer.lines().find_map(|line| line.strip_prefix("x-cutover-epoch: ")).unwrap();
        seen.note(epoch.parse().unwrap());
        count += 1;
        // A load, not a flood, so that waiting for a core is not the measure.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    count
}

async fn put(admin: SocketAddr, percentage: usize) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    let body = format!("{{\"percentage\":{percentage},\"reason\":\"bench\"}}");
    let request = format!(
        "PUT /rollout HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
