//! One table: its counts, its rows, and a second look at what differs. Shell.

use futures_util::future::try_join;

use super::databases::Databases;
use super::report::{Nulls, Rows, Table};
use super::rest::Rest;
use super::sql::Relation;
use super::tally::{Key, Sample};
use super::targets::{Shape, Target};
use super::walk::{self, Failure, Job, Page, Source, Want};
use super::watch::Watcher;
use super::{Options, Rows as Asked, compare::Found};
use crate::side::{Pair, Side};

/// What rows are read through.
#[derive(Debug)]
pub enum Reader {
    /// PostgREST.
    Rest(Box<Rest>),
    /// The databases.
    Databases(Box<Databases>),
}

impl Reader {
    async fn count(
        &self,
        side: Side,
        relation: &Relation,
        vectors: &[String],
    ) -> Result<Vec<u64>, Failure> {
        match self {
            Self::Rest(rest) => rest.count(side, relation, vectors).await,
            Self::Databases(databases) => databases.count(side, relation, vectors).await,
        }
    }
}

impl Source for Reader {
    async fn page(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        after: Option<&Key>,
        want: Want<'_>,
    ) -> Result<Page, Failure> {
        match self {
            Self::Rest(rest) => rest.page(side, relation, job, after, want).await,
            Self::Databases(databases) => databases.page(side, relation, job, after, want).await,
        }
    }

    async fn cells(
        &self,
        side: Side,
        relation: &Relation,
        job: &Job,
        keys: &[Key],
    ) -> Result<Found, Failure> {
        match self {
            Self::Rest(rest) => rest.cells(side, relation, job, keys).await,
            Self::Databases(databases) => databases.cells(side, relation, job, keys).await,
        }
    }
}

/// Compares a table. What goes wrong stands in it.
pub async fn compare(
    reader: &Reader,
    watcher: &Watcher,
    options: &Options,
    target: &Target,
) -> Table {
    let shape = target.shape(&options.wanted);
    let mut table = Table {
        old: target.old.clone(),
        new: target.new.clone(),
        is_mapped: target.is_mapped,
        columns_ignored: shape.ignored.clone(),
        ..Table::default()
    };
    // Of a table that one side lacks, the columns are no news.
    if target.fault.is_none() {
        (table.columns_lost, table.columns_added) = (shape.lost.clone(), shape.added.clone());
    }
    if let Err(failure) = count(reader, target, &shape, &mut table).await {
        table.fault.get_or_insert_with(|| failure.to_string());
    }
    table.fault = target.fault.clone().or(table.fault);
    if table.fault.is_none()
        && options.rows != Asked::Counts
        && let Err(failure) = rows(reader, watcher, options, target, &shape, &mut table).await
    {
        table.fault = Some(failure.to_string());
    }
    table.judge();
    table
}

