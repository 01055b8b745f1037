//! Applies a plan, one transaction per file. The only part of the room that speaks with a database.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::Plan;
use super::step::{File, Limits};
use crate::checks::database::said;
use crate::checks::quote::texts;

/// Held by whoever applies a plan, so that two don't meet in the middle.
const ALONE: &str = "do $$ begin perform pg_advisory_xact_lock(7306071, 20251); end $$";

/// Which step failed. Its file was rolled back; the files before it stay.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Failed {
    /// The file.
    pub file: &'static str,
    /// The step, counted from 1; 0: the transaction itself.
    pub step: usize,
    /// What it does.
    pub does: String,
    /// Its SQL.
    pub sql: String,
    /// SQLSTATE; `None`: the connection was lost.
    pub code: Option<String>,
    /// What the database said.
    pub message: String,
}

/// Why a plan was not applied to its end.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A question to the catalogue failed: nothing was changed by that file.
    #[error("the catalogue can't be asked: {0}")]
    Asked(String),
    /// A step failed.
    #[error(
        "{} failed at step {} ({}): {}; the file was rolled back, what stands before it is applied",
        .0.file, .0.step, .0.does, .0.message
    )]
    Failed(Box<Failed>),
}

/// Whether both connections lead to the same database of the same running server.
///
/// # Errors
/// What a server said.
pub async fn is_same_database(old: &Client, new: &Client) -> Result<bool, ApplyError> {
    let ask = async |client: &Client| {
        let query = "select current_database() || ' ' || extract(epoch from pg_postmaster_start_time()) || ' ' || (select oid from pg_catalog.pg_database where datname = current_database())";
        rows(client, query).await
    };
    Ok(ask(old).await? == ask(new).await?)
}

/// Those of the plan's extensions that the database lacks.
///
/// # Errors
/// What the database said.
pub async fn missing_extensions(client: &Client, plan: &Plan) -> Result<Vec<String>, ApplyError> {
    let names = texts(&plan.extensions);
    let query = format!(
        "select name from unnest({names}) name where name not in (select extname from pg_catalog.pg_extension)"
    );
    rows(client, &query).await
}

/// The steps of each file that are still to be made, by their numbers from 0, without making any.
///
/// # Errors
/// What the database said.
pub async fn pending(client: &Client, files: &[File]) -> Result<Vec<Vec<usize>>, ApplyError> {
    let mut all = Vec::new();
    execute(client, "begin transaction read only; set local search_path = ''").await?;
    for file in files {
        all.push(numbers(client, file).await?);
    }
    execute(client, "rollback").await?;
    Ok(all)
}

/// Applies one file in one transaction; only the steps that are still to be made. Returns how many that were.
///
/// # Errors
/// [`ApplyError`]; the transaction was rolled back then.
pub async fn apply(client: &Client, file: &File, limits: Limits) -> Result<usize, ApplyError> {
    match transaction(client, file, limits).await {
        Ok(changed) => Ok(changed),
        Err(error) => {
            // The error itself is what counts; a lost connection has rolled back by itself.
            client.batch_execute("rollback").await.ok();
            Err(error)
        }
    }
}

async fn transaction(client: &Client, file: &File, limits: Limits) -> Result<usize, ApplyError> {
    let failed = |step: usize, does: &str, sql: &str, error: &tokio_postgres::Error| {
        ApplyError::Failed(Box::new(Failed {
            file: file.name,
            step,
            does: does.to_owned(),
            sql: sql.to_owned(),
            code: error.code().map(|code| code.code().to_owned()),
            message: said(error),
        }))
    };
    let begin = format!("begin; {} {ALONE}", limits.sql());
    client.batch_execute(&begin).await.map_err(|error| failed(0, "begin", &begin, &error))?;
    let pending = numbers(client, file).await?;
    // Every step, also those that are done: each asks once more in its turn, because one before it may have undone it (REVOKE on a table
    // takes the rights on its columns along).
    for (number, step) in file.steps.iter().enumerate() {
        let sql = step.sql();
        let done = client.batch_execute(&sql).await;
        done.map_err(|error| failed(number + 1, &step.does, &sql, &error))?;
    }
    let committed = client.batch_execute("commit").await;
    committed.map_err(|error| failed(0, "commit", "commit", &error))?;
    Ok(pending.len())
}

async fn numbers(client: &Client, file: &File) -> Result<Vec<usize>, ApplyError> {
    let Some(query) = file.pending() else { return Ok(Vec::new()) };
    let numbers = rows(client, &query).await?;
    Ok(numbers.iter().filter_map(|number| number.parse().ok()).collect())
}

async fn execute(client: &Client, sql: &str) -> Result<(), ApplyError> {
    client.batch_execute(sql).await.map_err(|error| ApplyError::Asked(said(&error)))
}

/// The first column. By the simple protocol, which every pooler serves.
async fn rows(client: &Client, query: &str) -> Result<Vec<String>, ApplyError> {
    let answer = client.simple_query(query).await;
    let answer = answer.map_err(|error| ApplyError::Asked(said(&error)))?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    Ok(rows.collect())
}
