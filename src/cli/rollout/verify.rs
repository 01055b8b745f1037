//! `history --verify`: whether the audit file is as it was written. It is read here, and not by the proxy: the one that is asked for
//! evidence should not be the one that gives it.

use std::io;
use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Value, json};

use crate::cli::client::{AdminClient, NoAnswer};
use crate::cli::screen::Tone;
use crate::cli::{Context, Exit};
use crate::config;
use crate::config::audit::{self, Broken, LARGEST, Verified};
use crate::file;

/// What was found.
struct Found {
    file: String,
    verdict: Result<Verified, Broken>,
    /// Hash of the newest line.
    newest: Option<String>,
    /// What the running proxy remembers and the file does not hold.
    lost: Option<Value>,
}

/// `file`: another than the one that the settings name, such as one that was rotated.
pub(super) async fn run(
    client: &AdminClient,
    file: Option<PathBuf>,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let is_other = file.is_some();
    let path = match file {
        Some(file) => file,
        None => config::audit_file(&context.sources)?.ok_or_else(|| {
            anyhow::anyhow!("rollout.audit_file is empty: the audit is in the log only")
        })?,
    };
    let text = read(&path, is_other)?;
    let mut lost = None;
    if !is_other && client.is_local {
        match client.ask(Method::GET, "/audit?limit=1", None).await {
            Ok(answer) if answer.status.is_success() => {
                let newest = answer.body["records"].get(0).cloned();
                lost = newest.filter(|newest| !text.contains(newest["hash"].as_str().unwrap_or_default()));
            }
            Ok(answer) => return super::refused(&answer, &mut context.screen),
            Err(NoAnswer::NotRunning { .. }) => context.screen.note(
                "no proxy runs here: that lines were removed from the end of the file would not show (compare the newest hash with the log)",
            )?,
            Err(error) => return Err(error.into()),
        }
    }
    let found = Found {
        file: path.display().to_string(),
        verdict: audit::verify(&text),
        newest: newest(&text),
        lost,
    };
    show(&found, context)
}

fn read(path: &Path, is_other: bool) -> anyhow::Result<String> {
    match file::read(path, LARGEST) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        // Before the first change there is none.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_other => Ok(String::new()),
        Err(error) => Err(anyhow::anyhow!("{}: {error}", path.display())),
    }
}

fn newest(text: &str) -> Option<String> {
    let line = text.lines().rev().find_map(|line| serde_json::from_str::<audit::Record>(line).ok());
    line.map(|record| record.hash)
}

fn show(found: &Found, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Found { file, verdict, newest, lost } = found;
    let said = lost.as_ref().map(|record| {
        let text = |key: &str| record[key].as_str().unwrap_or("?").to_owned();
        format!(
            "the running proxy's newest record ({}, to {}) is not in it: lines were removed from its end, or it was rotated or could not be written",
            text("time"),
            text("to")
        )
    });
    let fault = verdict.as_ref().err().map(ToString::to_string).or(said);
    let screen = &mut context.screen;
    if screen.json {
        let verified = verdict.as_ref().ok();
        screen.value(&json!({
            "ok": fault.is_none(),
            "file": file,
            "records": verified.map(|v| v.records),
            "torn": verified.map(|v| v.torn),
            "line": verdict.as_ref().err().map(|broken| broken.line),
            "fault": fault,
            "newest": newest,
        }))?;
    } else if let Some(fault) = &fault {
        let word = screen.paint("broken", Tone::Bad);
        screen.out.write_all(word.as_bytes())?;
        screen.line(&format!(": {file}: {fault}"))?;
    } else if let Ok(Verified { records, torn }) = verdict {
        screen.line(&format!("whole: {file}: {records} records"))?;
        if let Some(newest) = newest {
            screen.line(&format!("newest hash: {newest}"))?;
        }
        if *torn {
            screen.line(
                "its last line was cut off while it was written; the next change takes it away",
            )?;
        }
    }
    Ok(if fault.is_none() { Exit::Done } else { Exit::Error })
}
