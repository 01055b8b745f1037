//! A connection to a project's database, with TLS as its URL asks for.

use std::error::Error as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustls::ClientConfig;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::Database;
use crate::outbound;

/// For a connection to be made, unless the URL says `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection. No variant holds the URL: it has a password in it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none. What the parser says of it may repeat the password.
    #[error(
        "the database's URL can't be read: postgres://user:password@host:port/database is wanted, with %-escapes for what is special in the password"
    )]
    Url,
    /// The CA's file can't be used.
    #[error("database_ca can't be used: {0}")]
    Ca(String),
    /// The server refused, or could not be reached.
    #[error("{0}")]
    Refused(String),
}

/// Connects, and drives the connection in the background until the client is dropped.
///
/// # Errors
/// [`ConnectError`]
pub async fn connect(database: &Database) -> Result<Client, ConnectError> {
    let mut config: Config = database.url.expose().parse().map_err(|_| ConnectError::Url)?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("cutover");
    }
    let tls = MakeRustlsConnect::new(tls(database.ca.as_deref())?);
    let connecting = config.connect(tls);
    let (client, connection) =
        connecting.await.map_err(|error| ConnectError::Refused(said(&error)))?;
    tokio::spawn(async move {
        // The client's next statement fails with the same error, and says it where somebody listens.
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to a database ended");
        }
    });
    Ok(client)
}

/// Which database a URL leads to, and as whom: all of it but the password. Poolers know the project by the user's name. Empty for a
/// text that is no URL.
#[must_use]
pub fn place(database: &Database) -> String {
    let Ok(config) = database.url.expose().parse::<Config>() else { return String::new() };
    let (user, name) = (config.get_user(), config.get_dbname());
    format!("{user:?} {:?} {:?} {name:?}", config.get_hosts(), config.get_ports())
}

/// What the server said, with its hint: the error's own text is only its kind.
#[must_use]
pub fn said(error: &tokio_postgres::Error) -> String {
    if let Some(refused) = error.as_db_error() {
        let hint = refused.hint().map_or_else(String::new, |hint| format!(" ({hint})"));
        return format!("{} {}{hint}", refused.code().code(), refused.message());
    }
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn tls(ca: Option<&Path>) -> Result<ClientConfig, ConnectError> {
    let pem = ca.map(fs::read).transpose();
    let pem = pem.map_err(|error| ConnectError::Ca(error.to_string()))?;
    outbound::tls(pem.as_deref()).map_err(ConnectError::Ca)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn database(url: &str) -> Database {
        Database { url: Secret::new(url), ca: None }
    }

    #[tokio::test]
    async fn a_url_that_is_none_stays_secret() {
        for url in [
            "postgress://u:hush@h/db?sslmode=require",
            "postgresql:/u:hush@h/db?a=b",
            "postgres://u:hush@h:5x/db",
            "password='hush",
        ] {
            let error = connect(&database(url)).await.unwrap_err().to_string();
            assert!(error.contains("can't be read") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_place_is_all_but_the_password() {
        let place = |url: &str| place(&database(url));
        let one = place("postgres://postgres.abc:hush@pooler.example:5432/postgres");
        assert!(!one.contains("hush"), "{one}");
        assert_eq!(one, place("postgres://postgres.abc:other@pooler.example:5432/postgres"));
        for other in [
            "postgres://postgres.xyz:hush@pooler.example:5432/postgres",
            "postgres://postgres.abc:hush@other.example:5432/postgres",
            "postgres://postgres.abc:hush@pooler.example:6543/postgres",
            "postgres://postgres.abc:hush@pooler.example:5432/other",
        ] {
            assert_ne!(one, place(other), "{other}");
        }
    }
}
