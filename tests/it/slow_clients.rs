//! Clients that take nothing, or vanish: each costs its own connection, for so long, and nobody else anything. (Slow heads and bodies are in
//! `framing`, slow readers of realtime in `realtime`.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use cutover::side::Side;
use futures_util::SinkExt as _;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::conn::Conn;
use crate::support::tls::Authority;
use crate::support::upstream::{Upstream, usual};
use crate::support::websocket::{accept, echoes};
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, http2, within};

/// What a body of 64 MB may take of memory, the system's buffers included (see `streaming`).
const HELD_AT_MOST: usize = 40_000_000;

const PATIENCE: &str = "\"400ms\"";

/// Answers downloads with 64 MB, in one framing or the other, and everything else as usual; counts what went.
fn sends_much(upstream: &Upstream, is_chunked: bool) -> Arc<AtomicUsize> {
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let gone = upstream.notes_gone();
    upstream.does(move |seen, mut conn| {
        let (counting, gone) = (Arc::clone(&counting), gone.clone());
        async move {
            if !seen.target().contains("/big") {
                conn.send(usual(Side::Old)).await;
                return Some(conn);
            }
            let framing =
                if is_chunked { "transfer-encoding: chunked" } else { "content-length: 64000000" };
            conn.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n")).await;
            let bytes = vec![b'x'; 64_000];
            let piece = match is_chunked {
                true => [b"fa00\r\n", &bytes[..], b"\r\n"].concat(),
                false => bytes,
            };
            for _ in 0..1000 {
                if !conn.try_send(&piece).await {
                    gone();
                    return None;
                }
                counting.fetch_add(64_000, SeqCst);
            }
            if is_chunked {
                conn.send("0\r\n\r\n").await;
            }
            Some(conn)
        }
    });
    sent
}

async fn too_slow(world: &World) -> f64 {
    world.metric("cutover_errors_total", "kind=\"too_slow\"").await
}

/// The side is let go, the connection is counted once, and nothing is left of either.
async fn is_cut(world: &World, sent: &AtomicUsize, before: f64) {
    let others = async {
        // While it lasts, and behind it on the same worker.
        while world.old.gone() == 0 {
            let asked = Instant::now();
            world.client().get("/rest/v1/todos").await.served_by(Side::Old);
            assert!(asked.elapsed() < Duration::from_secs(2), "another client waits");
        }
    };
    within("the side's connection", others).await;
    assert!(sent.load(SeqCst) < HELD_AT_MOST, "{sent:?} bytes went into nowhere");
    eventually("the count", async || too_slow(world).await == before + 1.0).await;
    world.is_quiet().await;
}

#[tokio::test]
async fn who_never_reads_an_answer_is_cut_and_its_side_is_let_go() {
    for is_chunked in [false, true] {
        let world = World::start().set("limits.send_timeout", PATIENCE).await;
        let sent = sends_much(&world.old, is_chunked);
        let begun = Instant::now();
        let mut conn = world.raw().await;
        conn.send(world.client().says("GET", "/storage/v1/object/b/big", None)).await;
        is_cut(&world, &sent, 0.0).await;
        assert!(begun.elapsed() >= Duration::from_millis(400));
        // It finds out when it reads at last: not by an end that looks like one.
        let answer = conn.answer().await;
        assert!(!answer.body.is_whole && answer.body.bytes.len() < 64_000_000);
    }
}

#[tokio::test]
async fn over_tls_as_well() {
    let authority = Authority::new();
    let world = authority.world().set("limits.send_timeout", PATIENCE).await;
    let sent = sends_much(&world.old, false);
    let address = world.tls_address.unwrap();
    let mut conn = Conn::new(authority.connect(address, "localhost", &["http/1.1"]).await);
    conn.send(world.client().says("GET", "/storage/v1/object/b/big", None)).await;
    is_cut(&world, &sent, 0.0).await;
}

#[tokio::test]
async fn who_opens_no_window_over_http2_is_cut() {
    let world = World::start().set("limits.send_timeout", PATIENCE).await;
    let sent = sends_much(&world.old, false);
    let mut sender = http2::open(&world).await;
    let answer = sender.send_request(http2::get("/storage/v1/object/b/big")).await.unwrap();
    is_cut(&world, &sent, 0.0).await;
    assert!(http2::body(answer).await.is_none(), "cut, and seen to be");
}

