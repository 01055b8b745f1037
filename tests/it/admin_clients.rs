//! Clients of the admin listener that hold a place and ask for nothing, or read nothing: operators and probes get in all the same. (Slow heads are in
//! `slow_clients`.)

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cutover::side::Side;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use crate::support::conn::Conn;
use crate::support::within;
use crate::support::world::World;

/// Places of the admin listener.
const PLACES: usize = 512;

/// The head of a request whose body is 18 bytes long.
fn head(admin: SocketAddr, line: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: {admin}\r\ncontent-length: 18\r\n\r\n")
}

async fn is_closed(conn: &mut Conn) {
    within("the close", async { while conn.fill().await > 0 {} }).await;
}

/// A probe, an operator and a client are served.
async fn is_served(world: &World) {
    let probe = format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", world.admin);
    let mut conn = Conn::open(world.admin).await;
    conn.send(probe).await;
    assert_eq!(within("the probe", conn.answer()).await.status, 200);
    let change = world.ask_admin("PUT", "/rollout", "{\"percentage\": 25}");
    assert_eq!(within("the operator", change).await.status, 200);
    world.ask_admin("PUT", "/rollout", "{\"percentage\": 0}").await;
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
}

#[tokio::test]
async fn a_slow_body_is_answered_and_its_connection_closed() {
    let world = World::start().set("limits.header_timeout", "\"500ms\"").await;
    let begun = Instant::now();
    let mut silent = Conn::open(world.admin).await;
    silent.send(head(world.admin, "PUT /rollout")).await;
    let mut half = Conn::open(world.admin).await;
    half.send(head(world.admin, "POST /rollout/abort") + "{\"rea").await;
    // What comes in pieces comes, if it comes in time.
    let mut pieces = Conn::open(world.admin).await;
    pieces.send(head(world.admin, "PUT /rollout")).await;
    for piece in ["{\"percentage", "\": 10}"] {
        tokio::task::yield_now().await;
        pieces.send(piece).await;
    }
    assert_eq!(pieces.answer().await.status, 200);
    for conn in [&mut silent, &mut half] {
        let answer = conn.answer().await;
        assert_eq!((answer.status, &answer.json()["code"]), (408, &"CUTA408".into()));
        is_closed(conn).await;
    }
    assert!(begun.elapsed() >= Duration::from_millis(1900), "operators come over slow ways");
    let rollout = world.ask_admin("GET", "/rollout", "").await.json();
    assert_eq!((&rollout["percentage"], &rollout["force"]), (&10.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn bodies_that_never_come_keep_nobody_out() {
    // Longer than the test: it is not time that makes the room.
    let world = World::start().set("limits.header_timeout", "\"5m\"").await;
    let mut flood = Vec::new();
    for _ in 0..PLACES {
        let mut conn = Conn::open(world.admin).await;
        conn.send(head(world.admin, "POST /login")).await;
        flood.push(conn);
    }
    is_served(&world).await;
    is_closed(&mut flood[0]).await;
    // The youngest is there still, and has what it asks for when it asks.
    let youngest = flood.last_mut().unwrap();
    youngest.send("{\"token\":\"nobodys\"}".split_at(18).0).await;
    assert_eq!(youngest.answer().await.status, 400);
}

#[tokio::test]
async fn a_flood_of_silent_connections_takes_so_many_descriptors_and_no_more() {
    let world = World::start().set("limits.header_timeout", "\"5m\"").await;
    let mut flood = Vec::new();
    for _ in 0..PLACES + 50 {
        flood.push(Conn::open(world.admin).await);
    }
    for conn in &mut flood[..50] {
        is_closed(conn).await;
    }
    is_served(&world).await;
    let youngest = flood.last_mut().unwrap();
    youngest.send(format!("GET /healthz HTTP/1.1\r\nhost: {}\r\n\r\n", world.admin)).await;
    assert_eq!(youngest.answer().await.status, 200, "it had a place");
}

#[tokio::test]
async fn who_reads_no_answer_of_the_admin_listener_is_cut() {
    let world = World::start().set("limits.header_timeout", "\"500ms\"").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(world.admin).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\n\r\n", world.admin);
    // Until the buffers of both ends are full, and then until it is cut.
    within("the cut", async { while stream.write_all(request.as_bytes()).await.is_ok() {} }).await;
    is_served(&world).await;
}
