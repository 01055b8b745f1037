//! Bodies that flow both ways, never collected; and what a client's leaving does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cutover::side::Side;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::support::upstream::usual;
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, http2, within};

/// What sockets and the proxy may hold of one body of 64 MB between them. The system lets a socket's buffer grow for as long as somebody
/// reads from it (`tcp_rmem`, 32 MB at the most on some machines), so that this says "not all of it", and no more.
const HELD_AT_MOST: usize = 40_000_000;

#[tokio::test]
async fn an_event_stream_arrives_event_by_event() {
    let world = World::start().await;
    let (more, asked) = mpsc::channel::<()>(1);
    let asked = Arc::new(tokio::sync::Mutex::new(asked));
    world.old.does(move |_, mut conn| {
        let asked = Arc::clone(&asked);
        async move {
            conn.send("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n").await;
            for i in 0.. {
                if asked.lock().await.recv().await.is_none() {
                    break;
                }
                conn.send(format!("9\r\ndata: {i}\n\n\r\n")).await;
            }
            conn.send("0\r\n\r\n").await;
            Some(conn)
        }
    });
    let mut conn = world.raw().await;
    conn.send(world.client().says("POST", "/functions/v1/stream", Some("{}"))).await;
    let head = conn.answer_head().await;
    assert_eq!(head.get("content-type"), Some("text/event-stream"));
    for i in 0..5 {
        // The next event is sent only when this one has been seen.
        more.send(()).await.unwrap();
        assert_eq!(conn.chunk().await, format!("data: {i}\n\n").as_bytes());
    }
    drop(more);
    assert_eq!(conn.chunk().await, b"");
}

#[tokio::test]
async fn an_upload_arrives_piece_by_piece() {
    let world = World::start().await;
    let (tell, mut told) = mpsc::channel(1);
    world.old.does(move |_, mut conn| {
        let tell = tell.clone();
        async move {
            loop {
                let chunk = conn.chunk().await;
                if chunk.is_empty() {
                    conn.send(usual(Side::Old)).await;
                    return Some(conn);
                }
                tell.send(chunk).await.unwrap();
            }
        }
    });
    let mut conn = world.raw().await;
    conn.send(format!(
        "POST /functions/v1/f HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ntransfer-encoding: chunked\r\n\r\n"
    ))
    .await;
    for piece in ["one", "two", "six"] {
        conn.send(format!("3\r\n{piece}\r\n")).await;
        assert_eq!(within("the piece", told.recv()).await.unwrap(), piece.as_bytes());
    }
    conn.send("0\r\n\r\n").await;
    conn.answer().await.served_by(Side::Old);
}

#[tokio::test]
async fn a_side_that_does_not_read_stops_its_client() {
    let world = World::start().await;
    let go = Arc::new(Notify::new());
    let waiting = Arc::clone(&go);
    world.old.does(move |seen, mut conn| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.notified().await;
            assert!(conn.request_body(&seen.head).await.is_whole);
            conn.send(usual(Side::Old)).await;
            Some(conn)
        }
    });
    const LENGTH: usize = 64_000_000;
    let (read, mut write) = TcpStream::connect(world.address).await.unwrap().into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    tokio::spawn(async move {
        let head = format!(
            "POST /storage/v1/object/b/a HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: {LENGTH}\r\n\r\n"
        );
        write.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b'x'; 64_000];
        while counting.load(SeqCst) < LENGTH {
            write.write_all(&piece).await.unwrap();
            counting.fetch_add(piece.len(), SeqCst);
        }
        // A half that is dropped would be a client that leaves.
        std::future::pending::<()>().await;
    });
    let stalled = stalls(&sent).await;
    assert!(stalled < HELD_AT_MOST, "{stalled} bytes went into nowhere");
    go.notify_one();
    let mut conn = crate::support::conn::Conn::new(tokio::io::join(read, tokio::io::sink()));
    conn.answer().await.served_by(Side::Old);
}

