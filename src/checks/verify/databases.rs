//! Reads both databases, each in one snapshot. Shell.
//!
//! One connection of a side opens a read-only transaction and exports its snapshot; the others, one for each table that is being
//! compared, take it over. Statements go by the simple protocol: text in and out, nothing prepared, so a pooler in between does no harm.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::compare::Found;
use super::sql::{self, Column, Kind, Range, Relation};
use super::tally::{Key, Tallies, Tally};
use super::walk::{Failure, Job, Page, Source, Want};
use crate::checks::database;
use crate::checks::quote::literal;
use crate::config::Database;
use crate::side::{Pair, Side};

/// Both databases.
#[derive(Debug)]
pub struct Databases {
    sides: Pair<One>,
    /// Rows of a page.
    page: u64,
}

#[derive(Debug)]
struct One {
    database: Database,
    /// For a statement.
    timeout: Duration,
    search_path: String,
    /// The exported snapshot's name; `None`: the server exports none (a pooler or an old standby), and each connection has one of its own.
    snapshot: Option<String>,
    /// Holds the snapshot, and does nothing else: an error in it would take the snapshot away.
    _holder: Client,
    /// Connections that nobody is using, each in its transaction.
    idle: RefCell<Vec<Client>>,
}

impl Databases {
    /// Connects to both sides and takes their snapshots.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn open(
        databases: Pair<Database>,
        timeout: Duration,
        page: u64,
    ) -> Result<Self, Failure> {
        let Pair { old, new } = databases;
        let (old, new) =
            try_join(One::open(Side::Old, old, timeout), One::open(Side::New, new, timeout))
                .await?;
        let both = Self { sides: Pair { old, new }, page };
        let (old, new) =
            try_join(both.ask(Side::Old, sql::IDENTITY), both.ask(Side::New, sql::IDENTITY))
                .await?;
        let identity = |rows: &[SimpleQueryRow]| rows.first()?.get(0).map(str::to_owned);
        // A database always agrees with itself: that would be no proof of anything.
        if identity(&old) == identity(&new) {
            let what = "its database_url leads to the same database as old's";
            return Err(Failure(Side::New, what.to_owned()));
        }
        Ok(both)
    }

    /// Whether everything of a side is read in one snapshot.
    #[must_use]
    pub fn has_snapshot(&self, side: Side) -> bool {
        self.sides[side].snapshot.is_some()
    }

    /// Every relation of a side that is the application's.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn relations(&self, side: Side) -> Result<Vec<Relation>, Failure> {
        let rows = self.ask(side, &sql::catalogue()).await?;
        Ok(relations(&rows))
    }

    /// The number of rows, then of empty values in each vector column.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn count(
        &self,
        side: Side,
        relation: &Relation,
        vectors: &[String],
    ) -> Result<Vec<u64>, Failure> {
        let rows = self.ask(side, &sql::count(relation, vectors)).await?;
        let numbers = (0..=vectors.len()).map(|i| number(rows.first(), i));
        numbers.collect::<Option<_>>().ok_or_else(|| unread(side))
    }

    /// The tallies of a relation that has no key.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn keyless(&self, side: Side, job: &Job) -> Result<Tallies, Failure> {
        let mut tallies = Tallies::default();
        for relation in &job.relations[side] {
            let rows = self.ask(side, &sql::keyless(relation, &job.columns)).await?;
            tallies.add(read_tallies(side, &rows)?);
        }
        Ok(tallies)
    }

    /// Runs one statement on a connection of the side's snapshot.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn ask(&self, side: Side, sql: &str) -> Result<Vec<SimpleQueryRow>, Failure> {
        let one = &self.sides[side];
        let idle = one.idle.borrow_mut().pop();
        let client = match idle {
            Some(client) => client,
            None => one.connect(side).await?,
        };
        // On an error the transaction is of no more use, and neither is the connection.
        let rows = query(&client, sql).await.map_err(|error| Failure(side, error))?;
        one.idle.borrow_mut().push(client);
        Ok(rows)
    }
}

impl One {
    async fn open(side: Side, database: Database, timeout: Duration) -> Result<Self, Failure> {
        let failed = |error| Failure(side, error);
        let client = session(&database, timeout).await.map_err(failed)?;
        let schemas = query(&client, sql::EXTENSION_SCHEMAS).await.map_err(failed)?;
        let schemas: Vec<String> =
            schemas.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect();
        let search_path = sql::search_path(&schemas);
        let begin = format!("{search_path}; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY");
        query(&client, &begin).await.map_err(failed)?;
        // Never within a savepoint: PostgreSQL exports no snapshot from a subtransaction. Where it exports none at all, the failed
        // transaction is of no more use, and nothing else is asked of this connection.
        let exported = query(&client, "SELECT pg_catalog.pg_export_snapshot()").await;
        let snapshot = exported
            .ok()
            .and_then(|rows| rows.first().and_then(|row| row.get(0)).map(str::to_owned));
        let idle = RefCell::default();
        Ok(Self { database, timeout, search_path, snapshot, _holder: client, idle })
    }

