//! `status`: the percentage and what stands around it; with `--watch`, again each second.

use std::time::Duration;

use http::Method;
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::refused;
use crate::cli::client::{AdminClient, NoAnswer};
use crate::cli::screen::Tone;
use crate::cli::{Context, Exit};

const INTERVAL: Duration = Duration::from_secs(1);
/// What a line of `--watch` is about: when one of these differs, something changed.
const KEYS: [&str; 6] = ["epoch", "percentage", "force", "source", "phase", "reload"];

type Pairs = Vec<(&'static str, String, Tone)>;

pub(super) async fn once(client: &AdminClient, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let answer = match client.ask(Method::GET, "/status", None).await {
        Ok(answer) => answer,
        Err(error @ NoAnswer::NotRunning { .. }) => {
            context.screen.error(&format!("the proxy is not running: {error}"))?;
            return Ok(Exit::Error);
        }
        Err(error) => return Err(error.into()),
    };
    if !answer.status.is_success() {
        return refused(&answer, &mut context.screen);
    }
    let mut status = answer.body;
    if let Ok(others) = client.ask(Method::GET, "/replicas", None).await
        && others.status.is_success()
    {
        status["replicas"] = others.body["replicas"].clone();
    }
    if context.screen.json {
        context.screen.value(&status)?;
    } else {
        context.screen.pairs(&pairs(&status))?;
    }
    Ok(Exit::Done)
}

/// Ends well on Ctrl-C, whatever it showed last.
pub(super) async fn watch(client: &AdminClient, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    let mut shown = Shown::default();
    loop {
        tokio::select! {
            _ = &mut stop => return Ok(Exit::Done),
            _ = ticks.tick() => {}
        }
        let status = tokio::select! {
            _ = &mut stop => return Ok(Exit::Done),
            answer = client.ask(Method::GET, "/status", None) => match answer {
                Ok(answer) if answer.status.is_success() => Ok(answer.body),
                // A wrong token stays wrong.
                Ok(answer) => return refused(&answer, &mut context.screen),
                Err(error) => Err(error.to_string()),
            },
        };
        shown.show(status, context)?;
    }
}

/// What is on the screen already.
#[derive(Default)]
struct Shown {
    lines: usize,
    last: Option<Result<Vec<Value>, String>>,
}

impl Shown {
    fn show(
        &mut self,
        status: Result<Value, String>,
        context: &mut Context<'_>,
    ) -> anyhow::Result<()> {
        let screen = &mut context.screen;
        if screen.terminal && !screen.json {
            let pairs = match &status {
                Ok(status) => pairs(status),
                Err(error) => vec![("proxy", error.clone(), Tone::Bad)],
            };
            if self.lines > 0 {
                // Back to the first line, and clear what was there.
                write!(screen.out, "\x1b[{}A\x1b[J", self.lines)?;
            }
            self.lines = pairs.len();
            screen.pairs(&pairs)?;
            return Ok(screen.out.flush()?);
        }
        let digest = status.clone().map(|status| KEYS.map(|key| status[key].clone()).to_vec());
        if self.last.as_ref() == Some(&digest) {
            return Ok(());
        }
        match (&status, screen.json) {
            (Ok(status), true) => screen.value(status)?,
            (Ok(status), false) => screen.line(&one_line(status))?,
            (Err(error), true) => screen.error(error)?,
            (Err(error), false) => screen.line(error)?,
        }
        self.last = Some(digest);
        Ok(screen.out.flush()?)
    }
}

fn one_line(status: &Value) -> String {
    let faults = status["reload"]["faults"].as_array().map_or(0, Vec::len);
    let force = status["force"].as_str().unwrap_or("none");
    let (phase, source) = (text(&status["phase"]), text(&status["source"]));
    format!(
        "percentage {} %, force {force}, epoch {}, {phase}, {source}, faults {faults}",
        status["percentage"], status["epoch"]
    )
}

fn pairs(status: &Value) -> Pairs {
    let force = match status["force"].as_str() {
        Some(side) => (format!("everybody is on {side}"), Tone::Warn),
        None => ("none".to_owned(), Tone::Plain),
    };
    let phase = text(&status["phase"]);
    let serving = if phase == "serving" { Tone::Good } else { Tone::Warn };
    let mut pairs = vec![
        ("percentage", format!("{} %", status["percentage"]), Tone::Good),
        ("force", force.0, force.1),
        ("epoch", status["epoch"].to_string(), Tone::Plain),
        ("source", text(&status["source"]), Tone::Plain),
        (
            "proxy",
            format!(
                "{phase}, version {}, up {} s",
                text(&status["version"]),
                status["uptime_seconds"]
            ),
            serving,
        ),
        ("in flight", status["requests_in_flight"].to_string(), Tone::Plain),
    ];
    if let Some(routes) = status["routes"].as_object() {
        let owners: Vec<String> =
            routes.iter().map(|(route, owner)| format!("{route}={}", text(owner))).collect();
        pairs.push(("routes", owners.join(" "), Tone::Plain));
    }
    if let Some(followed) = status["kubernetes"].as_object() {
        pairs.push(following(followed));
    }
    let replicas = status["replicas"].as_array().map(Vec::as_slice).unwrap_or_default();
    for replica in replicas.iter().filter(|_| replicas.len() > 1) {
        let agrees = ["epoch", "percentage", "force"].iter().all(|key| replica[key] == status[key]);
        let tone = if agrees { Tone::Good } else { Tone::Warn };
        pairs.push(("replica", super::replicas::line(replica), tone));
    }
    for fault in status["reload"]["faults"].as_array().into_iter().flatten() {
        let [source, key, found, allowed] =
            ["source", "key", "found", "allowed"].map(|part| text(&fault[part]));
        pairs.push((
            "fault",
            format!("{source}: {key}: found {found}, allowed: {allowed}"),
            Tone::Bad,
        ));
    }
    for warning in status["warnings"].as_array().into_iter().flatten() {
        pairs.push(("warning", text(warning), Tone::Warn));
    }
    pairs
}

/// How it stands with the ConfigMap.
fn following(followed: &serde_json::Map<String, Value>) -> (&'static str, String, Tone) {
    let value = |key: &str| followed.get(key).map(text).unwrap_or_default();
    let (name, revision) = (value("configmap"), value("revision"));
    if followed.get("connected") == Some(&Value::Bool(true)) {
        let heard = value("last_heard_seconds");
        let said = format!("{name}, revision {revision}, heard {heard} s ago");
        return ("configmap", said, Tone::Good);
    }
    let said = format!("{name}, revision {revision}, the API is not heard: {}", value("trouble"));
    ("configmap", said, Tone::Warn)
}

/// A JSON text without its quotes.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::screen::Screen;
    use crate::config::live::Sources;

    fn status(percentage: u8, uptime: u64) -> Value {
        json!({
            "version": "1", "uptime_seconds": uptime, "phase": "serving", "epoch": 3, "percentage": percentage,
            "force": null, "source": "config.toml", "requests_in_flight": uptime, "warnings": ["odd"],
            "reload": { "faults": [] }, "routes": { "rest": "rollout" },
        })
    }

    /// What `--watch` writes when the proxy answers like this, second by second.
    fn watched(terminal: bool, json: bool, answers: &[Result<Value, String>]) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let screen = Screen { out: &mut out, err: &mut err, json, terminal, colour: false };
        let mut context = Context { sources: Sources::default(), screen };
        let mut shown = Shown::default();
        for answer in answers {
            shown.show(answer.clone(), &mut context).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn without_a_terminal_only_changes_are_lines() {
        let gone = Err("no proxy answers".to_owned());
        let answers = [Ok(status(5, 1)), Ok(status(5, 2)), Ok(status(9, 3)), gone.clone(), gone];
        let text = watched(false, false, &answers);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert_eq!(lines[0], "percentage 5 %, force none, epoch 3, serving, config.toml, faults 0");
        assert!(lines[1].starts_with("percentage 9 %") && lines[2] == "no proxy answers", "{text}");

        let text = watched(false, true, &answers);
        let documents = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        assert_eq!(documents.count(), 3);
    }

    #[test]
    fn on_a_terminal_it_is_refreshed_in_place() {
        let text = watched(true, false, &[Ok(status(5, 1)), Ok(status(5, 2))]);
        let (first, second) = text.split_once("\x1b[8A\x1b[J").unwrap();
        assert_eq!((first.lines().count(), second.lines().count()), (8, 8), "{text}");
        assert!(second.contains("up 2 s") && second.contains("warning     odd"), "{text}");
    }

    #[test]
    fn text_of_the_network_can_not_move_the_cursor() {
        let mut evil = status(5, 1);
        evil["source"] = json!("\u{1b}[2Jconfig\nfile");
        let text = watched(true, false, &[Ok(evil)]);
        assert!(!text.contains('\u{1b}') && text.contains(" [2Jconfig file"), "{text}");
    }
}
