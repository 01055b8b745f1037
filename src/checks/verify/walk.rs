//! The comparison of one table, whatever its rows are read through. No I/O of its own: a [`Source`] reads, a [`Watch`] is told.
//!
//! Three steps. Both sides are read page by page, at the same time, each in the order of its own key, and summed up by buckets of keys.
//! The rows of the buckets that differ are fetched as keys and digests. The rows of the keys that differ are fetched as one digest for
//! each column. So tables that agree cost one pass, and nothing that is kept grows with the table.

use std::collections::BTreeSet;

use futures_util::future::try_join;
use serde::{Deserialize, Serialize};

use super::compare::{self, Difference, Found};
use super::sql::Relation;
use super::tally::{Key, Sample, Tallies, Tally};
use crate::side::{Pair, Side};

/// Rows of differing buckets that are fetched at once, on each side: about 20 MB.
const GROUP_ROWS: u64 = 100_000;
/// Keys that are asked for in one statement.
const KEYS: usize = 100;

/// What is compared, and how.
#[derive(Clone, Debug, Default)]
pub struct Job {
    /// How the table is called in reports and in the state file.
    pub label: String,
    /// The relations of each side: several old ones where they become one, one new one.
    pub relations: Pair<Vec<Relation>>,
    /// The columns of the key; empty: there is none.
    pub key: Vec<String>,
    /// The columns that are compared, by name.
    pub columns: Vec<String>,
    /// Which rows.
    pub sample: Sample,
    /// Differences after which the rest is left out.
    pub most: usize,
}

/// What a page is read for.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// Tallies of every bucket.
    Tallies,
    /// Keys and digests of the rows in these buckets.
    Rows(&'a BTreeSet<u16>),
}

/// Some rows of one relation, in the order of its key.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// For [`Want::Tallies`].
    pub tallies: Vec<(u16, Tally)>,
    /// For [`Want::Rows`].
    pub rows: Vec<(Key, u128)>,
    /// Rows that the server went through.
    pub walked: u64,
    /// The key of the last row; `None`: the relation ends here.
    pub last: Option<Key>,
}

/// Why a table could not be compared: a side did not answer, or not as it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: {1}")]
pub struct Failure(pub Side, pub String);

/// Reads rows. Belongs to one thread.
#[expect(async_fn_in_trait, reason = "used inside of one crate, on one thread")]
pub trait Source {
    /// The page behind a key.
    async fn page(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        after: Option<&Key>,
        want: Want<'_>,
    ) -> Result<Page, Failure>;

    /// One digest for each column of the rows of these keys.
    async fn cells(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        keys: &[Key],
    ) -> Result<Found, Failure>;
}

/// Is told how far a comparison is, and may slow it.
#[expect(async_fn_in_trait, reason = "used inside of one crate, on one thread")]
pub trait Watch {
    /// A side's first step has come so far: what a later run can go on from.
    fn reached(&self, job: &Job, side: Side, reached: &Reached);
    /// Rows have been gone through; waits as long as the rate asks for.
    async fn pace(&self, rows: u64);
}

/// How far the first step of a side has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Which of the side's relations is being read; their number: all are read.
    pub relation: usize,
    /// The last key of it that is in the tallies.
    pub after: Option<Key>,
    /// What has been summed up.
    pub tallies: Tallies,
}

/// What the comparison of a table's rows found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows that were compared on each side.
    pub rows: Pair<u64>,
    /// The rows that differ, missing ones first.
    pub differences: Vec<Difference>,
    /// Whether there may be more of them than are listed.
    pub is_cut: bool,
}

/// Compares a table's rows.
///
/// # Errors
/// [`Failure`]
pub async fn compare<S: Source, W: Watch>(
    source: &S,
    watch: &W,
    job: &Job,
    begun: Pair<Reached>,
) -> Result<Outcome, Failure> {
    let Pair { old, new } = begun;
    let (old, new) = try_join(
        tally(source, watch, job, Side::Old, old),
        tally(source, watch, job, Side::New, new),
    )
    .await?;
    let rows = Pair { old: old.rows(), new: new.rows() };
    let groups = old.differing(&new, GROUP_ROWS);
    let mut outcome = Outcome { rows, ..Outcome::default() };
    for group in &groups {
        if outcome.differences.len() >= job.most {
            outcome.is_cut = true;
            break;
        }
        let (old, new) = try_join(
            rows_of(source, watch, job, Side::Old, group),
            rows_of(source, watch, job, Side::New, group),
        )
        .await?;
        let keys: Vec<Key> = compare::keys(old, new).into_iter().collect();
        let room = job.most.saturating_sub(outcome.differences.len());
        outcome.is_cut |= keys.len() > room;
        let named = name(source, job, keys.get(..room.min(keys.len())).unwrap_or_default());
        outcome.differences.extend(named.await?);
    }
    outcome.differences.sort();
    Ok(outcome)
}

/// How the rows of these keys differ, as both sides have them now. A key whose rows are the same is left out.
///
/// # Errors
/// [`Failure`]
pub async fn name<S: Source>(
    source: &S,
    job: &Job,
    keys: &[Key],
) -> Result<Vec<Difference>, Failure> {
    let mut differences = Vec::new();
    for keys in keys.chunks(KEYS) {
        let (old, new) =
            try_join(cells(source, job, Side::Old, keys), cells(source, job, Side::New, keys))
                .await?;
        let judged = keys.iter().filter_map(|key| compare::judge(key, &job.columns, &old, &new));
        differences.extend(judged);
    }
    Ok(differences)
}

async fn cells<S: Source>(
    source: &S,
    job: &Job,
    side: Side,
    keys: &[Key],
) -> Result<Found, Failure> {
    let mut found = Found::new();
    for relation in &job.relations[side] {
        for (key, mut rows) in source.cells(side, relation, job, keys).await? {
            found.entry(key).or_default().append(&mut rows);
        }
    }
    Ok(found)
}

async fn tally<S: Source, W: Watch>(
    source: &S,
    watch: &W,
    job: &Job,
    side: Side,
    mut reached: Reached,
) -> Result<Tallies, Failure> {
    while let Some(relation) = job.relations[side].get(reached.relation) {
        let page = source.page(side, relation, job, reached.after.as_ref(), Want::Tallies).await?;
        reached.tallies.add(page.tallies);
        if page.last.is_none() {
            reached.relation += 1;
        }
        reached.after = page.last;
        watch.reached(job, side, &reached);
        watch.pace(page.walked).await;
    }
    Ok(reached.tallies)
}

async fn rows_of<S: Source, W: Watch>(
    source: &S,
    watch: &W,
    job: &Job,
    side: Side,
    group: &BTreeSet<u16>,
) -> Result<Vec<(Key, u128)>, Failure> {
    let mut rows = Vec::new();
    for relation in &job.relations[side] {
        let mut after = None;
        loop {
            let page = source.page(side, relation, job, after.as_ref(), Want::Rows(group)).await?;
            rows.extend(page.rows);
            watch.pace(page.walked).await;
            after = page.last;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod laws;
