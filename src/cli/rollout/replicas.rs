//! `--wait`: until every replica serves the change. And what `status` says of them.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::change;
use crate::cli::client::AdminClient;
use crate::cli::screen::Tone;
use crate::cli::{Context, Exit};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// Waits until no replica is behind, at most so many seconds. Exit 1 names those who are, or who did not answer.
pub(super) async fn wait(
    client: &AdminClient,
    mut rollout: Value,
    seconds: u16,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    if !context.screen.json {
        change::show(&rollout, context)?;
    }
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(seconds.into());
    let mut drawn = 0;
    let (replicas, late) = loop {
        let now = current(client, &rollout).await;
        // What fails here may be a moment's trouble: until the time is over.
        let (replicas, late) = match client.ask(Method::GET, "/replicas", None).await {
            Ok(answer) if answer.status.is_success() => {
                let replicas = answer.body["replicas"].as_array().cloned().unwrap_or_default();
                let late: Vec<String> =
                    replicas.iter().filter_map(|one| behind(one, &rollout, &now)).collect();
                (replicas, late)
            }
            Ok(answer) => {
                let code = answer.body["code"].as_str().unwrap_or("?").to_owned();
                (Vec::new(), vec![format!("the replicas can't be asked: {code}")])
            }
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        drawn = draw(&replicas, (&rollout, &now), drawn, context)?;
        if late.is_empty() || Instant::now() >= deadline {
            break (replicas, late);
        }
        sleep(PAUSE.min(deadline - Instant::now())).await;
    };
    if context.screen.json {
        rollout["replicas"] = json!(replicas);
        rollout["behind"] = json!(late);
        context.screen.value(&rollout)?;
    } else if late.is_empty() {
        let (count, took) = (replicas.len(), begun.elapsed().as_secs_f64());
        let noun = if count == 1 { "replica serves" } else { "replicas serve" };
        context.screen.line(&format!("{count} {noun} it ({took:.1} s)"))?;
    }
    if late.is_empty() {
        return Ok(Exit::Done);
    }
    context.screen.note(&format!(
        "error: the change was made, and after {seconds} s not every replica serves it:"
    ))?;
    for one in late {
        context.screen.note(&format!("  {one}"))?;
    }
    Ok(Exit::Error)
}

/// On a terminal: one line for each replica, drawn over the last ones. Answers how many there are.
fn draw(
    replicas: &[Value],
    (rollout, now): (&Value, &Value),
    drawn: usize,
    context: &mut Context<'_>,
) -> anyhow::Result<usize> {
    let screen = &mut context.screen;
    if !screen.terminal || screen.json {
        return Ok(0);
    }
    if drawn > 0 {
        write!(screen.out, "\x1b[{drawn}A\x1b[J")?;
    }
    let pairs: Vec<_> = replicas
        .iter()
        .map(|replica| {
            let is_late = behind(replica, rollout, now).is_some();
            let tone = if is_late { Tone::Warn } else { Tone::Good };
            ("replica", line(replica), tone)
        })
        .collect();
    screen.pairs(&pairs)?;
    screen.out.flush()?;
    Ok(pairs.len())
}

/// What the proxy that made the change says now: the change, or a later one of somebody else's.
async fn current(client: &AdminClient, change: &Value) -> Value {
    match client.ask(Method::GET, "/rollout", None).await {
        Ok(answer) if answer.status.is_success() => answer.body,
        _ => change.clone(),
    }
}

/// Why a replica does not serve the change yet; `None` when it does, or a later one: what the proxy that made it says now. A higher epoch
/// alone says nothing, because a change of its own files lifts it too.
fn behind(replica: &Value, change: &Value, now: &Value) -> Option<String> {
    let name = name(replica);
    if let Some(error) = replica["error"].as_str() {
        return Some(format!("{name} does not answer: {error}"));
    }
    let (epoch, wanted) = (replica["epoch"].as_u64()?, change["epoch"].as_u64()?);
    let differs = ["percentage", "force"].iter().any(|key| replica[key] != now[key]);
    if epoch >= wanted && !differs {
        return None;
    }
    Some(format!("{name} is behind: {} (epoch {epoch}, wanted {wanted})", number(replica)))
}

/// One replica for people.
pub(super) fn line(replica: &Value) -> String {
    let name = name(replica);
    if let Some(error) = replica["error"].as_str() {
        return format!("{name}  {error}");
    }
    let ready = if replica["ready"] == true { "ready" } else { "not ready" };
    format!("{name}  {}, epoch {}, {ready}", number(replica), replica["epoch"])
}

fn name(replica: &Value) -> String {
    let address = replica["address"].as_str().unwrap_or("?");
    match replica["name"].as_str() {
        Some(name) => format!("{name} ({address})"),
        None => address.to_owned(),
    }
}

fn number(replica: &Value) -> String {
    let force = replica["force"].as_str().map(|side| format!(", everybody on {side}"));
    format!("{} %{}", replica["percentage"], force.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_behind_until_it_serves_the_change_or_a_later_one() {
        let change = json!({ "epoch": 7, "percentage": 10, "force": null });
        let later = json!({ "epoch": 8, "percentage": 20, "force": "old" });
        let says_with = |now: &Value, epoch: u64, percentage: u64, force: Value| {
            let replica = json!({
                "address": "10.0.0.1:8001", "name": "cutover-abc", "error": null, "ready": true,
                "epoch": epoch, "percentage": percentage, "force": force,
            });
            behind(&replica, &change, now)
        };
        assert_eq!(says_with(&change, 7, 10, Value::Null), None);
        assert_eq!(says_with(&change, 9, 10, Value::Null), None, "its files changed too");
        assert_eq!(says_with(&later, 8, 20, json!("old")), None, "somebody was there after us");
        for (now, epoch, percentage, force) in [
            (&change, 6, 10, Value::Null),
            (&change, 7, 5, Value::Null),
            (&change, 7, 10, json!("old")),
            // Its files changed, and it has not heard of the change.
            (&change, 9, 5, Value::Null),
            (&later, 9, 5, Value::Null),
        ] {
            let said = says_with(now, epoch, percentage, force).unwrap();
            assert!(said.contains("cutover-abc (10.0.0.1:8001) is behind"), "{said}");
        }
        let silent = json!({ "address": "10.0.0.2:8001", "name": null, "error": "refused" });
        assert_eq!(
            behind(&silent, &change, &change).unwrap(),
            "10.0.0.2:8001 does not answer: refused"
        );
    }
}
