//! A channel of realtime: the frames that join one, and what the service says to it (`supabase-wire.md` 4.3).

use serde_json::{Value, json};

use crate::checks::doctor::finding::Finding;
use crate::side::Side;

/// The channel: nobody else's.
pub(crate) const TOPIC: &str = "realtime:cutover-doctor";

/// Joins, and follows one table. Frames of vsn 2.0.0: `[join_ref, ref, topic, event, payload]`.
pub(crate) fn join(table: Option<(&str, &str)>, token: Option<&str>) -> String {
    let changes: Vec<Value> = table
        .map(|(schema, table)| json!({"event": "*", "schema": schema, "table": table}))
        .into_iter()
        .collect();
    let mut payload = json!({"config": {
        "broadcast": {"ack": false, "self": false}, "presence": {"key": "", "enabled": false},
        "postgres_changes": changes, "private": false}});
    if let (Some(token), Some(payload)) = (token, payload.as_object_mut()) {
        payload.insert("access_token".to_owned(), token.into());
    }
    json!(["1", "1", TOPIC, "phx_join", payload]).to_string()
}

/// Asks for a sign of life.
pub(crate) fn heartbeat() -> String {
    json!([null, "2", "phoenix", "heartbeat", {}]).to_string()
}

/// Says goodbye.
pub(crate) fn leave() -> String {
    json!(["1", "3", TOPIC, "phx_leave", {}]).to_string()
}

/// What the service has said so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The join: accepted, or why not.
    pub(crate) joined: Option<Result<(), String>>,
    /// The heartbeat was answered.
    pub(crate) is_alive: bool,
    /// The subscription to the table: accepted, or why not. It comes some time after the join.
    pub(crate) changes: Option<Result<(), String>>,
    /// Why the socket was never there, or ended.
    pub(crate) ended: Option<String>,
}

impl Heard {
    /// Takes in one text frame. Others than the expected ones say nothing.
    pub(crate) fn hear(&mut self, frame: &str) {
        let Ok(Value::Array(parts)) = serde_json::from_str(frame) else { return };
        let text = |index: usize| parts.get(index).and_then(Value::as_str);
        let payload = parts.get(4).unwrap_or(&Value::Null);
        let status = payload.get("status").and_then(Value::as_str);
        let outcome = |detail: Option<&Value>| match status {
            Some("ok") => Ok(()),
            _ => Err(detail.map_or_else(|| payload.to_string(), plain)),
        };
        match (text(1), text(3)) {
            (Some("1"), Some("phx_reply")) => {
                self.joined = Some(outcome(payload.pointer("/response/reason")));
            }
            (Some("2"), Some("phx_reply")) => self.is_alive = status == Some("ok"),
            (_, Some("system"))
                if payload.get("extension").and_then(Value::as_str) == Some("postgres_changes") =>
            {
                self.changes = Some(outcome(payload.get("message")));
            }
            _ => {}
        }
    }

