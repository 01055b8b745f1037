//! When a side can't be reached, is slow, or breaks off (design 10).

use std::time::{Duration, Instant};

use cutover::side::Side;
use http::StatusCode;
use tokio::sync::watch;

use crate::support::conn::Conn;
use crate::support::upstream::{response, usual};
use crate::support::world::{ANON_OLD, World};
use crate::support::{Nobody, http2, within};

#[tokio::test]
async fn a_side_that_cannot_be_reached_is_502() {
    let nobody = Nobody::new();
    let world = World::start().set("projects.old.url", &nobody.url()).await;
    for method in ["GET", "POST"] {
        let answer =
            world.client().with("origin", "https://app").ask(method, "/rest/v1/todos", None).await;
        answer.refused(502, "CUT502");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "browsers may read it");
        assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
    }
    assert_eq!(
        world.metric("cutover_errors_total", "kind=\"unreachable\",side=\"old\"").await,
        2.0
    );
}

#[tokio::test]
async fn a_stale_connection_is_invisible_to_reads_and_writes() {
    let world = World::start().await;
    let client = world.client();
    let mut conn = world.raw().await;
    for round in 0..30 {
        conn.send(client.says("GET", "/rest/v1/todos", None)).await;
        conn.answer().await.served_by(Side::Old);
        // The kept connection is closed right before the next request.
        world.old.hangs_up().await;
        let method = if round % 2 == 0 { "POST" } else { "GET" };
        conn.send(client.says(method, "/rest/v1/todos", (method == "POST").then_some("{}"))).await;
        conn.answer().await.served_by(Side::Old);
    }
    assert_eq!(world.old.count(), 60, "each request was recorded once");
}

#[tokio::test]
async fn a_connection_that_closes_on_the_request_costs_a_read_nothing_and_a_write_is_never_sent_twice()
 {
    let world = World::start().await;
    let client = world.client();
    for (method, body) in [("GET", None), ("POST", Some("{\"a\":1}"))] {
        world.old.answers_as_usual();
        client.get("/rest/v1/todos").await.served_by(Side::Old);
        let before = world.old.count();
        let first_on = world.old.last().connection;
        // Reads the request on the kept connection and closes; the next connection answers.
        world.old.does(move |seen, mut conn| async move {
            if seen.connection == first_on {
                return None;
            }
            conn.request_body(&seen.head).await;
            conn.send(usual(Side::Old)).await;
            Some(conn)
        });
        let answer = client.ask(method, "/rest/v1/todos", body).await;
        if method == "GET" {
            answer.served_by(Side::Old);
            assert_eq!(world.old.count(), before + 2);
        } else {
            answer.refused(502, "CUT5021");
            assert_eq!(world.old.count(), before + 1, "the side may have done what was asked");
        }
    }
    assert_eq!(world.metric("cutover_upstream_retries_total", "old").await, 1.0);
}

#[tokio::test]
async fn a_fresh_connection_that_breaks_is_502_without_another_try() {
    let world = World::start().await;
    for (what, bytes) in [("closes", ""), ("speaks no HTTP", "SSH-2.0-OpenSSH_9.6\r\n\r\n")] {
        world.old.does(move |_, mut conn| async move {
            conn.send(bytes).await;
            None
        });
        let before = world.old.count();
        world.client().get("/rest/v1/todos").await.refused(502, "CUT5021");
        assert_eq!(world.old.count(), before + 1, "{what}");
    }
}

#[tokio::test]
async fn no_answer_in_time_is_504() {
    let world = World::start().set("upstream.timeout", "\"2s\"").await;
    let gone = world.old.notes_gone();
    world.old.does(move |seen, mut conn| {
        let gone = gone.clone();
        async move {
            conn.request_body(&seen.head).await;
            assert!(conn.is_closed().await);
            gone();
            None
        }
    });
    for (method, body) in [("GET", None), ("POST", Some("{}"))] {
        let begun = Instant::now();
        world.client().ask(method, "/rest/v1/todos", body).await.refused(504, "CUT504");
        assert!(begun.elapsed() >= Duration::from_secs(2), "{method}");
    }
    assert_eq!(world.old.count(), 2, "nothing is repeated after a timeout");
    crate::support::eventually("both given up", async || world.old.gone() == 2).await;
}

