//! WebSockets of functions, tunnelled byte for byte.

use std::time::{Duration, Instant};

use cutover::side::Side;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::conn::Conn;
use crate::support::upstream::response;
use crate::support::websocket::{accept, close_code, echoes, function, open, upgrade};
use crate::support::world::{ANON_NEW, ANON_OLD, World, token};
use crate::support::{eventually, within};

#[tokio::test]
async fn messages_pass_both_ways_whatever_their_kind_and_size() {
    let world = World::start().await;
    echoes(&world.old);
    let mut socket = function(&world).await;
    let messages = [
        Message::text(
            "{\"topic\":\"phoenix\",\"event\":\"heartbeat\",\"payload\":{},\"ref\":\"1\"}",
        ),
        Message::binary(vec![3, 0, 255, 7]),
        Message::text(""),
        Message::binary(vec![9; 1_000_000]),
    ];
    for message in messages {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), message);
    }
    let seen = world.old.last();
    assert_eq!(seen.target(), format!("/functions/v1/chat?apikey={ANON_OLD}&vsn=1.0.0"));
    assert_eq!(seen.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(world.metric("cutover_websockets_open", "old").await, 1.0);
    // The quickest of three: where the server's end does not close first, each waits for two seconds.
    let mut quickest = Duration::MAX;
    for mut socket in [socket, function(&world).await, function(&world).await] {
        let close = CloseFrame { code: 4001.into(), reason: "bye".into() };
        socket.close(Some(close)).await.unwrap();
        let begun = Instant::now();
        while within("the end", socket.next()).await.is_some() {}
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "the server's end closes first: {quickest:?}");
    eventually("the side's end", async || world.old.gone() == 3).await;
    world.is_quiet().await;
    assert_eq!(world.metric("cutover_upstream_connections_open", "").await, 0.0);
}

#[tokio::test]
async fn the_sides_close_code_reaches_the_client() {
    let world = World::start().await;
    world.old.does(|seen, conn| async move {
        let mut socket = accept(seen, conn).await;
        let frame = CloseFrame { code: 4403.into(), reason: "no".into() };
        socket.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
        None
    });
    let mut socket = function(&world).await;
    assert_eq!(close_code(&mut socket).await, Some(4403));
}

#[tokio::test]
async fn a_side_that_vanishes_sends_its_clients_back_with_1012() {
    let world = World::start().await;
    echoes(&world.old);
    let mut socket = function(&world).await;
    world.old.hangs_up().await;
    assert_eq!(close_code(&mut socket).await, Some(1012));
}

#[tokio::test]
async fn keys_are_swapped_in_the_handshake() {
    let world = World::start().set("routes.functions", "\"new\"").await;
    echoes(&world.new);
    let mut socket = function(&world).await;
    assert!(world.new.last().target().contains(&format!("apikey={ANON_NEW}&vsn=1.0.0")));
    socket.send(Message::text("hi")).await.unwrap();
    assert_eq!(within("the echo", socket.next()).await.unwrap().unwrap(), Message::text("hi"));
}

#[tokio::test]
async fn a_refused_handshake_is_a_plain_response() {
    let world = World::start().await;
    world.old.answers(|_| {
        response("401 Unauthorized", "content-type: application/json\r\n", "{\"message\":\"no\"}")
    });
    let path = format!("/functions/v1/chat?apikey={ANON_OLD}");
    let Err(Error::Http(answer)) = open(&world, &path).await else { panic!("not refused") };
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.body().as_deref(), Some(&b"{\"message\":\"no\"}"[..]));
    let Err(Error::Http(answer)) = open(&world, "/functions/v1/chat?apikey=stranger").await else {
        panic!("not refused")
    };
    assert_eq!(answer.status(), 401);
    assert_eq!(world.old.count(), 1, "a stranger's key is refused here");
    world.is_quiet().await;
}

const FUNCTION: &str = "/functions/v1/chat";

#[tokio::test]
async fn what_is_sent_behind_a_refused_upgrade_is_never_part_of_it() {
    let world = World::start().await;
    world.old.answers(|_| response("401 Unauthorized", "", "no"));
    let mut conn = world.raw().await;
    conn.send(upgrade(FUNCTION) + &world.client().says("GET", "/pg/secret", None)).await;
    assert_eq!(conn.answer().await.status, 401);
    conn.answer().await.refused(404, "CUT404");
    assert_eq!(world.old.count(), 1, "a request behind it is looked at like any other");
}

#[tokio::test]
async fn frames_that_do_not_wait_for_the_101_arrive_whole() {
    let world = World::start().await;
    echoes(&world.old);
    for _ in 0..20 {
        let mut conn = world.raw().await;
        // A masked text frame with a line end in it, which no HTTP head may have.
        let frame = [0x81, 0x83, 0, 0, 0, 0, b'a', b'\n', b'b'];
        conn.send([upgrade(FUNCTION).as_bytes(), &frame].concat()).await;
        assert!(conn.answer_head().await.start.contains("101"));
        assert_eq!(conn.take(5).await, [0x81, 3, b'a', b'\n', b'b']);
    }
}

