//! Heads and bodies that could be read in two ways are refused, and no side sees them.

use std::time::{Duration, Instant};

use cutover::side::Side;

use crate::support::PATIENCE;
use crate::support::world::{ANON_OLD, World};

const AMBIGUOUS: [(&str, &str); 22] = [
    (
        "CL and TE",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "TE and CL",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "two CL, equal",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx",
    ),
    (
        "two CL",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
    ),
    ("CL list", "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\nx"),
    ("CL with sign", "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx"),
    ("TE not chunked", "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\nx"),
    (
        "TE chunked not last",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, gzip\r\n\r\nx",
    ),
    (
        "TE with tab",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    ("bare LF", "GET /rest/v1/t HTTP/1.1\nhost: a\n\n"),
    ("bare LF in headers", "GET /rest/v1/t HTTP/1.1\r\nhost: a\nx: y\r\n\r\n"),
    ("bare CR", "GET /rest/v1/t HTTP/1.1\r\nhost: a\r\nx: a\rcontent-length: 5\r\n\r\n"),
    ("obs-fold", "GET /rest/v1/t HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n"),
    ("space before colon", "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ncontent-length : 1\r\n\r\nx"),
    ("two hosts", "GET /rest/v1/t HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("no host", "GET /rest/v1/t HTTP/1.1\r\n\r\n"),
    (
        "bad chunk size",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n",
    ),
    (
        "chunk without end",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nxx0\r\n\r\n",
    ),
    (
        "huge chunk size",
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n",
    ),
    ("NUL in a value", "GET /rest/v1/t HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n"),
    ("no token as name", "GET /rest/v1/t HTTP/1.1\r\nhost: a\r\nx(y: a\r\n\r\n"),
    ("control in target", "GET /rest/v1/t\x01 HTTP/1.1\r\nhost: a\r\n\r\n"),
];

#[tokio::test]
async fn ambiguous_requests_are_400_and_no_side_sees_them() {
    let world = World::start().await;
    for (what, text) in AMBIGUOUS {
        let mut conn = world.raw().await;
        // With a second request behind it, as a smuggler would.
        let behind = world.client().says("GET", "/rest/v1/smuggled", None);
        conn.send(format!("{text}{behind}")).await;
        let answer = conn.answer().await;
        assert_eq!(answer.status, 400, "{what}: {answer:?}");
        answer.refused(400, "CUT400");
        assert_eq!(answer.header("connection"), Some("close"), "{what}");
        assert!(conn.is_closed().await, "{what}");
    }
    assert_eq!((world.old.count(), world.new.count()), (0, 0));
    let refused = world.metric("cutover_errors_total", "kind=\"malformed\"").await;
    assert_eq!(refused, AMBIGUOUS.len() as f64);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_chunk_that_is_broken_later_cuts_the_body_on_both_sides() {
    let world = World::start().await;
    let gone = world.old.notes_gone();
    world.old.does(move |seen, mut conn| {
        let gone = gone.clone();
        async move {
            let body = conn.request_body(&seen.head).await;
            assert!(!body.is_whole);
            gone();
            None
        }
    });
    let mut conn = world.raw().await;
    conn.send(format!(
        "POST /rest/v1/t HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n"
    ))
    .await;
    world.old.has_seen(1).await;
    conn.send("zz\r\nGET /rest/v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n").await;
    crate::support::eventually("the cut", async || world.old.gone() == 1).await;
    // An answer if there is one, and then the end.
    if let Some(head) = crate::support::within("the end", conn.head()).await {
        assert!(head.start.contains(" 400 "), "{head:?}");
        while conn.fill().await > 0 {}
    }
    assert_eq!(world.old.count(), 1);
    world.is_quiet().await;
}

#[tokio::test]
async fn a_good_request_is_answered_although_a_bad_one_follows() {
    let world = World::start().await;
    for _ in 0..20 {
        let mut conn = world.raw().await;
        let good = world.client().says("GET", "/rest/v1/todos", None);
        conn.send(format!("{good}GET /bad HTTP/1.1\nhost: a\n\n")).await;
        conn.answer().await.served_by(Side::Old);
        conn.answer().await.refused(400, "CUT400");
        assert!(conn.is_closed().await);
    }
}

#[tokio::test]
async fn requests_come_whole_however_they_are_cut() {
    let world = World::start().await;
    let head = |method: &str, rest: &str| {
        format!("{method} /rest/v1/t HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n{rest}")
    };
    let get = head("GET", "\r\n");
    let known = head("POST", "content-length: 5\r\n\r\nhello");
    let chunked =
        head("POST", "transfer-encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n");
    // An empty line before a request is a habit of old clients.
    let all = [&get, &chunked, &known, "\r\n", &get, &known].map(|part| part.to_owned()).concat();
    for piece in [1, 2, 7, 31, all.len()] {
        let mut conn = world.raw().await;
        let before = world.old.count();
        for part in all.as_bytes().chunks(piece) {
            conn.send(part).await;
            tokio::task::yield_now().await;
        }
        for _ in 0..5 {
            conn.answer().await.served_by(Side::Old);
        }
        let seen = world.old.seen().split_off(before);
        let bodies: Vec<&[u8]> = seen.iter().map(|seen| seen.body.bytes.as_slice()).collect();
        assert_eq!(bodies, [&b""[..], b"hello", b"hello", b"", b"hello"], "{piece}");
    }
}

#[tokio::test]
async fn a_slow_head_is_closed_however_it_comes() {
    let world = World::start().set("limits.header_timeout", "\"300ms\"").await;
    // Nothing at all, a part of a head, and a byte at a time.
    let mut silent = world.raw().await;
    let mut half = world.raw().await;
    let mut drops = world.raw().await;
    let begun = Instant::now();
    half.send("GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\n").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let head = "GET /rest/v1/todos HTTP/1.1\r\nx-long: ".to_owned() + &"x".repeat(1000);
    for byte in head.as_bytes() {
        ticks.tick().await;
        if !drops.try_send([*byte]).await {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "a byte at a time goes on for ever");
    }
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(silent.is_closed().await && half.is_closed().await);
    assert_eq!(world.old.count(), 0);
}

#[tokio::test]
async fn the_second_head_of_a_connection_has_the_same_limit() {
    let world = World::start().set("limits.header_timeout", "\"300ms\"").await;
    let mut conn = world.raw().await;
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    conn.answer().await.served_by(Side::Old);
    conn.send("GET /rest/v1/todos HTTP/1.1\r\n").await;
    assert!(conn.is_closed().await);
}

#[tokio::test]
async fn a_partial_head_behind_a_slow_request_does_not_cost_its_answer() {
    let world = World::start().set("limits.header_timeout", "\"200ms\"").await;
    world.old.does(|_, mut conn| async move {
        tokio::time::sleep(Duration::from_millis(900)).await;
        conn.send(crate::support::upstream::usual(Side::Old)).await;
        Some(conn)
    });
    let mut conn = world.raw().await;
    let first = world.client().says("GET", "/rest/v1/todos", None);
    conn.send(format!("{first}GET /rest/v1/next HTTP/1.1\r\n")).await;
    conn.answer().await.served_by(Side::Old);
    assert!(conn.is_closed().await, "the head that never ended");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_idle_timeout() {
    // Shorter than the time for a head, and not waited for as long.
    let world = World::start()
        .set("limits.idle_timeout", "\"300ms\"")
        .set("limits.header_timeout", "\"60s\"")
        .await;
    let mut conn = world.raw().await;
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    conn.answer().await.served_by(Side::Old);
    assert!(conn.is_closed().await);
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_the_side_sees_it_cut() {
    let world = World::start().set("limits.body_idle_timeout", "\"200ms\"").await;
    world.old.expects_cut_bodies();
    for framing in
        ["content-length: 10\r\n\r\nabc", "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut conn = world.raw().await;
        conn.send(format!(
            "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n{framing}"
        ))
        .await;
        let answer = conn.answer().await;
        answer.refused(408, "CUT408");
        assert!(conn.is_closed().await, "{framing}");
    }
    crate::support::eventually("both cut", async || world.old.gone() == 2).await;
    world.is_quiet().await;
}
