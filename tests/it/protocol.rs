//! HTTP as such: what must arrive as it was sent.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use cutover::side::Side;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full};

use crate::support::conn::Conn;
use crate::support::frames::{self, END_HEADERS, END_STREAM, Frames, HEADERS, frame};
use crate::support::upstream::{response, usual};
use crate::support::world::{ANON_OLD, OVERRIDE_TOKEN, World};
use crate::support::{http2, within};

#[tokio::test]
async fn http1_connections_are_kept_and_pipelines_answered_in_order() {
    let world = World::start().await;
    world.old.answers(|seen| response("200 OK", "x-upstream: old\r\n", seen.target()));
    let mut conn = world.raw().await;
    let requests: String =
        (0..5).map(|i| world.client().says("GET", &format!("/rest/v1/t{i}"), None)).collect();
    conn.send(requests).await;
    for i in 0..5 {
        assert_eq!(conn.answer().await.text(), format!("/rest/v1/t{i}"));
    }
    conn.send(world.client().says("POST", "/rest/v1/last", Some("{}"))).await;
    assert_eq!(conn.answer().await.text(), "/rest/v1/last");
    assert_eq!(world.old.connections(), 1);
}

#[tokio::test]
async fn http10_clients_get_an_answer_that_ends() {
    let world = World::start().await;
    world.old.answers(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned()
    });
    let mut conn = world.raw().await;
    conn.send(format!("GET /rest/v1/todos HTTP/1.0\r\napikey: {ANON_OLD}\r\n\r\n")).await;
    let answer = conn.answer().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(world.old.last().header("host"), Some(world.old.address.to_string().as_str()));
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served_and_many_streams_share_a_connection() {
    let world = World::start().await;
    let sender = http2::open(&world).await;
    let asking = (0..50).map(|i| {
        let mut sender = sender.clone();
        async move {
            let answer = sender.send_request(http2::get(&format!("/rest/v1/t{i}"))).await.unwrap();
            assert_eq!(answer.headers()["x-upstream"], "old");
            http2::body(answer).await.unwrap()
        }
    });
    let bodies = within("all streams", futures_util::future::join_all(asking)).await;
    assert!(bodies.iter().all(|body| &body[..] == b"{\"side\":\"old\"}"));
    assert_eq!(world.metric("cutover_client_connections_accepted_total", "").await, 1.0);
    let last = world.old.last();
    assert_eq!(last.header("host"), Some(world.old.address.to_string().as_str()));
    drop(sender);
    world.is_quiet().await;
}

#[tokio::test]
async fn every_method_arrives_with_its_body() {
    let world = World::start().await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let answer = world.client().ask(method, "/rest/v1/todos?id=eq.1", Some("{\"a\":1}")).await;
        answer.served_by(Side::Old);
        let seen = world.old.last();
        assert_eq!((seen.method(), &seen.body.bytes[..]), (method, &b"{\"a\":1}"[..]));
        assert_eq!(seen.header("content-length"), Some("7"), "{method}");
    }
}

#[tokio::test]
async fn head_keeps_its_length_and_count_and_has_no_body() {
    let world = World::start().await;
    world
        .old
        .answers(|_| response("206 Partial Content", "content-range: 0-9/42\r\n", "0123456789"));
    let mut conn = world.raw().await;
    for _ in 0..2 {
        conn.send(world.client().with("prefer", "count=exact").says(
            "HEAD",
            "/rest/v1/todos",
            None,
        ))
        .await;
        let answer = conn.answer_to("HEAD").await;
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-range"), Some("0-9/42"));
        assert_eq!(answer.header("content-length"), Some("10"));
    }
}

