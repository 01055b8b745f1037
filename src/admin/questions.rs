//! `/explain` and `/audit`: what an operator asks of the proxy without changing it.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::{AdminError, State, ask};
use crate::config::audit::Record;
use crate::path::explain::{self, Question};

const HISTORY_DEFAULT: usize = 100;
const HISTORY_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    user: String,
    path: Option<String>,
    method: Option<String>,
    profile: Option<String>,
    /// JSON.
    claims: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    limit: Option<usize>,
}

/// The newest changes, oldest first.
#[derive(Serialize)]
struct History {
    records: Vec<Record>,
}

pub(super) async fn explain(
    Extract(state): Extract<State>,
    query: Result<Query<Explain>, QueryRejection>,
) -> Result<Response, AdminError> {
    const SHAPE: &str = "Ask /explain?user=ID, and at will &path=/rest/v1/…, &method=, &profile=, &claims=JSON, percent-encoded.";
    let Query(asked) = query.map_err(|error| AdminError::bad_request(error.body_text(), SHAPE))?;
    if asked.user.is_empty() {
        return Err(AdminError::bad_request("user is empty", SHAPE));
    }
    let claims = asked.claims.map(|text| serde_json::from_str(&text)).transpose();
    let question = Question {
        user: asked.user,
        method: asked.method,
        path: asked.path,
        profile: asked.profile,
        claims: claims
            .map_err(|error| AdminError::bad_request(format!("claims: {error}"), SHAPE))?,
    };
    let snapshot = state.control.live().load();
    let explained = explain::explain(&snapshot, &question)
        .map_err(|error| AdminError::no_answer(error.to_string()))?;
    Ok(Json(explained).into_response())
}

pub(super) async fn audit(
    Extract(state): Extract<State>,
    query: Result<Query<Audit>, QueryRejection>,
) -> Result<Response, AdminError> {
    const SHAPE: &str = "Ask /audit?limit=N, 1 to 1000; the default is 100.";
    let Query(asked) = query.map_err(|error| AdminError::bad_request(error.body_text(), SHAPE))?;
    let limit = asked.limit.unwrap_or(HISTORY_DEFAULT);
    if !(1..=HISTORY_MAX).contains(&limit) {
        return Err(AdminError::bad_request("limit is not 1 to 1000", SHAPE));
    }
    let records = ask(&state, move |control| control.history(limit)).await?;
    Ok(Json(History { records }).into_response())
}
