//! Sockets of realtime: the handshake that is answered here, the sides that are dialled when somebody is known, and every way in which a
//! socket can end.

use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::conn::Answer;
use crate::support::realtime::{Order, Realtime, Said, beats, changes, join, joins, next};
use crate::support::upstream::response;
use crate::support::websocket::{Socket, close_code, open, open_with, realtime};
use crate::support::world::{ANON_NEW, ANON_OLD, OVERRIDE_TOKEN, World, token};
use crate::support::{eventually, within};

/// On new at 50 % with the salt of the tests (`design.md` 3).
const ADA: &str = "ada";
/// On old at 50 %.
const OLDER: &str = "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11";

const PATH: &str = "/realtime/v1/websocket";

/// A socket of a user whom the handshake names already, as backends' do.
async fn socket_of(world: &World, sub: &str) -> Socket {
    let bearer = format!("Bearer {}", token(sub));
    let path = format!("{PATH}?apikey={ANON_OLD}");
    open_with(world, &path, &[("authorization", &bearer)]).await.unwrap()
}

/// Joins a channel of changes, and waits for the reply.
async fn subscribes(socket: &mut Socket, sub: &str) {
    joins(socket, &join("changes", &changes("notes"), Some(&token(sub)), "1"), 1).await;
}

/// Joins that brought bindings to changes: a join goes to the rooms as well, without them.
fn bound(side: &Realtime) -> usize {
    let has_bindings = |said: &Said| {
        let bindings = &said.payload["config"]["postgres_changes"];
        said.event == "phx_join" && bindings.as_array().is_some_and(|list| !list.is_empty())
    };
    side.said().iter().filter(|said| has_bindings(said)).count()
}

/// What the client is told when its socket ends: code and reason.
async fn goodbye(socket: &mut Socket) -> (u16, String) {
    loop {
        match within("a close frame", socket.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => {
                return (frame.code.into(), frame.reason.to_string());
            }
            Some(Ok(_)) => {}
            other => panic!("no goodbye: {other:?}"),
        }
    }
}

fn upgrade(query: &str, headers: &str) -> String {
    format!(
        "GET {PATH}?apikey={ANON_OLD}{query} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n{headers}\r\n"
    )
}

const USUAL: &str = "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn handshake(world: &World, query: &str, headers: &str) -> Answer {
    let mut conn = world.raw().await;
    conn.send(upgrade(query, headers)).await;
    conn.answer().await
}

#[tokio::test]
async fn trap_22_the_side_is_chosen_by_the_first_join_and_not_at_the_handshake() {
    let world = World::start().rollout(50).set("realtime.identify_timeout", "\"1m\"").await;
    let (old, new) = (Realtime::on(&world.old), Realtime::on(&world.new));
    let (mut of_ada, mut of_older) = (realtime(&world).await, realtime(&world).await);
    assert_eq!((world.old.count(), world.new.count()), (0, 0), "open, and nobody was dialled");
    subscribes(&mut of_ada, ADA).await;
    assert_eq!((bound(&old), bound(&new)), (0, 1));
    subscribes(&mut of_older, OLDER).await;
    assert_eq!((bound(&old), bound(&new)), (1, 1));
    assert_eq!(world.metric("cutover_websockets_open", "new").await, 1.0);
    assert_eq!(world.metric("cutover_realtime_sockets_open", "").await, 2.0);
    of_ada.close(None).await.unwrap();
    of_older.close(None).await.unwrap();
    drop((of_ada, of_older));
    world.is_quiet().await;
    assert_eq!(world.metric("cutover_realtime_sockets_open", "").await, 0.0);
    let opened = world.metric("cutover_websockets_opened_total", "").await;
    assert_eq!(opened, (world.old.count() + world.new.count()) as f64);
}

