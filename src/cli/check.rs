//! `cutover check`: reads every source and says everything that is wrong with it, at once.

use std::collections::BTreeMap;

use serde_json::json;

use super::screen::Tone;
use super::{Context, Exit};
use crate::config;

pub(super) fn run(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let report = config::check(&context.sources)?;
    let screen = &mut context.screen;
    if screen.json {
        let sources: BTreeMap<_, _> = report.provenance.into_iter().collect();
        screen.value(&json!({
            "ok": true,
            "faults": [],
            "warnings": report.warnings,
            "sources": sources,
        }))?;
        return Ok(Exit::Done);
    }
    for warning in &report.warnings {
        let word = screen.paint("warning", Tone::Warn);
        screen.out.write_all(word.as_bytes())?;
        screen.line(&format!(": {warning}"))?;
    }
    let verdict = match report.warnings.len() {
        0 => "the settings are good".to_owned(),
        1 => "the settings are good; 1 warning".to_owned(),
        n => format!("the settings are good; {n} warnings"),
    };
    screen.line(&verdict)?;
    Ok(Exit::Done)
}
