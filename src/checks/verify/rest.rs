//! Reads both projects through PostgREST with the service keys. Shell.
//!
//! There is no snapshot here: a page is what was there when it was asked for, and what changes meanwhile is looked at again.

use std::collections::BTreeSet;

use http::Method;
use http::header::CONTENT_RANGE;

use super::compare::Found;
use super::openapi::{self, Row};
use super::sql::{Column, Relation};
use super::tally::Key;
use super::tally::Tally;
use super::walk::{Failure, Job, Page, Source, Want};
use crate::checks::http::{Answer, As, Ask, Http};
use crate::identify::keyring::Role;
use crate::rewrite::schema::SchemaMap;
use crate::side::Side;

/// The longest target of a request: below what gateways take.
const LONGEST_TARGET: usize = 4000;

/// Both projects' PostgREST.
#[derive(Debug)]
pub struct Rest {
    http: Http,
    /// Rows of a page; the server may give fewer.
    page: u64,
}

impl Rest {
    /// Asks through this client, `page` rows at a time.
    #[must_use]
    pub const fn new(http: Http, page: u64) -> Self {
        Self { http, page }
    }

    /// The client.
    #[must_use]
    pub const fn http(&self) -> &Http {
        &self.http
    }

    /// The relations of these schemas, as the side's OpenAPI documents tell them; without a document those of `named` that answer.
    /// The warning says what could not be known.
    ///
    /// # Errors
    /// [`Failure`]
    pub async fn relations(
        &self,
        side: Side,
        schemas: &BTreeSet<String>,
        named: &[(String, String)],
    ) -> Result<(Vec<Relation>, Option<String>), Failure> {
        let (mut relations, mut unknown) = (Vec::new(), Vec::new());
        let mut why = String::new();
        for schema in schemas {
            let ask = Ask::get("/rest/v1/").header("accept-profile", schema);
            let answer = self.ask(side, ask).await?;
            let document = answer.status.is_success().then(|| answer.json());
            if let Some(found) = document.and_then(|found| openapi::relations(schema, &found)) {
                relations.extend(found);
                continue;
            }
            why = said(&answer);
            unknown.push(schema.as_str());
            for (_, name) in named.iter().filter(|(of, _)| of == schema) {
                relations.extend(self.probe(side, schema, name).await?);
            }
        }
        let warning = format!(
            "{side} shows no OpenAPI document of {} ({why}): prefix entries are not expanded there, and keys have to be named by --key",
            unknown.join(", ")
        );
        Ok((relations, (!unknown.is_empty()).then_some(warning)))
    }

    /// A relation's columns from its first row, where nothing describes it.
    async fn probe(
        &self,
        side: Side,
        schema: &str,
        name: &str,
    ) -> Result<Option<Relation>, Failure> {
        let relation = Relation {
            schema: schema.to_owned(),
            name: name.to_owned(),
            is_table: true,
            ..Relation::default()
        };
        let ask = Ask::get(openapi::count(&relation, None)).header("accept-profile", schema);
        let answer = self.ask(side, ask).await?;
        if !answer.status.is_success() {
            return Ok(None);
        }
        let rows = rows(side, &answer)?;
        let names = rows.first().map(Row::columns).unwrap_or_default();
        let columns = names.into_iter().map(|name| Column { name, ..Column::default() }).collect();
        Ok(Some(Relation { columns, ..relation }))
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
        let mut counts = Vec::new();
        let filters = std::iter::once(None).chain(vectors.iter().map(|name| Some(name.as_str())));
        for filter in filters {
            let ask = |method| {
                let ask = Ask::get(openapi::count(relation, filter))
                    .header("accept-profile", &relation.schema)
                    .header("prefer", "count=exact");
                Ask { method, ..ask }
            };
            let answer = self.ask(side, ask(Method::HEAD)).await?;
            if !answer.status.is_success() {
                // The answer to a HEAD has no words.
                let answer = self.ask(side, ask(Method::GET)).await?;
                return Err(Failure(side, said(&answer)));
            }
            let range = answer.headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let total = range.and_then(openapi::total);
            counts.push(total.ok_or_else(|| {
                Failure(side, "the answer to a count has no total in its Content-Range".into())
            })?);
        }
        Ok(counts)
    }

    async fn ask(&self, side: Side, ask: Ask) -> Result<Answer, Failure> {
        let answer = self.http.ask(side, As::Key(Role::Service), ask).await;
        answer.map_err(|error| Failure(side, error.to_string()))
    }