/// Libraries reset a stream with a body where there must be none (RFC 9113 8.1.1), and their users never hear why they were refused.
#[tokio::test]
async fn a_head_that_the_proxy_answers_itself_has_no_body_over_http2() {
    let world = World::start().set("projects.new.url", "\"http://127.0.0.1:1\"").await;
    world
        .old
        .answers(|_| response("503 Service Unavailable", "content-type: text/html\r\n", "<p>"));
    let (user, to_new) = (("apikey", ANON_OLD), ("x-cutover-side", "new"));
    let may = ("x-cutover-override-token", OVERRIDE_TOKEN);
    let refusals = [
        ("/rest/v1/todos", vec![("apikey", "nobody's")], 401),
        ("/nowhere", vec![user], 404),
        ("/rest/v1/todos", vec![user, to_new, may], 502),
        // What the side says is not the service's own, and replaced.
        ("/auth/v1/user", vec![user], 502),
    ];
    let mut sender = http2::open(&world).await;
    let mut frames = Frames::open(world.address, &[]).await;
    for (stream, (path, fields, status)) in (1..).step_by(2).zip(refusals) {
        let mut ask = async |method: &str| {
            let mut request = Request::builder().method(method);
            for (name, value) in &fields {
                request = request.header(*name, *value);
            }
            let request = request.uri(format!("http://proxy.example{path}"));
            let answer = sender.send_request(request.body(Empty::new().boxed()).unwrap());
            let answer = within(path, answer).await.unwrap();
            assert_eq!(answer.status(), status, "{method} {path}");
            let length = answer.headers()["content-length"].to_str().unwrap().to_owned();
            (length, http2::body(answer).await.expect("an end"))
        };
        let ((length, body), head) = (ask("GET").await, ask("HEAD").await);
        assert_eq!(length, body.len().to_string());
        assert_eq!(head, (length, Bytes::new()), "HEAD {path}");

        let fields = [frames::request("HEAD", path), fields].concat();
        let block = frames::block(&fields);
        frames.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)).await;
        loop {
            let seen = within("a frame", frames.next()).await.unwrap();
            let is_ours = seen.stream == stream;
            assert!(!is_ours || seen.kind == HEADERS || seen.payload.is_empty(), "{seen:?}");
            if is_ours && seen.flags & END_STREAM != 0 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn statuses_pass_unharmed_and_redirects_are_not_followed() {
    let world = World::start().await;
    for (status, headers, body) in [
        ("204 No Content", "", ""),
        ("206 Partial Content", "content-range: 0-0/3\r\n", "[1]"),
        (
            "300 Multiple Choices",
            "content-type: application/json\r\n",
            "{\"code\":\"PGRST201\",\"message\":\"more than one\"}",
        ),
        ("302 Found", "location: https://accounts.example/o?redirect_uri=x\r\n", ""),
        ("303 See Other", "location: /elsewhere\r\n", "see"),
        (
            "416 Range Not Satisfiable",
            "content-range: */3\r\ncontent-type: application/json\r\n",
            "{\"code\":\"PGRST103\",\"message\":\"x\"}",
        ),
    ] {
        let text = match body {
            "" => format!(
                "HTTP/1.1 {status}\r\n{headers}{}\r\n",
                if status.starts_with("204") { "" } else { "content-length: 0\r\n" }
            ),
            body => response(status, headers, body),
        };
        world.old.answers(move |_| text.clone());
        let mut conn = world.raw().await;
        // Twice: a body that was misread would spoil the second answer.
        for _ in 0..2 {
            conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
            let answer = conn.answer().await;
            assert_eq!(answer.head.start, format!("HTTP/1.1 {status}"));
            assert_eq!(answer.text(), body);
            for line in headers.lines() {
                let (name, value) = line.split_once(": ").unwrap();
                assert_eq!(answer.header(name), Some(value), "{status}");
            }
        }
    }
    assert_eq!(world.old.count(), 12, "nothing was followed");
}

#[tokio::test]
async fn a_304_has_no_body_and_keeps_its_validators() {
    let world = World::start().await;
    world.old.answers(|_| {
        "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 99\r\n\r\n".to_owned()
    });
    let mut conn = world.raw().await;
    for _ in 0..2 {
        conn.send(world.client().says("GET", "/storage/v1/object/public/b/a", None)).await;
        let answer = conn.answer().await;
        assert_eq!((answer.status, answer.header("etag")), (304, Some("\"a\"")));
    }
}

#[tokio::test]
async fn compressed_answers_are_not_touched() {
    let world = World::start().await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(b"[{\"id\":1}]").unwrap();
    let zipped = encoder.finish().unwrap();
    let sent = zipped.clone();
    world.old.does(move |_, mut conn| {
        let zipped = sent.clone();
        async move {
            conn.send(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", zipped.len())).await;
            conn.send(zipped).await;
            Some(conn)
        }
    });
    let answer = world.client().with("accept-encoding", "gzip").get("/rest/v1/todos").await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.body.bytes, zipped);
}

#[tokio::test]
async fn path_and_query_keep_their_bytes() {
    let world = World::start().await;
    for target in [
        "/rest/v1/todos?select=a,b&id=in.(1,2)&name=eq.a+b&name=neq.c%2Cd&name=eq.a+b",
        "/rest/v1/todos?q=%E2%82%AC&r=\u{20ac}&empty=&&x",
        "/rest/v1/todos?or=(a.eq.%22x%22,b.eq.y)",
        "/rest/v1/todos?a={1,2}&b=[1]&c=a|b&d=a^b&e='x'",
        "/storage/v1/object/b/folder%2Ffile%20name%2B.png",
        "/storage/v1/object/b/%E4%BD%A0//double/",
        "/storage/v1/object/b/{x}/\"y\"",
        "/rest/v1/todos?",
        "/rest/v1/",
        "/auth/v1/verify?token=pkce_a%2Bb&redirect_to=https%3A%2F%2Fapp%2F%3Fa%3Db",
    ] {
        world.client().get(target).await.served_by(Side::Old);
        let seen: Vec<u8> = world.old.last().target().chars().map(|c| c as u8).collect();
        assert_eq!(String::from_utf8(seen).unwrap(), target);
    }
}

#[tokio::test]
async fn characters_that_have_to_be_encoded_arrive_encoded() {
    let world = World::start().await;
    for (target, want) in [
        (
            "/rest/v1/todos?select=\"my col\"".replace(' ', "%20"),
            "/rest/v1/todos?select=%22my%20col%22",
        ),
        ("/rest/v1/todos?a=eq.<b>".to_owned(), "/rest/v1/todos?a=eq.%3Cb%3E"),
        ("/storage/v1/object/b/<a>`".to_owned(), "/storage/v1/object/b/%3Ca%3E%60"),
    ] {
        let mut conn = world.raw().await;
        // Twice, and with a body: the borders of what follows stay where they are.
        for _ in 0..2 {
            conn.send(world.client().says("POST", &target, Some("abc"))).await;
            conn.answer().await.served_by(Side::Old);
            assert_eq!(world.old.last().target(), want);
            assert_eq!(world.old.last().body.bytes, b"abc");
        }
    }
}

#[tokio::test]
async fn absolute_targets_are_served_by_their_path() {
    let world = World::start().await;
    let mut conn = world.raw().await;
    conn.send(format!(
        "GET http://evil.example/rest/v1/todos?a=b HTTP/1.1\r\nhost: other\r\napikey: {ANON_OLD}\r\n\r\n"
    ))
    .await;
    conn.answer().await.served_by(Side::Old);
    let seen = world.old.last();
    assert_eq!(seen.target(), "/rest/v1/todos?a=b");
    assert_eq!(seen.head.all("host"), [world.old.address.to_string()]);
}

#[tokio::test]
async fn hop_by_hop_headers_end_here_both_ways() {
    let world = World::start().await;
    world.old.answers(|_| {
        response(
            "200 OK",
            "x-upstream: old\r\nconnection: keep-alive, x-secret-hop\r\nx-secret-hop: 1\r\nkeep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nupgrade: h2c\r\nx-kept: 1\r\n",
            "{}",
        )
    });
    let client = world
        .client()
        .with("connection", "keep-alive, x-private")
        .with("x-private", "1")
        .with("keep-alive", "timeout=5")
        .with("proxy-connection", "keep-alive")
        .with("te", "gzip")
        .with("upgrade", "h2c")
        .with("x-kept", "1");
    let answer = client.get("/rest/v1/todos").await;
    for name in ["x-secret-hop", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    assert_eq!(answer.header("x-kept"), Some("1"));
    let seen = world.old.last();
    for name in ["x-private", "keep-alive", "proxy-connection", "te", "upgrade"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-kept"), Some("1"));
}

#[tokio::test]
async fn trap_42_each_cookie_stays_one_and_loses_its_domain() {
    let world = World::start().await;
    world.old.answers(|_| {
        response(
            "200 OK",
            "set-cookie: a=1; Path=/; Domain=supabase.co; HttpOnly\r\nset-cookie: b=2; domain=.x; Secure\r\nset-cookie: c=3\r\n",
            "{}",
        )
    });
    let answer = world.client().get("/auth/v1/user").await;
    assert_eq!(answer.head.all("set-cookie"), ["a=1; Path=/; HttpOnly", "b=2; Secure", "c=3"]);
}

#[tokio::test]
async fn repeated_headers_stay_repeated() {
    let world = World::start().await;
    world
        .old
        .answers(|_| response("200 OK", "x-upstream: old\r\nwarning: 1\r\nwarning: 2\r\n", "{}"));
    let client = world.client().with("prefer", "count=exact").with("prefer", "return=minimal");
    assert_eq!(client.get("/rest/v1/todos").await.head.all("warning"), ["1", "2"]);
    assert_eq!(world.old.last().head.all("prefer"), ["count=exact", "return=minimal"]);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let world = World::start().await;
    world.old.does(|seen, mut conn| async move {
        assert_eq!(seen.header("te"), Some("trailers"));
        let body = conn.request_body(&seen.head).await;
        assert_eq!(body.bytes, b"hello");
        assert_eq!(body.trailers, [("x-sum".to_owned(), "42".to_owned())]);
        conn.send("HTTP/1.1 200 OK\r\ntrailer: x-check\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-check: 7\r\n\r\n").await;
        Some(conn)
    });
    let mut conn = world.raw().await;
    conn.send(format!(
        "POST /functions/v1/f HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\nte: trailers\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n"
    ))
    .await;
    let answer = conn.answer().await;
    assert_eq!(answer.text(), "ok");
    assert_eq!(answer.body.trailers, [("x-check".to_owned(), "7".to_owned())]);
}

fn expecting(length: usize) -> String {
    format!(
        "POST /storage/v1/object/b/a HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn the_client_is_told_to_continue_when_the_side_says_so() {
    let world = World::start().await;
    let said = Arc::new(AtomicBool::new(false));
    let saying = Arc::clone(&said);
    world.old.does(move |seen, mut conn| {
        let saying = Arc::clone(&saying);
        async move {
            assert_eq!(seen.header("expect"), Some("100-continue"));
            // Time enough for a 100 that nobody here has said.
            tokio::time::sleep(Duration::from_millis(200)).await;
            saying.store(true, SeqCst);
            conn.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(conn.request_body(&seen.head).await.bytes, b"hello");
            conn.send(usual(Side::Old)).await;
            Some(conn)
        }
    });
    for _ in 0..5 {
        said.store(false, SeqCst);
        let mut conn = world.raw().await;
        let begun = std::time::Instant::now();
        conn.send(expecting(5)).await;
        assert_eq!(conn.answer_head().await.start, "HTTP/1.1 100 Continue");
        let (has_said, took) = (said.load(SeqCst), begun.elapsed());
        conn.send("hello").await;
        conn.answer().await.served_by(Side::Old);
        // The wait of a second says it, too, where this machine stood still.
        if took < Duration::from_millis(900) {
            assert!(has_said, "not before the side's word");
            return;
        }
    }
    panic!("five times not on the side's word, but after the wait");
}

#[tokio::test]
async fn a_side_that_never_says_continue_gets_the_body_after_a_wait() {
    let world = World::start().await;
    let mut conn = world.raw().await;
    conn.send(expecting(5)).await;
    assert_eq!(conn.answer_head().await.start, "HTTP/1.1 100 Continue");
    conn.send("hello").await;
    conn.answer().await.served_by(Side::Old);
    assert_eq!(world.old.last().body.bytes, b"hello");
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_waits_with_its_body() {
    let world = World::start().await;
    for status in ["401 Unauthorized", "417 Expectation Failed", "413 Content Too Large"] {
        let text = response(status, "", "no");
        world.old.does(move |_, mut conn| {
            let text = text.clone();
            async move {
                conn.send(text).await;
                Some(conn)
            }
        });
        // The quickest of three: one that waits for the body does so for a second each time.
        let mut quickest = Duration::MAX;
        for _ in 0..3 {
            world.old.hangs_up().await;
            let mut conn = world.raw().await;
            conn.send(expecting(5_000_000)).await;
            let answer = conn.answer().await;
            assert_eq!(answer.head.start, format!("HTTP/1.1 {status}"), "without 100 and body");
            assert_eq!(answer.text(), "no");
            // What the client does next is its choice, so where the next request begins is not known.
            assert!(conn.is_closed().await);
            let begun = std::time::Instant::now();
            let answer = world.client().get("/storage/v1/object/b/a").await;
            assert_eq!(answer.head.start, format!("HTTP/1.1 {status}"));
            quickest = quickest.min(begun.elapsed());
        }
        assert!(quickest < Duration::from_millis(700), "the next request waited: {quickest:?}");
    }
}

#[tokio::test]
async fn an_early_refusal_reaches_a_client_that_sends_anyway() {
    let world = World::start().await;
    for _ in 0..5 {
        world.old.does(|_, mut conn| async move {
            conn.send(response("413 Content Too Large", "connection: close\r\n", "too large"))
                .await;
            // As servers do: reads on for a while, so that the answer is not lost to a reset.
            conn.finish().await;
            while conn.fill().await > 0 {}
            None
        });
        let body = "x".repeat(3_000_000);
        let request = world.client().says("POST", "/storage/v1/object/b/a", Some(&body));
        let (read, mut write) =
            tokio::net::TcpStream::connect(world.address).await.unwrap().into_split();
        let sending = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut write, request.as_bytes()).await.ok();
            write
        });
        let mut conn = Conn::new(tokio::io::join(read, tokio::io::sink()));
        let answer = conn.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (413, "too large"));
        sending.abort();
    }
}

#[tokio::test]
async fn an_http2_upload_arrives_whole() {
    let world = World::start().await;
    let mut sender = http2::open(&world).await;
    let body = Bytes::from(vec![b'x'; 3_000_000]);
    let mut request = http2::get("/storage/v1/object/b/a").map(|_| Full::new(body).boxed());
    *request.method_mut() = http::Method::POST;
    let answer = within("an answer", sender.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(world.old.last().body.bytes.len(), 3_000_000);
}

#[tokio::test]
async fn request_ids_are_kept_or_made_and_passed_on() {
    let world = World::start().await;
    let answer = world.client().with("x-request-id", "abc-1").get("/rest/v1/todos").await;
    assert_eq!(answer.header("x-request-id"), Some("abc-1"));
    assert_eq!(world.old.last().header("x-request-id"), Some("abc-1"));
    let answer = world.client().get("/rest/v1/todos").await;
    assert_eq!(answer.header("x-request-id"), world.old.last().header("x-request-id"));
    assert!(world.old.last().header("traceparent").unwrap().starts_with("00-"));
}

#[tokio::test]
async fn locations_of_the_project_name_the_proxy() {
    let world = World::start().await;
    let own = format!("http://{}/rest/v1/todos?id=eq.1", world.old.address);
    world.old.answers(move |_| response("201 Created", &format!("location: {own}\r\n"), ""));
    let answer = world.client().post("/rest/v1/todos", "").await;
    assert_eq!(answer.header("location"), Some("http://proxy.example/rest/v1/todos?id=eq.1"));
}
