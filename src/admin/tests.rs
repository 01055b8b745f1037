//! The admin listener asked as a whole, with the real writer on a directory of its own.

use std::fs;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::FutureExt as _;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;
use crate::config::live::Sources;

const CONFIG: &str = r#"
[projects.old]
url = "https://old.example"
anon_key = "anon-of-old-hush"

[projects.new]
url = "https://new.example:8443"
anon_key = "anon-of-new-hush"

[rollout] # kept
percentage = 5
salt = "onasis-core-v2"
"#;

struct World {
    dir: tempfile::TempDir,
    state: State,
}

/// An answer: status, headers, and the body as JSON if it is.
struct Got {
    status: u16,
    headers: http::HeaderMap,
    text: String,
    json: Value,
}

impl World {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(environment: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.toml"), CONFIG).unwrap();
        let sources = Sources {
            file: Some(dir.path().join("config.toml")),
            environment: environment.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        };
        let (control, ..) = Control::start(sources).unwrap();
        let state = State::new(control, Arc::new(Metrics::new(2)), Arc::default());
        Self { dir, state }
    }

    fn file(&self) -> String {
        fs::read_to_string(self.dir.path().join("config.toml")).unwrap()
    }

    async fn ask(&self, line: &str, headers: &[(header::HeaderName, &str)], body: &str) -> Got {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:8001")
            .extension(ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4242))));
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let response = router(self.state.clone()).oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Got { status: head.status.as_u16(), headers: head.headers, text, json }
    }

    async fn get(&self, path: &str) -> Got {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    async fn put(&self, body: Value) -> Got {
        self.ask("PUT /rollout", &[], &body.to_string()).await
    }
}

#[tokio::test]
async fn ready_only_between_start_and_stop() {
    let world = World::new();
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(world.get("/readyz").await.status, 503);
    world.state.lifecycle.enter(Phase::Serving);
    assert_eq!(world.get("/readyz").await.status, 200);
    world.state.lifecycle.enter(Phase::Draining);
    let got = world.get("/readyz").await;
    assert_eq!((got.status, got.json), (503, json!({ "status": "draining" })));
    assert_eq!(world.get("/healthz").await.status, 200, "a stopping process still lives");
}

#[tokio::test]
async fn a_change_is_written_to_the_file_and_audited_with_its_actor() {
    let world = World::new();
    let before = world.get("/rollout").await;
    assert_eq!((before.status, &before.json["percentage"]), (200, &json!(5)));
    let tag = before.headers[header::ETAG].to_str().unwrap().to_owned();

    let got = world.put(json!({ "percentage": 12.5, "reason": "week 2" })).await;
    assert_eq!((got.status, &got.json["percentage"]), (200, &json!(12.5)), "{}", got.text);
    assert_ne!(got.headers[header::ETAG], *tag);
    assert_eq!(got.headers[header::ETAG], *format!("\"{}\"", got.json["epoch"]));
    assert!(world.file().contains("[rollout] # kept\npercentage = 12.5\n"), "{}", world.file());

    let audit = world.get("/audit?limit=1").await.json;
    let record = &audit["records"][0];
    for (key, value) in [("actor", "admin:192.0.2.7"), ("reason", "week 2"), ("to", "12.5")] {
        assert_eq!(record[key], value, "{audit}");
    }

    let stale = world.ask("PUT /rollout", &[(header::IF_MATCH, &tag)], "{\"percentage\":20}").await;
    assert_eq!((stale.status, &stale.json["code"]), (412, &json!("CUTA412")));
    let fresh = got.headers[header::ETAG].to_str().unwrap();
    let fresh =
        world.ask("PUT /rollout", &[(header::IF_MATCH, fresh)], "{\"percentage\":20}").await;
    assert_eq!(fresh.status, 200, "{}", fresh.text);
    let any = world.ask("PUT /rollout", &[(header::IF_MATCH, "*")], "{\"percentage\":21}").await;
    assert_eq!(any.status, 200, "{}", any.text);
}

#[tokio::test]
async fn an_abort_forces_old_and_only_resume_leaves_it() {
    let world = World::new();
    let got = world.ask("POST /rollout/abort", &[], "").await;
    assert_eq!(
        (got.status, &got.json["force"], &got.json["percentage"]),
        (200, &json!("old"), &json!(0)),
        "{}",
        got.text
    );
    let again = world.ask("POST /rollout/abort", &[], "{\"reason\":\"sure\"}").await;
    assert_eq!(again.status, 200, "an abort is never refused because of an abort: {}", again.text);

    let refused = world.put(json!({ "percentage": 10 })).await;
    assert_eq!((refused.status, &refused.json["code"]), (409, &json!("CUTA4091")));
    assert!(refused.json["message"].as_str().unwrap().contains("old"));
    let resumed = world.put(json!({ "percentage": 10, "resume": true })).await;
    assert_eq!((resumed.status, &resumed.json["force"]), (200, &Value::Null), "{}", resumed.text);
}