#[tokio::test]
async fn trap_01_keys_are_swapped_for_each_side_in_query_and_header() {
    let world = World::start().rollout(50).await;
    Realtime::on(&world.old);
    Realtime::on(&world.new);
    for (sub, upstream, key) in [(ADA, &world.new, ANON_NEW), (OLDER, &world.old, ANON_OLD)] {
        let path = format!("{PATH}?vsn=1.0.0&apikey={ANON_OLD}&log_level=info");
        let headers = [
            ("apikey", ANON_OLD),
            ("x-api-key", "evil"),
            ("x-forwarded-for", "6.6.6.6"),
            ("cookie", "a=b"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ];
        let mut socket = open_with(&world, &path, &headers).await.unwrap();
        subscribes(&mut socket, sub).await;
        let seen = upstream.last();
        assert_eq!(seen.target(), format!("{PATH}?vsn=1.0.0&apikey={key}&log_level=info"));
        assert_eq!(seen.header("apikey"), Some(key));
        assert_eq!(seen.header("host"), Some(&*upstream.address.to_string()));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(seen.header("sec-websocket-version"), Some("13"));
        for absent in ["x-api-key", "cookie", "sec-websocket-extensions", "sec-websocket-protocol"]
        {
            assert_eq!(seen.header(absent), None, "{absent}");
        }
    }
}

#[tokio::test]
async fn the_handshake_is_checked_before_anything_is_promised() {
    let world = World::start().await;
    Realtime::on(&world.old);
    let answer = handshake(&world, "", &USUAL.replace("13", "8")).await;
    answer.refused(426, "CUT426");
    assert_eq!(answer.head.get("sec-websocket-version"), Some("13"));
    handshake(&world, "", &USUAL.replace("dGhl", "dGh")).await.refused(400, "CUT400");
    handshake(&world, "&vsn=3.0.0", USUAL).await.refused(403, "CUT403");
    let Err(Error::Http(answer)) = open(&world, &format!("{PATH}?apikey=stranger")).await else {
        panic!("not refused")
    };
    assert_eq!(answer.status(), 401);
    assert_eq!(world.old.count(), 0);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_subprotocol_that_is_offered_is_chosen_and_passed_on() {
    let world = World::start().await;
    Realtime::on(&world.old);
    let path = format!("{PATH}?apikey={ANON_OLD}");
    let headers = [("sec-websocket-protocol", "other, phoenix")];
    let mut socket = open_with(&world, &path, &headers).await.unwrap();
    subscribes(&mut socket, ADA).await;
    assert_eq!(world.old.last().header("sec-websocket-protocol"), Some("other, phoenix"));
}

#[tokio::test]
async fn frames_that_do_not_wait_for_the_101_are_heard() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    for round in 1..=20 {
        let mut conn = world.raw().await;
        let text = join("changes", &changes("notes"), Some(&token(ADA)), "1").text(1);
        let text = text.to_text().unwrap();
        // A masked text frame with a mask of zeros.
        let length = u16::try_from(text.len()).unwrap().to_be_bytes();
        let frame = [&[0x81, 0x80 | 126], &length[..], &[0; 4], text.as_bytes()].concat();
        conn.send([upgrade("", USUAL).as_bytes(), &frame].concat()).await;
        assert!(conn.answer_head().await.start.contains("101"));
        assert_eq!(conn.take(1).await, [0x81], "the reply");
        assert_eq!(old.heard().len(), round);
    }
}

#[tokio::test]
async fn a_silent_socket_is_nobodys_after_identify_timeout() {
    let world = World::start().set("realtime.identify_timeout", "\"300ms\"").await;
    Realtime::on(&world.old);
    let begun = Instant::now();
    let mut socket = realtime(&world).await;
    assert_eq!(world.old.count(), 0);
    world.old.has_seen(1).await;
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    beats(&mut socket, 1).await;
    assert_eq!(world.old.count(), 1, "and it stays on that socket");
}

#[tokio::test]
async fn heartbeats_go_end_to_end_and_pings_do_not() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    let mut socket = realtime(&world).await;
    subscribes(&mut socket, ADA).await;
    for _ in 0..3 {
        beats(&mut socket, 1).await;
    }
    assert_eq!(old.said().iter().filter(|said| said.event == "heartbeat").count(), 3);
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    let pong = within("the pong", socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("are you there".into()));
    assert_eq!(old.heard().len(), 4);
}

