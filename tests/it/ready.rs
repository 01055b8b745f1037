//! `cutover ready`: what a running proxy says for and against switching the old project off.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::process::ended;
use crate::support::world::{Setup, World};

fn moved() -> Setup {
    World::start()
        .rollout(100)
        .set("rollout.service_role", "\"new\"")
        .set("routes.auth", "\"new\"")
        .set("routes.graphql", "\"new\"")
        .set("realtime.rooms", "\"new\"")
}

/// Runs the command while a user asks all the time.
async fn asked(world: &World, path: &str) -> (Output, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command
        .args(["ready", "--for", "4", "--no-probes", "--json", "--config"])
        .arg(world.config())
        .env_clear()
        .env("CUTOVER_ADMIN_URL", format!("http://{}", world.admin))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let looking = tokio::task::spawn_blocking(move || ended(&mut command));
    while !looking.is_finished() {
        world.as_user("ada").get(path).await;
    }
    let output = looking.await.unwrap();
    let report = serde_json::from_slice(&output.stdout);
    (output, report.unwrap_or(Value::Null))
}

fn failed(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let failed = findings.filter(|it| it["status"] == "fail");
    failed
        .map(|it| format!("{} {}", it["id"].as_str().unwrap(), it["subject"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn nothing_speaks_for_old_when_nobody_asks_it() {
    let world = moved().await;
    let (output, report) = asked(&world, "/rest/v1/todos").await;
    assert_eq!(output.status.code(), Some(0), "{report}");
    assert_eq!(report["ok"], true);
    assert_eq!(report["summary"]["warn"], 0, "{report}");
}

#[tokio::test]
async fn a_route_that_old_serves_is_named_by_its_owner_and_by_its_traffic() {
    let world = moved().set("routes.auth", "\"old\"").await;
    let (output, report) = asked(&world, "/auth/v1/user").await;
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(failed(&report), ["ready.owners auth", "ready.traffic auth"]);
}

#[tokio::test]
async fn without_a_proxy_there_is_no_evidence() {
    let world = moved().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command
        .args(["ready", "--for", "1", "--config"])
        .arg(world.config())
        .env_clear()
        .env("CUTOVER_ADMIN_URL", "http://127.0.0.1:1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = ended(&mut command);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no proxy answers"), "{output:?}");
}