    /// Whether there is nothing more to wait for.
    pub(crate) fn is_done(&self, wants_changes: bool) -> bool {
        let is_refused = matches!(self.joined, Some(Err(_)));
        let has_changes = !wants_changes || self.changes.is_some();
        self.ended.is_some()
            || is_refused
            || (self.joined.is_some() && self.is_alive && has_changes)
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The lines about one side. `table`: the one that was followed.
pub(crate) fn judged(side: Side, heard: &Heard, table: Option<&str>) -> Vec<Finding> {
    let mut findings = vec![joined(side, heard)];
    if let Some(table) = table
        && findings.iter().all(|it| it.fix.is_empty())
    {
        findings.push(changes(side, heard, table));
    }
    findings
}

fn joined(side: Side, heard: &Heard) -> Finding {
    const ID: &str = "realtime.join";
    let fix = "is Realtime on in this project (dashboard, Realtime, Settings: public access)? Self-hosted: the tenant is the Host's first label (projects.*.host)";
    match (&heard.joined, &heard.ended) {
        (Some(Ok(())), _) if heard.is_alive => {
            Finding::pass(ID, side, "channel", "joined, and alive")
        }
        (Some(Err(why)), _) => {
            let seen = format!("the join was refused: {why}");
            Finding::fail(ID, side, "channel", seen, fix)
        }
        (_, Some(why)) => Finding::fail(ID, side, "channel", why.clone(), fix),
        (Some(Ok(())), None) => {
            Finding::fail(ID, side, "channel", "joined, but the heartbeat was not answered", fix)
        }
        (None, None) => {
            Finding::fail(ID, side, "channel", "the join was not answered in time", fix)
        }
    }
}

fn changes(side: Side, heard: &Heard, table: &str) -> Finding {
    const ID: &str = "realtime.changes";
    let publication = format!(
        "on {side}: alter publication supabase_realtime add table {table};\nand see rest.granted for {table}: realtime reads as the subscriber"
    );
    match &heard.changes {
        Some(Ok(())) => Finding::pass(ID, side, table, "its changes can be followed"),
        Some(Err(why)) => {
            Finding::fail(ID, side, table, format!("no subscription: {why}"), publication)
        }
        None => {
            let seen = "the service said nothing about the subscription in time";
            let fix = format!(
                "a project that nobody followed for long needs some seconds to begin: ask again with --timeout 60\n{publication}"
            );
            Finding::warn(ID, side, table, seen, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::doctor::finding::Status;

    // Frames as Realtime writes them.
    const OK: &str = r#"["1","1","realtime:cutover-doctor","phx_reply",{"status":"ok","response":{"postgres_changes":[{"id":1,"event":"*","schema":"public","table":"t"}]}}]"#;
    const REFUSED: &str = r#"["1","1","realtime:cutover-doctor","phx_reply",{"status":"error","response":{"reason":"InvalidJWTToken: no"}}]"#;
    const ALIVE: &str = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
    const FOLLOWS: &str = r#"["1",null,"realtime:cutover-doctor","system",{"message":"Subscribed to PostgreSQL","status":"ok","extension":"postgres_changes","channel":"cutover-doctor"}]"#;
    const LOST: &str = r#"["1",null,"realtime:cutover-doctor","system",{"message":"Unable to subscribe to changes","status":"error","extension":"postgres_changes","channel":"cutover-doctor"}]"#;

    fn heard(frames: &[&str]) -> Heard {
        let mut heard = Heard::default();
        frames.iter().for_each(|frame| heard.hear(frame));
        heard
    }

    #[test]
    fn a_channel_is_judged_by_what_was_said() {
        for (frames, done, want) in [
            (&[OK, ALIVE, FOLLOWS][..], true, &[Status::Pass, Status::Pass][..]),
            (&[OK, ALIVE, LOST], true, &[Status::Pass, Status::Fail]),
            (&[OK, ALIVE], false, &[Status::Pass, Status::Warn]),
            (&[REFUSED], true, &[Status::Fail]),
            (&[OK], false, &[Status::Fail]),
            (&["{", "[]", "[1,2,3,4,5]"], false, &[Status::Fail]),
        ] {
            let heard = heard(frames);
            assert_eq!(heard.is_done(true), done, "{frames:?}");
            let found = judged(Side::New, &heard, Some("s.t"));
            let shown: Vec<Status> = found.iter().map(|it| it.status).collect();
            assert_eq!(shown, want, "{frames:?}");
        }
        assert!(heard(&[OK, ALIVE]).is_done(false));
        let ended = Heard { ended: Some("refused with 401".to_owned()), ..Heard::default() };
        assert_eq!(judged(Side::New, &ended, None)[0].seen, "refused with 401");
    }

    #[test]
    fn the_join_names_the_table_and_carries_the_token() {
        let frame: Value = serde_json::from_str(&join(Some(("s", "t")), Some("jwt"))).unwrap();
        assert_eq!(frame[4]["config"]["postgres_changes"][0]["schema"], "s");
        assert_eq!(frame[4]["access_token"], "jwt");
        let bare: Value = serde_json::from_str(&join(None, None)).unwrap();
        assert_eq!(bare[4]["config"]["postgres_changes"], json!([]));
        assert!(bare[4].get("access_token").is_none());
    }
}
