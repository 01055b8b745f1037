//! Who gets in, and with what: the admin listener and its neighbours in a browser, the headers that count with their key alone, service
//! keys and the requests that carry none, and whose certificate is believed.

use std::fs;
use std::process::{Child, Command};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cutover::side::Side;
use cutover::tokens::jwk::signing_key;
use futures_util::SinkExt as _;
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::conn::{Answer, Conn};
use crate::support::realtime::{Realtime, Said, changes, join, next};
use crate::support::tls::{Authority, Pair, acceptor};
use crate::support::upstream::{Seen, response};
use crate::support::world::{OVERRIDE_TOKEN, Setup, World, token, token_of};
use crate::support::{Nobody, eventually, http2, websocket};
use crate::tokens::{NEW_SECRET, OLD_ES, claims, exchange, made_by, part, seen, set, with};

/// One request to the admin listener, with all its lines but the last ones.
async fn ask_admin(world: &World, head: &str, body: &str) -> Answer {
    let mut conn = Conn::open(world.admin).await;
    let length = body.len();
    conn.send(format!("{head}connection: close\r\ncontent-length: {length}\r\n\r\n{body}")).await;
    conn.answer_to(head.split(' ').next().unwrap()).await
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn no_admin_listener_starts_off_loopback_without_a_token() {
    let serves = async |listen: &str, token: &str, environment: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let config = format!(
            "listen = \"127.0.0.1:0\"\n[admin]\nlisten = \"{listen}\"\ntoken = \"{token}\"\n\
             [projects.old]\nurl = \"http://127.0.0.1:1\"\n[projects.new]\nurl = \"http://127.0.0.1:2\"\n"
        );
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut serve = Command::new(env!("CARGO_BIN_EXE_cutover"));
        serve.arg("serve").current_dir(folder.path()).env_clear().envs(environment.iter().copied());
        let said = fs::File::create(folder.path().join("said")).unwrap();
        serve.stdout(said.try_clone().unwrap()).stderr(said);
        // One that starts after all is not waited for.
        let mut serving = Ended(serve.spawn().unwrap());
        eventually("the end", async || serving.0.try_wait().unwrap().is_some()).await;
        let said = fs::read_to_string(folder.path().join("said")).unwrap();
        (serving.0.wait().unwrap().code(), said)
    };
    let loopback = "127.0.0.1:0";
    let elsewhere = ["0.0.0.0:0", "[::]:0", "192.0.2.7:8001", "10.0.0.1:0", "[::2]:0"];
    for listen in elsewhere {
        let (code, said) = serves(listen, "", &[]).await;
        assert_eq!(code, Some(2), "{listen}: {said}");
        assert!(said.contains("admin.token") && !said.contains("serving"), "{listen}: {said}");
        let (code, said) = serves(loopback, "", &[("CUTOVER_ADMIN__LISTEN", listen)]).await;
        assert_eq!(code, Some(2), "{listen} by a variable: {said}");
    }
    let (code, said) =
        serves(elsewhere[0], "a-token-0123456789", &[("CUTOVER_ADMIN_TOKEN", "")]).await;
    assert_eq!(code, Some(2), "a token that is taken away: {said}");
}

const PLACES: [&str; 5] =
    ["GET /rollout", "PUT /rollout", "POST /rollout/abort", "GET /metrics", "GET /"];
const CHANGE: &str = "{\"percentage\":77,\"reason\":\"not yours\"}";

