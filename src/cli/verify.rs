//! `cutover verify`: do the data of both projects agree?

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use tokio::task::LocalSet;

use super::screen::{Screen, Tone};
use super::{Context, Exit};
use crate::checks::verify::report::{self, Bucket, Report, Table, Verdict};
use crate::checks::verify::targets::Wanted;
use crate::checks::verify::{self, Options, Rows, Through};
use crate::config;
use crate::config::Database;
use crate::side::Pair;

/// Rows of a page through databases: some tenths of a second of work for the server.
const DATABASE_PAGE: u64 = 50_000;
/// Rows of a page through PostgREST: what hosted projects give at most, unless they are told otherwise.
const REST_PAGE: u64 = 1000;
/// Seconds for a whole answer.
const REST_TIMEOUT: u32 = 60;
/// Seconds for a statement: counting a huge table is the longest.
const DATABASE_TIMEOUT: u32 = 30 * 60;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Way {
    Rest,
    Database,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// What to read through [default: database, if projects.*.database_url are set]
    #[arg(long, value_name = "WAY")]
    through: Option<Way>,
    /// Compare the rows too: about N of each table, the same ones each time, or all
    #[arg(long, value_name = "N|all", value_parser = rows)]
    rows: Option<Rows>,
    /// What the sample of --rows N is drawn with
    #[arg(long, value_name = "TEXT", default_value = "cutover")]
    seed: String,
    /// Only this table, by its old or new name, with or without schema (repeatable)
    #[arg(long, value_name = "NAME")]
    table: Vec<String>,
    /// Leave a column out: COLUMN, or TABLE.COLUMN (repeatable)
    #[arg(long, value_name = "COLUMN")]
    ignore: Vec<String>,
    /// The key of a table whose primary key is not known (repeatable)
    #[arg(long, value_name = "TABLE=COLUMN,…", value_parser = key)]
    key: Vec<(String, Vec<String>)>,
    /// Leave out tables that the map does not name
    #[arg(long)]
    mapped_only: bool,
    /// Through PostgREST: one more schema that both projects expose (repeatable)
    #[arg(long, value_name = "NAME")]
    schema: Vec<String>,
    /// Don't count storage objects
    #[arg(long)]
    no_storage: bool,
    /// Differing keys shown of each table; --json has all
    #[arg(long, value_name = "N", default_value_t = 20)]
    show: usize,
    /// Differing rows of a table after which the rest is left out
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    max_differences: u32,
    /// Rows of a page [default: 50000 through databases, 1000 through PostgREST]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    page: Option<u64>,
    /// Rows in a second, on both sides together [default: as fast as it goes]
    #[arg(long, value_name = "ROWS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Tables at once: so many connections of each side, and one more
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=32))]
    concurrency: u8,
    /// Look again, after this pause, at what differs; 0: don't
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    recheck: u32,
    /// For each whole answer of PostgREST or storage, or each statement [default: 60, through databases 1800]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    timeout: Option<u32>,
    /// Stop after this time, with what there is
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    max_duration: Option<u32>,
    /// Keep what is done in FILE, and go on from it
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Write a report in Markdown, too
    #[arg(long, value_name = "FILE.md")]
    report: Option<PathBuf>,
}

fn rows(text: &str) -> Result<Rows, String> {
    match text {
        "all" => Ok(Rows::All),
        text => match text.parse() {
            Ok(0) | Err(_) => Err("a number above 0, or all".to_owned()),
            Ok(wanted) => Ok(Rows::Some(wanted)),
        },
    }
}