#[tokio::test]
async fn an_upload_that_goes_on_for_longer_than_the_timeout_is_no_timeout() {
    let world = World::start().set("upstream.timeout", "\"2s\"").await;
    let mut conn = world.raw().await;
    conn.send(format!(
        "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: 10\r\n\r\n"
    ))
    .await;
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    for _ in 0..10 {
        ticks.tick().await;
        conn.send("x").await;
    }
    conn.answer().await.served_by(Side::Old);
    assert_eq!(world.old.last().body.bytes, b"xxxxxxxxxx");
}

#[tokio::test]
async fn a_side_that_stops_reading_an_upload_is_504() {
    let world = World::start()
        .set("upstream.timeout", "\"2s\"")
        .set("limits.body_idle_timeout", "\"20s\"")
        .await;
    world.old.does(|_, conn| async move {
        let _held = conn;
        std::future::pending().await
    });
    let (mut read, mut write) =
        tokio::io::split(tokio::net::TcpStream::connect(world.address).await.unwrap());
    let sending = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let head = format!(
            "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: 100000000\r\n\r\n"
        );
        write.write_all(head.as_bytes()).await.ok();
        while write.write_all(&[b'x'; 65536]).await.is_ok() {}
    });
    let mut seen = [0; 12];
    let reading = tokio::io::AsyncReadExt::read_exact(&mut read, &mut seen);
    within("an answer", reading).await.unwrap();
    assert_eq!(&seen, b"HTTP/1.1 504");
    sending.abort();
}

#[tokio::test]
async fn reads_fall_back_to_old_when_new_is_away_and_writes_never() {
    let nobody = Nobody::new();
    let world = World::start()
        .rollout(100)
        .set("projects.new.url", &nobody.url())
        .set("rollout.on_new_unavailable", "\"old_for_reads\"")
        .await;
    let user = world.as_user("ada");
    let answer = user.get("/rest/v1/vendor_api_keys?select=id").await;
    answer.served_by(Side::Old);
    assert_eq!(answer.header("x-cutover-side"), Some("old"));
    let seen = world.old.last();
    assert_eq!(seen.target(), "/rest/v1/vendor_api_keys?select=id", "old's names");
    assert_eq!(seen.header("accept-profile"), Some("public"));
    assert_eq!(seen.header("apikey"), Some(ANON_OLD), "old's keys");
    // A client of the new dialect is understood too.
    let modern = user.clone().with("accept-profile", "vendors");
    modern.get("/rest/v1/api_keys").await.served_by(Side::Old);
    assert_eq!(world.old.last().target(), "/rest/v1/vendor_api_keys");
    assert_eq!(user.ask("HEAD", "/rest/v1/todos", None).await.side(), Side::Old);
    for method in ["POST", "PATCH", "PUT", "DELETE"] {
        user.ask(method, "/rest/v1/todos", Some("{}")).await.refused(502, "CUT502");
        user.ask(method, "/rest/v1/todos", None).await.refused(502, "CUT502");
    }
    assert_eq!(world.old.count(), 3);
    assert_eq!(world.metric("cutover_fallbacks_total", "").await, 3.0);
}

#[tokio::test]
async fn without_the_setting_reads_do_not_fall_back() {
    let nobody = Nobody::new();
    let world = World::start().rollout(100).set("projects.new.url", &nobody.url()).await;
    world.as_user("ada").get("/rest/v1/todos").await.refused(502, "CUT502");
    assert_eq!(world.old.count(), 0);
}

