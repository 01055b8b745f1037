//! Auth, functions and GraphQL of both sides.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method};

use super::{Known, Probe};
use crate::checks::doctor::finding::Finding;
use crate::checks::doctor::judge::services as judge;
use crate::checks::http::{As, Ask};
use crate::decide::Owner;
use crate::identify::keyring::Role;
use crate::route::Route;
use crate::side::{Pair, Side};

/// Every line about them.
pub(super) async fn all(probe: &Probe<'_>, known: &Known) -> Vec<Finding> {
    let up: Vec<Side> =
        Side::ALL.into_iter().filter(|side| known.accepted[*side].contains(&Role::Anon)).collect();
    let wants = |group: &str| probe.options.wants_any(group);
    let mut findings = Vec::new();
    if wants("auth.") {
        findings.extend(auth(probe, &up).await);
    }
    if wants("functions.") {
        findings.extend(functions(probe, &up).await);
    }
    if wants("graphql.") {
        for side in up {
            findings.push(graphql(probe, side).await);
        }
    }
    findings
}

async fn auth(probe: &Probe<'_>, up: &[Side]) -> Vec<Finding> {
    let owner = match probe.snapshot.decide.owners.of(Route::Auth) {
        Owner::Side(side) => side,
        Owner::Rollout => Side::Old,
    };
    let mut findings = Vec::new();
    let mut settings: Pair<Option<serde_json::Value>> = Pair::default();
    for side in up {
        let key = As::Key(Role::Anon);
        let (health, shown) = futures_util::join!(
            probe.ask(*side, key, Ask::get("/auth/v1/health")),
            probe.ask(*side, key, Ask::get("/auth/v1/settings")),
        );
        findings.push(judge::auth(*side, owner, &health));
        let shown = shown.ok().filter(|answer| answer.status.is_success());
        settings[*side] = shown.map(|answer| answer.json());
    }
    if let Pair { old: Some(old), new: Some(new) } = &settings {
        findings.extend(judge::auth_settings(old, new));
    }
    findings
}

async fn functions(probe: &Probe<'_>, up: &[Side]) -> Vec<Finding> {
    let lines = probe.snapshot.rewrite.functions.lines();
    let mut asked = Vec::new();
    for side in up {
        for (old, new) in &lines {
            let name = if *side == Side::Old { *old } else { *new };
            let headers = HeaderMap::new();
            let (method, body) = (Method::OPTIONS, Bytes::new());
            let ask = Ask { method, target: format!("/functions/v1/{name}"), headers, body };
            asked.push(async move {
                judge::function(*side, name, &probe.ask(*side, As::Key(Role::Anon), ask).await)
            });
        }
    }
    join_all(asked).await
}

async fn graphql(probe: &Probe<'_>, side: Side) -> Finding {
    let mut ask = Ask::get("/graphql/v1").header("content-type", "application/json");
    ask.method = Method::POST;
    ask.body = Bytes::from_static(br#"{"query":"{ __typename }"}"#);
    judge::graphql(side, &probe.ask(side, As::Key(Role::Anon), ask).await)
}