#[tokio::test]
async fn a_name_that_is_not_this_machines_reaches_nothing_of_an_admin_listener_without_a_token() {
    let world = World::start().await;
    let port = world.admin.port();
    let foreign = [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("localhost.:{port}"),
        format!("127.0.0.1.:{port}"),
        format!("127.0.0.1.nip.example:{port}"),
        format!("localhost:{port}.evil.example"),
        format!("[::1].evil.example:{port}"),
        format!("[::2]:{port}"),
        format!("0.0.0.0:{port}"),
        format!("192.168.1.7:{port}"),
        String::new(),
    ];
    for place in PLACES {
        for host in &foreign {
            let head = format!("{place} HTTP/1.1\r\nhost: {host}\r\n");
            let answer = ask_admin(&world, &head, CHANGE).await;
            assert_eq!(answer.status, 403, "{head}: {answer:?}");
        }
        // The target's authority is who was asked; a Host beside it is not heard (RFC 9112 3.2.2).
        let (method, path) = place.split_once(' ').unwrap();
        let head = format!("{method} http://evil.example{path} HTTP/1.1\r\nhost: localhost\r\n");
        assert_eq!(ask_admin(&world, &head, CHANGE).await.status, 403, "{head}");
        let head = format!("{place} HTTP/1.0\r\n");
        assert_eq!(ask_admin(&world, &head, CHANGE).await.status, 403, "no Host: {place}");
    }
    for host in [format!("localhost:{port}"), format!("LocalHost:{port}"), format!("[::1]:{port}")]
    {
        let head = format!("GET /rollout HTTP/1.1\r\nhost: {host}\r\n");
        assert_eq!(ask_admin(&world, &head, "").await.json()["percentage"], 0, "{host}");
    }
}

#[tokio::test]
async fn another_origin_reaches_nothing_of_the_admin_listener_whatever_it_presents() {
    const TOKEN: &str = "admin-token-of-this-test";
    for token in ["", TOKEN] {
        let world = World::start().set("admin.token", &format!("{token:?}")).await;
        let host = world.admin;
        let foreign = [
            "null".to_owned(),
            "https://evil.example".to_owned(),
            format!("http://evil.example:{}", host.port()),
            format!("http://{host}.evil.example"),
            format!("http://evil.example/{host}"),
            format!("http://localhost:{}", host.port()),
            "http://127.0.0.1".to_owned(),
            "http://127.0.0.1:1".to_owned(),
            host.to_string(),
            String::new(),
        ];
        let own =
            format!("host: {host}\r\nauthorization: Bearer {TOKEN}\r\nx-cutover-console: 1\r\n");
        for place in PLACES {
            for origin in &foreign {
                let head = format!("{place} HTTP/1.1\r\n{own}origin: {origin}\r\n");
                let answer = ask_admin(&world, &head, CHANGE).await;
                assert_eq!(answer.status, 403, "{head}: {answer:?}");
                assert_eq!(answer.header("access-control-allow-origin"), None);
            }
        }
        // A browser asks for leave before it sends what a page can't send by itself, and gets none.
        let head = format!(
            "OPTIONS /rollout HTTP/1.1\r\nhost: {host}\r\norigin: https://evil.example\r\n\
             access-control-request-method: PUT\r\naccess-control-request-headers: x-cutover-console\r\n"
        );
        let answer = ask_admin(&world, &head, "").await;
        assert!(answer.status >= 400, "{answer:?}");
        assert!(answer.head.headers.iter().all(|(name, _)| !name.starts_with("access-control")));
        let head = format!("PUT /rollout HTTP/1.1\r\n{own}origin: http://{host}\r\n");
        assert_eq!(ask_admin(&world, &head, CHANGE).await.status, 200, "its own page");
    }
}

