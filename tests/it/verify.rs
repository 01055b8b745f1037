//! `cutover verify` through PostgREST, against sides that do what real ones can't be made to do.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use cutover::side::Side;
use serde_json::{Value, json};

use crate::support::upstream::{Seen, Upstream, response};

/// A PostgREST with one table, `orders`, that never gives more than `max_rows` rows.
#[derive(Clone)]
struct Project {
    rows: BTreeMap<u32, Value>,
    max_rows: usize,
    /// Whether it goes by the filters that it is asked with.
    listens: bool,
    /// Whether it can count.
    counts: bool,
}

impl Project {
    fn with(rows: u32) -> Self {
        let row = |id| (id, json!({ "id": id, "note": format!("note {id}"), "cents": null }));
        Self { rows: (1..=rows).map(row).collect(), max_rows: 3, listens: true, counts: true }
    }

    fn answer(&self, seen: &Seen) -> String {
        let json = "content-type: application/json\r\n";
        let (path, query) = seen.target().split_once('?').unwrap_or_else(|| (seen.target(), ""));
        if path == "/rest/v1/" {
            let key = "Note:\nThis is a Primary Key.<pk/>";
            let properties = json!({ "id": { "format": "bigint", "description": key },
                "note": { "format": "text" }, "cents": { "format": "numeric" } });
            let document = json!({ "definitions": { "orders": { "properties": properties } } });
            return response("200 OK", json, &document.to_string());
        }
        if seen.header("prefer") == Some("count=exact") {
            let range = format!("content-range: 0-0/{}\r\n", self.rows.len());
            return match (self.counts, seen.method()) {
                (true, "HEAD") => response("200 OK", &range, ""),
                (true, _) => response("200 OK", &range, "[]"),
                (false, "HEAD") => response("500 Internal Server Error", "", ""),
                (false, _) => {
                    let error = json!({ "code": "57014", "message": "canceling statement due to statement timeout" });
                    response("500 Internal Server Error", json, &error.to_string())
                }
            };
        }
        let asked: BTreeMap<&str, &str> =
            query.split('&').filter_map(|p| p.split_once('=')).collect();
        let filter = asked.get("id").copied().filter(|_| self.listens).unwrap_or("gt.0");
        let wanted = |id: u32| match filter.split_once('.').unwrap() {
            ("gt", after) => id > after.parse().unwrap(),
            (_, list) => list.contains(&format!("%22{id}%22")),
        };
        let limit: usize = asked.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let rows = self.rows.iter().filter(|(id, _)| wanted(**id)).map(|(_, row)| row);
        let rows: Vec<_> = rows.take(limit.min(self.max_rows)).collect();
        response("200 OK", json, &json!(rows).to_string())
    }
}

async fn verify(old: Project, new: Project, arguments: &[&str]) -> (i32, Value) {
    let mut addresses = Vec::new();
    for (side, project) in [(Side::Old, old), (Side::New, new)] {
        let upstream = Upstream::start(side).await;
        upstream.answers(move |seen| project.answer(seen));
        addresses.push(upstream.address);
    }
    verify_at([addresses[0], addresses[1]], arguments).await
}

async fn verify_at(addresses: [SocketAddr; 2], arguments: &[&str]) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = String::new();
    for (side, address) in Side::ALL.into_iter().zip(addresses) {
        config += &format!(
            "[projects.{side}]\nurl = \"http://{address}\"\nanon_key = \"anon-{side}\"\nservice_role_key = \"service-{side}\"\n"
        );
    }
    config += "[schema.tables]\norders = \"shop\"\n";
    fs::write(folder.path().join("config.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command.args(["verify", "--json", "--no-storage", "--recheck", "0"]).args(arguments);
    command.current_dir(folder.path()).env_clear();
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{text}"));
    (output.status.code().unwrap(), report)
}

#[tokio::test]
async fn a_server_that_gives_fewer_rows_than_asked_for_is_read_to_its_end() {
    let (code, report) =
        verify(Project::with(10), Project::with(10), &["--rows", "all", "--page", "5"]).await;
    assert_eq!((code, &report["verdict"]), (0, &json!("equal")), "{report}");
    assert_eq!(report["tables"][0]["rows"]["compared"], json!({ "old": 10, "new": 10 }));

    let mut new = Project::with(11);
    new.rows.remove(&4);
    new.rows.get_mut(&10).unwrap()["cents"] = json!("");
    let (code, report) = verify(Project::with(10), new, &["--rows", "all"]).await;
    assert_eq!(code, 1);
    assert_eq!(
        report["tables"][0]["rows"]["differences"],
        json!([
            { "kind": "missing", "key": ["4"] },
            { "kind": "extra", "key": ["11"] },
            { "kind": "changed", "key": ["10"], "columns": ["cents"] },
        ])
    );
}

#[tokio::test]
async fn a_server_that_does_not_go_on_is_no_endless_loop() {
    let new = Project { listens: false, max_rows: 100, ..Project::with(5) };
    let (code, report) = verify(Project::with(5), new, &["--rows", "all"]).await;
    assert_eq!((code, &report["verdict"]), (1, &json!("not_compared")));
    let fault = report["tables"][0]["fault"].as_str().unwrap();
    assert!(fault.contains("a page ends where it began"), "{fault}");
}

#[tokio::test]
async fn a_count_that_fails_is_said_in_the_servers_words() {
    let new = Project { counts: false, ..Project::with(5) };
    let (code, report) = verify(Project::with(5), new, &[]).await;
    assert_eq!((code, &report["verdict"]), (1, &json!("not_compared")));
    assert_eq!(
        report["tables"][0]["fault"],
        "new: HTTP 500 57014 canceling statement due to statement timeout"
    );
}

#[tokio::test]
async fn what_was_begun_on_other_projects_is_not_gone_on_from() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state").display().to_string();
    let failing = Project { counts: false, ..Project::with(5) };
    let (code, _) = verify(Project::with(5), failing, &["--resume", &state]).await;
    assert_eq!(code, 1);
    // The same map, arguments and tables, at other addresses.
    let (code, report) = verify(Project::with(5), Project::with(5), &["--resume", &state]).await;
    assert_eq!(code, 1);
    let message = report["message"].as_str().unwrap();
    assert!(message.contains("begun with other settings"), "{message}");
}

#[tokio::test]
async fn one_project_on_both_sides_is_said() {
    let upstream = Upstream::start(Side::Old).await;
    let project = Project::with(3);
    upstream.answers(move |seen| project.answer(seen));
    let (_, report) = verify_at([upstream.address; 2], &[]).await;
    assert!(report["warnings"].to_string().contains("agrees with itself"), "{report}");
}