/// Looks once more at a table that differs: counts, and the rows of the keys that differed.
pub async fn again(reader: &Reader, options: &Options, target: &Target, mut table: Table) -> Table {
    let shape = target.shape(&options.wanted);
    if let Err(failure) = count(reader, target, &shape, &mut table).await {
        table.fault.get_or_insert_with(|| format!("looked at again: {failure}"));
    }
    if let Some(mut rows) = table.rows.take() {
        let job = job(options, target, &shape, Sample::default());
        let keys: Vec<Key> = rows.differences.iter().map(|found| found.key.clone()).collect();
        let looked = match shape.key.is_empty() {
            true => keyless(reader, &job, &mut rows).await,
            false => match walk::name(reader, &job, &keys).await {
                Ok(mut differences) => {
                    differences.sort();
                    rows.settled += (keys.len() - differences.len().min(keys.len())) as u64;
                    rows.differences = differences;
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
        };
        if let Err(failure) = looked {
            table.fault.get_or_insert_with(|| format!("looked at again: {failure}"));
        }
        rows.counted();
        table.rows = Some(rows);
    }
    table.judge();
    table
}

/// Counts what is there, on both sides at once.
async fn count(
    reader: &Reader,
    target: &Target,
    shape: &Shape,
    table: &mut Table,
) -> Result<(), Failure> {
    let of = |side: Side| async move {
        let mut sums: Option<Vec<u64>> = None;
        for relation in &target.relations[side] {
            let counts = reader.count(side, relation, &shape.vectors).await?;
            sums = Some(match sums {
                None => counts,
                Some(sums) => sums.iter().zip(counts).map(|(a, b)| a.saturating_add(b)).collect(),
            });
        }
        Ok::<_, Failure>(sums)
    };
    let (old, new) = try_join(of(Side::Old), of(Side::New)).await?;
    let first = |counts: &Option<Vec<u64>>| counts.as_ref()?.first().copied();
    table.counts = Pair { old: first(&old), new: first(&new) };
    let nulls = |counts: &Option<Vec<u64>>, i: usize| {
        counts.as_ref().and_then(|counts| counts.get(i + 1).copied()).unwrap_or_default()
    };
    let columns = shape.vectors.iter().enumerate();
    table.null_embeddings = columns
        .map(|(i, column)| Nulls {
            column: column.clone(),
            old: nulls(&old, i),
            new: nulls(&new, i),
        })
        .collect();
    Ok(())
}

async fn rows(
    reader: &Reader,
    watcher: &Watcher,
    options: &Options,
    target: &Target,
    shape: &Shape,
    table: &mut Table,
) -> Result<(), Failure> {
    let counts = Pair::from_fn(|side| table.counts[side].unwrap_or_default());
    let wanted = match options.rows {
        Asked::Some(wanted) => Some(wanted),
        Asked::All | Asked::Counts => None,
    };
    let mut job =
        job(options, target, shape, Sample::of(&options.seed, wanted, counts.old.max(counts.new)));
    let is_sample = !job.sample.is_all();
    let mut rows = Rows { is_sample, key: shape.key.clone(), ..Rows::default() };
    if shape.key.is_empty() {
        return without_key(reader, table, &job, rows).await;
    }
    let begun = watcher.begun(&job.label, job.sample.below);
    let walked: u64 = Side::ALL.iter().map(|side| begun.reached[*side].tallies.rows()).sum();
    watcher.expect(counts.old.saturating_add(counts.new).saturating_sub(walked));
    job.sample.below = begun.below;
    let resumed = begun.reached != Pair::default();
    let outcome = walk::compare(reader, watcher, &job, begun.reached).await?;
    (rows.compared, rows.is_cut) = (outcome.rows, outcome.is_cut);
    rows.differences = outcome.differences;
    rows.counted();
    table.rows = Some(rows);
    // In one snapshot both ways of counting agree, unless a key is NULL or an index lies.
    let in_snapshot = matches!(reader, Reader::Databases(_)) && !resumed && job.sample.is_all();
    for side in Side::ALL {
        if in_snapshot && outcome.rows[side] != counts[side] {
            let (seen, there) = (outcome.rows[side], counts[side]);
            watcher.forget(&job.label);
            let what = format!(
                "of {there} rows only {seen} were found by their key: is a key NULL, or its index damaged?"
            );
            return Err(Failure(side, what));
        }
    }
    Ok(())
}

async fn without_key(
    reader: &Reader,
    table: &mut Table,
    job: &Job,
    mut rows: Rows,
) -> Result<(), Failure> {
    if let Reader::Rest(_) = reader {
        table.notes.push("no key is known: only counted (--key TABLE=COLUMN)".to_owned());
        table.is_only_counted = true;
        return Ok(());
    }
    table.notes.push("no key: compared as a whole".to_owned());
    rows.is_sample = false;
    rows.compared = Pair::from_fn(|side| table.counts[side].unwrap_or_default());
    keyless(reader, job, &mut rows).await?;
    table.rows = Some(rows);
    Ok(())
}

async fn keyless(reader: &Reader, job: &Job, rows: &mut Rows) -> Result<(), Failure> {
    if let Reader::Databases(databases) = reader {
        let (old, new) =
            try_join(databases.keyless(Side::Old, job), databases.keyless(Side::New, job)).await?;
        rows.keyless_differ = old != new;
    }
    Ok(())
}

fn job(options: &Options, target: &Target, shape: &Shape, sample: Sample) -> Job {
    Job {
        label: target.label(),
        relations: target.relations.clone(),
        key: shape.key.clone(),
        columns: shape.columns.clone(),
        sample,
        most: options.most,
    }
}