const CUT_BODIES: [&str; 3] = [
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n[{\"id\":1}",
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n9\r\n[{\"id\":1}\r\n",
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n40\r\n[{\"id\":1}",
];

#[tokio::test]
async fn a_cut_body_stays_a_cut_body_over_http1() {
    let world = World::start().await;
    for text in CUT_BODIES {
        world.old.does(move |_, mut conn| async move {
            conn.send(text).await;
            None
        });
        let answer = world.client().get("/rest/v1/todos").await;
        assert_eq!(answer.status, 200);
        assert!(!answer.body.is_whole, "{text:?}");
    }
    let cut = world.metric("cutover_errors_total", "kind=\"response_cut\"").await;
    assert_eq!(cut, 3.0);
}

#[tokio::test]
async fn a_cut_body_stays_a_cut_body_over_http2() {
    let world = World::start().await;
    let mut sender = http2::open(&world).await;
    for text in CUT_BODIES {
        world.old.does(move |_, mut conn| async move {
            conn.send(text).await;
            None
        });
        // A cut may come before the head was handed over: no answer is not a short one.
        if let Ok(answer) = sender.send_request(http2::get("/rest/v1/todos")).await {
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(http2::body(answer).await, None, "{text:?}");
        }
        // One that comes when the client has the head is seen for certain.
        let (cut, held) = watch::channel(false);
        world.old.does(move |_, mut conn| {
            let mut held = held.clone();
            async move {
                conn.send(text).await;
                held.wait_for(|cut| *cut).await.ok()?;
                None
            }
        });
        let asking = sender.send_request(http2::get("/rest/v1/todos"));
        let answer = within("a head", asking).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        cut.send_replace(true);
        assert_eq!(within("the cut", http2::body(answer)).await, None, "{text:?}");
    }
}

#[tokio::test]
async fn an_error_body_that_breaks_off_is_502_and_not_half_an_error() {
    let world = World::start().await;
    world.old.does(|_, mut conn| async move {
        conn.send("HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"code\":").await;
        None
    });
    world.client().get("/rest/v1/todos").await.refused(502, "CUT5021");
}

#[tokio::test]
async fn an_answer_with_two_lengths_cannot_split_the_next_one() {
    let world = World::start().await;
    // The chunked coding wins (RFC 9112 6.3); the length must not reach the client beside it.
    world.old.answers(|_| {
        "HTTP/1.1 200 OK\r\nx-upstream: old\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned()
    });
    let mut conn = world.raw().await;
    for _ in 0..2 {
        conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
        let answer = conn.answer().await;
        assert_eq!((answer.text().as_str(), answer.body.is_whole), ("hello", true), "{answer:?}");
        assert!(
            answer.header("content-length").is_none()
                || answer.header("transfer-encoding").is_none()
        );
    }
    // Two different lengths can't be understood at all.
    world.old.answers(|_| {
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nhello".to_owned()
    });
    world.client().get("/rest/v1/todos").await.refused(502, "CUT5021");
}

#[tokio::test]
async fn a_101_that_nobody_asked_for_is_502() {
    let world = World::start().await;
    world.old.answers(|_| {
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
            .to_owned()
    });
    world.client().get("/rest/v1/todos").await.refused(502, "CUT5021");
}

#[tokio::test]
async fn connections_are_reused_after_errors_head_204_and_304() {
    let world = World::start().await;
    let client = world.client();
    for (method, answer) in [
        (
            "GET",
            response(
                "404 Not Found",
                "content-type: application/json\r\n",
                "{\"code\":\"PGRST205\",\"message\":\"x\"}",
            ),
        ),
        ("HEAD", response("200 OK", "", "12345")),
        ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n".to_owned()),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n".to_owned()),
        ("GET", response("200 OK", "", "")),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".to_owned(),
        ),
        ("GET", response("300 Multiple Choices", "content-type: application/json\r\n", "{}")),
    ] {
        let text = answer.clone();
        world.old.answers(move |_| text.clone());
        for _ in 0..2 {
            client.ask(method, "/rest/v1/todos", None).await;
            world.is_quiet().await;
        }
        assert_eq!(world.old.connections(), 1, "{method} {answer}");
    }
}

#[tokio::test]
async fn a_connection_that_its_side_closes_is_not_used_again() {
    let world = World::start().await;
    world.old.answers(|_| response("200 OK", "x-upstream: old\r\nconnection: close\r\n", "{}"));
    for round in 1..=5 {
        world.client().post("/rest/v1/todos", "{}").await.served_by(Side::Old);
        assert_eq!(world.old.connections(), round);
    }
}

#[tokio::test]
async fn an_early_answer_keeps_no_later_request_waiting_on_its_connection() {
    let world = World::start().await;
    // Answers before the body, and goes on waiting for it.
    world.old.does(|seen, mut conn| async move {
        conn.send(usual(Side::Old)).await;
        conn.request_body(&seen.head).await;
        Some(conn)
    });
    let mut slow = world.raw().await;
    slow.send(format!(
        "POST /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\ncontent-length: 10\r\n\r\nxx"
    ))
    .await;
    slow.answer().await.served_by(Side::Old);
    let other = world.client();
    let asking = other.get("/rest/v1/todos");
    let answer = tokio::time::timeout(Duration::from_secs(3), asking).await;
    answer.expect("another request waited for the upload").served_by(Side::Old);
}

#[tokio::test]
async fn many_idle_connections_cost_no_request() {
    let world = World::start().await;
    let mut idle = Vec::new();
    for _ in 0..500 {
        idle.push(Conn::open(world.address).await);
    }
    for conn in idle.iter_mut().rev().take(20) {
        conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
        conn.answer().await.served_by(Side::Old);
    }
    drop(idle);
    world.is_quiet().await;
}
