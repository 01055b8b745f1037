//! What is small to send and large to take: heads, targets, compressed bodies, frames.

use std::io::Write as _;
use std::time::Instant;

use cutover::side::Side;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::conn::Conn;
use crate::support::realtime::{Realtime, Said, changes, join, joins};
use crate::support::websocket::{echoes, realtime, upgrade};
use crate::support::world::{ANON_OLD, World, token};
use crate::support::{eventually, within};

/// The longest target that an HTTP library here can hold.
const LONGEST: usize = 65_534;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An error that would be said in the client's words, if it was read.
fn bomb() -> Vec<u8> {
    let begin = br#"{"code":"PGRST205","message":"Could not find the table 'vendors.api_keys' in the schema cache","details":null,"hint":""#;
    gzip(&[&begin[..], &vec![b'0'; 10_000_000], b"\"}"].concat())
}

#[tokio::test]
async fn heads_without_end_are_refused_while_the_others_are_served() {
    let world = World::start().set("limits.header_bytes", "16384").await;
    let line = format!("x-pad: {}\r\n", "y".repeat(1000));
    let begins = "GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\n";
    let bombs = [
        ("one long line", format!("{begins}x: {}", "y".repeat(1_000_000))),
        ("many lines", begins.to_owned() + &line.repeat(1000)),
        ("one name", format!("{begins}{}", "n".repeat(1_000_000))),
        ("empty values", begins.to_owned() + &"a:\r\n".repeat(250_000)),
        ("a method", "G".repeat(1_000_000)),
        ("a target", format!("GET /{}", "%41".repeat(300_000))),
    ];
    let mut open = Vec::new();
    for (what, text) in &bombs {
        for _ in 0..10 {
            let mut conn = world.raw().await;
            // It is answered long before all has gone.
            conn.try_send(text.as_bytes()).await;
            open.push((what, conn));
        }
        world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    }
    for (what, mut conn) in open {
        let answer = conn.answer().await;
        assert!(matches!(answer.status, 400 | 431), "{what}: {answer:?}");
        assert!(conn.is_closed().await, "{what}");
    }
    assert_eq!(world.old.count(), bombs.len());
    world.is_quiet().await;
}

#[tokio::test]
async fn the_longest_path_and_query_pass_and_one_byte_more_is_431() {
    let world = World::start().set("limits.header_bytes", "131072").await;
    let long = |begin: &str, length: usize| begin.to_owned() + &"x".repeat(length - begin.len());
    for begin in
        ["/rest/v1/todos?name=eq.", "/rest/v1/", "/storage/v1/object/b/", "/functions/v1/f/"]
    {
        let mut conn = world.raw().await;
        let target = long(begin, LONGEST);
        conn.send(world.client().says("GET", &target, None)).await;
        conn.answer().await.served_by(Side::Old);
        assert!(world.old.last().target() == target, "{begin}");
        conn.send(world.client().says("GET", &long(begin, LONGEST + 1), None)).await;
        conn.answer().await.refused(431, "CUT431");
        assert!(conn.is_closed().await);
    }
}

/// The longest target in the client's words is longer than any in the side's.
#[tokio::test]
async fn a_target_that_becomes_too_long_on_its_side_is_an_answer() {
    let world = World::start()
        .set("limits.header_bytes", "131072")
        .set("schema.tables.t", "\"app.a_much_longer_name_than_it_had_before\"")
        .set("functions.names.f", "\"a-much-longer-name-than-it-had-before\"")
        .set("storage.buckets.b", "\"much-longer/than-it-was-before\"")
        .rollout(100)
        .await;
    for begin in [
        "/rest/v1/t?name=eq.",
        "/rest/v1/todos?select=t(*)&t.name=eq.",
        "/functions/v1/f/",
        "/storage/v1/object/b/",
    ] {
        let target = begin.to_owned() + &"x".repeat(LONGEST - begin.len());
        let answer = world.as_user("ada").get(&target).await;
        assert!((400..500).contains(&answer.status), "{begin}: {answer:?}");
        assert!(answer.json()["code"].as_str().unwrap().starts_with("CUT4"), "{answer:?}");
        world.as_user("ada").get(&target[..60_000]).await.served_by(Side::New);
    }
    assert_eq!(world.metric("cutover_errors_total", "kind=\"panic\"").await, 0.0);
}

/// Answers everything with these bytes, compressed.
fn answers_zipped(world: &World, status: &'static str, kind: &'static str, bytes: &[u8]) {
    for side in Side::ALL {
        let bytes = bytes.to_vec();
        world.side(side).does(move |_, mut conn| {
            let bytes = bytes.clone();
            async move {
                conn.send(format!(
                    "HTTP/1.1 {status}\r\nx-upstream: {side}\r\ncontent-type: {kind}\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                    bytes.len()
                ))
                .await;
                conn.send(&bytes).await;
                Some(conn)
            }
        });
    }
}

