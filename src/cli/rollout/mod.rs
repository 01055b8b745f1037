//! `cutover rollout`: the percentage, live.

mod change;
mod history;
mod replicas;
mod status;
mod verify;

use std::path::PathBuf;

use http::StatusCode;

use super::client::{self, Address, Answer};
use super::screen::Screen;
use super::{Context, Exit};
use crate::decide::percentage::Percentage;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Show the percentage and what stands around it
    Status {
        /// Show it again each second until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Change the percentage
    Set {
        /// Share of users on new: 0 to 100, at most two decimals
        #[arg(value_name = "N")]
        percentage: Percentage,
        /// Why, for the audit
        #[arg(long)]
        reason: String,
        /// Leave force: needed after an abort
        #[arg(long)]
        resume: bool,
        #[command(flatten)]
        wait: Wait,
    },
    /// Percentage 0 and everybody on old, at once: pins and testers too
    Abort {
        /// Why, for the audit
        #[arg(long, default_value = "abort")]
        reason: String,
        #[command(flatten)]
        wait: Wait,
    },
    /// List the changes, oldest first
    History {
        /// How many of the newest
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Check the chain of the audit file on this machine instead: exit 1 and the first line that does not fit, if it was touched
        #[arg(long)]
        verify: bool,
        /// Another file than the one that the settings name
        #[arg(long, value_name = "FILE", requires = "verify")]
        file: Option<PathBuf>,
    },
}

/// Whether to wait for all replicas.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Wait {
    /// Return when every replica serves it, or with exit 1 after so many seconds
    #[arg(
        long = "wait",
        value_name = "SECONDS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "30",
        value_parser = clap::value_parser!(u16).range(1..=3600),
    )]
    seconds: Option<u16>,
}

pub(super) fn run(verb: Verb, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Address { client, faults } = client::find(&context.sources)?;
    if let Some(faults) = &faults {
        context.screen.note(&format!(
            "warning: the settings have {} faults (see `cutover check`); asking the default admin address",
            faults.0.len()
        ))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match verb {
        Verb::Status { watch: false } => runtime.block_on(status::once(&client, context)),
        Verb::Status { watch: true } => runtime.block_on(status::watch(&client, context)),
        Verb::Set { percentage, reason, resume, wait } => {
            let asked = change::Asked::Set { percentage, resume };
            runtime.block_on(change::run(&client, asked, reason, wait.seconds, context))
        }
        Verb::Abort { reason, wait } => {
            let asked = change::Asked::Abort;
            runtime.block_on(change::run(&client, asked, reason, wait.seconds, context))
        }
        Verb::History { verify: true, file, .. } => {
            runtime.block_on(verify::run(&client, file, context))
        }
        Verb::History { limit, .. } => {
            runtime.block_on(history::run(&client, limit.into(), context))
        }
    }
}

/// Shows a refusal of the admin listener in its own words, and says which exit it means.
fn refused(answer: &Answer, screen: &mut Screen<'_>) -> anyhow::Result<Exit> {
    if screen.json {
        screen.value(&answer.body)?;
    } else {
        let text = |key: &str| answer.body[key].as_str().unwrap_or_default().to_owned();
        screen.note(&format!("error {}: {}", text("code"), text("message")))?;
        for key in ["details", "hint"] {
            for line in text(key).lines() {
                screen.note(&format!("  {line}"))?;
            }
        }
    }
    Ok(match answer.status {
        StatusCode::CONFLICT
        | StatusCode::PRECONDITION_FAILED
        | StatusCode::SERVICE_UNAVAILABLE => Exit::Refused,
        StatusCode::UNPROCESSABLE_ENTITY => Exit::Faults,
        _ => Exit::Error,
    })
}
