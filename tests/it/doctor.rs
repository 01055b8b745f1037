//! `cutover doctor` against two projects that answer as Supabase does, and then as it should not.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use cutover::side::Side;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Nobody;
use crate::support::conn::Conn;
use crate::support::tls::{Authority, TlsUpstream};
use crate::support::upstream::{Seen, Upstream, response};
use crate::support::world::{ANON_NEW, ANON_OLD, SERVICE_NEW, SERVICE_OLD, Setup, World};

const JSON: &str = "content-type: application/json\r\n";

/// What one project has. Changed by a test, it answers accordingly.
#[derive(Clone)]
struct Project {
    side: Side,
    anon: &'static str,
    service: &'static str,
    /// Schema → its OpenAPI document; `None`: PostgREST shows none.
    documents: Option<BTreeMap<&'static str, Value>>,
    date: Option<String>,
}

impl Project {
    /// `todos` and `vendor_api_keys`, as the world's map has them, and the function `match_memories`.
    fn good(side: Side) -> Self {
        let table = |columns: &[(&str, &str)]| {
            let properties = columns.iter().map(|(name, format)| {
                ((*name).to_owned(), json!({ "format": format, "type": "string" }))
            });
            let properties: serde_json::Map<String, Value> = properties.collect();
            json!({ "required": [], "properties": properties, "type": "object" })
        };
        let document = |tables: &[&str], functions: &[&str]| {
            let columns = [("id", "uuid"), ("title", "text")];
            let definitions = tables.iter().map(|name| ((*name).to_owned(), table(&columns)));
            let definitions: serde_json::Map<String, Value> = definitions.collect();
            let paths =
                functions.iter().map(|name| (format!("/rpc/{name}"), json!({ "post": {} })));
            let paths: serde_json::Map<String, Value> = paths.collect();
            json!({ "swagger": "2.0", "paths": paths, "definitions": definitions })
        };
        let documents = match side {
            Side::Old => BTreeMap::from([(
                "public",
                document(&["todos", "vendor_api_keys"], &["match_memories"]),
            )]),
            Side::New => BTreeMap::from([
                ("app", document(&["todos"], &[])),
                ("vendors", document(&["api_keys"], &[])),
                ("security_service", document(&[], &["match_memories"])),
                ("public", document(&["todos", "vendor_api_keys"], &[])),
            ]),
        };
        let (anon, service) = match side {
            Side::Old => (ANON_OLD, SERVICE_OLD),
            Side::New => (ANON_NEW, SERVICE_NEW),
        };
        Self { side, anon, service, documents: Some(documents), date: None }
    }

    fn on(self, upstream: &Upstream) {
        upstream.answers(move |seen| self.answer(seen));
    }

    fn answer(&self, seen: &Seen) -> String {
        let date = self.date.as_ref().map_or(String::new(), |date| format!("date: {date}\r\n"));
        let (status, body) = self.said(seen);
        response(status, &format!("{JSON}{date}"), &body.to_string())
    }

    fn said(&self, seen: &Seen) -> (&'static str, Value) {
        let path = seen.target().split('?').next().unwrap();
        if path == "/auth/v1/health" || path == "/auth/v1/.well-known/jwks.json" {
            return ("200 OK", json!({ "keys": [] }));
        }
        let key = seen.header("apikey").unwrap_or_default();
        if key != self.anon && key != self.service {
            return ("401 Unauthorized", json!({ "message": "Invalid API key", "hint": "x" }));
        }
        match path {
            "/auth/v1/admin/users" if key == self.anon => (
                "403 Forbidden",
                json!({ "code": 403, "error_code": "not_admin", "msg": "User not allowed" }),
            ),
            "/auth/v1/admin/users" => ("200 OK", json!({ "users": [] })),
            "/auth/v1/settings" => ("200 OK", json!({ "external": { "google": true } })),
            "/storage/v1/bucket" => {
                ("200 OK", json!([{ "id": "avatars", "name": "avatars", "public": true }]))
            }
            "/graphql/v1" => ("404 Not Found", json!({ "code": "PGRST202", "message": "no" })),
            _ => match path.strip_prefix("/rest/v1/") {
                Some(rest) => self.rest(rest, seen),
                None => ("404 Not Found", json!({ "message": "no Route matched" })),
            },
        }
    }