#[tokio::test]
async fn an_http2_connection_on_which_something_goes_on_is_kept() {
    let world = World::start().set("limits.send_timeout", PATIENCE).await;
    let sent = sends_much(&world.old, false);
    let mut sender = http2::open(&world).await;
    let answer = sender.send_request(http2::get("/storage/v1/object/b/big")).await.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        // Another one that takes half of the patience, again and again.
        world.old.does(|_, mut conn| async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            conn.send(usual(Side::Old)).await;
            Some(conn)
        });
        let other = sender.send_request(http2::get("/rest/v1/todos"));
        assert_eq!(within("another stream", other).await.unwrap().status(), 200);
    }
    assert!(sent.load(SeqCst) < HELD_AT_MOST);
    assert_eq!(http2::body(answer).await.unwrap().len(), 64_000_000);
    assert_eq!(too_slow(&world).await, 0.0);
}

#[tokio::test]
async fn who_takes_little_by_little_gets_all_of_it() {
    let world = World::start().set("limits.send_timeout", "\"1s\"").await;
    sends_much(&world.old, false);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = world.client().says("GET", "/storage/v1/object/b/big", None);
    stream.write_all(request.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let (mut read, mut buffer) = (0, vec![0; 4_000_000]);
    while read < 64_000_000 {
        // The system tells the proxy of room when a third of its buffer is free: less than is read here at a time.
        let step = within("more", stream.read_exact(&mut buffer)).await.unwrap();
        read += step;
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
    assert!(begun.elapsed() > Duration::from_millis(1500), "longer than it may take nothing");
    assert_eq!(too_slow(&world).await, 0.0);
}

#[tokio::test]
async fn a_functions_socket_that_nobody_reads_is_cut() {
    let world = World::start().set("limits.send_timeout", PATIENCE).await;
    let gone = world.old.notes_gone();
    world.old.does(move |seen, conn| {
        let gone = gone.clone();
        async move {
            let mut socket = accept(seen, conn).await;
            while socket.send(Message::binary(vec![1; 1_000_000])).await.is_ok() {}
            gone();
            None
        }
    });
    let mut conn = world.raw().await;
    conn.send(upgrade("/functions/v1/chat")).await;
    conn.answer_head().await;
    eventually("the side's end", async || world.old.gone() == 1).await;
    world.is_quiet().await;
    assert_eq!(too_slow(&world).await, 1.0);
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path}?apikey={ANON_OLD}&vsn=1.0.0 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

#[tokio::test]
async fn a_changed_send_timeout_holds_for_the_next_connection() {
    let world = World::start().await;
    let sent = sends_much(&world.old, false);
    world.change("limits.send_timeout", PATIENCE).await;
    let mut conn = world.raw().await;
    conn.send(world.client().says("GET", "/storage/v1/object/b/big", None)).await;
    is_cut(&world, &sent, 0.0).await;
}

/// A client that is reset instead of closed: what a machine says that has crashed and is back, and what a scanner does.
fn vanishes(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

#[tokio::test]
async fn clients_that_vanish_at_any_moment_leave_nothing_behind() {
    let world = World::start().await;
    let head =
        |target: &str| format!("GET {target} HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n\r\n");
    let post = format!(
        "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: 100\r\n\r\nhalf"
    );
    let sent = sends_much(&world.old, true);
    let moments = [
        ("before a word", String::new(), 0),
        ("in the middle of a head", "GET /rest/v1/to".to_owned(), 0),
        ("when idle", head("/rest/v1/todos"), 10),
        ("in the middle of an answer", head("/storage/v1/object/b/big"), 1_000_000),
        ("in the middle of a body", post, 0),
    ];
    for (moment, text, reads) in moments {
        for _ in 0..5 {
            let mut stream = TcpStream::connect(world.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut buffer = vec![0; reads];
            within(moment, stream.read_exact(&mut buffer)).await.unwrap();
            if moment.ends_with("body") {
                let before = world.old.count();
                world.old.has_seen(before).await;
            }
            vanishes(stream);
        }
        world.is_quiet().await;
        world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    }
    assert!(sent.load(SeqCst) < 5 * HELD_AT_MOST);
    assert_eq!(world.old.gone(), 5, "those that were being answered");
}

#[tokio::test]
async fn a_half_that_is_closed_is_not_waited_for() {
    let world = World::start().await;
    // Before a head, in a head, in a body: what is missing will never come.
    let body = format!(
        "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: 9\r\n\r\nhalf"
    );
    world.old.expects_cut_bodies();
    for text in ["", "GET /rest/v1/todos HTTP/1.1\r\nhost:", &body] {
        let mut conn = world.raw().await;
        conn.send(text).await;
        conn.finish().await;
        within("the end", async { while conn.fill().await > 0 {} }).await;
    }
    world.is_quiet().await;
    // A socket's half: the other half is not held open for ever.
    echoes(&world.old);
    let mut conn = world.raw().await;
    conn.send(upgrade("/functions/v1/chat")).await;
    conn.answer_head().await;
    conn.finish().await;
    within("the end", async { while conn.fill().await > 0 {} }).await;
    world.is_quiet().await;
}

/// The proxy's end of a connection, as the system shows it.
#[cfg(target_os = "linux")]
fn end_of(proxy: SocketAddr, client: SocketAddr) -> Option<String> {
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut lines = table.lines().map(str::to_owned);
    lines.find(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port(proxy)))
            && words.next().is_some_and(|remote| remote.ends_with(&port(client)))
    })
}

/// Its timer: 2 = the system asks now and then whether the other end is there.
#[cfg(target_os = "linux")]
fn timer(proxy: SocketAddr, client: SocketAddr) -> Option<u8> {
    end_of(proxy, client)?.split_whitespace().nth(5)?.split(':').next()?.parse().ok()
}

/// A client that reads nothing would let the system hold what was written for it for minutes, when the proxy has long forgotten it.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_the_system_holds_for_a_client_that_is_cut_goes_with_it() {
    let world = World::start().set("limits.send_timeout", PATIENCE).await;
    let sent = sends_much(&world.old, false);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let request = world.client().says("GET", "/storage/v1/object/b/big", None);
    stream.write_all(request.as_bytes()).await.unwrap();
    is_cut(&world, &sent, 0.0).await;
    let client = stream.local_addr().unwrap();
    eventually("the end of it", async || end_of(world.address, client).is_none()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_silent_socket_is_asked_whether_it_is_still_there() {
    let world = World::start().await;
    echoes(&world.old);
    for path in ["/functions/v1/chat", "/realtime/v1/websocket"] {
        let stream = TcpStream::connect(world.address).await.unwrap();
        let client = stream.local_addr().unwrap();
        let mut conn = Conn::new(stream);
        conn.send(upgrade(path)).await;
        conn.answer_head().await;
        eventually("the timer", async || timer(world.address, client) == Some(2)).await;
    }
}

#[tokio::test]
async fn places_of_a_flood_are_used_again_and_those_beyond_are_not_held() {
    let world =
        World::start().set("limits.connections", "10").set("limits.header_timeout", "\"1s\"").await;
    let mut flood = Vec::new();
    for _ in 0..200 {
        flood.push(TcpStream::connect(world.address).await.unwrap());
    }
    // 10 that are served, 64 that would be answered; the others are closed at once.
    eventually("those beyond closed", async || {
        world.metric("cutover_errors_total", "kind=\"too_many_connections\"").await >= 126.0
    })
    .await;
    assert!(world.metric("cutover_client_connections_open", "").await <= 74.0);
    // Whoever says nothing loses its place by itself.
    eventually("a free place", async || {
        let mut conn = world.raw().await;
        conn.try_send(world.client().says("GET", "/rest/v1/todos", None)).await;
        conn.head().await.is_some_and(|head| head.start.contains(" 200 "))
    })
    .await;
    drop(flood);
    world.is_quiet().await;
}

#[tokio::test]
async fn the_admin_listener_closes_slow_heads() {
    let world = World::start().set("limits.header_timeout", "\"500ms\"").await;
    let mut half = Conn::open(world.admin).await;
    half.send("GET /healthz HTTP/1.1\r\nhost: ").await;
    let mut silent = Conn::open(world.admin).await;
    let begun = Instant::now();
    // What comes in pieces comes, if it comes in time.
    let mut pieces = Conn::open(world.admin).await;
    for piece in [&format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n", world.admin), "\r\n"] {
        pieces.send(piece).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(pieces.answer().await.status, 200);
    for conn in [&mut half, &mut silent] {
        within("the close", async { while conn.fill().await > 0 {} }).await;
    }
    // Not sooner than after two seconds here: operators come over slow ways.
    assert!(begun.elapsed() >= Duration::from_millis(1900));
}

#[tokio::test]
async fn a_client_with_the_smallest_of_buffers_is_served_like_any_other() {
    let world = World::start().set("limits.send_timeout", "\"2s\"").await;
    world.old.answers(|_| {
        crate::support::upstream::response("200 OK", "x-upstream: old\r\n", &"y".repeat(300_000))
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let mut conn = Conn::new(socket.connect(world.address).await.unwrap());
    for _ in 0..2 {
        conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
        let answer = conn.answer().await;
        answer.served_by(Side::Old);
        assert_eq!(answer.body.bytes.len(), 300_000);
    }
}
