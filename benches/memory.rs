//! 2 GB up and 2 GB down through a real `cutover serve`, and what that does to its resident memory.
//!
//! The upstream swallows what it gets and makes up what is asked of it, by Range. Memory is the kernel's own account of the process
//! (`/proc/PID/status`): before, at its highest (`VmHWM`), after. Ends with a failure when the highest is more than 16 MB above idle.
//! `cargo bench --bench memory -- 100` takes 100 MB instead.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: whatever fails ends it, and printing is its purpose"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

#[allow(dead_code, unreachable_pub, reason = "each bench asks for less")]
mod serving;

use serving::{BUILT, Serving};

/// What the highest may be above idle.
const ALLOWED_KB: u64 = 16 * 1024;
/// How much is written and read at a time.
const PIECE: usize = 256 * 1024;
/// One ranged download is this long.
const RANGE: u64 = 64 * 1024 * 1024;

fn main() {
    let megabytes = std::env::args().find_map(|text| text.parse().ok()).unwrap_or(2048_u64);
    let total = megabytes * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let proxy = start(folder.path(), upstream);
    // One small request each way: what is made once is idle's.
    upload(proxy.address, 1024);
    download(proxy.address, 1024);
    let idle = proxy.status("VmRSS");
    println!("resident when idle:          {idle:>8} kB");
    measure(&proxy, "upload", total, idle, || upload(proxy.address, total));
    measure(&proxy, "download by Range", total, idle, || download(proxy.address, total));
    let highest = proxy.status("VmHWM");
    println!("highest ever:                {highest:>8} kB ({:+} kB)", difference(highest, idle));
    assert!(highest <= idle + ALLOWED_KB, "more than {ALLOWED_KB} kB above idle");
}

fn measure(proxy: &Serving, what: &str, total: u64, idle: u64, run: impl FnOnce()) {
    let begun = Instant::now();
    run();
    let speed = total as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let (now, highest) = (proxy.status("VmRSS"), proxy.status("VmHWM"));
    println!(
        "{what}, {} MB at {speed:.0} MB/s: after {now} kB ({:+}), highest so far {highest} kB ({:+})",
        total / 1024 / 1024,
        difference(now, idle),
        difference(highest, idle),
    );
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(a).unwrap() - i64::try_from(b).unwrap()
}

fn start(folder: &std::path::Path, upstream: SocketAddr) -> Serving {
    let text = format!(
        "listen = \"127.0.0.1:0\"\nworkers = 1\nadmin.listen = \"127.0.0.1:0\"\nlog.format = \"json\"\n\
         limits.body_bytes = 0\nprojects.old.url = \"http://{upstream}\"\nprojects.new.url = \"http://{upstream}\"\n\
         projects.old.anon_key = \"anon-old\"\nprojects.new.anon_key = \"anon-new\"\n\
         storage.buckets.avatars = \"media/avatars\"\nrollout.percentage = 50\nrollout.audit_file = \"\"\n"
    );
    fs::write(folder.join("config.toml"), text).unwrap();
    Serving::start(BUILT, folder, drop)
}

fn upload(proxy: SocketAddr, length: u64) {
    let mut stream = TcpStream::connect(proxy).unwrap();
    write!(
        stream,
        "POST /storage/v1/object/avatars/big HTTP/1.1\r\nhost: p\r\napikey: anon-old\r\nconnection: close\r\n\
         content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
    )
    .unwrap();
    send(&mut stream, length);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn download(proxy: SocketAddr, total: u64) {
    let mut stream = BufReader::with_capacity(PIECE, TcpStream::connect(proxy).unwrap());
    let mut at = 0;
    while at < total {
        let end = (at + RANGE).min(total);
        write!(
            stream.get_mut(),
            "GET /storage/v1/object/avatars/big HTTP/1.1\r\nhost: p\r\napikey: anon-old\r\nrange: bytes={at}-{}\r\n\r\n",
            end - 1
        )
        .unwrap();
        let head = head(&mut stream).unwrap();
        assert!(head.starts_with("HTTP/1.1 206"), "{head}");
        swallow(&mut stream, end - at);
        at = end;
    }
}

/// One connection of the upstream.
fn serve(stream: TcpStream) {
    let mut stream = BufReader::with_capacity(PIECE, stream);
    while let Some(head) = head(&mut stream) {
        let value = |name: &str| {
            head.lines().find_map(|line| {
                let (key, value) = line.split_once(": ")?;
                key.eq_ignore_ascii_case(name).then(|| value.to_owned())
            })
        };
        if let Some(length) = value("content-length") {
            swallow(&mut stream, length.parse().unwrap());
            stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
            continue;
        }
        let range = value("range").unwrap();
        let (from, to) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let length = to.parse::<u64>().unwrap() + 1 - from.parse::<u64>().unwrap();
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-type: video/mp4\r\ncontent-range: bytes {from}-{to}/*\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        send(stream.get_mut(), length);
    }
}

fn head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

fn send(stream: &mut TcpStream, length: u64) {
    let piece = vec![b'x'; PIECE];
    let mut left = length;
    while left > 0 {
        let now = usize::try_from(left.min(PIECE as u64)).unwrap();
        stream.write_all(&piece[..now]).unwrap();
        left -= now as u64;
    }
}

fn swallow(stream: &mut impl Read, length: u64) {
    let copied = std::io::copy(&mut stream.take(length), &mut std::io::sink()).unwrap();
    assert_eq!(copied, length);
}
