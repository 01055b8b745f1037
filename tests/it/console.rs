//! The console's end of the admin listener, over sockets: login, sessions, what a browser may change, the stream.

use cutover::side::Side;
use serde_json::{Value, json};

use crate::support::conn::{Answer, Conn};
use crate::support::eventually;
use crate::support::world::World;

const TOKEN: &str = "console-token-hush";
const BEARER: &str = "authorization: Bearer console-token-hush\r\n";
const PAGE: &str = "x-cutover-console: 1\r\n";

async fn guarded() -> World {
    World::start().set("admin.token", &format!("{TOKEN:?}")).await
}

/// One request to the admin listener; `headers` is whole lines.
async fn ask(world: &World, line: &str, headers: &str, body: &str) -> Answer {
    let mut conn = Conn::open(world.admin).await;
    conn.send(format!(
        "{line} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        world.admin,
        body.len()
    ))
    .await;
    conn.answer_to(line.split(' ').next().unwrap()).await
}

async fn login(world: &World, token: &str, headers: &str) -> Answer {
    let body = json!({ "token": token }).to_string();
    ask(world, "POST /login", headers, &body).await
}

/// The Cookie header of a page that is signed in.
async fn signed_in(world: &World) -> String {
    let answer = login(world, TOKEN, PAGE).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    format!("cookie: theme=dark; {}\r\n", cookie.split(';').next().unwrap())
}

/// An open event stream.
struct Stream {
    conn: Conn,
    text: String,
}

impl Stream {
    async fn open(world: &World, headers: &str) -> Self {
        let mut conn = Conn::open(world.admin).await;
        conn.send(format!("GET /events HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", world.admin)).await;
        let head = conn.answer_head().await;
        assert!(head.start.contains("200"), "{head:?}");
        for (name, value) in [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
            ("x-accel-buffering", "no"),
        ] {
            assert_eq!(head.get(name), Some(value), "{head:?}");
        }
        Self { conn, text: String::new() }
    }

    /// The next event's name and data; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        while !self.text.contains("\n\n") {
            let chunk = self.conn.chunk().await;
            if chunk.is_empty() {
                return None;
            }
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        let (event, rest) = self.text.split_once("\n\n").unwrap();
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let (name, data) = (field("event: ").to_owned(), field("data: "));
        let data = serde_json::from_str(data).unwrap();
        self.text = rest.to_owned();
        Some((name, data))
    }

    /// The next event of that name for which `is_it` holds.
    async fn until(&mut self, name: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..100 {
            let (event, data) = self.next().await.expect("the stream goes on");
            if event == name && is_it(&data) {
                return data;
            }
        }
        panic!("no such event: {name}");
    }
}

#[tokio::test]
async fn the_page_holds_no_data_and_may_do_nothing_but_ask_its_own_origin() {
    let world = guarded().await;
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
    ] {
        let answer = ask(&world, &format!("GET {path}"), "", "").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        for rule in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "asked again each time");
        let known = format!("if-none-match: \"x\", {}\r\n", answer.header("etag").unwrap());
        let again = ask(&world, &format!("GET {path}"), &known, "").await;
        assert_eq!((again.status, again.body.bytes.len()), (304, 0), "{path}");
    }
    ask(&world, "GET /console/nothing.js", "", "").await.refused(404, "CUTA404");
    let data = ask(&world, "GET /rollout", BEARER, "").await;
    assert_eq!(data.header("cache-control"), Some("no-store"));
    assert_eq!(data.header("x-frame-options"), Some("DENY"));
}

