//! `history`: the audit, from the running proxy; when none runs, from the audit file itself.

use http::Method;
use serde_json::{Value, json};

use super::refused;
use crate::cli::client::{AdminClient, NoAnswer};
use crate::cli::{Context, Exit};
use crate::config::live::Control;

pub(super) async fn run(
    client: &AdminClient,
    limit: usize,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let body = match client.ask(Method::GET, &format!("/audit?limit={limit}"), None).await {
        Ok(answer) if answer.status.is_success() => answer.body,
        Ok(answer) => return refused(&answer, &mut context.screen),
        Err(NoAnswer::NotRunning { url, cause }) if client.is_local => {
            context.screen.note(&format!(
                "no proxy answers at {url} ({cause}); reading the audit file itself"
            ))?;
            let (control, ..) = Control::start(context.sources.clone())?;
            json!({ "records": control.history(limit) })
        }
        Err(error) => return Err(error.into()),
    };
    if context.screen.json {
        context.screen.value(&body)?;
        return Ok(Exit::Done);
    }
    let text = |record: &Value, key: &str| match &record[key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    const KEYS: [&str; 6] = ["time", "epoch", "from", "to", "actor", "reason"];
    let rows: Vec<Vec<String>> = body["records"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|record| KEYS.iter().map(|key| text(record, key)).collect())
        .collect();
    context.screen.table(&["TIME", "EPOCH", "FROM", "TO", "ACTOR", "REASON"], &rows)?;
    Ok(Exit::Done)
}
