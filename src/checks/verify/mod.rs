//! `cutover verify`: do the data of both projects agree? (D 9)
//!
//! Core: [`sql`] and [`openapi`] say the questions, [`tally`] and [`compare`] judge the answers, [`walk`] is the order of steps for one
//! table, [`targets`] which tables, [`report`] and [`state`] what is shown and kept. Shell: [`databases`], [`rest`], [`storage`] and
//! [`watch`]. No value of a row but its key leaves this room.

pub mod compare;
pub mod databases;
pub mod openapi;
pub mod report;
pub mod rest;
pub mod sql;
pub mod state;
pub mod storage;
pub mod table;
pub mod tally;
pub mod targets;
pub mod walk;
pub mod watch;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::checks::http::Http;
use crate::config::Database;
use crate::side::{Pair, Side};
use crate::snapshot::Snapshot;
use databases::Databases;
use report::{Bucket, Report, Table, Verdict};
use rest::Rest;
use sql::Relation;
use table::Reader;
use targets::{Target, Wanted};
use walk::Failure;
use watch::{StateFault, Watcher};

/// Of a whole answer of PostgREST: a page of wide rows.
const BODY_BYTES: usize = 256 * 1024 * 1024;

/// Longer than anybody waits, and short enough for a timer.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What the rows are read through.
#[derive(Clone, Debug)]
pub enum Through {
    /// PostgREST, with the service keys; each whole answer within this time.
    Rest {
        /// For a whole answer.
        timeout: Duration,
    },
    /// Both databases; each statement within this time.
    Databases {
        /// Where they are.
        databases: Pair<Database>,
        /// For a statement.
        timeout: Duration,
    },
}

/// Which rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// None: counts alone.
    Counts,
    /// About so many of each table.
    Some(u64),
    /// All.
    All,
}

/// What the operator asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the rows are read through.
    pub through: Through,
    /// Which rows.
    pub rows: Rows,
    /// What a sample is drawn with.
    pub seed: String,
    /// Which tables and columns.
    pub wanted: Wanted,
    /// Schemas besides those of the map that PostgREST is asked for.
    pub schemas: Vec<String>,
    /// Whether storage is counted.
    pub storage: bool,
    /// Differences of a table after which the rest is left out.
    pub most: usize,
    /// Rows of a page.
    pub page: u64,
    /// Rows in a second, on both sides together; `None`: as fast as it goes.
    pub rate: Option<u32>,
    /// Tables at once.
    pub concurrency: usize,
    /// After which pause what differs is looked at again; `None`: never.
    pub recheck: Option<Duration>,
    /// After which time it is stopped; `None`: never.
    pub longest: Option<Duration>,
    /// The state file.
    pub state: Option<PathBuf>,
    /// Whether stderr shows a progress bar.
    pub shows_progress: bool,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A side could not be asked.
    #[error(transparent)]
    Side(#[from] Failure),
    /// The state file.
    #[error(transparent)]
    State(#[from] StateFault),
    /// An argument names a table that neither the map nor the sides have.
    #[error("no table is called {}", .0.join(", "))]
    Unknown(Vec<String>),
}

/// What one run shares.
struct Run<'a> {
    options: &'a Options,
    snapshot: &'a Snapshot,
    reader: Reader,
    watcher: Watcher,
    targets: Vec<Target>,
    tables: RefCell<Vec<Table>>,
    buckets: RefCell<Vec<Bucket>>,
    warnings: RefCell<Vec<String>>,
}

/// Compares both projects. Ends early, with what it has so far, when `stop` does. Use it inside a `LocalSet`.
///
/// # Errors
/// [`Fault`]: before anything was compared. What goes wrong later stands in the report.
pub async fn run(
    options: &Options,
    snapshot: &Snapshot,
    stop: impl Future<Output = ()>,
) -> Result<Report, Fault> {
    let begun = Instant::now();
    let (reader, found, warnings) = open(options, snapshot).await?;
    let targets = targets::targets(&snapshot.rewrite.map, &found, &options.wanted);
    let unknown = targets::unknown(&targets, &options.wanted);
    if !unknown.is_empty() {
        return Err(Fault::Unknown(unknown));
    }
    let settings = fingerprint(options, &targets);
    let path = options.state.as_deref();
    let (watcher, resumed) = Watcher::open(path, &settings, options.rate, options.shows_progress)?;
    let run = Run {
        options,
        snapshot,
        reader,
        watcher,
        tables: RefCell::new(targets.iter().map(unfinished).collect()),
        targets,
        buckets: RefCell::default(),
        warnings: RefCell::new(warnings),
    };
    let longest = options.longest.unwrap_or(FOR_EVER);
    let stopped = tokio::select! {
        () = run.all() => None,
        () = stop => Some("it was interrupted".to_owned()),
        () = tokio::time::sleep(longest) => Some(format!("--max-duration ({} s) is over", longest.as_secs())),
    };
    run.report(begun, resumed, stopped)
}