#[tokio::test]
async fn a_compression_bomb_passes_as_it_is() {
    let bomb = bomb();
    assert!(bomb.len() < 20_000);
    let world = World::start()
        .set("storage.buckets.avatars", "\"media/avatars\"")
        .set("limits.storage_body_bytes", "65536")
        .rollout(100)
        .await;
    let json = "application/json; charset=utf-8";
    for (status, kind, targets) in [
        ("200 OK", "application/octet-stream", &["/storage/v1/object/b/a", "/functions/v1/f"][..]),
        ("200 OK", json, &["/rest/v1/todos", "/auth/v1/user", "/storage/v1/bucket"]),
        // Those whose bodies are read, to be said in the client's words: they are not, beyond their limit.
        ("404 Not Found", json, &["/rest/v1/vendor_api_keys", "/rest/v1/todos", "/rest/v1/rpc/f"]),
        ("400 Bad Request", json, &["/storage/v1/object/avatars/a", "/storage/v1/bucket/avatars"]),
        (
            "500 Internal Server Error",
            json,
            &["/rest/v1/vendor_api_keys", "/auth/v1/user", "/graphql/v1"],
        ),
    ] {
        answers_zipped(&world, status, kind, &bomb);
        for target in targets {
            let answer = world.as_user("ada").with("accept-encoding", "gzip").get(target).await;
            assert_eq!(answer.status.to_string(), status[..3], "{target}");
            assert_eq!(answer.header("content-encoding"), Some("gzip"), "{status} {target}");
            assert!(answer.body.bytes == bomb, "{status} {target}: not its bytes");
        }
    }
}

/// Fifty at once: each is looked at up to the limit of error bodies, and no further.
#[tokio::test]
async fn many_bombs_at_once_do_not_slow_the_others() {
    let world = World::start().rollout(100).await;
    answers_zipped(&world, "404 Not Found", "application/json", &bomb());
    let mut bombs = Vec::new();
    for _ in 0..50 {
        let mut conn = world.raw().await;
        let user = world.as_user("ada");
        conn.send(user.says("GET", "/rest/v1/vendor_api_keys", None)).await;
        bombs.push(conn);
    }
    for conn in &mut bombs {
        assert_eq!(conn.answer().await.status, 404);
    }
    world.new.answers_as_usual();
    world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::New);
}

#[tokio::test]
async fn a_compressed_list_of_names_is_never_inflated() {
    let world =
        World::start().set("storage.buckets.avatars", "\"media/avatars\"").rollout(100).await;
    let bomb = gzip(
        &[
            br#"{"bucketId":"avatars","sourceKey":"a","destinationKey":""#.to_vec(),
            vec![b'a'; 10_000_000],
            b"\"}".to_vec(),
        ]
        .concat(),
    );
    let mut conn = world.raw().await;
    let head = format!(
        "POST /storage/v1/object/copy HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
        token("ada"),
        bomb.len()
    );
    conn.send([head.as_bytes(), &bomb].concat()).await;
    let answer = conn.answer().await;
    // Either it is refused, because nobody can say what it names, or its bytes pass; never something larger.
    let seen = world.new.seen();
    match seen.last() {
        None => assert!((400..500).contains(&answer.status), "{answer:?}"),
        Some(seen) => assert!(seen.body.bytes == bomb, "other bytes"),
    }
}

const FUNCTION: &str = "/functions/v1/chat";
const REALTIME: &str = "/realtime/v1/websocket";

async fn opened(world: &World, path: &str) -> Conn {
    let mut conn = world.raw().await;
    conn.send(upgrade(path)).await;
    assert!(conn.answer_head().await.start.contains("101"));
    conn
}

/// A masked frame's head, whatever is behind it.
fn frame_head(first: u8, length: u64) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(0x80 | length as u8),
        126..=0xffff => {
            head.push(0x80 | 126);
            head.extend((length as u16).to_be_bytes());
        }
        _ => {
            head.push(0x80 | 127);
            head.extend(length.to_be_bytes());
        }
    }
    head.extend([0; 4]);
    head
}

/// The code of the close frame that comes next.
async fn code(conn: &mut Conn) -> u16 {
    let head = conn.take(4).await;
    assert_eq!(head.first(), Some(&0x88), "{head:?}");
    u16::from_be_bytes([head[2], head[3]])
}

#[tokio::test]
async fn a_frame_that_says_it_is_endless_is_believed_and_refused() {
    let world = World::start().await;
    echoes(&world.old);
    let beyond = 5 * 1024 * 1024 + 1;
    for path in [FUNCTION, REALTIME] {
        for length in [beyond, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX] {
            for opcode in [0x81, 0x82, 0x01] {
                let mut conn = opened(&world, path).await;
                conn.send(frame_head(opcode, length)).await;
                let code = code(&mut conn).await;
                assert_eq!(code, 1009, "{path} {opcode:x} {length}");
            }
        }
    }
    world.is_quiet().await;
}