#[tokio::test]
async fn a_number_in_the_environment_is_a_conflict_that_names_the_variable() {
    let world = World::with(&[("V2_ROLLOUT_PERCENTAGE", "30")]);
    let got = world.put(json!({ "percentage": 40 })).await;
    assert_eq!((got.status, &got.json["code"]), (409, &json!("CUTA409")));
    assert!(got.json["message"].as_str().unwrap().contains("V2_ROLLOUT_PERCENTAGE"));
    assert_eq!(world.file(), CONFIG);
}

#[tokio::test]
async fn a_bad_body_changes_nothing_and_says_why() {
    let world = World::new();
    for (body, word) in [
        ("{\"percentage\":101}", "101"),
        ("{\"percentage\":10,\"force\":\"old\"}", "force"),
        ("", "EOF"),
    ] {
        let got = world.ask("PUT /rollout", &[], body).await;
        assert_eq!((got.status, &got.json["code"]), (400, &json!("CUTA400")), "{body}");
        assert!(got.json["message"].as_str().unwrap().contains(word), "{}", got.text);
    }
    let got = world.ask("PUT /rollout", &[], &" ".repeat(BODY_BYTES + 1)).await;
    assert_eq!((got.status, &got.json["code"]), (413, &json!("CUTA413")));
    let got = world.ask("POST /rollout/abort", &[], "{\"percentage\":0}").await;
    assert_eq!(got.status, 400);
    assert_eq!(world.file(), CONFIG);
}