/// Opens what is read through, and looks at what both sides have.
async fn open(
    options: &Options,
    snapshot: &Snapshot,
) -> Result<(Reader, Pair<Vec<Relation>>, Vec<String>), Fault> {
    match &options.through {
        Through::Databases { databases, timeout } => {
            let reader = Databases::open(databases.clone(), *timeout, options.page).await?;
            let found = Pair {
                old: reader.relations(Side::Old).await?,
                new: reader.relations(Side::New).await?,
            };
            Ok((Reader::Databases(Box::new(reader)), found, Vec::new()))
        }
        Through::Rest { timeout } => {
            let rest = Rest::new(Http::new(snapshot, *timeout, BODY_BYTES), options.page);
            let map = &snapshot.rewrite.map;
            let mut warnings = Vec::new();
            let mut found = Pair::default();
            for side in Side::ALL {
                let mut schemas: BTreeSet<String> = options.schemas.iter().cloned().collect();
                if side == Side::New {
                    schemas.extend(map.tables().lines().iter().map(|line| line.schema.to_owned()));
                }
                if side == Side::Old || options.wanted.unmapped {
                    schemas.insert(map.legacy().to_owned());
                }
                let named = rest::named(map, side);
                let (relations, unknown) = rest.relations(side, &schemas, &named).await?;
                found[side] = relations;
                warnings.extend(unknown);
            }
            Ok((Reader::Rest(Box::new(rest)), found, warnings))
        }
    }
}

/// Everything that must not change between a run and the one that goes on from its state.
fn fingerprint(options: &Options, targets: &[Target]) -> String {
    let through = match &options.through {
        Through::Rest { .. } => "rest",
        Through::Databases { .. } => "database",
    };
    let (rows, seed, wanted) = (options.rows, &options.seed, &options.wanted);
    format!("{through} {rows:?} {seed} {wanted:?} {} {targets:?}", options.most)
}

fn unfinished(target: &Target) -> Table {
    let mut table = Table {
        old: target.old.clone(),
        new: target.new.clone(),
        is_mapped: target.is_mapped,
        fault: Some("stopped before its end".to_owned()),
        ..Table::default()
    };
    table.judge();
    table
}

impl Run<'_> {
    async fn all(&self) {
        let tables = futures_util::stream::iter(self.targets.iter().enumerate());
        tables
            .for_each_concurrent(self.options.concurrency.max(1), |(at, target)| async move {
                let table = match self.watcher.done(&target.label()) {
                    Some(table) => table,
                    None => self.one(at, target).await,
                };
                if let Some(place) = self.tables.borrow_mut().get_mut(at) {
                    *place = table;
                }
            })
            .await;
        if self.options.storage {
            self.watcher.say("storage");
            self.count_storage().await;
        }
        if let Some(pause) = self.options.recheck {
            self.again(pause).await;
        }
    }

    async fn one(&self, at: usize, target: &Target) -> Table {
        let label = target.label();
        self.watcher.say(&format!("{}/{} {label}", at + 1, self.targets.len()));
        let table = table::compare(&self.reader, &self.watcher, self.options, target).await;
        // What could not be compared is tried again by the run that goes on.
        if table.fault.is_none() {
            self.watcher.finish(&label, &table);
        }
        table
    }

    async fn count_storage(&self) {
        let through = match &self.reader {
            Reader::Rest(rest) => storage::Through::Api(rest.http()),
            Reader::Databases(databases) => storage::Through::Databases(databases),
        };
        match storage::compare(&through, &self.snapshot.rewrite.storage).await {
            Ok(buckets) => *self.buckets.borrow_mut() = buckets,
            Err(failure) => {
                let note = Some(failure.to_string());
                let all = Bucket { old: "*".into(), new: "*".into(), note, ..Bucket::default() };
                let mut all = [all];
                all.iter_mut().for_each(Bucket::judge);
                self.buckets.borrow_mut().extend(all);
            }
        }
    }

    /// Looks again, later, at what differs: a row that was being written on one side is the same by now, unless it is a difference.
    async fn again(&self, pause: Duration) {
        let differs = |(_, table): &(usize, &Table)| table.verdict == Verdict::Differ;
        let differing: Vec<usize> =
            self.tables.borrow().iter().enumerate().filter(differs).map(|(at, _)| at).collect();
        if differing.is_empty() {
            return;
        }
        self.watcher.say("what differs is looked at again");
        tokio::time::sleep(pause).await;
        let reader = match open(self.options, self.snapshot).await {
            Ok((reader, ..)) => reader,
            Err(fault) => {
                let warning = format!("what differs could not be looked at again: {fault}");
                self.warnings.borrow_mut().push(warning);
                return;
            }
        };
        for at in differing {
            let found = self.tables.borrow().get(at).cloned();
            let (Some(found), Some(target)) = (found, self.targets.get(at)) else { continue };
            let table = table::again(&reader, self.options, target, found).await;
            if let Some(place) = self.tables.borrow_mut().get_mut(at) {
                *place = table;
            }
        }
    }

    fn report(
        self,
        begun: Instant,
        resumed: bool,
        stopped: Option<String>,
    ) -> Result<Report, Fault> {
        let mut warnings = self.warnings.into_inner();
        if let Some(why) = &stopped {
            warnings.push(match &self.options.state {
                Some(_) => format!("{why}; the same command goes on from the state file"),
                None => format!("{why}; with --resume FILE it could be taken up again"),
            });
        }
        let mut report = Report {
            through: match self.reader {
                Reader::Rest(_) => "rest",
                Reader::Databases(_) => "database",
            },
            rows: match self.options.rows {
                Rows::Counts => "counts".to_owned(),
                Rows::All => "all".to_owned(),
                Rows::Some(wanted) => wanted.to_string(),
            },
            seed: matches!(self.options.rows, Rows::Some(_)).then(|| self.options.seed.clone()),
            resumed,
            seconds: begun.elapsed().as_secs_f64(),
            tables: self.tables.into_inner(),
            buckets: self.buckets.into_inner(),
            warnings,
            verdict: Verdict::Equal,
        };
        report.judge();
        if stopped.is_some() {
            report.verdict = Verdict::NotCompared;
        }
        let is_complete = report.tables.iter().all(|table| table.fault.is_none());
        self.watcher.end(stopped.is_none() && is_complete)?;
        Ok(report)
    }
}