/// A message to a joined channel of exactly so many bytes.
fn message_of(bytes: usize) -> Message {
    let of = |pad: usize| {
        Said::new("realtime:changes", "anything", json!({ "pad": "x".repeat(pad) }), "9").text(1)
    };
    let message = of(bytes - of(0).len());
    assert_eq!(message.len(), bytes);
    message
}

#[tokio::test]
async fn a_clients_frame_of_the_limit_passes_and_one_byte_more_is_1009() {
    let world = World::start().set("limits.frame_bytes", "2048").await;
    let old = Realtime::on(&world.old);
    let mut socket = realtime(&world).await;
    subscribes(&mut socket, ADA).await;
    socket.send(message_of(2048)).await.unwrap();
    old.has_heard(2).await;
    assert_eq!(old.heard()[1], message_of(2048));
    socket.send(message_of(2049)).await.unwrap();
    assert_eq!(close_code(&mut socket).await, Some(1009));
    drop(socket);
    world.is_quiet().await;
    let count = async || {
        world.metric("cutover_errors_total", "kind=\"frame_too_large\",side=\"none\"").await
    };
    assert_eq!((count().await, old.heard().len()), (1.0, 2));
    // Nor is the goodbye lost when nobody reads what came.
    let mut socket = realtime(&world).await;
    socket.send(message_of(100_000)).await.unwrap();
    assert_eq!(close_code(&mut socket).await, Some(1009));
    assert_eq!(count().await, 2.0);
}

#[tokio::test]
async fn a_sides_frame_of_the_limit_passes_and_one_byte_more_is_1009() {
    let world = World::start().set("limits.frame_bytes", "2048").await;
    let old = Realtime::on(&world.old);
    let mut socket = realtime(&world).await;
    subscribes(&mut socket, ADA).await;
    old.orders(Order::Say(message_of(2048)));
    let heard = within("the frame", socket.next()).await.unwrap().unwrap();
    assert_eq!(heard, message_of(2048));
    old.orders(Order::Say(message_of(2049)));
    assert_eq!(close_code(&mut socket).await, Some(1009));
    drop(socket);
    world.is_quiet().await;
    let count = world.metric("cutover_errors_total", "kind=\"frame_too_large\",side=\"old\"").await;
    assert_eq!(count, 1.0);
}

