//! A stop: what is in flight ends well, and nothing new begins.

use std::time::Duration;

use cutover::side::Side;
use tokio::net::TcpStream;

use crate::support::conn::Conn;
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::world::World;
use crate::support::{eventually, http2, websocket, within};

async fn is_refused(address: std::net::SocketAddr) -> bool {
    TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight_and_takes_nothing_new() {
    let mut world = World::start().set("drain_timeout", "\"1m\"").await;
    let release = world.old.holds();
    let mut kept = Conn::open(world.address).await;
    let mut conn = Conn::open(world.address).await;
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    let mut sender = http2::open(&world).await;
    let over_http2 = tokio::spawn(sender.send_request(http2::get("/rest/v1/todos")));
    world.old.has_seen(2).await;
    let stopping = world.begin_stop();
    eventually("no new connections", async || is_refused(world.address).await).await;
    assert!(kept.is_closed().await, "a connection without a request has nothing to wait for");
    release.send_replace(true);
    let answer = conn.answer().await;
    answer.served_by(Side::Old);
    assert!(conn.is_closed().await, "and no next request on it");
    let answer = within("over HTTP/2", over_http2).await.unwrap().unwrap();
    assert_eq!(http2::body(answer).await.as_deref(), Some(&b"{\"side\":\"old\"}"[..]));
    within("the stop", stopping).await;
}

#[tokio::test]
async fn a_stop_cuts_what_is_still_in_flight_after_drain_timeout() {
    let mut world = World::start().set("drain_timeout", "\"500ms\"").await;
    let _never = world.old.holds();
    let mut conn = Conn::open(world.address).await;
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    world.old.has_seen(1).await;
    let took = within("the stop", world.begin_stop()).await;
    assert!(took >= Duration::from_millis(500), "{took:?}");
    assert!(conn.is_closed().await);
}

#[tokio::test]
async fn connections_that_never_said_a_word_do_not_hold_a_stop_up() {
    let mut world =
        World::start().set("limits.header_timeout", "\"60s\"").set("drain_timeout", "\"1m\"").await;
    let _silent = Conn::open(world.address).await;
    let mut half = Conn::open(world.address).await;
    half.send("PRI * HTT").await;
    eventually("both taken", async || {
        world.metric("cutover_client_connections_open", "").await == 2.0
    })
    .await;
    within("the stop", world.begin_stop()).await;
}

#[tokio::test]
async fn websockets_are_told_1012_before_the_stop_ends() {
    let mut world =
        World::start().set("drain_timeout", "\"8s\"").set("realtime.drain", "\"600s\"").await;
    websocket::echoes(&world.old);
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(websocket::realtime(&world).await);
    }
    let stopping = world.begin_stop();
    for socket in &mut sockets {
        assert_eq!(websocket::close_code(socket).await, Some(1012));
    }
    drop(sockets);
    within("the stop", stopping).await;
}

#[tokio::test]
async fn the_binary_drains_on_sigterm_and_exits_0() {
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    let setup = World::start().set("log.format", "\"json\"").set("drain_timeout", "\"1m\"");
    let (folder, _) = setup.write(&old, &new);
    let mut process = Process::serve(folder.path()).await;
    let release = old.holds();
    let mut conn = Conn::open(process.address).await;
    let request = format!(
        "GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {}\r\n\r\n",
        crate::support::world::ANON_OLD
    );
    conn.send(request).await;
    old.has_seen(1).await;
    process.terminate();
    eventually("no new connections", async || is_refused(process.address).await).await;
    release.send_replace(true);
    conn.answer().await.served_by(Side::Old);
    let status = process.ends().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
    assert!(process.output().contains("stopped"), "{}", process.output());
}
