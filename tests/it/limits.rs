//! Limits, each at its edge.

use bytes::Bytes;
use cutover::side::Side;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio_tungstenite::tungstenite::Message;

use crate::support::conn::Conn;
use crate::support::world::{ANON_OLD, World};
use crate::support::{http2, websocket, within};

#[tokio::test]
async fn one_connection_too_many_is_503_and_a_place_that_is_free_again_is_used() {
    let world = World::start().set("limits.connections", "3").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut conn = world.raw().await;
        conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
        conn.answer().await.served_by(Side::Old);
        open.push(conn);
    }
    let answer = world.client().get("/rest/v1/todos").await;
    answer.refused(503, "CUT503");
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(world.old.count(), 3);
    drop(open.pop());
    crate::support::eventually("a free place", async || {
        world.client().get("/rest/v1/todos").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_head_at_the_limit_passes_and_one_byte_more_is_431() {
    let world = World::start().set("limits.header_bytes", "8192").await;
    let head = |length: usize| {
        let begin =
            format!("GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\nx-pad: ");
        let pad = length - begin.len() - 4;
        format!("{begin}{}\r\n\r\n", "y".repeat(pad))
    };
    let mut conn = world.raw().await;
    conn.send(head(8192)).await;
    conn.answer().await.served_by(Side::Old);
    conn.send(head(8193)).await;
    conn.answer().await.refused(431, "CUT431");
    assert!(conn.is_closed().await);
    // It does not wait for the end of a head that is too long already.
    let mut endless = world.raw().await;
    endless.send("GET /".to_owned() + &"x".repeat(9000)).await;
    endless.answer().await.refused(431, "CUT431");
    assert_eq!(world.old.count(), 1);
}

#[tokio::test]
async fn a_raised_head_limit_is_honoured_and_a_target_that_cannot_be_held_is_431() {
    let world = World::start().set("limits.header_bytes", "1048576").await;
    let with = |target: &str, pad: usize| {
        let lines = format!("x-pad: {}\r\n", "y".repeat(30_000)).repeat(pad);
        format!("GET {target} HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n{lines}\r\n")
    };
    let mut conn = world.raw().await;
    conn.send(with("/rest/v1/todos", 20)).await;
    conn.answer().await.served_by(Side::Old);
    let long = |length: usize| "/rest/v1/todos?id=in.(".to_owned() + &"1".repeat(length - 23) + ")";
    conn.send(with(&long(65_000), 0)).await;
    conn.answer().await.served_by(Side::Old);
    assert_eq!(world.old.last().target().len(), 65_000);
    conn.send(with(&long(70_000), 0)).await;
    conn.answer().await.refused(431, "CUT431");
}

#[tokio::test]
async fn a_hundred_headers_pass_and_one_more_is_431() {
    let world = World::start().await;
    let with = |count: usize| {
        let lines: String = (2..count).map(|i| format!("x-h{i}: {i}\r\n")).collect();
        format!("GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n{lines}\r\n")
    };
    let mut conn = world.raw().await;
    conn.send(with(100)).await;
    conn.answer().await.served_by(Side::Old);
    assert_eq!(world.old.last().header("x-h99"), Some("99"));
    conn.send(with(101)).await;
    conn.answer().await.refused(431, "CUT431");
}

#[tokio::test]
async fn a_side_may_send_many_headers() {
    let world = World::start().await;
    world.old.answers(|_| {
        let lines: String = (0..90).map(|i| format!("x-h{i}: {i}\r\n")).collect();
        crate::support::upstream::response("200 OK", &format!("x-upstream: old\r\n{lines}"), "{}")
    });
    let answer = world.client().get("/rest/v1/todos").await;
    answer.served_by(Side::Old);
    assert_eq!(answer.header("x-h89"), Some("89"));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413_by_its_length_and_in_the_middle() {
    let world = World::start().set("limits.body_bytes", "1000").await;
    let client = world.client();
    client.post("/rest/v1/todos", &"x".repeat(1000)).await.served_by(Side::Old);
    client.post("/rest/v1/todos", &"x".repeat(1001)).await.refused(413, "CUT413");
    assert_eq!(world.old.count(), 1, "by its length, before anything is sent");
    world.old.expects_cut_bodies();
    let mut conn = Conn::open(world.address).await;
    let head = format!(
        "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunk = format!("1f4\r\n{}\r\n", "x".repeat(500));
    conn.send(format!("{head}{chunk}{chunk}")).await;
    world.old.has_seen(2).await;
    conn.send(&chunk).await;
    conn.answer().await.refused(413, "CUT413");
    crate::support::eventually("the cut at the side", async || world.old.gone() == 1).await;
}

#[tokio::test]
async fn limits_of_bodies_hold_over_http2_too() {
    let world = World::start()
        .set("limits.body_bytes", "1000")
        .set("limits.body_idle_timeout", "\"200ms\"")
        .await;
    world.old.expects_cut_bodies();
    let mut sender = http2::open(&world).await;
    for (pieces, status) in [(3, 413), (1, 408)] {
        // Then it stops, without an end.
        let sent = stream::iter(0..pieces).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 400]))));
        let body = StreamBody::new(sent.chain(stream::pending()));
        let mut request = http2::get("/rest/v1/todos").map(|_| BodyExt::boxed(body));
        *request.method_mut() = http::Method::POST;
        let answer = within("an answer", sender.send_request(request)).await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(http2::body(answer).await.is_some());
    }
    // Those that the side has seen at all: what is too large may be so before its head is on the way.
    crate::support::eventually("the cuts", async || {
        world.old.gone() == world.old.count() && world.old.gone() > 0
    })
    .await;
    // The connection and its other streams are none the worse for it.
    world.old.answers_as_usual();
    let answer = sender.send_request(http2::get("/rest/v1/todos")).await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_client_that_goes_on_sending_still_reads_its_413() {
    let world = World::start().set("limits.body_bytes", "1000").await;
    let mut conn = world.raw().await;
    let body = "x".repeat(300_000);
    conn.try_send(world.client().says("POST", "/rest/v1/todos", Some(&body))).await;
    conn.answer().await.refused(413, "CUT413");
}

#[tokio::test]
async fn a_frame_beyond_the_limit_closes_with_1009() {
    let world = World::start().set("limits.frame_bytes", "1024").await;
    websocket::echoes(&world.old);
    let mut socket = websocket::function(&world).await;
    socket.send(Message::text("x".repeat(1024))).await.unwrap();
    let echoed = socket.next().await.unwrap().unwrap();
    assert_eq!(echoed.len(), 1024);
    socket.send(Message::text("x".repeat(1025))).await.unwrap();
    assert_eq!(websocket::close_code(&mut socket).await, Some(1009));
    crate::support::eventually("the side's end", async || world.old.gone() == 1).await;
    world.is_quiet().await;
    assert_eq!(world.metric("cutover_errors_total", "kind=\"frame_too_large\"").await, 1.0);
}
