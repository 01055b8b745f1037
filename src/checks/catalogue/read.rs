//! Reads the catalogue. Every query answers rows of one JSON text each, asked by the simple protocol: a pooler in transaction mode
//! (Supavisor on port 6543), which may lose prepared statements, serves it too.

use serde::de::DeserializeOwned;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Catalogue;
use crate::checks::database::said;

/// An empty `search_path` makes PostgreSQL qualify every name that it writes. The catalogue is read as of one moment; a query that
/// waits for a lock of somebody's migration must not wait for ever.
const BEGIN: &str = "begin transaction isolation level repeatable read read only; \
    set local search_path = ''; set local statement_timeout = '60s'; set local lock_timeout = '10s'";

/// Why the catalogue was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database refused a query, or went away.
    #[error("the catalogue can't be read: {0}")]
    Refused(String),
    /// An answer was not what the query asks for: a PostgreSQL older than 13, or newer than we know.
    #[error("the catalogue's {list} can't be understood: {reason}")]
    Answer {
        /// Which list.
        list: &'static str,
        /// What was wrong with it.
        reason: String,
    },
}

/// Reads everything, as of one moment. The client must not be inside a transaction; it is outside one afterwards.
///
/// # Errors
/// [`ReadError`]
pub async fn read(client: &Client) -> Result<Catalogue, ReadError> {
    let refused = |error: tokio_postgres::Error| ReadError::Refused(said(&error));
    client.batch_execute(BEGIN).await.map_err(refused)?;
    let read = lists(client).await;
    // After an error the transaction has to end all the same; its own outcome says nothing new.
    let ended = client.batch_execute("rollback").await.map_err(refused);
    let catalogue = read?;
    ended?;
    Ok(catalogue)
}

async fn lists(client: &Client) -> Result<Catalogue, ReadError> {
    let mut server = list(client, "server", include_str!("server.sql")).await?;
    let none = || ReadError::Answer { list: "server", reason: "no row".to_owned() };
    Ok(Catalogue {
        server: server.pop().ok_or_else(none)?,
        schemas: list(client, "schemas", include_str!("schemas.sql")).await?,
        relations: list(client, "relations", include_str!("relations.sql")).await?,
        functions: list(client, "functions", include_str!("functions.sql")).await?,
        sequences: list(client, "sequences", include_str!("sequences.sql")).await?,
        publications: list(client, "publications", include_str!("publications.sql")).await?,
        default_grants: list(client, "default grants", include_str!("default_grants.sql")).await?,
        extensions: list(client, "extensions", include_str!("extensions.sql")).await?,
    })
}

async fn list<T: DeserializeOwned>(
    client: &Client,
    list: &'static str,
    query: &str,
) -> Result<Vec<T>, ReadError> {
    let answer = client.simple_query(query).await;
    let answer = answer.map_err(|error| ReadError::Refused(said(&error)))?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default()),
        _ => None,
    });
    rows.map(|text| serde_json::from_str(text))
        .collect::<Result<_, _>>()
        .map_err(|error| ReadError::Answer { list, reason: error.to_string() })
}