    /// A successful answer to a question for rows.
    async fn read(
        &self,
        side: Side,
        relation: &Relation,
        target: String,
    ) -> Result<Answer, Failure> {
        let ask = Ask::get(target)
            .header("accept-profile", &relation.schema)
            .header("prefer", "timezone=UTC");
        let answer = self.ask(side, ask).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(Failure(side, said(&answer))),
        }
    }

    async fn by_keys<T>(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        mut keys: &[Key],
        mut take: impl FnMut(Key, &Row<'_>) -> T,
    ) -> Result<Vec<T>, Failure> {
        let mut taken = Vec::new();
        let columns = with_key(&job.key, &job.columns);
        while !keys.is_empty() {
            let (target, count) =
                openapi::by_keys(relation, &job.key, &columns, keys, LONGEST_TARGET);
            let answer = self.read(side, relation, target).await?;
            for row in rows(side, &answer)? {
                let key = row.key(&job.key).ok_or_else(|| keyless(side))?;
                taken.push(take(key, &row));
            }
            keys = keys.get(count..).unwrap_or_default();
        }
        Ok(taken)
    }
}

impl Source for Rest {
    async fn page(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        after: Option<&Key>,
        want: Want<'_>,
    ) -> Result<Page, Failure> {
        // Where a few rows are wanted, only the keys of the others travel.
        let whole = matches!(want, Want::Tallies) && job.sample.is_all();
        let columns = if whole { with_key(&job.key, &job.columns) } else { job.key.clone() };
        let target = openapi::page(relation, &job.key, &columns, after, self.page);
        let answer = self.read(side, relation, target).await?;
        let mut page = Page::default();
        let mut chosen = Vec::new();
        for row in rows(side, &answer)? {
            let key = row.key(&job.key).ok_or_else(|| keyless(side))?;
            page.walked += 1;
            match (job.sample.bucket(&key), want) {
                (Some(bucket), Want::Tallies) if whole => {
                    page.tallies.push((bucket, Tally::of(row.digest(&job.columns))));
                }
                (Some(_), Want::Tallies) => chosen.push(key.clone()),
                (Some(bucket), Want::Rows(buckets)) if buckets.contains(&bucket) => {
                    chosen.push(key.clone());
                }
                _ => {}
            }
            page.last = Some(key);
        }
        if page.last.is_some() && page.last.as_ref() == after {
            return Err(Failure(side, "a page ends where it began: the key is not unique".into()));
        }
        let digest = |key: Key, row: &Row<'_>| (key, row.digest(&job.columns));
        let found = self.by_keys(side, relation, job, &chosen, digest).await?;
        match want {
            Want::Tallies => {
                let tallies = found.iter().filter_map(|(key, digest)| {
                    Some((job.sample.bucket(key)?, Tally::of(*digest)))
                });
                page.tallies.extend(tallies);
            }
            Want::Rows(_) => page.rows = found,
        }
        Ok(page)
    }

    async fn cells(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        keys: &[Key],
    ) -> Result<Found, Failure> {
        let take = |key: Key, row: &Row<'_>| (key, row.cells(&job.columns));
        let mut found = Found::new();
        for (key, cells) in self.by_keys(side, relation, job, keys, take).await? {
            found.entry(key).or_default().push(cells);
        }
        Ok(found)
    }
}

/// Where the map's exact entries lead on a side.
#[must_use]
pub fn named(map: &SchemaMap, side: Side) -> Vec<(String, String)> {
    let lines = map.tables().lines();
    let exact = lines.iter().filter_map(|line| {
        let new = line.name?;
        Some(match side {
            Side::Old => (map.legacy().to_owned(), line.old.to_owned()),
            Side::New => (line.schema.to_owned(), new.to_owned()),
        })
    });
    exact.collect()
}

fn with_key(key: &[String], columns: &[String]) -> Vec<String> {
    key.iter().chain(columns).collect::<BTreeSet<_>>().into_iter().cloned().collect()
}

fn rows(side: Side, answer: &Answer) -> Result<Vec<Row<'_>>, Failure> {
    serde_json::from_slice(&answer.body)
        .map_err(|_| Failure(side, "the answer is no list of rows".to_owned()))
}

fn keyless(side: Side) -> Failure {
    Failure(side, "a row has no value in a column of its key".to_owned())
}

/// What PostgREST said, or else the status.
fn said(answer: &Answer) -> String {
    let json = answer.json();
    let text = |key: &str| json.get(key).and_then(serde_json::Value::as_str);
    match (text("code"), text("message")) {
        (Some(code), Some(message)) => format!("HTTP {} {code} {message}", answer.status.as_u16()),
        (None, Some(message)) => format!("HTTP {} {message}", answer.status.as_u16()),
        _ => format!("HTTP {}", answer.status.as_u16()),
    }
}
