//! `cutover doctor`: asks both projects whether they are ready, and says what to do. The exit code is 0 when nothing failed.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::screen::{Screen, Tone};
use super::{Context, Exit};
use crate::checks::doctor::finding::{CHECKS, Finding, Status};
use crate::checks::doctor::{Options, Progress, examine};
use crate::config;
use crate::side::Side;

/// What is asked, and how hard.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only what is about this side, or about both together: old or new
    #[arg(long, value_name = "SIDE", value_parser = side)]
    side: Option<Side>,
    /// Only checks whose id begins so, e.g. rest or db.rls; may be repeated
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// No checks whose id begins so; may be repeated
    #[arg(long, value_name = "ID")]
    skip: Vec<String>,
    /// Questions at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// For each answer
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=300))]
    timeout: u16,
    /// Warnings count as failures in the exit code
    #[arg(long)]
    strict: bool,
    /// One line for each thing that is as it should be, too
    #[arg(long)]
    all: bool,
}

fn side(text: &str) -> Result<Side, String> {
    Side::parse(text).ok_or_else(|| "there are two sides: old and new".to_owned())
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let options = Options {
        side: arguments.side,
        only: arguments.only,
        skip: arguments.skip,
        concurrency: arguments.concurrency.into(),
        timeout: Duration::from_secs(arguments.timeout.into()),
    };
    options.check()?;
    let report = config::check(&context.sources)?;
    let bar = Bar::new();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let findings = LocalSet::new().block_on(&runtime, examine(&report, &options, &bar));
    bar.clear();
    let tally = Tally::of(&findings);
    let is_good = tally.fail == 0 && !(arguments.strict && tally.warn > 0);
    if context.screen.json {
        context.screen.value(&json!({
            "ok": is_good,
            "summary": tally.value(),
            "findings": findings,
        }))?;
    } else {
        show(&findings, &tally, arguments.all, &mut context.screen)?;
    }
    Ok(if is_good { Exit::Done } else { Exit::Error })
}

/// How many lines of each kind there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pass: usize,
    skip: usize,
    warn: usize,
    pub(super) fail: usize,
}

impl Tally {
    pub(super) fn of(findings: &[Finding]) -> Self {
        let count = |status: Status| findings.iter().filter(|it| it.status == status).count();
        Self {
            pass: count(Status::Pass),
            skip: count(Status::Skip),
            warn: count(Status::Warn),
            fail: count(Status::Fail),
        }
    }

    /// The same for machines.
    pub(super) fn value(&self) -> Value {
        let Self { pass, skip, warn, fail } = self;
        json!({ "pass": pass, "skip": skip, "warn": warn, "fail": fail })
    }

    pub(super) fn sentence(&self) -> String {
        let Self { pass, skip, warn, fail } = self;
        let warnings = if *warn == 1 { "warning" } else { "warnings" };
        format!("{pass} passed, {skip} not checked, {warn} {warnings}, {fail} failed")
    }
}

/// What is as it should be takes one line for each check and side, unless all of it is wanted.
fn show(
    findings: &[Finding],
    tally: &Tally,
    all: bool,
    screen: &mut Screen<'_>,
) -> anyhow::Result<()> {
    for (id, question) in CHECKS {
        let of_check: Vec<&Finding> = findings.iter().filter(|it| it.id == id).collect();
        if of_check.is_empty() {
            continue;
        }
        screen.line(&format!("{id}: {question}"))?;
        let (good, rest): (Vec<&Finding>, Vec<&Finding>) =
            of_check.into_iter().partition(|it| it.status == Status::Pass && !all);
        for side in [None, Some(Side::Old), Some(Side::New)] {
            let good: Vec<&&Finding> = good.iter().filter(|it| it.side == side).collect();
            match good.as_slice() {
                [] => {}
                [one] => line(one, screen)?,
                several => {
                    let subject = format!("{} of them", several.len());
                    line(&Finding::pass(id, side, &subject, several[0].seen.clone()), screen)?;
                }
            }
        }
        for finding in rest {
            line(finding, screen)?;
        }
    }
    let tone = match (tally.fail, tally.warn) {
        (0, 0) => Tone::Good,
        (0, _) => Tone::Warn,
        _ => Tone::Bad,
    };
    let sentence = screen.paint(&tally.sentence(), tone);
    writeln!(screen.out, "{sentence}")?;
    Ok(())
}

pub(super) fn line(finding: &Finding, screen: &mut Screen<'_>) -> anyhow::Result<()> {
    let tone = match finding.status {
        Status::Pass => Tone::Good,
        Status::Skip => Tone::Plain,
        Status::Warn => Tone::Warn,
        Status::Fail => Tone::Bad,
    };
    let side = finding.side.map_or("both", Side::as_str);
    let status = screen.paint(finding.status.as_str(), tone);
    write!(screen.out, "  {status}  ")?;
    screen.line(&format!("{side:4}  {}: {}", finding.subject, finding.seen))?;
    for fix in finding.fix.lines() {
        screen.line(&format!("              > {fix}"))?;
    }
    Ok(())
}

/// On a terminal: how many questions were answered, and what is asked about. Elsewhere it shows nothing.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Takes it from the screen.
    pub(super) fn clear(&self) {
        self.0.finish_and_clear();
    }

    pub(super) fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {pos}/{len} {bar:30} {msg}") {
            bar.set_style(style);
        }
        // No ticking thread: this one holds the lock of stderr for as long as the command lives, and draws at each answer.
        Self(bar)
    }
}

impl Progress for Bar {
    fn more(&self, questions: usize) {
        self.0.inc_length(questions as u64);
    }

    fn done(&self) {
        self.0.inc(1);
    }

    fn about(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}