    fn rest(&self, path: &str, seen: &Seen) -> (&'static str, Value) {
        let good = Self::good(self.side).documents.unwrap();
        let exposed = self.documents.as_ref().unwrap_or(&good);
        let Some(document) = seen.header("accept-profile").and_then(|name| exposed.get(name))
        else {
            return (
                "406 Not Acceptable",
                json!({ "code": "PGRST106", "message": "Invalid schema", "hint": "Only the following schemas are exposed: secret_schema" }),
            );
        };
        if path.is_empty() {
            return match self.documents {
                Some(_) => ("200 OK", document.clone()),
                None => (
                    "404 Not Found",
                    json!({ "code": "PGRST126", "message": "OpenAPI is disabled" }),
                ),
            };
        }
        if path.starts_with("rpc/") {
            return ("404 Not Found", json!({ "code": "PGRST202", "message": "no", "hint": null }));
        }
        match document["definitions"].get(path) {
            Some(_) => ("200 OK", json!([])),
            None => ("404 Not Found", json!({ "code": "PGRST205", "message": "no", "hint": null })),
        }
    }
}

/// A desk with settings that lead to both upstreams.
struct Desk {
    folder: TempDir,
    old: Upstream,
    new: Upstream,
}

fn setup() -> Setup {
    World::start()
}

impl Desk {
    async fn with(setup: Setup) -> Self {
        let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
        let (folder, _) = setup.write(&old, &new);
        Project::good(Side::Old).on(&old);
        Project::good(Side::New).on(&new);
        Self { folder, old, new }
    }

    async fn good() -> Self {
        Self::with(setup()).await
    }

    /// Runs it beside the upstreams, which live on this runtime.
    async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.args(["doctor", "--json", "--skip", "realtime"]).args(arguments);
        command.current_dir(self.folder.path()).env_clear();
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn report(&self, arguments: &[&str]) -> Report {
        let output = self.run(arguments).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|_| {
            panic!("{text}{}", String::from_utf8_lossy(&output.stderr));
        });
        for secret in [ANON_OLD, ANON_NEW, SERVICE_OLD, SERVICE_NEW, "secret_schema"] {
            assert!(!text.contains(secret), "{secret} is shown");
        }
        Report { code: output.status.code().unwrap(), value }
    }
}

struct Report {
    code: i32,
    value: Value,
}