#[tokio::test]
async fn control_frames_beyond_their_size_are_refused_where_frames_are_read() {
    let world = World::start().await;
    for opcode in [0x89, 0x8a, 0x88] {
        for (length, want) in [(126, 1002), (70_000, 1002), (1 << 40, 1009)] {
            let mut conn = opened(&world, REALTIME).await;
            // Like any frame it is taken up to `limits.frame_bytes`, and not further.
            let body = vec![b'x'; if want == 1002 { length as usize } else { 0 }];
            conn.send([frame_head(opcode, length), body].concat()).await;
            assert_eq!(code(&mut conn).await, want, "{opcode:x} {length}");
        }
    }
    // One in pieces, which may not be (RFC 6455 5.5).
    let mut conn = opened(&world, REALTIME).await;
    conn.send([frame_head(0x09, 1), vec![b'x']].concat()).await;
    assert_eq!(code(&mut conn).await, 1002);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_message_without_end_is_bounded_by_the_sum_of_its_pieces() {
    let world = World::start().set("limits.frame_bytes", "65536").await;
    let old = Realtime::on(&world.old);
    let piece = [frame_head(0x00, 1000), vec![b'x'; 1000]].concat();
    let mut conn = opened(&world, REALTIME).await;
    conn.send([frame_head(0x01, 1000), vec![b'x'; 1000]].concat()).await;
    for _ in 1..65 {
        conn.send(&piece).await;
    }
    conn.send(&piece).await;
    assert_eq!(code(&mut conn).await, 1009);
    assert!(old.heard().is_empty(), "no side hears a part of it");
    // Pieces of nothing are no message, however many: they cost the time of their bytes.
    let mut conn = opened(&world, REALTIME).await;
    let text = join("changes", &changes("notes"), Some(&token("ada")), "1").text(1);
    let text = text.to_text().unwrap().as_bytes().to_vec();
    let length = text.len() as u64;
    let nothing = frame_head(0x00, 0).repeat(50_000);
    let all = [frame_head(0x01, length), text, nothing, frame_head(0x80, 0)].concat();
    conn.send(all).await;
    old.has_heard(1).await;
    world.client().get("/rest/v1/todos").await;
}

#[tokio::test]
async fn a_flood_of_pings_is_answered_in_bounded_room_and_the_others_are_served() {
    let world = World::start().set("realtime.send_timeout", "\"500ms\"").await;
    let _old = Realtime::on(&world.old);
    let mut socket = realtime(&world).await;
    joins(&mut socket, &join("changes", &changes("notes"), Some(&token("ada")), "1"), 1).await;
    let conn = opened(&world, REALTIME).await;
    let (_unread, mut flood) = conn.split();
    let ping = [frame_head(0x89, 125), vec![b'p'; 125]].concat().repeat(500);
    let flooding = tokio::spawn(async move {
        // About 60 MB of them, whose answers nobody reads; whether the proxy goes on reading is its choice.
        for _ in 0..1000 {
            let sent =
                tokio::time::timeout(std::time::Duration::from_secs(2), flood.try_send(&ping));
            if !matches!(sent.await, Ok(true)) {
                break;
            }
        }
    });
    let mut times = Vec::new();
    while !flooding.is_finished() {
        let asked = Instant::now();
        let beat = Said::new("phoenix", "heartbeat", json!({}), "hb").text(1);
        socket.send(beat).await.unwrap();
        within("a heartbeat", socket.next()).await.unwrap().unwrap();
        times.push(asked.elapsed());
    }
    times.sort();
    assert!(times.len() >= 5, "{times:?}");
    assert!(times[times.len() / 2] < std::time::Duration::from_secs(1), "{times:?}");
}

#[tokio::test]
async fn frames_that_come_byte_by_byte_are_the_same_frames() {
    let world = World::start().await;
    let old = Realtime::on(&world.old);
    let text = join("changes", &changes("notes"), Some(&token("ada")), "1").text(1);
    let bytes = text.to_text().unwrap().as_bytes().to_vec();
    let mut conn = opened(&world, REALTIME).await;
    for byte in [frame_head(0x81, bytes.len() as u64), bytes].concat() {
        conn.send([byte]).await;
        tokio::task::yield_now().await;
    }
    old.has_heard(1).await;
    assert_eq!(old.said()[0].event, "phx_join");
    echoes(&world.old);
    let mut conn = opened(&world, FUNCTION).await;
    let message: Vec<u8> = (0..=255).collect();
    for byte in [frame_head(0x82, 256), message.clone()].concat() {
        conn.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(conn.take(4 + 256).await, [&[0x82, 126, 1, 0][..], &message].concat());
}

#[tokio::test]
async fn a_bomb_of_a_side_is_bounded_too() {
    let world = World::start().set("limits.frame_bytes", "65536").await;
    world.old.does(|seen, conn| async move {
        let mut socket = crate::support::websocket::accept(seen, conn).await;
        // What a client says first is who it is.
        socket.next().await;
        socket.send(Message::text("x".repeat(70_000))).await.ok();
        while let Some(Ok(_)) = socket.next().await {}
        None
    });
    let mut socket = realtime(&world).await;
    let said = join("changes", &changes("notes"), Some(&token("ada")), "1");
    socket.send(said.text(1)).await.unwrap();
    assert_eq!(crate::support::websocket::close_code(&mut socket).await, Some(1009));
    drop(socket);
    eventually("its count", async || {
        world.metric("cutover_errors_total", "kind=\"frame_too_large\"").await == 1.0
    })
    .await;
    world.is_quiet().await;
}