fn key(text: &str) -> Result<(String, Vec<String>), String> {
    let (table, columns) = text.split_once('=').ok_or("TABLE=COLUMN or TABLE=COLUMN,COLUMN")?;
    let columns: Vec<String> = columns.split(',').map(str::to_owned).collect();
    match table.is_empty() || columns.iter().any(String::is_empty) {
        true => Err("TABLE=COLUMN or TABLE=COLUMN,COLUMN".to_owned()),
        false => Ok((table.to_owned(), columns)),
    }
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let settings = config::check(&context.sources)?;
    let show = arguments.show;
    let written = arguments.report.clone();
    let options = options(arguments, settings.databases)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let stop = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let work = verify::run(&options, &settings.snapshot, stop);
    let report = LocalSet::new().block_on(&runtime, work)?;
    if let Some(path) = written {
        let text = report.markdown(show);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let screen = &mut context.screen;
    if screen.json {
        screen.value(&report)?;
    } else {
        print(&report, show, screen)?;
    }
    Ok(match report.verdict {
        Verdict::Equal | Verdict::Owned => Exit::Done,
        Verdict::Differ | Verdict::NotCompared => Exit::Error,
    })
}

fn options(arguments: Arguments, databases: Pair<Option<Database>>) -> anyhow::Result<Options> {
    let timeout = |default| Duration::from_secs(arguments.timeout.unwrap_or(default).into());
    let rest = Through::Rest { timeout: timeout(REST_TIMEOUT) };
    let both = match databases {
        Pair { old: Some(old), new: Some(new) } => Some(Through::Databases {
            databases: Pair { old, new },
            timeout: timeout(DATABASE_TIMEOUT),
        }),
        _ => None,
    };
    let through = match (arguments.through, both) {
        (Some(Way::Rest), _) | (None, None) => rest,
        (_, Some(both)) => both,
        (Some(Way::Database), None) => {
            anyhow::bail!(
                "--through database needs projects.old.database_url and projects.new.database_url"
            );
        }
    };
    let page = match through {
        Through::Databases { .. } => DATABASE_PAGE,
        Through::Rest { .. } => REST_PAGE,
    };
    Ok(Options {
        through,
        rows: arguments.rows.unwrap_or(Rows::Counts),
        seed: arguments.seed,
        wanted: Wanted {
            tables: arguments.table,
            ignored: arguments.ignore,
            keys: arguments.key.into_iter().collect::<BTreeMap<_, _>>(),
            unmapped: !arguments.mapped_only,
        },
        schemas: arguments.schema,
        storage: !arguments.no_storage,
        most: usize::try_from(arguments.max_differences).unwrap_or(usize::MAX),
        // A page is one burst: under a rate it is no more than a second's worth.
        page: arguments.page.unwrap_or(page).min(arguments.rate.map_or(u64::MAX, u64::from)),
        rate: arguments.rate,
        concurrency: arguments.concurrency.into(),
        recheck: match arguments.recheck {
            0 => None,
            seconds => Some(Duration::from_secs(seconds.into())),
        },
        longest: arguments.max_duration.map(|seconds| Duration::from_secs(seconds.into())),
        state: arguments.resume,
        shows_progress: io::stderr().is_terminal(),
    })
}

fn print(report: &Report, show: usize, screen: &mut Screen<'_>) -> anyhow::Result<()> {
    let tables: Vec<_> = report.tables.iter().map(Table::cells).collect();
    screen.table(&report::TABLE_HEADINGS, &tables)?;
    if !report.buckets.is_empty() {
        screen.line("")?;
        let buckets: Vec<_> = report.buckets.iter().map(Bucket::cells).collect();
        screen.table(&report::BUCKET_HEADINGS, &buckets)?;
    }
    for table in &report.tables {
        let lines = table.listed(show);
        if !lines.is_empty() {
            screen.line("")?;
            screen.line(&format!("{} ({})", table.new, table.old.join(" + ")))?;
        }
        for line in lines {
            screen.line(&format!("  {line}"))?;
        }
    }
    screen.line("")?;
    for warning in &report.warnings {
        let word = screen.paint("warning", Tone::Warn);
        screen.out.write_all(word.as_bytes())?;
        screen.line(&format!(": {warning}"))?;
    }
    let tone = match report.verdict {
        Verdict::Equal | Verdict::Owned => Tone::Good,
        Verdict::Differ => Tone::Bad,
        Verdict::NotCompared => Tone::Warn,
    };
    let sentence = screen.paint(&report.sentence(), tone);
    writeln!(screen.out, "{sentence}")?;
    Ok(())
}