/// Waits until a counter stands still; answers where.
async fn stalls(counter: &AtomicUsize) -> usize {
    let mut last = usize::MAX;
    eventually("a stall", async || {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let now = counter.load(SeqCst);
        let stands = now > 0 && now == last;
        last = now;
        stands
    })
    .await;
    last
}

fn sends_much(world: &World) -> Arc<AtomicUsize> {
    let sent = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&sent);
    let gone = world.old.notes_gone();
    world.old.does(move |_, mut conn| {
        let (counting, gone) = (Arc::clone(&counting), gone.clone());
        async move {
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 64000000\r\n\r\n").await;
            let piece = vec![b'x'; 64_000];
            for _ in 0..1000 {
                if !conn.try_send(&piece).await {
                    gone();
                    return None;
                }
                counting.fetch_add(piece.len(), SeqCst);
            }
            Some(conn)
        }
    });
    sent
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_its_side() {
    let world = World::start().await;
    let sent = sends_much(&world);
    let mut conn = world.raw().await;
    conn.send(world.client().says("GET", "/storage/v1/object/b/a", None)).await;
    let stalled = stalls(&sent).await;
    assert!(stalled < HELD_AT_MOST, "{stalled} bytes went into nowhere");
    let answer = conn.answer().await;
    assert_eq!((answer.body.bytes.len(), answer.body.is_whole), (64_000_000, true));
}

#[tokio::test]
async fn an_http2_client_that_does_not_read_stops_its_side() {
    let world = World::start().await;
    let sent = sends_much(&world);
    let mut sender = http2::open(&world).await;
    let answer = sender.send_request(http2::get("/storage/v1/object/b/a")).await.unwrap();
    let stalled = stalls(&sent).await;
    assert!(stalled < HELD_AT_MOST, "{stalled} bytes went into nowhere");
    // The others of its connection go on.
    world.old.answers_as_usual();
    let other = sender.send_request(http2::get("/rest/v1/todos"));
    assert_eq!(within("another stream", other).await.unwrap().status(), 200);
    assert_eq!(http2::body(answer).await.unwrap().len(), 64_000_000);
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_ends_the_request_at_the_side() {
    let world = World::start().await;
    let gone = world.old.notes_gone();
    world.old.does(move |_, mut conn| {
        let gone = gone.clone();
        async move {
            assert!(conn.is_closed().await);
            gone();
            None
        }
    });
    let mut conn = world.raw().await;
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    world.old.has_seen(1).await;
    drop(conn);
    eventually("the side hears of it", async || world.old.gone() == 1).await;
    let mut sender = http2::open(&world).await;
    let asking = tokio::spawn(sender.send_request(http2::get("/rest/v1/todos")));
    world.old.has_seen(2).await;
    asking.abort();
    eventually("over HTTP/2 too", async || world.old.gone() == 2).await;
    drop(sender);
    world.is_quiet().await;
    assert_eq!(world.metric("cutover_errors_total", "kind=\"client_gone\"").await, 2.0);
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_answer_ends_it_at_the_side() {
    let world = World::start().await;
    sends_much(&world);
    let mut conn = world.raw().await;
    conn.send(world.client().says("GET", "/storage/v1/object/b/a", None)).await;
    conn.answer_head().await;
    drop(conn);
    eventually("the side hears of it", async || world.old.gone() == 1).await;
    world.is_quiet().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_upload_cuts_it_at_the_side() {
    let world = World::start().await;
    world.old.expects_cut_bodies();
    for framing in
        ["content-length: 100\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut conn = world.raw().await;
        conn.send(format!(
            "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n{framing}"
        ))
        .await;
        let before = world.old.gone();
        world.old.has_seen(before + 1).await;
        drop(conn);
        eventually("the cut", async || world.old.gone() == before + 1).await;
    }
    world.is_quiet().await;
}
