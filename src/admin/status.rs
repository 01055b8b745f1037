//! Health, metrics and status.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use axum::Json;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AdminError, Phase, State, ask};
use crate::config::configmap::ConfigMapState;
use crate::config::live::{Control, ReloadState, RolloutState};
use crate::decide::Owner;
use crate::observe::Gauges;
use crate::observe::process::Process;
use crate::observe::watching::WatchFacts;
use crate::route::Route;
use crate::side::Pair;

/// What `/healthz` and `/readyz` say.
#[derive(Serialize, Deserialize)]
struct Health {
    status: &'static str,
}

/// What `/status` says. No secret is in any of it.
#[derive(Serialize)]
struct Status {
    version: &'static str,
    started: Option<String>,
    uptime_seconds: u64,
    phase: &'static str,
    #[serde(flatten)]
    rollout: RolloutState,
    reload: ReloadState,
    /// The ConfigMap that is followed.
    kubernetes: Option<ConfigMapState>,
    /// `old`, `new` or `rollout` for each route.
    routes: BTreeMap<&'static str, &'static str>,
    /// Host and port of each project.
    projects: Pair<String>,
    workers: usize,
    requests_in_flight: u64,
    warnings: Vec<String>,
}

pub(super) async fn healthz() -> Response {
    Json(Health { status: "ok" }).into_response()
}

pub(super) async fn readyz(Extract(state): Extract<State>) -> Response {
    let phase = state.lifecycle.phase();
    let code =
        if phase == Phase::Serving { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(Health { status: name(phase) })).into_response()
}

pub(super) async fn metrics(Extract(state): Extract<State>) -> Result<Response, AdminError> {
    let said = ask(&state, said).await?;
    let page = state.metrics.render(&gauges(&state, &said));
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response())
}

pub(super) async fn status(Extract(state): Extract<State>) -> Result<Response, AdminError> {
    let asked = ask(&state, |control| {
        (control.rollout(), control.reloads(), control.warnings(), control.configmap())
    });
    let (rollout, reload, warnings, kubernetes) = asked.await?;
    let snapshot = state.control.live().load();
    let routes = Route::ALL.map(|route| {
        let owner = match snapshot.decide.owners.of(route) {
            Owner::Side(side) => side.as_str(),
            Owner::Rollout => "rollout",
        };
        (route.as_str(), owner)
    });
    let status = Status {
        version: env!("CARGO_PKG_VERSION"),
        started: OffsetDateTime::from(state.started).format(&Rfc3339).ok(),
        uptime_seconds: state.since.elapsed().as_secs(),
        phase: name(state.lifecycle.phase()),
        rollout,
        reload,
        kubernetes,
        routes: routes.into(),
        projects: Pair::from_fn(|side| snapshot.forward.projects[side].authority.to_string()),
        workers: state.metrics.workers(),
        requests_in_flight: state.metrics.in_flight(),
        warnings,
    };
    Ok(Json(status).into_response())
}

pub(super) const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::Serving => "serving",
        Phase::Draining => "draining",
    }
}

/// What the writer says for the metrics, wherever they are shown. It waits for a change that is being written.
pub(super) fn said(control: &Control) -> (RolloutState, ReloadState, Option<ConfigMapState>) {
    (control.rollout(), control.reloads(), control.configmap())
}

pub(super) fn gauges(
    state: &State,
    (rollout, reloads, followed): &(RolloutState, ReloadState, Option<ConfigMapState>),
) -> Gauges {
    let last_success = reloads.last_success.as_deref();
    Gauges {
        percentage: rollout.percentage,
        force: rollout.force,
        epoch: rollout.epoch,
        reloads: reloads.succeeded,
        reload_failures: reloads.failed,
        config_faults: reloads.faults.len() as u64,
        config_last_success: last_success.and_then(seconds),
        published: Pair::from_fn(|side| state.published.facts(side)),
        kubernetes: followed.as_ref().map(watch_facts),
        log_lines_dropped: state.log_dropped.lines(),
        telemetry: state.exported.read(),
        draining: state.lifecycle.phase() == Phase::Draining,
        started: state.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
        process: Process::read(),
    }
}

fn watch_facts(followed: &ConfigMapState) -> WatchFacts {
    WatchFacts {
        heard_seconds: followed.last_heard_seconds,
        connected: followed.connected,
        failures: followed.contact.failures,
        resyncs: followed.contact.resyncs,
    }
}

/// Seconds since 1970 of an RFC 3339 time.
fn seconds(text: &str) -> Option<f64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(time.unix_timestamp() as f64 + f64::from(time.millisecond()) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_seconds() {
        assert_eq!(seconds("2023-11-14T22:13:20.5Z"), Some(1_700_000_000.5));
        assert_eq!(seconds("yesterday"), None);
    }
}