    async fn connect(&self, side: Side) -> Result<Client, Failure> {
        let failed = |error| Failure(side, error);
        let client = session(&self.database, self.timeout).await.map_err(failed)?;
        let snapshot = self.snapshot.as_deref().map_or_else(String::new, |name| {
            format!("; SET TRANSACTION SNAPSHOT {}", literal(name))
        });
        let begin = format!(
            "{}; BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY{snapshot}",
            self.search_path
        );
        query(&client, &begin).await.map_err(failed)?;
        Ok(client)
    }
}

impl Source for Databases {
    async fn page(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        after: Option<&Key>,
        want: Want<'_>,
    ) -> Result<Page, Failure> {
        let boundary = sql::boundary(relation, &job.key, after, self.page);
        let last = self.ask(side, &boundary).await?;
        let last: Option<Key> = match last.first() {
            Some(row) => Some(key(row, 0, job.key.len()).ok_or_else(|| unread(side))?),
            None => None,
        };
        let range = Range { after, until: last.as_ref() };
        let mut page = Page { walked: self.page, ..Page::default() };
        match want {
            Want::Tallies => {
                let sql = sql::tallies(relation, &job.key, &job.columns, range, &job.sample);
                page.tallies = read_tallies(side, &self.ask(side, &sql).await?)?;
                if job.sample.is_all() {
                    page.walked = page.tallies.iter().map(|(_, tally)| tally.count).sum();
                }
            }
            Want::Rows(buckets) => {
                let sql = sql::rows(relation, &job.key, &job.columns, range, &job.sample, buckets);
                let rows = self.ask(side, &sql).await?;
                let read = rows.iter().map(|row| {
                    let digest = u128::from_str_radix(row.get(0)?, 16).ok()?;
                    Some((key(row, 1, job.key.len())?, digest))
                });
                page.rows = read.collect::<Option<_>>().ok_or_else(|| unread(side))?;
            }
        }
        page.last = last;
        Ok(page)
    }

    async fn cells(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        keys: &[Key],
    ) -> Result<Found, Failure> {
        let sql = sql::by_keys(relation, &job.key, &job.columns, keys);
        let mut found = Found::new();
        for row in self.ask(side, &sql).await? {
            let key = key(&row, 0, job.key.len()).ok_or_else(|| unread(side))?;
            let cells = (job.key.len()..job.key.len() + job.columns.len())
                .map(|i| row.get(i).map(str::to_owned))
                .collect();
            found.entry(key).or_default().push(cells);
        }
        Ok(found)
    }
}

async fn session(database: &Database, timeout: Duration) -> Result<Client, String> {
    let client = database::connect(database).await.map_err(|error| error.to_string())?;
    query(&client, &sql::session(timeout)).await?;
    Ok(client)
}

async fn query(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, String> {
    let messages = client.simple_query(sql).await.map_err(|error| database::said(&error))?;
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows.collect())
}

fn relations(rows: &[SimpleQueryRow]) -> Vec<Relation> {
    let mut found: BTreeMap<(String, String), (Relation, BTreeMap<u32, String>)> = BTreeMap::new();
    for row in rows {
        let text = |i| row.get(i).unwrap_or_default().to_owned();
        let (schema, name) = (text(0), text(1));
        let (relation, key) = found.entry((schema.clone(), name.clone())).or_default();
        (relation.schema, relation.name) = (schema, name);
        relation.is_table = matches!(row.get(2), Some("r" | "p" | "f"));
        relation.is_partition = row.get(8) == Some("t");
        let kind = match (row.get(5), row.get(6)) {
            (Some("json"), _) => Kind::Json,
            (_, Some("json")) => Kind::JsonArray,
            (Some("vector" | "halfvec" | "sparsevec"), _) => Kind::Vector,
            _ => Kind::Plain,
        };
        relation.columns.push(Column { name: text(3), type_name: text(4), kind });
        if let Some(place) = row.get(7).and_then(|place| place.parse().ok()) {
            key.insert(place, text(3));
        }
    }
    let relations = found.into_values().map(|(mut relation, key)| {
        relation.key = key.into_values().collect();
        relation.columns.sort_by(|a, b| a.name.cmp(&b.name));
        relation
    });
    relations.collect()
}

fn read_tallies(side: Side, rows: &[SimpleQueryRow]) -> Result<Vec<(u16, Tally)>, Failure> {
    let read = rows.iter().map(|row| {
        let tally = Tally {
            count: row.get(1)?.parse().ok()?,
            first: row.get(2)?.parse().ok()?,
            second: row.get(3)?.parse().ok()?,
        };
        Some((row.get(0)?.parse().ok()?, tally))
    });
    read.collect::<Option<_>>().ok_or_else(|| unread(side))
}

fn key(row: &SimpleQueryRow, from: usize, columns: usize) -> Option<Key> {
    (from..from + columns).map(|i| row.get(i).map(str::to_owned)).collect()
}

fn number(row: Option<&SimpleQueryRow>, column: usize) -> Option<u64> {
    row?.get(column)?.parse().ok()
}

fn unread(side: Side) -> Failure {
    Failure(side, "the database gave an answer of another shape than was asked for".to_owned())
}
