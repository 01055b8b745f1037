//! `set` and `abort`: through the running proxy; when none runs, straight to the source that holds the number.
//! A roll back at three in the morning must not need a proxy that answers.

use axum::response::IntoResponse;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{refused, replicas};
use crate::admin::AdminError;
use crate::cli::client::{AdminClient, Answer, NoAnswer};
use crate::cli::{Context, Exit};
use crate::config::live::Change;
use crate::decide::percentage::Percentage;
use crate::k8s;

/// What the operator asked for.
#[derive(Clone, Copy)]
pub(super) enum Asked {
    Set { percentage: Percentage, resume: bool },
    Abort,
}

pub(super) async fn run(
    client: &AdminClient,
    asked: Asked,
    reason: String,
    wait: Option<u16>,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let (method, path, body) = match asked {
        Asked::Set { percentage, resume } => {
            let body = json!({ "percentage": percentage, "reason": reason, "resume": resume });
            (Method::PUT, "/rollout", body)
        }
        Asked::Abort => (Method::POST, "/rollout/abort", json!({ "reason": reason })),
    };
    let mut is_asked = true;
    let epoch = match asked {
        Asked::Set { .. } => known_epoch(client).await,
        Asked::Abort => None,
    };
    let answer = match client.ask_if(epoch, method, path, Some(&body)).await {
        Ok(answer) => answer,
        Err(NoAnswer::NotRunning { url, cause }) if client.is_local => {
            context.screen.note(&format!(
                "no proxy answers at {url} ({cause}); writing to the source itself, for the next start"
            ))?;
            is_asked = false;
            write(asked, reason, context).await?
        }
        Err(error @ NoAnswer::NotRunning { .. }) => {
            return Err(anyhow::Error::from(error)
                .context("nothing was changed; without CUTOVER_ADMIN_URL the settings of this machine are written to"));
        }
        Err(error) => return Err(error.into()),
    };
    if !answer.status.is_success() {
        return refused(&answer, &mut context.screen);
    }
    match wait {
        Some(seconds) if is_asked => replicas::wait(client, answer.body, seconds, context).await,
        Some(_) => {
            show(&answer.body, context)?;
            context.screen.note("error: written, but no proxy answers here that knows the replicas: --wait can't tell when they serve it")?;
            Ok(Exit::Error)
        }
        None => {
            show(&answer.body, context)?;
            Ok(Exit::Done)
        }
    }
}

/// The epoch that the operator's decision is about: of two who decide in the same moment, the second is refused. Without an answer the
/// change is asked for all the same, and says what is wrong.
async fn known_epoch(client: &AdminClient) -> Option<u64> {
    let answer = client.ask(Method::GET, "/rollout", None).await.ok()?;
    answer.body["epoch"].as_u64().filter(|_| answer.status.is_success())
}

/// Does what the proxy would have done.
async fn write(asked: Asked, reason: String, context: &Context<'_>) -> anyhow::Result<Answer> {
    let change = match asked {
        Asked::Set { percentage, resume } => {
            Change { percentage: Some(percentage), resume, reason, ..Change::default() }
        }
        Asked::Abort => Change::abort(reason),
    };
    let variable = |name: &str| context.sources.environment.get(name).cloned();
    let user = variable("USER").or_else(|| variable("LOGNAME"));
    let actor = format!("cli:{}", user.as_deref().unwrap_or("unknown"));
    let (control, ..) = k8s::start(context.sources.clone())?;
    // Never held in memory: this one ends with the command.
    let response = match control.apply_to_source(&Change { actor, ..change }) {
        Ok(rollout) => axum::Json(rollout).into_response(),
        // The same words that the proxy would have used.
        Err(refused) => AdminError::from(refused).into_response(),
    };
    let (head, body) = response.into_parts();
    let body = serde_json::from_slice(&body.collect().await?.to_bytes())?;
    Ok(Answer { status: head.status, body })
}

pub(super) fn show(rollout: &Value, context: &mut Context<'_>) -> anyhow::Result<()> {
    if context.screen.json {
        return Ok(context.screen.value(rollout)?);
    }
    let forced = match rollout["force"].as_str() {
        Some(side) => format!(", everybody is forced to {side}"),
        None => String::new(),
    };
    let source = match rollout["source"].as_str() {
        _ if rollout["held"] == true => "no source",
        source => source.unwrap_or("?"),
    };
    context.screen.line(&format!(
        "percentage {} %{forced} (epoch {}, written to {source})",
        rollout["percentage"], rollout["epoch"],
    ))?;
    if rollout["held"] == true {
        let because = rollout["held_because"].as_str().unwrap_or("held in the proxy's memory");
        context.screen.line(&format!("nothing was written: {because}"))?;
    }
    Ok(())
}
