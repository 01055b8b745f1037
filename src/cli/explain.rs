//! `cutover explain`: which side serves a user, and why. Asks the settings, not the proxy: it works before the proxy
//! is started, and says what would happen with the settings as they are on disk.

use anyhow::Context as _;
use serde_json::Value;

use super::screen::Tone;
use super::{Context, Exit};
use crate::config;
use crate::path::explain::{Explained, Question, explain};

/// Who asks, and for what.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The user's id: the token's sub
    #[arg(long, value_name = "ID")]
    user: String,
    /// The request's method [default: GET]
    #[arg(long, requires = "path")]
    method: Option<String>,
    /// The request's path and query, to see it as its side receives it
    #[arg(long)]
    path: Option<String>,
    /// The Accept-Profile or Content-Profile that the client sends
    #[arg(long, value_name = "SCHEMA", requires = "path")]
    profile: Option<String>,
    /// The token's claims, for rollout.rules
    #[arg(long, value_name = "JSON")]
    claims: Option<String>,
}

pub(super) fn run(arguments: Arguments, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    anyhow::ensure!(!arguments.user.is_empty(), "--user is empty");
    let claims: Option<Value> = arguments
        .claims
        .map(|text| serde_json::from_str(&text))
        .transpose()
        .context("--claims is not JSON")?;
    let question = Question {
        user: arguments.user,
        method: arguments.method,
        path: arguments.path,
        profile: arguments.profile,
        claims,
    };
    let report = config::check(&context.sources)?;
    let explained = explain(&report.snapshot, &question)?;
    if context.screen.json {
        context.screen.value(&explained)?;
    } else {
        print(&question, &explained, context)?;
    }
    Ok(Exit::Done)
}

fn print(
    question: &Question,
    explained: &Explained,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    let mut pairs = vec![
        ("user", question.user.clone(), Tone::Plain),
        ("side", explained.side.to_string(), Tone::Good),
        ("reason", explained.reason.as_str().to_owned(), Tone::Plain),
        ("bucket", format!("{} of 10000", explained.bucket), Tone::Plain),
        ("moves at", format!("{} %", explained.moves_at), Tone::Plain),
    ];
    if let Some(rewritten) = &explained.rewritten {
        pairs.push(("request", format!("{} {}", rewritten.method, rewritten.path), Tone::Plain));
        if let Some(profile) = &rewritten.profile {
            pairs.push(("profile", profile.clone(), Tone::Plain));
        }
        for (name, value) in &rewritten.headers {
            pairs.push(("header", format!("{name}: {value}"), Tone::Plain));
        }
    }
    context.screen.pairs(&pairs)?;
    Ok(())
}