impl Report {
    fn lines(&self, status: &str) -> Vec<String> {
        let lines = self.value["findings"].as_array().unwrap().iter();
        let of_status = lines.filter(|line| line["status"] == status);
        let shown = of_status.map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("both").to_owned();
            format!("{} {} {}: {}", text("id"), text("side"), text("subject"), text("seen"))
        });
        shown.collect()
    }

    #[track_caller]
    fn has(&self, status: &str, start: &str, word: &str) -> &Self {
        let lines = self.lines(status);
        let found = lines.iter().any(|line| line.starts_with(start) && line.contains(word));
        assert!(
            found,
            "{status}: {start} … {word} is not among {lines:#?}\n{:#?}",
            self.lines("fail")
        );
        self
    }

    #[track_caller]
    fn fails_only(&self, start: &str) -> &Self {
        assert_eq!(self.code, 1);
        let lines = self.lines("fail");
        assert!(
            !lines.is_empty() && lines.iter().all(|line| line.starts_with(start)),
            "{lines:#?}"
        );
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_good_projects_are_clean_and_are_only_read() {
    let desk = Desk::good().await;
    let report = desk.report(&[]).await;
    assert_eq!(report.lines("fail"), [""; 0]);
    assert_eq!(report.code, 0);
    report
        .has("pass", "keys.service new", "in its role")
        .has("pass", "rest.function new security_service.match_memories", "found")
        .has("pass", "rest.columns both vendors.api_keys", "same 2 columns")
        .has("pass", "rest.granted new app.todos as service_role", "both sides")
        .has("skip", "db.connect new", "not set")
        .has("skip", "tokens.own new", "nothing can be signed");
    for upstream in [&desk.old, &desk.new] {
        for seen in upstream.seen() {
            let is_read = matches!(seen.method(), "GET" | "OPTIONS")
                || matches!((seen.method(), seen.target()), ("POST", "/graphql/v1"));
            assert!(is_read, "{} {}", seen.method(), seen.target());
            assert!(!seen.target().starts_with("/rest/v1/rpc/"), "{}", seen.target());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_only_old_has_is_found_in_the_documents() {
    let desk = Desk::good().await;
    let mut new = Project::good(Side::New);
    let document = new.documents.as_mut().unwrap().get_mut("vendors").unwrap();
    document["definitions"]["api_keys"]["properties"].as_object_mut().unwrap().remove("title");
    new.on(&desk.new);
    desk.report(&[]).await.fails_only("rest.columns new vendors.api_keys.title").has(
        "fail",
        "rest.columns",
        "on old and not on new",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_a_table_and_a_function_that_are_missing_are_named() {
    let desk = Desk::good().await;
    let mut new = Project::good(Side::New);
    let documents = new.documents.as_mut().unwrap();
    documents.remove("vendors");
    documents.insert("security_service", json!({ "paths": {}, "definitions": {} }));
    documents.insert("app", json!({ "paths": {}, "definitions": { "todo": {} } }));
    new.on(&desk.new);
    let report = desk.report(&[]).await;
    report
        .has("fail", "rest.exposed new vendors", "PGRST106")
        .has("fail", "rest.table new app.todos", "PGRST205); nearest: app.todo")
        .has("fail", "rest.function new security_service.match_memories", "PGRST202");
    assert_eq!(report.lines("fail").len(), 3, "{:#?}", report.lines("fail"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_documents_it_says_what_it_can_not_know() {
    let desk = Desk::good().await;
    for (side, upstream) in [(Side::Old, &desk.old), (Side::New, &desk.new)] {
        Project { documents: None, ..Project::good(side) }.on(upstream);
    }
    let report = desk.report(&[]).await;
    assert_eq!(report.lines("fail"), [""; 0]);
    report
        .has("skip", "rest.openapi new app", "PGRST126")
        .has(
            "skip",
            "rest.function new security_service.match_memories",
            "can't be told from outside",
        )
        .has("skip", "rest.columns", "not compared")
        .has("pass", "rest.table new vendors.api_keys", "found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_grant_is_seen_by_who_may_read() {
    let desk = Desk::good().await;
    let good = Project::good(Side::New);
    desk.new.answers(move |seen| {
        let is_anons = seen.header("apikey") == Some(ANON_NEW);
        if is_anons && seen.target().starts_with("/rest/v1/todos") {
            let body = r#"{"code":"42501","details":null,"hint":null,"message":"permission denied for schema app"}"#;
            return response("401 Unauthorized", JSON, body);
        }
        good.answer(seen)
    });
    let report = desk.report(&[]).await;
    report.fails_only("rest.granted new app.todos as anon").has("fail", "rest.granted", "42501");
    let fix = report.value["findings"].as_array().unwrap().iter();
    let fix: String = fix.filter_map(|it| it["fix"].as_str()).collect();
    assert!(fix.contains("grant usage on schema app to anon;"), "{fix}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_is_told_of() {
    let desk = Desk::good().await;
    let date = Some("Mon, 01 Jan 2024 00:00:00 GMT".to_owned());
    Project { date, ..Project::good(Side::New) }.on(&desk.new);
    desk.report(&[]).await.fails_only("reach.clock new").has("fail", "reach.clock", "behind ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirection_is_named_and_not_followed() {
    let desk = Desk::good().await;
    desk.new.answers(|_| {
        response("308 Permanent Redirect", "location: https://elsewhere.example/\r\n", "")
    });
    let report = desk.report(&[]).await;
    report.fails_only("reach.url new").has("fail", "reach.url", "https://elsewhere.example/");
    assert_eq!(desk.new.count(), 1, "there is nothing more to ask");
}

#[tokio::test(flavor = "multi_thread")]
async fn swapped_and_too_powerful_keys_are_named() {
    let setup = setup().set("projects.new.anon_key", &format!("{ANON_OLD:?}"));
    let report = Desk::with(setup).await.report(&["--only", "keys"]).await;
    report.fails_only("keys.anon new").has("fail", "keys.anon", "Invalid API key");
    let fix = report.value["findings"].to_string();
    assert!(fix.contains("it is a key of the old project"), "{fix}");

    // A project whose anon key opens what only a service key may, and one whose service key does not.
    let desk = Desk::good().await;
    Project { anon: SERVICE_OLD, service: ANON_OLD, ..Project::good(Side::Old) }.on(&desk.old);
    let report = desk.report(&["--only", "keys"]).await;
    report.has("fail", "keys.anon old", "only a service key may").has(
        "fail",
        "keys.service old",
        "no more than an anon key",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_side_that_is_half_dead_ends_in_bounded_time() {
    let desk = Desk::good().await;
    let good = Project::good(Side::New);
    desk.new.does(move |seen, mut conn: Conn| {
        let answer = (!seen.target().starts_with("/rest/")).then(|| good.answer(&seen));
        async move {
            match answer {
                Some(answer) => conn.send(answer).await,
                // Nothing is said until the other end has had enough.
                None => assert!(conn.is_closed().await),
            }
            Some(conn)
        }
    });
    let asked = desk.report(&["--timeout", "3", "--only", "rest", "--only", "reach"]);
    let report = tokio::time::timeout(Duration::from_secs(60), asked).await.unwrap();
    report.has("pass", "reach.url new", "answers").has("fail", "rest.exposed new app", "3s").has(
        "pass",
        "rest.table old public.todos",
        "found",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_at_the_address_is_one_line_and_not_a_hundred() {
    let nobody = Nobody::new();
    let setup = setup().set("projects.new.url", &nobody.url());
    let report = Desk::with(setup).await.report(&[]).await;
    report.fails_only("reach.url new").has("skip", "rest.table new", "not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_looked_at() {
    let authority = Authority::new();
    // In the middle of a day, so that no second decides how many are left.
    let soon = time::OffsetDateTime::now_utc() + Duration::from_secs(4 * 24 * 3600 + 12 * 3600);
    for (end, ca, status, word) in [
        (None, &authority.pem, "pass", "lasts"),
        (Some(soon), &authority.pem, "warn", "ends in 4 days"),
        (None, &Authority::new().pem, "fail", "certificate"),
    ] {
        let pair = match end {
            Some(end) => authority.issues_until("localhost", end),
            None => authority.issues("localhost"),
        };
        let upstream = TlsUpstream::start(&pair, &["h2", "http/1.1"]).await;
        let url = format!("\"https://localhost:{}\"", upstream.address.port());
        let setup = setup()
            .set("projects.new.url", &url)
            .set("projects.new.ca", "\"ca.pem\"")
            .file("ca.pem", ca);
        let report = Desk::with(setup).await.report(&["--only", "reach"]).await;
        report.has(status, "reach.", word);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_questions_than_allowed_are_on_their_way_at_once() {
    for limit in [1, 3] {
        let desk = Desk::good().await;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for (side, upstream) in [(Side::Old, &desk.old), (Side::New, &desk.new)] {
            let (now, most, good) = (Arc::clone(&now), Arc::clone(&most), Project::good(side));
            upstream.does(move |seen, mut conn: Conn| {
                let (now, most, good) = (Arc::clone(&now), Arc::clone(&most), good.clone());
                async move {
                    let _ = conn.request_body(&seen.head).await;
                    most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                    // Gives the others every chance to come in between.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    now.fetch_sub(1, SeqCst);
                    conn.send(good.answer(&seen)).await;
                    Some(conn)
                }
            });
        }
        let report = desk.report(&["--concurrency", &limit.to_string()]).await;
        assert_eq!(report.code, 0, "{:#?}", report.lines("fail"));
        // What the keys are published at is asked besides.
        assert!(most.load(SeqCst) <= limit + 2, "{} with {limit}", most.load(SeqCst));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_for_is_refused() {
    let desk = Desk::good().await;
    for arguments in [
        &["--concurrency", "0"][..],
        &["--concurrency", "65"],
        &["--timeout", "0"],
        &["--timeout", "301"],
        &["--side", "both"],
        &["--only", "nonsense"],
    ] {
        assert_eq!(desk.run(arguments).await.status.code(), Some(1), "{arguments:?}");
    }
    for arguments in [&["--concurrency", "64"][..], &["--timeout", "300"]] {
        assert_eq!(desk.run(arguments).await.status.code(), Some(0), "{arguments:?}");
    }
    assert_eq!(desk.old.seen().iter().filter(|seen| seen.method() == "POST").count(), 2);
    // Differences are warnings: good enough, unless asked to be strict.
    let good = Project::good(Side::New);
    desk.new.answers(move |seen| match seen.target() {
        "/auth/v1/settings" => response("200 OK", JSON, r#"{"external":{"google":false}}"#),
        _ => good.answer(seen),
    });
    let report = desk.report(&[]).await;
    report.has("warn", "auth.settings both external.google", "true on old, false on new");
    assert_eq!(report.code, 0);
    assert_eq!(desk.report(&["--strict"]).await.code, 1);
}
