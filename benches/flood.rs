//! What one client feels of another one's HTTP/2 flood: the same worker serves both, and the flood comes back whenever it is ended.
//!
//! A real `cutover serve` with one worker before an upstream that answers at once. The client asks over one kept connection, one request after
//! the other, in turns of half a second without and with the flood, so that whatever else the machine does is in both.
//! `cargo bench --bench flood -- 2` takes two seconds for each flood (default 6), half of them without it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: whatever fails ends it, printing and the clock are its purpose"
)]

#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/it/support/frames.rs"]
mod frames;
#[allow(dead_code, unreachable_pub, reason = "each bench asks for less")]
mod serving;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, get, request,
};
use serving::{BUILT, Serving};

const TURN: Duration = Duration::from_millis(500);

/// Name, what is sent first, what is sent again and again.
type Flood = (&'static str, Vec<u8>, Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>);

fn floods() -> Vec<Flood> {
    let same = |bytes: Vec<u8>| -> Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync> {
        Arc::new(move |_| bytes.clone())
    };
    let odd = |i: u32| 2 * i + 1;
    let post = block(&request("POST", "/rest/v1/t"));
    let opened = frame(HEADERS, END_HEADERS, 1, &post);
    let begun = frame(HEADERS, END_STREAM, 1, &post);
    let mut bomb = block(&request("GET", "/rest/v1/t"));
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    bomb.extend_from_slice(&[b'y'; 3900]);
    bomb.resize(16_000, 0xbe);
    let reset = move |i: u32| frame(RST_STREAM, 0, odd(i), &[0, 0, 0, 8]);
    vec![
        ("PING", Vec::new(), same(frame(PING, 0, 0, &[7; 8]))),
        ("SETTINGS", Vec::new(), same(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]))),
        ("PRIORITY", Vec::new(), same(frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16]))),
        ("WINDOW_UPDATE", Vec::new(), same(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        ("DATA, empty", opened, same(frame(DATA, 0, 1, &[]))),
        ("CONTINUATION, empty", begun, same(frame(CONTINUATION, 0, 1, &[]))),
        (
            "rapid reset",
            Vec::new(),
            Arc::new(move |i| [get(odd(i), "/rest/v1/t"), reset(i)].concat()),
        ),
        (
            "a head that unpacks to 46 MB",
            Vec::new(),
            Arc::new(move |i| frame(HEADERS, END_HEADERS | END_STREAM, odd(i), &bomb)),
        ),
    ]
}

fn main() {
    let seconds = std::env::args().find_map(|text| text.parse().ok()).unwrap_or(6_u64);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path(), upstream);
    println!(
        "{:30} {:>22} {:>22} {:>10} {:>9}",
        "", "without: p50, p99 µs", "with: p50, p99 µs", "ended", "memory"
    );
    for flood in floods() {
        measure(&proxy, flood, Duration::from_secs(seconds));
    }
}

/// Turns without and with a flood, until the time is over.
fn measure(proxy: &Serving, (name, opening, piece): Flood, time: Duration) {
    let (is_on, is_over) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let ended = Arc::new(AtomicU64::new(0));
    let enemy = {
        let (is_on, is_over, ended) =
            (Arc::clone(&is_on), Arc::clone(&is_over), Arc::clone(&ended));
        let address = proxy.address;
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                while !is_over.load(Relaxed) {
                    if !is_on.load(Relaxed) {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    let mut frames = Frames::open(address, &[]).await;
                    frames.send(&opening).await;
                    let flooded = frames::flood(frames, 100_000, &*piece).await;
                    ended.fetch_add(u64::from(flooded.was_closed), Relaxed);
                }
            });
        })
    };
    let mut client = TcpStream::connect(proxy.address).unwrap();
    client.set_nodelay(true).unwrap();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time {
        for (is_flooded, times) in [(false, &mut without), (true, &mut with)] {
            is_on.store(is_flooded, Relaxed);
            let turn = Instant::now();
            while turn.elapsed() < TURN {
                times.push(ask(&mut client));
            }
        }
    }
    is_over.store(true, Relaxed);
    enemy.join().unwrap();
    let (w50, w99) = percentiles(&mut without);
    let (f50, f99) = percentiles(&mut with);
    let ended = ended.load(Relaxed);
    println!(
        "{name:30} {w50:>11} {w99:>10} {f50:>11} {f99:>10} {ended:>10} {:>6} MB",
        proxy.status("VmRSS") / 1024
    );
    assert!(ended > 0, "{name}: nothing ended it");
}

fn percentiles(times: &mut [Duration]) -> (u128, u128) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    (at(0.5), at(0.99))
}

/// One request, from its first byte to its answer's last.
fn ask(client: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    client
        .write_all(b"GET /rest/v1/other HTTP/1.1\r\nhost: p\r\napikey: anon-old\r\n\r\n")
        .unwrap();
    let mut held = Vec::new();
    let mut space = [0; 4096];
    while !held.ends_with(b"\r\n\r\n{}") {
        let read = client.read(&mut space).unwrap();
        assert!(read > 0, "the connection has ended: {}", String::from_utf8_lossy(&held));
        held.extend_from_slice(&space[..read]);
    }
    assert!(held.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&held));
    begun.elapsed()
}

fn start(folder: &std::path::Path, upstream: SocketAddr) -> Serving {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nworkers = 1\nadmin.listen = \"127.0.0.1:0\"\nlog.format = \"json\"\nlog.access = false\n\
         projects.old.url = \"http://{upstream}\"\nprojects.new.url = \"http://{upstream}\"\n\
         projects.old.anon_key = \"anon-old\"\nprojects.new.anon_key = \"anon-new\"\nrollout.audit_file = \"\"\n"
    );
    fs::write(folder.join("config.toml"), text).unwrap();
    Serving::start(BUILT, folder, drop)
}

/// One connection of the upstream.
fn serve(stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: x\r\n\r\n{}";
        if stream.get_mut().write_all(answer).is_err() {
            return;
        }
    }
}
