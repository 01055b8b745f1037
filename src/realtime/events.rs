//! Database changes and the status of their subscription, in the client's words.

use foldhash::HashMap;
use serde::Deserialize;
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::bindings::Words;
use super::channel::{Channel, Leg};
use super::frame::{Message, quoted, unquoted};
use crate::rewrite::schema::SchemaMap;
use crate::side::Side;

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    ids: &'a RawValue,
    #[serde(borrow)]
    data: Data<'a>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow)]
    schema: &'a RawValue,
    #[serde(borrow)]
    table: &'a RawValue,
}

/// The frames that tell the client of one change: one for each way in which its bindings name the table, none when no binding asked
/// for it. `None` when it is no change that we can read.
pub(super) fn change(
    channel: &Channel,
    side: Side,
    map: &SchemaMap,
    message: &Message<'_>,
    text: &Utf8Bytes,
) -> Option<Vec<Utf8Bytes>> {
    let leg = channel.legs[side].as_ref()?;
    let change: Change<'_> = serde_json::from_str(message.payload()?.get()).ok()?;
    let ids: Vec<&RawValue> = serde_json::from_str(change.ids.get()).ok()?;
    let (schema, table) = (unquoted(change.data.schema)?, unquoted(change.data.table)?);
    let mut heard: Vec<(Words<'_>, Vec<u32>)> = Vec::new();
    for upstream in ids.iter().filter_map(|id| leg.ids.get(id.get())).flatten() {
        let Some(upstream) = leg.upstream.get(*upstream) else { continue };
        let Some(binding) = channel.bindings.get(upstream.serves) else { continue };
        let Some(words) = binding.words(upstream, side, map, (&schema, &table)) else { continue };
        match heard.iter_mut().find(|(known, _)| *known == words) {
            Some((_, ids)) if ids.contains(&binding.id) => {}
            Some((_, ids)) => ids.push(binding.id),
            None => heard.push((words, vec![binding.id])),
        }
    }
    let frames = heard.into_iter().map(|((schema, table), ids)| {
        let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
        let mut edits = message.edits();
        edits.replace(change.ids, format!("[{}]", ids.join(",")));
        edits.replace(change.data.schema, quoted(&schema));
        edits.replace(change.data.table, quoted(&table));
        edits.frame(text)
    });
    Some(frames.collect())
}

/// The same for an event of the old API, whose payload is the data itself.
pub(super) fn old_change(
    channel: &Channel,
    side: Side,
    map: &SchemaMap,
    topic: &str,
    message: &Message<'_>,
    text: &Utf8Bytes,
) -> Option<Vec<Utf8Bytes>> {
    let leg = channel.legs[side].as_ref()?;
    let data: Data<'_> = serde_json::from_str(message.payload()?.get()).ok()?;
    let (schema, table) = (unquoted(data.schema)?, unquoted(data.table)?);
    let (upstream, binding) = (leg.upstream.first()?, channel.bindings.first()?);
    let Some((schema, table)) = binding.words(upstream, side, map, (&schema, &table)) else {
        return Some(Vec::new());
    };
    let mut edits = message.edits();
    message.retopic(&mut edits, topic);
    edits.replace(data.schema, quoted(&schema));
    edits.replace(data.table, quoted(&table));
    Some(vec![edits.frame(text)])
}

/// What a `system` message says.
#[derive(Default, Deserialize)]
pub(super) struct System<'a> {
    #[serde(borrow, default)]
    extension: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    channel: Option<&'a RawValue>,
}

impl<'a> System<'a> {
    /// Reads a payload.
    pub(super) fn read(payload: Option<&'a RawValue>) -> Self {
        payload.and_then(|payload| serde_json::from_str(payload.get()).ok()).unwrap_or_default()
    }

    /// Whether it is about database changes.
    pub(super) fn is_of_changes(&self) -> bool {
        self.extension.is_some_and(|extension| extension.get() == r#""postgres_changes""#)
    }

    /// Whether it is an error.
    pub(super) fn is_error(&self) -> bool {
        self.status.is_some_and(|status| status.get() == r#""error""#)
    }

    /// The client's topic, and its tables in what the server quotes of the binding that it refused.
    pub(super) fn restore(
        &self,
        channel: &Channel,
        leg: &Leg,
        topic: &str,
        message: &Message<'_>,
        text: &Utf8Bytes,
    ) -> Utf8Bytes {
        let mut edits = message.edits();
        message.retopic(&mut edits, topic);
        if let (Some(raw), true) = (self.channel, channel.is_old_api) {
            let sub_topic = topic.strip_prefix("realtime:").unwrap_or(topic);
            edits.replace(raw, quoted(sub_topic));
        }
        if let Some((raw, said)) = self.message.and_then(|raw| Some((raw, unquoted(raw)?))) {
            let restored = restore_words(channel, leg, &said);
            if restored != *said {
                edits.replace(raw, quoted(&restored));
            }
        }
        edits.frame(text)
    }
}

/// The server names the binding that failed as `schema: billing, table: invoices`.
fn restore_words(channel: &Channel, leg: &Leg, said: &str) -> String {
    let mut known: HashMap<String, String> = HashMap::default();
    let named = |(schema, table)| format!("schema: {schema}, table: {table}");
    for upstream in &leg.upstream {
        let asked = channel.bindings.get(upstream.serves).and_then(|binding| binding.place());
        if let (Some(there), Some(asked)) = (upstream.place(), asked) {
            known.entry(named(there)).or_insert_with(|| named(asked));
        }
    }
    match known.iter().find(|(there, _)| said.contains(there.as_str())) {
        Some((there, asked)) => said.replace(there.as_str(), asked),
        None => said.to_owned(),
    }
}