#[tokio::test]
async fn the_token_begins_a_session_and_a_logout_ends_it_with_its_streams() {
    let world = guarded().await;
    let standing = ask(&world, "GET /session", "", "").await.json();
    assert_eq!(standing, json!({ "login": true, "signed_in": false }));
    for wrong in ["", "console-token-hus", "console-token-hush2"] {
        let answer = login(&world, wrong, PAGE).await;
        answer.refused(401, "CUTA401");
        assert_eq!(answer.header("set-cookie"), None);
    }
    ask(&world, "GET /events", "", "").await.refused(401, "CUTA401");
    ask(&world, "GET /rollout", "cookie: cutover_session=x\r\n", "").await.refused(401, "CUTA401");

    let answer = login(&world, TOKEN, PAGE).await;
    let cookie = answer.header("set-cookie").unwrap();
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains("hush"), "{cookie}");
    let by_https = login(&world, TOKEN, "x-forwarded-proto: https\r\n").await;
    assert!(by_https.header("set-cookie").unwrap().ends_with("; Secure"), "{by_https:?}");

    let cookie = signed_in(&world).await;
    assert_eq!(ask(&world, "GET /rollout", &cookie, "").await.status, 200);
    let standing = ask(&world, "GET /session", &cookie, "").await.json();
    assert_eq!(standing["signed_in"], true);
    let mut stream = Stream::open(&world, &cookie).await;
    assert_eq!(stream.next().await.unwrap().0, "opening");
    let out = ask(&world, "POST /logout", &format!("{cookie}{PAGE}"), "").await;
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"), "{out:?}");
    ask(&world, "GET /rollout", &cookie, "").await.refused(401, "CUTA401");
    while stream.next().await.is_some() {}
}

#[tokio::test]
async fn after_ten_wrong_tokens_logins_wait_and_programs_do_not() {
    let world = guarded().await;
    for _ in 0..10 {
        login(&world, "guess", PAGE).await.refused(401, "CUTA401");
    }
    let answer = login(&world, TOKEN, PAGE).await;
    answer.refused(429, "CUTA429");
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(ask(&world, "POST /rollout/abort", BEARER, "").await.status, 200);
}

#[tokio::test]
async fn a_session_changes_the_number_only_from_its_own_page() {
    let world = guarded().await;
    let cookie = signed_in(&world).await;
    let own = format!("origin: http://{}\r\nsec-fetch-site: same-origin\r\n", world.admin);
    let body = "{\"percentage\":100,\"reason\":\"by hand\"}";
    // A page of another port of this machine is of the same site: the browser sends it the cookie.
    let neighbour = "origin: http://127.0.0.1:3000\r\nsec-fetch-site: same-site\r\n";
    for headers in [
        String::new(),
        own.clone(),
        format!("{PAGE}{neighbour}"),
        format!("{PAGE}origin: null\r\n"),
        format!("{PAGE}sec-fetch-site: cross-site\r\n"),
        format!("{PAGE}origin: https://evil.example\r\nsec-fetch-site: cross-site\r\n"),
    ] {
        for line in ["PUT /rollout", "POST /rollout/abort", "POST /logout"] {
            let answer = ask(&world, line, &format!("{cookie}{headers}"), body).await;
            answer.refused(403, "CUTA403");
        }
    }
    login(&world, TOKEN, neighbour).await.refused(403, "CUTA403");
    ask(&world, "GET /events", &format!("{cookie}{neighbour}"), "").await.refused(403, "CUTA403");
    let before = ask(&world, "GET /rollout", BEARER, "").await.json();
    assert_eq!((&before["percentage"], &before["force"]), (&json!(0), &Value::Null));

    let user = world.as_user("ada");
    user.get("/rest/v1/todos").await.served_by(Side::Old);
    let changed = ask(&world, "PUT /rollout", &format!("{cookie}{PAGE}{own}"), body).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    user.get("/rest/v1/todos").await.served_by(Side::New);
    let audit = ask(&world, "GET /audit?limit=1", &cookie, "").await.json();
    assert_eq!(audit["records"][0]["actor"], "console:127.0.0.1", "{audit}");
    assert_eq!(audit["records"][0]["reason"], "by hand", "{audit}");
}