#[tokio::test]
async fn what_is_no_websocket_message_is_closed_as_the_rfc_says() {
    let world = World::start().await;
    // A text that is not UTF-8; a frame without a mask.
    for (frame, code) in [(&[0x81, 0x81, 0, 0, 0, 0, 0xff][..], 1007_u16), (&[0x81, 1, b'x'], 1002)]
    {
        let mut conn = world.raw().await;
        conn.send(upgrade("", USUAL)).await;
        conn.answer_head().await;
        conn.send(frame).await;
        let close = conn.take(4).await;
        assert_eq!((close[0], &close[2..]), (0x88, &code.to_be_bytes()[..]), "{close:?}");
    }
    world.is_quiet().await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_nobody_else() {
    let world = World::start().set("realtime.send_timeout", "\"300ms\"").await;
    let old = Realtime::on(&world.old);
    let mut slow = world.raw().await;
    let text = join("changes", &changes("notes"), Some(&token(ADA)), "1").text(1);
    let text = text.to_text().unwrap().to_owned();
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    let frame = [&[0x81, 0x80 | 126], &length[..], &[0; 4], text.as_bytes()].concat();
    slow.send([upgrade("", USUAL).as_bytes(), &frame].concat()).await;
    slow.answer_head().await;
    old.has_heard(1).await;
    // From here on it reads nothing, whatever comes.
    let flood = tokio::spawn({
        let old = old.clone();
        async move {
            for _ in 0..64 {
                old.orders(Order::Say(message_of(1_000_000)));
            }
        }
    });
    flood.await.unwrap();
    eventually("the slow one counted", async || {
        world.metric("cutover_errors_total", "kind=\"too_slow\",side=\"none\"").await == 1.0
    })
    .await;
    let mut other = realtime(&world).await;
    subscribes(&mut other, ADA).await;
    eventually("the slow one gone", async || {
        world.metric("cutover_realtime_sockets_open", "").await == 1.0
    })
    .await;
    beats(&mut other, 1).await;
    old.has_ended(1).await;
}

#[tokio::test]
async fn a_side_that_takes_nothing_ends_the_socket_with_1013() {
    let world = World::start()
        .set("realtime.send_timeout", "\"300ms\"")
        .set("realtime.identify_timeout", "\"50ms\"")
        .await;
    let old = Realtime::on(&world.old);
    old.is_deaf();
    let mut socket = realtime(&world).await;
    world.old.has_seen(1).await;
    socket.send(join("changes", &changes("notes"), Some(&token(ADA)), "1").text(1)).await.unwrap();
    let flooding = async {
        while socket.send(message_of(1_000_000)).await.is_ok() {}
        socket
    };
    let mut socket = within("the end of sending", flooding).await;
    // What was on its way to a proxy that had stopped reading may take the goodbye with it; the count is certain.
    if let Some(code) = close_code(&mut socket).await {
        assert_eq!(code, 1013);
    }
    drop(socket);
    eventually("counted", async || {
        world.metric("cutover_errors_total", "kind=\"too_slow\",side=\"old\"").await == 1.0
    })
    .await;
    world.is_quiet().await;
}

#[tokio::test]
async fn a_side_that_refuses_or_is_away_is_told_with_a_code_of_ours() {
    let world = World::start().await;
    for (status, code) in
        [("401 Unauthorized", 1011), ("429 Too Many Requests", 1013), ("500 Oh", 1013)]
    {
        world.old.answers(move |_| response(status, "", "{}"));
        let mut socket = realtime(&world).await;
        socket.send(join("a", &changes("notes"), None, "1").text(1)).await.unwrap();
        let number = &status[..3];
        let reason = format!("CUT5023: the project refused the WebSocket ({number})");
        assert_eq!(goodbye(&mut socket).await, (code, reason));
    }
    let refused =
        world.metric("cutover_errors_total", "kind=\"handshake_refused\",side=\"old\"").await;
    assert_eq!(refused, 3.0);
    // A 101 that answers another handshake is none.
    world.old.answers(|_| "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n".to_owned());
    let mut socket = realtime(&world).await;
    socket.send(join("a", &changes("notes"), None, "1").text(1)).await.unwrap();
    let (code, reason) = goodbye(&mut socket).await;
    assert!(code == 1013 && reason.starts_with("CUT5021"), "{code} {reason}");
    drop(socket);
    world.change("projects.old.url", "\"http://127.0.0.1:1\"").await;
    let mut socket = realtime(&world).await;
    socket.send(join("a", &changes("notes"), None, "1").text(1)).await.unwrap();
    let (code, reason) = goodbye(&mut socket).await;
    assert!(code == 1013 && reason.starts_with("CUT502:"), "{code} {reason}");
    drop(socket);
    world.is_quiet().await;
}

#[tokio::test]
async fn trap_25_a_sides_goodbye_is_passed_on_and_its_loss_is_1012() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    for (order, code) in [
        (Order::Close(Some(4403)), 4403),
        (Order::Close(Some(1000)), 1000),
        (Order::Close(None), 1012),
        (Order::Vanish, 1012),
    ] {
        let mut socket = realtime(&world).await;
        subscribes(&mut socket, ADA).await;
        old.orders(order.clone());
        assert_eq!(goodbye(&mut socket).await.0, code, "{order:?}");
        within("the end", async { while socket.next().await.is_some() {} }).await;
        drop(socket);
        world.is_quiet().await;
    }
    let lost = world.metric("cutover_errors_total", "kind=\"response_cut\",side=\"old\"").await;
    assert_eq!(lost, 1.0);
}

