//! Answers to a join: the side's ids are learned, and the client reads its own bindings with ids of ours (trap 23: an SDK compares
//! each entry with what it asked for, and tears the channel down when they differ).

use std::borrow::Cow;

use foldhash::HashMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::bindings::{Binding, Upstream};
use super::frame::{Edits, Message, compose, quoted, unquoted};
use super::session::Version;

/// As the server says it.
pub(super) const TOO_MANY_CHANNELS: &str = "ChannelRateLimitReached: Too many channels";
/// More bytes of joins than a socket may have.
pub(super) const JOINS_TOO_LONG: &str =
    "InvalidJoinPayload: the joins of this connection are longer than the proxy allows";
/// More bindings than a channel may have.
pub(super) const TOO_MANY_BINDINGS: &str =
    "TooManyBindings: more postgres_changes on one channel than the proxy allows";
/// A binding that is no object.
pub(super) const NOT_A_BINDING: &str =
    "InvalidJoinPayload: postgres_changes: expected an array of maps";
/// A topic of the old API that no topic of this project can say.
pub(super) const NO_SUCH_TOPIC: &str = "TopicNotTranslatable: no topic of this project says this; subscribe with config.postgres_changes";
/// Two topics of the client's are one on a side.
pub(super) const TOPIC_TAKEN: &str =
    "TopicNotTranslatable: another channel of this connection has the same topic on this project";

/// A refused join, in the client's version.
pub(super) fn refusal(version: Version, message: &Message<'_>, reason: &str) -> Utf8Bytes {
    let payload = format!(r#"{{"status":"error","response":{{"reason":{}}}}}"#, quoted(reason));
    let join_ref = match version {
        Version::V1 => None,
        Version::V2 => message.raw_join_ref(),
    };
    compose(version, join_ref, message.raw_ref(), &message.topic(), "phx_reply", &payload)
}

#[derive(Default, Deserialize)]
struct Reply<'a> {
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    response: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Response<'a> {
    #[serde(borrow, default)]
    postgres_changes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// The answer to a join.
pub(super) struct Answer<'a> {
    reply: Reply<'a>,
    list: Option<&'a RawValue>,
}

impl<'a> Answer<'a> {
    /// Reads a payload; one that cannot be read is no ok.
    pub(super) fn read(payload: Option<&'a RawValue>) -> Self {
        let reply: Reply<'a> = payload
            .and_then(|payload| serde_json::from_str(payload.get()).ok())
            .unwrap_or_default();
        let response: Response<'a> = reply
            .response
            .and_then(|response| serde_json::from_str(response.get()).ok())
            .unwrap_or_default();
        Self { list: response.postgres_changes, reply }
    }

    /// Whether the join was accepted.
    pub(super) fn is_ok(&self) -> bool {
        self.reply.status.is_some_and(|status| status.get() == r#""ok""#)
    }

    /// The side's ids of what was asked; `None` when it lists something else.
    pub(super) fn ids(&self, upstream: &[Upstream]) -> Option<HashMap<Box<str>, Vec<usize>>> {
        let mut ids: HashMap<Box<str>, Vec<usize>> = HashMap::default();
        if upstream.is_empty() {
            return Some(ids);
        }
        let list: Vec<Listed<'_>> = serde_json::from_str(self.list?.get()).ok()?;
        if list.len() != upstream.len() {
            return None;
        }
        for (index, listed) in list.iter().enumerate() {
            ids.entry(listed.id.get().into()).or_default().push(index);
        }
        Some(ids)
    }

    /// Lists the client's own bindings.
    pub(super) fn restore(&self, bindings: &[Binding], edits: &mut Edits<'_>) {
        if bindings.is_empty() {
            return;
        }
        let entries: Vec<String> = bindings.iter().map(Binding::listed).collect();
        let list = format!("[{}]", entries.join(","));
        match (self.list, self.reply.response) {
            (Some(written), _) => edits.replace(written, list),
            // The rooms' side was asked for no changes, and may list none at all.
            (None, Some(response)) => {
                let rest = response.get().strip_prefix('{').map(str::trim_start);
                let said = match rest {
                    Some("}") | None => format!(r#"{{"postgres_changes":{list}}}"#),
                    Some(rest) => format!(r#"{{"postgres_changes":{list},{rest}"#),
                };
                edits.replace(response, said);
            }
            (None, None) => {}
        }
    }
}

#[derive(Deserialize)]
struct Presence<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
}

/// `track` or `untrack`, in small letters as the server compares them.
pub(super) fn presence_event(payload: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let presence: Presence<'_> = serde_json::from_str(payload?.get()).ok()?;
    unquoted(presence.event).map(|event| Cow::Owned(event.to_ascii_lowercase()))
}