#[tokio::test]
async fn the_override_is_nothing_without_its_key_on_any_kind_of_request() {
    let world = World::start().await;
    let upper = OVERRIDE_TOKEN.to_uppercase();
    let longer = format!("{OVERRIDE_TOKEN}x");
    let wrong =
        ["", "x", &OVERRIDE_TOKEN[..23], &longer, &upper, "Bearer override-token-0123456789"];
    for wrong in wrong {
        let tester = world
            .as_user("ada")
            .with("x-cutover-side", "new")
            .with("x-cutover-override-token", wrong);
        for path in ["/rest/v1/todos", "/functions/v1/hello", "/storage/v1/object/b/a.txt"] {
            let answer = tester.get(path).await;
            answer.served_by(Side::Old);
            assert_ne!(answer.header("x-cutover-reason"), Some("override"), "{wrong}");
        }
    }
    // Of two tokens the first counts, whichever it is: what a proxy before us adds behind a client's own is not heard.
    let two =
        world.as_user("ada").with("x-cutover-side", "new").with("x-cutover-override-token", "x");
    let two = two.with("x-cutover-override-token", OVERRIDE_TOKEN);
    two.get("/rest/v1/todos").await.served_by(Side::Old);
    for path in [
        "/functions/v1/chat?apikey=anon.old.key-a1",
        "/realtime/v1/websocket?apikey=anon.old.key-a1",
    ] {
        let old = Realtime::on(&world.old);
        let headers =
            [("x-cutover-side", "new"), ("x-cutover-override-token", "wrong-token-0123456")];
        let mut socket = websocket::open_with(&world, path, &headers).await.unwrap();
        let said = join("room", &changes("notes"), Some(&token("ada")), "1").text(1);
        socket.send(said).await.unwrap();
        old.has_heard(1).await;
    }
    assert_eq!(world.new.count(), 0, "{:?}", world.new.seen());
    for seen in world.old.seen() {
        assert!(
            seen.head.headers.iter().all(|(name, _)| !name.starts_with("x-cutover")),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn an_override_without_a_key_in_the_settings_is_nothing_at_all() {
    let world = World::start().set("rollout.override_token", "\"\"").await;
    for given in ["", OVERRIDE_TOKEN] {
        let tester = world.as_user("ada").with("x-cutover-side", "new");
        let tester = tester.with("x-cutover-override-token", given);
        tester.get("/rest/v1/todos").await.served_by(Side::Old);
    }
    let tester = world.as_user("ada").with("x-cutover-side", "new");
    tester.get("/rest/v1/todos").await.served_by(Side::Old);
}

#[tokio::test]
async fn x_user_id_is_nothing_without_a_service_key() {
    // ada's bucket is 3375: on new at 40 %.
    let world = World::start().rollout(40).set("rollout.anonymous", "\"old\"").await;
    let bare = world.client().without("apikey").with("x-user-id", "ada");
    let service = |side: &str| format!("service.{side}.key-s{}", if side == "old" { 1 } else { 2 });
    let forged = token_of(&json!({ "role": "service_role", "exp": 4_000_000_000_u64 }));
    let anon = bare.clone().with("apikey", "anon.old.key-a1");
    for client in [
        bare.clone(),
        anon.clone(),
        bare.clone().with("apikey", "anon.new.key-a2"),
        // Anybody can write such a token; the side will not believe it, and neither do we.
        anon.clone().with("authorization", &format!("Bearer {forged}")),
        bare.clone()
            .with("apikey", &service("old"))
            .with("authorization", "Bearer anon.old.key-a1"),
    ] {
        let answer = client.get("/rest/v1/todos").await;
        answer.served_by(Side::Old);
        assert_ne!(answer.header("x-cutover-bucket"), Some("3375"), "{answer:?}");
    }
    for key in ["stranger", "service.old.key-s", "SERVICE.OLD.KEY-S1", "service.old.key-s1%20"] {
        bare.clone().with("apikey", key).get("/rest/v1/todos").await.refused(401, "CUT401");
    }
    for side in ["old", "new"] {
        let client = bare.clone().with("apikey", &service(side));
        client.get("/rest/v1/todos").await.served_by(Side::New);
    }
}

/// Keys as a project has them that is asked to believe a client's address: an opaque one that opens everything, and legacy ones.
const SECRETS: [&str; 4] = [
    "sb_secret_OldProjectsOwnKey_1",
    "service.old.key-s1",
    "sb_secret_NewProjectsOwnKey_2",
    "service.new.key-s2",
];
const ANONS: [&str; 4] = [
    "anon.old.key-a1",
    "sb_publishable_OldProject_3",
    "anon.new.key-a2",
    "sb_publishable_NewProject_4",
];

fn with_many_keys() -> Setup {
    let list = |keys: &[&str]| format!("{keys:?}");
    World::start()
        .rollout(50)
        .set("projects.old.service_role_key", &list(&SECRETS[..2]))
        .set("projects.new.service_role_key", &list(&SECRETS[2..]))
        .set("projects.old.anon_key", &list(&ANONS[..2]))
        .set("projects.new.anon_key", &list(&ANONS[2..]))
}

/// A request as anybody may send it.
#[derive(Clone, Debug)]
struct Ask {
    method: &'static str,
    path: &'static str,
    query: Vec<String>,
    headers: Vec<(&'static str, String)>,
    body: String,
    is_http2: bool,
}

static PATHS: [&str; 20] = [
    "/rest/v1/todos",
    "/rest/v1/vendor_api_keys",
    "/rest/v1/rpc/match_memories",
    "/auth/v1/token",
    "/auth/v1/otp",
    "/auth/v1/signup",
    "/auth/v1/user",
    "/auth/v1/admin/users",
    "/auth/v1/invite",
    "/auth/v1/verify",
    "/storage/v1/object/b/a.txt",
    "/storage/v1/object/sign/b/a.txt",
    "/storage/v1/object/list/b",
    "/storage/v1/upload/resumable",
    "/storage/v1/bucket",
    "/functions/v1/hello",
    "/realtime/v1/api/broadcast",
    "/graphql/v1",
    "/nowhere",
    "/rest/v1/../auth/v1/admin/users",
];

/// Something in the place of a key: a known one, nearly a known one, a token, nothing.
fn any_key() -> impl Strategy<Value = String> {
    let forged = token_of(&json!({ "role": "service_role", "exp": 4_000_000_000_u64 }));
    prop_oneof![
        4 => select(ANONS.to_vec()).prop_map(str::to_owned),
        3 => select(SECRETS.to_vec()).prop_map(str::to_owned),
        1 => select(SECRETS.to_vec()).prop_map(|key| key[..key.len() - 1].to_owned()),
        1 => select(SECRETS.to_vec()).prop_map(|key| key.to_uppercase()),
        1 => select(SECRETS.to_vec()).prop_map(|key| format!("{key}x")),
        2 => select(vec!["ada", "eve", "zoe"]).prop_map(token),
        1 => Just(forged),
        1 => select(vec!["", "stranger", "sb_secret_", "sb_secret_stranger"]).prop_map(str::to_owned),
    ]
}

fn any_parameter() -> impl Strategy<Value = String> {
    let name = select(vec!["apikey", "apikey", "api%6Bey", "APIKEY", "token", "x", "apikey[]"]);
    prop_oneof![
        3 => (name, any_key(), any::<bool>()).prop_map(|(name, key, is_escaped)| match is_escaped {
            true => format!("{name}={}", key.replace('_', "%5F").replace('.', "%2E")),
            false => format!("{name}={key}"),
        }),
        1 => select(vec!["select=id", "apikey", "apikey=", "=", "grant_type=password"]).prop_map(str::to_owned),
    ]
}

fn any_header() -> impl Strategy<Value = (&'static str, String)> {
    let scheme =
        select(vec!["Bearer ", "bearer ", "BEARER ", "Bearer  ", "Basic ", "Token ", "", "Bearer"]);
    let plain =
        select(vec!["x-api-key", "sb-api-key", "cookie", "proxy-authorization", "x-client-info"]);
    let names = select(vec!["apikey", "authorization", "apikey, authorization", "x-user-id"]);
    prop_oneof![
        5 => any_key().prop_map(|key| ("apikey", key)),
        4 => (scheme, any_key(), any::<bool>()).prop_map(|(scheme, key, is_encoded)| {
            let key = if is_encoded && scheme == "Basic " { STANDARD.encode(key) } else { key };
            ("authorization", format!("{scheme}{key}"))
        }),
        1 => Just(("authorization", "Bearer sb_x\u{ff}".to_owned())),
        1 => (plain, any_key()),
        1 => Just(("x-user-id", "ada".to_owned())),
        1 => Just(("x-cutover-side", "new".to_owned())),
        1 => select(vec![OVERRIDE_TOKEN, "wrong"]).prop_map(|token| ("x-cutover-override-token", token.to_owned())),
        1 => names.prop_map(|names| ("connection", names.to_owned())),
        1 => Just(("origin", "https://app.example".to_owned())),
    ]
}

fn any_ask(paths: &'static [&str]) -> impl Strategy<Value = Ask> {
    let method = select(vec!["GET", "GET", "POST", "POST", "PATCH", "HEAD", "DELETE"]);
    let query = prop::collection::vec(any_parameter(), 0..4);
    let headers = prop::collection::vec(any_header(), 0..6);
    let body = prop_oneof![
        3 => Just(String::new()),
        1 => any_key().prop_map(|key| format!("{{\"token\":\"{key}\"}}")),
    ];
    let all = (method, select(paths), query, headers, body, prop::bool::weighted(0.2));
    all.prop_map(|(method, path, query, headers, body, is_http2)| Ask {
        method,
        path,
        query,
        headers,
        body,
        is_http2,
    })
}

/// The endpoints that a secret key vouches for addresses at, as anonymous clients ask them; one in three says something else.
fn any_sign_in() -> impl Strategy<Value = Ask> {
    (any_ask(&PATHS[3..10]), select(ANONS.to_vec()), 0..3_u8, 0..3_u8).prop_map(
        |(mut ask, key, other_query, other_key)| {
            ask.method = if ask.method == "GET" { "GET" } else { "POST" };
            if other_query > 0 {
                ask.query.clear();
            }
            if other_key > 0 {
                ask.headers.insert(0, ("apikey", key.to_owned()));
            }
            ask
        },
    )
}

impl Ask {
    fn target(&self) -> String {
        match self.query.is_empty() {
            true => self.path.to_owned(),
            false => format!("{}?{}", self.path, self.query.join("&")),
        }
    }

    /// The first header of this name.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(one, _)| *one == name).map(|(_, value)| value.trim())
    }

    /// Whether the key of a service was presented in the header, in the query, as Bearer.
    fn presents(&self) -> [bool; 3] {
        let is_secret = |key: &str| SECRETS.contains(&key);
        let query = self
            .query
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| decoded(name) == "apikey");
        let bearer = self.header("authorization").and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
        [
            self.header("apikey").is_some_and(is_secret),
            query.is_some_and(|(_, key)| is_secret(&decoded(key))),
            bearer.is_some_and(is_secret),
        ]
    }

    /// Whether the proxy may put the project's secret key beside the client's address.
    fn may_be_vouched_for(&self) -> bool {
        const COUNTED: [&str; 4] =
            ["/auth/v1/token", "/auth/v1/otp", "/auth/v1/signup", "/auth/v1/verify"];
        self.method == "POST"
            && COUNTED.contains(&self.path)
            && self.presents() == [false; 3]
            && self.header("apikey").is_some_and(|key| ANONS.contains(&key))
    }

    /// Its bytes, and with them everything that it says by itself.
    fn bytes(&self) -> Vec<u8> {
        let mut text =
            format!("{} {} HTTP/1.1\r\nhost: proxy.example\r\n", self.method, self.target());
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if !self.body.is_empty() {
            text += &format!("content-length: {}\r\n", self.body.len());
        }
        text += &format!("\r\n{}", self.body);
        text.chars().map(|c| u8::try_from(c).unwrap()).collect()
    }

    /// Sends it; answers head and body of what came back.
    async fn ask(&self, world: &World) -> String {
        if self.is_http2 {
            return self.ask_http2(world).await;
        }
        let mut conn = world.raw().await;
        conn.send(self.bytes()).await;
        let answer = conn.answer_to(self.method).await;
        format!("{:?} {}", answer.head, answer.text())
    }

    async fn ask_http2(&self, world: &World) -> String {
        let mut request = http2::get(&self.target());
        *request.method_mut() = self.method.parse().unwrap();
        request.headers_mut().remove("apikey");
        for (name, value) in self.headers.iter().filter(|(name, _)| *name != "connection") {
            let bytes: Vec<u8> = value.chars().map(|c| u8::try_from(c).unwrap()).collect();
            let value = http::HeaderValue::from_bytes(bytes.trim_ascii()).unwrap();
            request.headers_mut().append(http::HeaderName::from_static(name), value);
        }
        let mut sender = http2::open(world).await;
        let answer = sender.send_request(request).await.unwrap();
        let head = format!("{:?}", answer.headers());
        let body = http2::body(answer).await.unwrap_or_default();
        format!("{head} {}", String::from_utf8_lossy(&body))
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

/// What a side must not have got of this request: a service key in a place where the client presented none, and did not say it itself.
fn unasked(ask: &Ask, seen: &Seen, vouches: bool) -> Option<String> {
    let own = String::from_utf8_lossy(&ask.bytes()).into_owned();
    let own = format!("{own} {}", decoded(&own));
    let [header, query, bearer] = ask.presents();
    for key in SECRETS.into_iter().filter(|key| !own.contains(key)) {
        let is_vouched = vouches && ask.may_be_vouched_for();
        let places = seen.head.headers.iter().map(|(name, value)| match name.as_str() {
            "apikey" => (header || is_vouched, value.clone()),
            "authorization" => (bearer, value.clone()),
            _ => (false, value.clone()),
        });
        let target = (query, decoded(seen.target()));
        let body = (false, String::from_utf8_lossy(&seen.body.bytes).into_owned());
        for (is_asked_for, text) in places.chain([target, body]) {
            if text.contains(key) && !is_asked_for {
                return Some(format!("{key} in {text}"));
            }
        }
    }
    None
}

/// Sends random requests; answers how many sides got a service key's translation, and how many were vouched for.
async fn nothing_unasked(
    world: &World,
    requests: usize,
    any: impl Strategy<Value = Ask>,
    vouches: bool,
) -> (usize, usize) {
    let (mut runner, mut translated, mut vouched) = (TestRunner::default(), 0, 0);
    for _ in 0..requests {
        let ask = any.new_tree(&mut runner).unwrap().current();
        let before = Side::ALL.map(|side| world.side(side).count());
        let answer = ask.ask(world).await;
        for key in
            SECRETS.into_iter().filter(|key| !String::from_utf8_lossy(&ask.bytes()).contains(key))
        {
            assert!(!answer.contains(key), "{ask:?} was answered {answer}");
        }
        for (side, before) in Side::ALL.into_iter().zip(before) {
            for seen in &world.side(side).seen()[before..] {
                let fault = unasked(&ask, seen, vouches);
                assert_eq!(fault, None, "{ask:?} arrived as {seen:?}");
                let has_secret = seen.header("apikey").is_some_and(|key| SECRETS.contains(&key));
                translated += usize::from(has_secret && ask.presents()[0]);
                let address = seen.header("sb-forwarded-for");
                vouched += usize::from(address.is_some());
                // Beside a secret key always something that says less: alone it would be the service itself.
                let bearer = seen.header("authorization").unwrap_or_default().to_lowercase();
                let is_less = bearer.starts_with("bearer ") && !bearer.starts_with("bearer sb_");
                assert!(address.is_none() || is_less, "{ask:?} arrived as {seen:?}");
            }
        }
    }
    (translated, vouched)
}

#[tokio::test]
async fn no_side_gets_a_service_key_for_a_request_that_came_without_one() {
    let world = with_many_keys().await;
    let (translated, vouched) = nothing_unasked(&world, 400, any_ask(&PATHS), false).await;
    assert!(translated > 5, "the requests show little: {translated}");
    assert_eq!(vouched, 0);
    // Answers that lead elsewhere are the client's to follow, with what it has itself.
    let (old, new) = (world.old.address, world.new.address);
    for (side, other) in [(Side::Old, new), (Side::New, old)] {
        world.side(side).answers(move |_| {
            response("302 Found", &format!("location: http://{other}/rest/v1/x\r\n"), "")
        });
    }
    let before = world.old.count() + world.new.count();
    for user in ["ada", "eve", "zoe", "bob"] {
        assert_eq!(world.as_user(user).get("/rest/v1/todos").await.status, 302);
    }
    assert_eq!(world.old.count() + world.new.count(), before + 4);
}

#[tokio::test]
async fn nor_where_keys_of_strangers_pass_and_the_other_side_is_asked_too() {
    let world = with_many_keys()
        .set("keys.unknown", "\"pass\"")
        .set("tokens.mode", "\"exchange\"")
        .set("tokens.jwks_wait", "\"0s\"")
        .set("projects.old.jwt_secret", "\"the old secret, at least thirty-two bytes\"")
        .set("projects.new.jwt_secret", "\"the new secret, at least thirty-two bytes\"")
        .set("routes.storage", "\"rollout\"")
        .set("storage.fallback", "true")
        .set("cors.credentials", "false")
        .await;
    let missing =
        "{\"statusCode\":\"404\",\"error\":\"not_found\",\"message\":\"Object not found\"}";
    for side in Side::ALL {
        let json = "content-type: application/json\r\n";
        world.side(side).answers(move |_| response("400 Bad Request", json, missing));
    }
    nothing_unasked(&world, 300, any_ask(&PATHS), false).await;
    assert!(world.old.count() > 0 && world.new.count() > 0);
}

#[tokio::test]
async fn nor_when_new_is_gone_and_old_answers_in_its_place() {
    let gone = Nobody::new();
    let world = with_many_keys()
        .rollout(100)
        .set("projects.new.url", &gone.url())
        .set("rollout.on_new_unavailable", "\"old_for_reads\"")
        .await;
    nothing_unasked(&world, 200, any_ask(&PATHS), false).await;
    assert!(world.metric("cutover_fallbacks_total", "").await > 0.0);
}

#[tokio::test]
async fn a_secret_key_that_vouches_for_an_address_never_comes_alone_and_never_elsewhere() {
    let world = with_many_keys().set("auth.client_address", "\"sb-forwarded-for\"").await;
    let (_, vouched) = nothing_unasked(&world, 300, any_sign_in(), true).await;
    assert!(vouched > 5, "the requests show little: {vouched}");
}

/// Frames are requests of their own: what a join says is what its side hears.
#[tokio::test]
async fn no_side_hears_a_service_key_on_a_socket_that_said_none() {
    let world = with_many_keys().await;
    let sides = [Realtime::on(&world.old), Realtime::on(&world.new)];
    let heard = || sides.iter().map(|side| side.heard().len()).sum::<usize>();
    let mut runner = TestRunner::default();
    let said = (any_key(), prop::option::of(any_key()), prop::option::of(any_key()), 1..=2_u8);
    let (mut sockets, mut translated) = (0, 0);
    for _ in 0..60 {
        let (key, token, later, version) = said.new_tree(&mut runner).unwrap().current();
        let own = format!("{key} {token:?} {later:?}");
        let before = [world.old.count(), world.new.count()];
        let (old, new) = (sides[0].heard().len(), sides[1].heard().len());
        let path = format!("/realtime/v1/websocket?apikey={key}&vsn={version}.0.0");
        let Ok(mut socket) = websocket::open(&world, &path).await else { continue };
        sockets += 1;
        let frame = join("room", &changes("notes"), token.as_deref(), "1");
        socket.send(frame.text(version)).await.unwrap();
        let count = heard();
        if let Some(later) = &later {
            let payload = json!({ "access_token": later });
            let frame = Said::new("realtime:room", "access_token", payload, "2");
            socket.send(frame.text(version)).await.unwrap();
        }
        let beat = Said::new("phoenix", "heartbeat", json!({}), "hb").text(version);
        socket.send(beat).await.unwrap();
        while next(&mut socket).await.topic != "phoenix" {}
        eventually("the side's ear", async || heard() > count || heard() > old + new).await;
        let frames = [&sides[0].heard()[old..], &sides[1].heard()[new..]].concat();
        let frames: Vec<String> =
            frames.iter().map(|frame| frame.to_text().unwrap_or_default().to_owned()).collect();
        let handshakes = [&world.old.seen()[before[0]..], &world.new.seen()[before[1]..]].concat();
        for secret in SECRETS.into_iter().filter(|secret| !own.contains(secret)) {
            let has_own =
                |text: Option<&String>| text.is_some_and(|text| SECRETS.contains(&text.as_str()));
            for frame in &frames {
                let is_said = has_own(token.as_ref()) || has_own(later.as_ref());
                translated += usize::from(frame.contains(secret) && is_said);
                assert!(!frame.contains(secret) || is_said, "{own} was heard as {frame}");
            }
            for seen in &handshakes {
                let text = format!("{:?}", seen.head);
                assert!(!text.contains(secret) || has_own(Some(&key)), "{own} arrived as {text}");
            }
        }
    }
    assert!(sockets > 10 && translated > 0, "the sockets show little: {sockets}, {translated}");
}

/// A server that publishes these keys over TLS, to whoever believes its certificate.
async fn publishes_over_tls(pair: &Pair, keys: String) -> std::net::SocketAddr {
    let (acceptor, listener) =
        (acceptor(pair, &["http/1.1"]), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, keys) = (acceptor.clone(), keys.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut conn = Conn::new(stream);
                while conn.head().await.is_some() {
                    let json = "content-type: application/json\r\n";
                    conn.send(response("200 OK", json, &keys)).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn published_keys_are_believed_from_the_projects_own_ca_alone() {
    let (own, stranger) = (Authority::new(), Authority::new());
    let token = made_by(&signing_key(OLD_ES).unwrap(), &claims());
    for (what, issuer, name, ca, is_believed) in [
        ("its own CA", &own, "127.0.0.1", Some(&own), true),
        ("a stranger's certificate", &stranger, "127.0.0.1", Some(&own), false),
        ("another name's certificate", &own, "other.example", Some(&own), false),
        ("a CA that the system does not know", &own, "127.0.0.1", None, false),
    ] {
        let address = publishes_over_tls(&issuer.issues(name), set(&[OLD_ES])).await;
        let mut setup = exchange()
            .set("tokens.jwks_wait", "\"200ms\"")
            .set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}"))
            .set("projects.old.jwks_url", &format!("\"https://{address}/keys\""));
        if let Some(ca) = ca {
            setup = setup.set("projects.old.ca", "\"ca.pem\"").file("ca.pem", &ca.pem);
        }
        let world = setup.await;
        let result = if is_believed { "success" } else { "unreachable" };
        let labels = format!("side=\"old\",result=\"{result}\"");
        eventually(what, async || world.metric("cutover_jwks_fetches_total", &labels).await > 0.0)
            .await;
        with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
        let seen = seen(&world.new);
        // What can't be verified arrives as it was sent, and is refused there.
        assert_eq!(part(&seen, 0)["alg"] == "HS256", is_believed, "{what}");
        assert_eq!(seen == token, !is_believed, "{what}");
    }
}

#[tokio::test]
async fn explain_repeats_no_key_that_it_was_asked_about() {
    let world = World::start().await;
    let signed = token("ada");
    for (path, want) in [
        ("/rest/v1/todos?select=id%26apikey=service.old.key-s1", "apikey=[redacted]"),
        ("/storage/v1/object/sign/b/a?token=service.old.key-s1", "token=[redacted]"),
        ("/nowhere?apikey=service.old.key-s1", "apikey=[redacted]"),
        (&format!("/nowhere/{signed}"), "[redacted]"),
        (&format!("/rest/v1/todos?x=Bearer%20{signed}"), "[redacted]"),
    ] {
        let answer = world.ask_admin("GET", &format!("/explain?user=ada&path={path}"), "").await;
        let text = answer.text();
        assert!(text.contains(want), "{text}");
        assert!(!text.contains("service.old") && !text.contains(&signed[..40]), "{text}");
    }
}