#[tokio::test]
async fn a_clients_goodbye_reaches_the_side_and_so_does_its_silence() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    // The quickest of three: where the server's end does not close first, each waits for two seconds.
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        let mut socket = realtime(&world).await;
        subscribes(&mut socket, ADA).await;
        socket.close(Some(CloseFrame { code: 4001.into(), reason: "bye".into() })).await.unwrap();
        let begun = Instant::now();
        while within("the end", socket.next()).await.is_some() {}
        quickest = quickest.min(begun.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "the server's end closes first: {quickest:?}");
    assert_eq!(old.has_ended(3).await, [Some(4001); 3]);
    let mut socket = realtime(&world).await;
    subscribes(&mut socket, ADA).await;
    drop(socket);
    old.has_ended(4).await;
    world.is_quiet().await;
}

#[tokio::test]
async fn trap_39_a_change_of_the_percentage_moves_those_whom_it_concerns_and_nobody_else() {
    let world = World::start().await;
    let (old, new) = (Realtime::on(&world.old), Realtime::on(&world.new));
    let (mut of_ada, mut of_older) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for (sub, sockets) in [(ADA, &mut of_ada), (OLDER, &mut of_older)] {
            let mut socket = socket_of(&world, sub).await;
            subscribes(&mut socket, sub).await;
            sockets.push(socket);
        }
    }
    assert_eq!((world.old.count(), world.new.count()), (10, 0));
    world.change("rollout.percentage", "50").await;
    for socket in &mut of_ada {
        assert_eq!(close_code(socket).await, Some(1012));
    }
    for socket in &mut of_older {
        beats(socket, 1).await;
    }
    assert_eq!(world.metric("cutover_websockets_closed_for_flip_total", "old").await, 5.0);
    old.has_ended(5).await;
    let mut again = socket_of(&world, ADA).await;
    subscribes(&mut again, ADA).await;
    assert_eq!(new.said().len(), 1);
    // An abort, or any other force, moves everybody who is not there.
    world.change("rollout.force", "\"old\"").await;
    assert_eq!(close_code(&mut again).await, Some(1012));
    for socket in &mut of_older {
        beats(socket, 1).await;
    }
    assert_eq!(world.metric("cutover_websockets_closed_for_flip_total", "new").await, 1.0);
    assert_eq!(world.metric("cutover_websockets_closed_for_flip_total", "old").await, 5.0);
}

#[tokio::test]
async fn a_change_that_is_taken_back_in_time_closes_nobody_who_was_not_closed_yet() {
    let world = World::start().set("realtime.drain", "\"4s\"").await;
    Realtime::on(&world.old);
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let mut socket = socket_of(&world, ADA).await;
        subscribes(&mut socket, ADA).await;
        sockets.push(socket);
    }
    world.change("rollout.percentage", "50").await;
    let begun = Instant::now();
    world.change("rollout.percentage", "0").await;
    // All would be closed by then. Those whose turn came before the second change are.
    tokio::time::sleep_until((begun + Duration::from_millis(4200)).into()).await;
    let closed = world.metric("cutover_websockets_closed_for_flip_total", "old").await;
    assert!(closed < 8.0, "all were closed");
    // Nobody reads the goodbyes here, which are waited for.
    eventually("those that were closed to be gone", async || {
        world.metric("cutover_realtime_sockets_open", "").await == 8.0 - closed
    })
    .await;
    let now = world.metric("cutover_websockets_closed_for_flip_total", "old").await;
    assert_eq!(now, closed, "closed later");
}