#[tokio::test]
async fn an_upgrade_to_anything_else_is_no_upgrade() {
    let world = World::start().await;
    let mut conn = world.raw().await;
    conn.send(upgrade(FUNCTION).replace("upgrade: websocket", "upgrade: h2c")).await;
    conn.answer().await.served_by(Side::Old);
    assert_eq!(world.old.last().header("upgrade"), None);
    // Nor is one on a route without sockets.
    let mut conn = world.raw().await;
    conn.send(upgrade("/rest/v1/todos")).await;
    conn.answer().await.served_by(Side::Old);
    assert_eq!(world.old.last().header("upgrade"), None);
}

#[tokio::test]
async fn force_moves_sockets_with_1012_and_those_who_come_back_meet_the_other_side() {
    let world = World::start().set("routes.functions", "\"old\"").await;
    echoes(&world.old);
    echoes(&world.new);
    let mut sockets = Vec::new();
    for _ in 0..10 {
        sockets.push(function(&world).await);
    }
    // A change that moves nobody closes nothing.
    world.change("rollout.percentage", "50").await;
    sockets[0].send(Message::text("still here")).await.unwrap();
    let echo = within("the echo", sockets[0].next()).await.unwrap().unwrap();
    assert_eq!(echo, Message::text("still here"));
    world.change("rollout.force", "\"new\"").await;
    for socket in &mut sockets {
        assert_eq!(close_code(socket).await, Some(1012));
    }
    assert_eq!(world.metric("cutover_websockets_closed_for_flip_total", "old").await, 10.0);
    let _again = function(&world).await;
    assert_eq!((world.old.count(), world.new.count()), (10, 1));
    // Auth stays where it is.
    world.old.answers_as_usual();
    world.client().post("/auth/v1/token", "{}").await.served_by(Side::Old);
}

#[tokio::test]
async fn a_stalled_client_does_not_make_the_proxy_collect() {
    let world = World::start().await;
    let (tell, told) = tokio::sync::watch::channel(0_usize);
    world.old.does(move |seen, conn| {
        let tell = tell.clone();
        async move {
            let mut socket = accept(seen, conn).await;
            for i in 1..=64 {
                if socket.send(Message::binary(vec![1; 1_000_000])).await.is_err() {
                    break;
                }
                tell.send_replace(i);
            }
            None
        }
    });
    let mut conn: Conn = world.raw().await;
    conn.send(upgrade(FUNCTION)).await;
    conn.answer_head().await;
    let mut last = 0;
    eventually("a stall", async || {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = *told.borrow();
        let stands = now > 0 && now == last;
        last = now;
        stands
    })
    .await;
    assert!(last < 20, "{last} MB went into nowhere");
    drop(conn);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_tester_keeps_its_socket_through_changes_that_do_not_concern_it() {
    let world = World::start().await;
    echoes(&world.new);
    let mut conn = world.raw().await;
    let asks = format!(
        "x-cutover-side: new\r\nx-cutover-override-token: {}\r\nauthorization: Bearer {}\r\n\r\n",
        crate::support::world::OVERRIDE_TOKEN,
        token("ada")
    );
    conn.send(upgrade(FUNCTION).replace("\r\n\r\n", &format!("\r\n{asks}"))).await;
    assert!(conn.answer_head().await.start.contains("101"));
    assert_eq!(world.new.count(), 1);
    world.change("rollout.percentage", "50").await;
    // A masked text frame with one byte.
    conn.send([0x81, 0x81, 0, 0, 0, 0, b'x']).await;
    assert_eq!(conn.take(3).await, [0x81, 1, b'x']);
}

#[tokio::test]
async fn a_function_with_an_owner_keeps_its_sockets_whatever_the_percentage() {
    let world = World::start().set("functions.owners.chat", "\"new\"").await;
    echoes(&world.new);
    let mut socket = function(&world).await;
    world.change("rollout.percentage", "50").await;
    world.change("rollout.percentage", "0").await;
    // The worker serves this after it told its sockets of the change.
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    assert_eq!(world.metric("cutover_websockets_closed_for_flip_total", "").await, 0.0);
    socket.send(Message::text("still here")).await.unwrap();
    within("the echo", socket.next()).await.unwrap().unwrap();
    world.change("rollout.force", "\"old\"").await;
    assert_eq!(close_code(&mut socket).await, Some(1012));
    assert_eq!(world.metric("cutover_websockets_closed_for_flip_total", "").await, 1.0);
}