#[tokio::test]
async fn without_a_token_there_is_no_login_and_the_same_pages_are_refused() {
    let world = World::start().await;
    let standing = ask(&world, "GET /session", "", "").await.json();
    assert_eq!(standing, json!({ "login": false, "signed_in": true }));
    login(&world, "x", PAGE).await.refused(400, "CUTA400");
    let neighbour = "origin: http://127.0.0.1:3000\r\nsec-fetch-site: same-site\r\n";
    ask(&world, "POST /rollout/abort", neighbour, "").await.refused(403, "CUTA403");
    let own = format!("{PAGE}origin: http://{}\r\nsec-fetch-site: same-origin\r\n", world.admin);
    assert_eq!(ask(&world, "POST /rollout/abort", &own, "").await.status, 200);
    let audit = ask(&world, "GET /audit?limit=1", "", "").await.json();
    assert_eq!(audit["records"][0]["actor"], "console:127.0.0.1", "{audit}");
}

#[tokio::test]
async fn the_stream_tells_of_requests_by_side_and_of_a_change_at_once() {
    let world = World::start().await;
    let mut stream = Stream::open(&world, "").await;
    let (name, opening) = stream.next().await.unwrap();
    assert_eq!(name, "opening");
    assert!(opening["points"].is_array(), "{opening}");
    let idle = stream.until("frame", |_| true).await;
    assert_eq!(idle["sides"]["new"]["p50"], Value::Null, "no traffic: {idle}");
    assert_eq!(idle["sides"]["new"]["error_share"], Value::Null);

    let answer = world.ask_admin("PUT", "/rollout", "{\"percentage\":100}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let told = stream.until("rollout", |_| true).await;
    assert_eq!((&told["percentage"], &told["epoch"]), (&json!(100), &answer.json()["epoch"]));

    let user = world.as_user("ada");
    for _ in 0..20 {
        user.get("/rest/v1/todos").await.served_by(Side::New);
    }
    let count = |frame: &Value| frame["decisions"][0]["total"]["new"].as_u64().unwrap_or(0);
    let frame = stream.until("frame", |frame| count(frame) >= 20).await;
    assert_eq!(frame["decisions"][0]["name"], "percentage", "{frame}");
    assert_eq!(frame["sides"]["new"]["error_share"], json!(0.0), "{frame}");
    let quantile = |name: &str| frame["sides"]["new"][name].as_f64().unwrap();
    assert!(quantile("p50") <= quantile("p95") && quantile("p95") <= quantile("p99"), "{frame}");
    assert!(frame["sides"]["new"]["requests_per_second"].as_f64().unwrap() > 0.0, "{frame}");
    assert_eq!(
        (&frame["tables"][0]["name"], &frame["tables"][0]["kind"], &frame["tables"][0]["total"]),
        (&json!("todos"), &json!("table"), &json!({ "old": 0, "new": 20 })),
        "{frame}"
    );
    // The past is there for whoever comes later.
    let (_, opening) = Stream::open(&world, "").await.next().await.unwrap();
    assert!(opening["points"].as_array().unwrap().len() >= 2, "{opening}");
    assert_eq!(opening["frame"]["rollout"]["percentage"], 100, "{opening}");
}

#[tokio::test]
async fn seats_are_bounded_and_one_that_is_left_is_free_again() {
    let world = World::start().await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(Stream::open(&world, "").await);
    }
    let full = ask(&world, "GET /events", "", "").await;
    full.refused(503, "CUTA5031");
    assert!(full.header("retry-after").is_some(), "{full:?}");
    assert_eq!(ask(&world, "GET /rollout", "", "").await.status, 200, "the rest is not held up");
    streams.pop();
    eventually("a free seat", async || {
        let mut conn = Conn::open(world.admin).await;
        conn.send(format!("GET /events HTTP/1.1\r\nhost: {}\r\n\r\n", world.admin)).await;
        conn.answer_head().await.start.contains("200")
    })
    .await;
    // None of the others has read anything yet, and the newest frames go on.
    let mut stream = streams.pop().unwrap();
    assert_eq!(stream.next().await.unwrap().0, "opening");
    stream.until("frame", |_| true).await;
}