#[tokio::test]
async fn a_testers_socket_stays_on_the_side_that_was_asked_for_except_under_force() {
    let world = World::start().await;
    let new = Realtime::on(&world.new);
    let path = format!("{PATH}?apikey={ANON_OLD}");
    let headers = [("x-cutover-side", "new"), ("x-cutover-override-token", OVERRIDE_TOKEN)];
    let mut socket = open_with(&world, &path, &headers).await.unwrap();
    subscribes(&mut socket, OLDER).await;
    let seen = world.new.last();
    assert_eq!(
        (seen.header("x-cutover-side"), seen.header("x-cutover-override-token")),
        (None, None)
    );
    world.change("rollout.percentage", "50").await;
    beats(&mut socket, 1).await;
    assert_eq!(new.said().len(), 2);
    world.change("rollout.force", "\"old\"").await;
    assert_eq!(close_code(&mut socket).await, Some(1012));
}

#[tokio::test]
async fn a_burst_arrives_whole_and_in_order_both_ways() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    let mut socket = realtime(&world).await;
    subscribes(&mut socket, ADA).await;
    let numbered = |n: usize| Said::new("realtime:changes", "n", json!({ "n": n }), &n.to_string());
    for n in 0..500 {
        socket.feed(numbered(n).text(1)).await.unwrap();
    }
    socket.flush().await.unwrap();
    old.has_heard(501).await;
    let order: Vec<_> = old.said().iter().skip(1).map(|said| said.payload["n"].clone()).collect();
    assert_eq!(order, (0..500).map(|n| json!(n)).collect::<Vec<_>>());
    for n in 0..500 {
        old.orders(Order::Say(numbered(n).text(1)));
    }
    for n in 0..500 {
        assert_eq!(next(&mut socket).await.payload["n"], n);
    }
}

#[tokio::test]
async fn a_side_that_does_not_answer_the_handshake_is_given_up_and_holds_no_stop_up() {
    let mut world =
        World::start().set("upstream.timeout", "\"300ms\"").set("drain_timeout", "\"1m\"").await;
    world.old.does(|_, mut conn| async move {
        while conn.fill().await > 0 {}
        None
    });
    let asks = join("a", &changes("notes"), None, "1").text(1);
    let mut socket = realtime(&world).await;
    socket.send(asks.clone()).await.unwrap();
    let (code, reason) = goodbye(&mut socket).await;
    assert!(code == 1013 && reason.starts_with("CUT504"), "{code} {reason}");
    drop(socket);
    world.change("upstream.timeout", "\"1m\"").await;
    let mut socket = realtime(&world).await;
    socket.send(asks).await.unwrap();
    world.old.has_seen(2).await;
    let stopping = world.begin_stop();
    assert_eq!(close_code(&mut socket).await, Some(1012));
    drop(socket);
    within("the stop", stopping).await;
}

#[tokio::test]
async fn a_fragmented_message_is_heard_as_one() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    let mut conn = world.raw().await;
    let text = join("changes", &changes("notes"), Some(&token(ADA)), "1").text(1);
    let bytes = text.to_text().unwrap().as_bytes();
    let mut frames = Vec::new();
    let pieces: Vec<&[u8]> = bytes.chunks(100).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let opcode = u8::from(index == 0);
        let end = if index + 1 == pieces.len() { 0x80 } else { 0 };
        frames.extend([opcode | end, 0x80 | u8::try_from(piece.len()).unwrap(), 0, 0, 0, 0]);
        frames.extend_from_slice(piece);
        // A control frame may stand between two pieces.
        frames.extend([0x8a, 0x80, 0, 0, 0, 0]);
    }
    conn.send([upgrade("", USUAL).as_bytes(), &frames].concat()).await;
    assert!(conn.answer_head().await.start.contains("101"));
    old.has_heard(1).await;
    assert_eq!(old.said()[0].event, "phx_join");
}