#[tokio::test]
async fn status_and_metrics_show_the_state_and_no_secret() {
    let mut world = World::new();
    world.state.token = Some(Secret::new("token-hush"));
    let bearer = [(header::AUTHORIZATION, "Bearer token-hush")];
    let status = world.ask("GET /status", &bearer, "").await;
    for (pointer, value) in [
        ("/percentage", json!(5)),
        ("/force", Value::Null),
        ("/epoch", json!(1)),
        ("/phase", json!("starting")),
        ("/routes/auth", json!("old")),
        ("/routes/rest", json!("rollout")),
        ("/projects/new", json!("new.example:8443")),
        ("/workers", json!(2)),
        ("/reload/faults", json!([])),
    ] {
        assert_eq!(status.json.pointer(pointer), Some(&value), "{pointer}: {}", status.text);
    }
    let metrics = world.ask("GET /metrics", &bearer, "").await;
    assert_eq!(metrics.headers[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    assert!(metrics.text.contains("\ncutover_rollout_percentage 5\n"));
    assert!(!status.text.contains("hush") && !metrics.text.contains("hush"));
}

#[tokio::test]
async fn explain_answers_as_the_path_decides() {
    let world = World::new();
    let ada = world.get("/explain?user=ada").await;
    assert_eq!(
        ada.json,
        json!({ "side": "old", "bucket": 5300, "reason": "percentage", "moves_at": 53.01 }),
        "{}",
        ada.text
    );
    let owner = world.get("/explain?user=ada&path=/auth/v1/user").await;
    assert_eq!(owner.json["reason"], "owner");
    for (path, status) in [
        ("/explain", 400),
        ("/explain?user=", 400),
        ("/explain?user=ada&colour=red", 400),
        ("/explain?user=ada&claims=nonsense", 400),
        ("/explain?user=ada&path=/pg/tables", 422),
        ("/audit?limit=0", 400),
        ("/audit?limit=many", 400),
    ] {
        let got = world.get(path).await;
        assert_eq!(got.status, status, "{path}");
        assert!(got.json["code"].as_str().unwrap().starts_with("CUTA"), "{path}: {}", got.text);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_json() {
    let world = World::new();
    for path in ["/console", "/rollout/", "/healthz/x", "/console/../x"] {
        let got = world.get(path).await;
        assert_eq!((got.status, &got.json["code"]), (404, &json!("CUTA404")), "{path}");
    }
    let got = world.ask("DELETE /rollout", &[], "").await;
    assert_eq!((got.status, &got.json["code"]), (405, &json!("CUTA405")));
    let allow = got.headers[header::ALLOW].to_str().unwrap();
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
    assert_eq!(world.ask("HEAD /rollout", &[], "").await.text, "");
}

#[tokio::test]
async fn the_token_guards_everything_but_the_probes() {
    let mut world = World::new();
    world.state.token = Some(Secret::new("right"));
    for path in ["/metrics", "/status", "/explain?user=a", "/audit", "/rollout", "/nowhere"] {
        let got = world.get(path).await;
        assert_eq!((got.status, &got.json["code"]), (401, &json!("CUTA401")), "{path}");
        assert_eq!(got.headers[header::WWW_AUTHENTICATE], "Bearer");
    }
    assert_eq!(world.ask("PUT /rollout", &[], "{\"percentage\":50}").await.status, 401);
    assert_eq!(world.ask("POST /rollout/abort", &[], "").await.status, 401);
    assert_eq!(world.get("/healthz").await.status, 200);
    assert_eq!(world.get("/readyz").await.status, 503);
    let right = [(header::AUTHORIZATION, "Bearer right")];
    assert_eq!(world.ask("GET /rollout", &right, "").await.status, 200);
}

#[tokio::test]
async fn a_web_page_can_not_move_users() {
    let world = World::new();
    let foreign = [(header::ORIGIN, "https://evil.example")];
    let got = world.ask("POST /rollout/abort", &foreign, "").await;
    assert_eq!((got.status, &got.json["code"]), (403, &json!("CUTA403")));
    let rebound = Request::get("/rollout").header(header::HOST, "evil.example").body(Body::empty());
    let response = router(world.state.clone()).oneshot(rebound.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let probe = Request::get("/healthz").header(header::HOST, "10.1.2.3").body(Body::empty());
    let response = router(world.state.clone()).oneshot(probe.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "a kubelet asks by the pod's address");
}

#[tokio::test]
async fn serves_a_socket_until_it_is_told_to_stop() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let shutdown = async move {
        stopped.await.ok();
    };
    let serving = tokio::spawn(serve(listener, world.state.clone(), shutdown));
    stop.send(()).unwrap();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_page_opens_with_five_minutes_and_never_more() {
    let World { state, .. } = World::new();
    assert_eq!(&*state.console.events.opening().1, "{\"points\":[],\"frame\":null}");
    events::tell(&state, Control::rollout(&state.control), Control::reloads(&state.control));
    let begun = Instant::now();
    for second in 0..305 {
        events::tick(&state, begun + std::time::Duration::from_secs(second));
    }
    let opening: Value = serde_json::from_str(&state.console.events.opening().1).unwrap();
    assert_eq!(opening["points"].as_array().unwrap().len(), 300);
    assert_eq!(opening["frame"]["rollout"]["percentage"], 5, "{}", opening["frame"]);
}

#[tokio::test]
async fn a_slow_viewer_misses_frames_and_nobody_waits_for_it() {
    let world = World::new();
    let state = &world.state;
    events::tell(state, Control::rollout(&state.control), Control::reloads(&state.control));
    let request = || Request::get("/events").header(header::HOST, "localhost").body(Body::empty());
    let slow = router(state.clone()).oneshot(request().unwrap()).await.unwrap();
    let quick = router(state.clone()).oneshot(request().unwrap()).await.unwrap();
    let (mut slow, mut quick) = (slow.into_body(), quick.into_body());
    let next = |body: &mut Body| -> Option<String> {
        let frame = body.frame().now_or_never()??.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    };
    assert!(next(&mut quick).unwrap().starts_with("event: opening\n"));
    let begun = Instant::now();
    for second in 1..=20 {
        events::tick(state, begun + std::time::Duration::from_secs(second));
        assert!(next(&mut quick).unwrap().starts_with("event: frame\n"), "{second}");
        assert_eq!(next(&mut quick), None);
    }
    assert!(next(&mut slow).unwrap().starts_with("event: opening\n"));
    let frames = std::iter::from_fn(|| next(&mut slow)).count();
    assert_eq!(frames, 8, "the newest");
}

#[test]
fn the_operators_table_lists_every_code() {
    let page = include_str!("../../docs/errors.md");
    for (code, status) in AdminError::ALL {
        assert!(
            page.contains(&format!("| `{code}` | {status} |")),
            "docs/errors.md has no row {code}"
        );
    }
    let rows = page.lines().filter(|line| line.starts_with("| `CUTA")).count();
    assert_eq!(rows, AdminError::ALL.len());
}
