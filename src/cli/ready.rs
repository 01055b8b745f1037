//! `cutover ready`: may the old project be switched off? Exit 0 when nothing that can be seen speaks against it.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use http::Method;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::task::LocalSet;

use super::client::{self, AdminClient};
use super::doctor::{Bar, Tally, line};
use super::screen::Tone;
use super::{Context, Exit};
use crate::checks::doctor::finding::{Finding, Status};
use crate::checks::doctor::{Options, examine};
use crate::checks::ready::{self, CHECKS, Look};
use crate::config::{self, Report};
use crate::side::Side;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How long to look at the running proxy
    #[arg(long = "for", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Don't ask the new project itself (what `cutover doctor --side new` does)
    #[arg(long)]
    no_probes: bool,
}

pub(super) fn run(arguments: &Arguments, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let report = config::check(&context.sources)?;
    let client = client::find(&context.sources)?.client;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let look = runtime.block_on(look(&client, arguments.seconds))?;
    let mut findings = ready::judge(&report.snapshot, &look);
    if !arguments.no_probes {
        findings.push(LocalSet::new().block_on(&runtime, probe(&report)));
    }
    let tally = Tally::of(&findings);
    let is_ready = tally.fail == 0;
    let screen = &mut context.screen;
    if screen.json {
        screen.value(&json!({ "ok": is_ready, "summary": tally.value(), "findings": findings }))?;
    } else {
        for (id, question) in CHECKS {
            let mut of_check = findings.iter().filter(|it| it.id == id).peekable();
            if of_check.peek().is_some() {
                screen.line(&format!("{id}: {question}"))?;
            }
            for finding in of_check {
                line(finding, screen)?;
            }
        }
        let (word, tone) = match is_ready {
            true => ("nothing that can be seen from here needs old", Tone::Good),
            false => ("old is still needed", Tone::Bad),
        };
        let word = screen.paint(word, tone);
        writeln!(screen.out, "{word}: {}", tally.sentence())?;
    }
    Ok(if is_ready { Exit::Done } else { Exit::Error })
}

/// Looks at the running proxy twice.
async fn look(client: &AdminClient, seconds: u32) -> anyhow::Result<Look> {
    let before = client.text("/metrics").await?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new(seconds.into()),
        false => ProgressBar::hidden(),
    };
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let after = client.text("/metrics").await?;
    let mut status = client.ask(Method::GET, "/status", None).await?.body;
    if let Ok(others) = client.ask(Method::GET, "/replicas", None).await {
        status["replicas"] = others.body["replicas"].clone();
    }
    Ok(Look { status, before, after, seconds: seconds.into() })
}

/// The doctor's findings about new, in one line.
async fn probe(report: &Report) -> Finding {
    let options = Options {
        side: Some(Side::New),
        only: Vec::new(),
        skip: Vec::new(),
        concurrency: 8,
        timeout: Duration::from_secs(15),
    };
    let bar = Bar::new();
    let found = examine(report, &options, &bar).await;
    bar.clear();
    let of_new = found.iter().filter(|it| it.side == Some(Side::New));
    let mut failed: Vec<&str> =
        of_new.clone().filter(|it| it.status == Status::Fail).map(|it| it.id).collect();
    failed.dedup();
    let id = "ready.probes";
    if failed.is_empty() {
        let seen = format!("{} checks, none failed", of_new.count());
        return Finding::pass(id, Side::New, "doctor", seen);
    }
    let seen = format!("failed: {}", failed.join(", "));
    Finding::fail(id, Side::New, "doctor", seen, "cutover doctor --side new")
}