#[tokio::test]
async fn trap_26_one_room_for_everybody_while_changes_follow_the_user() {
    for version in [1, 2] {
        let world = World::start().rollout(50).await;
        let (old, new) = (Realtime::on(&world.old), Realtime::on(&world.new));
        let path = format!("{PATH}?apikey={ANON_OLD}&vsn={version}.0.0");
        let mut socket = open(&world, &path).await.unwrap();
        let asked = join("room", &changes("todos"), Some(&token(ADA)), "1");
        let response = joins(&mut socket, &asked, version).await;
        let bound = &response["postgres_changes"][0];
        assert_eq!((&bound["schema"], &bound["table"]), (&json!("public"), &json!("todos")));
        // What is said in the room goes to the rooms' side alone, and comes from there.
        let shout = Said::new("realtime:room", "broadcast", json!({ "event": "hi" }), "2");
        socket.send(shout.text(version)).await.unwrap();
        eventually("the broadcast", async || old.said().contains(&shout)).await;
        assert!(!new.said().contains(&shout));
        old.orders(Order::Say(shout.text(version)));
        assert_eq!(next(&mut socket).await, shout);
        // A change comes from the user's side, in the words in which it was asked for.
        let data =
            json!({ "schema": "app", "table": "todos", "type": "INSERT", "record": { "id": 7 } });
        let mut change = Said::new("realtime:room", "postgres_changes", json!({}), "0");
        (change.reference, change.join_ref) = (json!(null), json!("1"));
        change.payload = json!({ "ids": new.ids(), "data": data });
        new.orders(Order::Say(change.text(version)));
        let heard = next(&mut socket).await;
        assert_eq!(heard.event, "postgres_changes");
        let data = &heard.payload["data"];
        assert_eq!((&data["schema"], &data["table"]), (&json!("public"), &json!("todos")));
        assert_eq!(heard.payload["ids"], json!([bound["id"]]));
        for _ in 0..3 {
            beats(&mut socket, version).await;
        }
        assert_eq!(world.metric("cutover_websockets_open", "").await, 2.0);
        // Either side's goodbye is the socket's.
        new.orders(Order::Close(Some(4001)));
        assert_eq!(close_code(&mut socket).await, Some(4001));
        assert_eq!(old.has_ended(1).await, [Some(1001)]);
    }
}

#[tokio::test]
async fn another_users_token_moves_the_changes_and_not_the_socket() {
    let world = World::start().rollout(50).await;
    let (old, new) = (Realtime::on(&world.old), Realtime::on(&world.new));
    let mut socket = realtime(&world).await;
    subscribes(&mut socket, ADA).await;
    assert_eq!((bound(&old), bound(&new)), (0, 1));
    let other = json!({ "access_token": token(OLDER) });
    let said = Said::new("realtime:changes", "access_token", other, "2");
    socket.send(said.text(1)).await.unwrap();
    eventually("the bindings on the other side", async || bound(&old) == 1).await;
    // The side that has no channel left is not kept.
    assert_eq!(new.has_ended(1).await, [Some(1000)]);
    beats(&mut socket, 1).await;
    eventually("one socket", async || world.metric("cutover_websockets_open", "").await == 1.0)
        .await;
}

#[tokio::test]
async fn trap_01_a_key_inside_a_frame_is_the_sides_own() {
    let world = World::start().set("rollout.force", "\"new\"").await;
    let new = Realtime::on(&world.new);
    let mut socket = realtime(&world).await;
    joins(&mut socket, &join("changes", &changes("notes"), Some(ANON_OLD), "1"), 1).await;
    assert_eq!(new.said()[0].payload["access_token"], ANON_NEW);
    let said =
        Said::new("realtime:changes", "access_token", json!({ "access_token": ANON_OLD }), "2");
    socket.send(said.text(1)).await.unwrap();
    new.has_heard(2).await;
    assert_eq!(new.said()[1].payload["access_token"], ANON_NEW);
}
