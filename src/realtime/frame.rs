//! Text frames of both versions (`supabase-wire.md` 4.2), read without copying and changed by cutting: what is not replaced stays
//! the same bytes, so numbers keep their digits and objects their order.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tungstenite::Utf8Bytes;

use super::session::Version;

/// Begins the refs of requests that are ours, so that no answer to them reaches the client.
const OWN_REF: &str = "cutover:";

/// One text frame. All of it is borrowed from the frame.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    text: &'a str,
    fields: Fields<'a>,
}

#[derive(Clone, Copy, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    topic: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

/// `[join_ref, ref, topic, event, payload]`; what stands behind is nobody's (as the server reads it).
struct Row<'a>(Fields<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Row<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = Row<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[join_ref, ref, topic, event, payload]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut row: A) -> Result<Self::Value, A::Error> {
                let short = || serde::de::Error::invalid_length(0, &"five elements");
                let join_ref = row.next_element()?.ok_or_else(short)?;
                let reference = row.next_element()?.ok_or_else(short)?;
                let topic = row.next_element()?.ok_or_else(short)?;
                let event = row.next_element()?.ok_or_else(short)?;
                let payload = row.next_element()?.ok_or_else(short)?;
                while row.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Row(Fields { topic, event, payload, reference, join_ref }))
            }
        }
        deserializer.deserialize_seq(Rows)
    }
}

impl<'a> Message<'a> {
    /// Reads a frame; `None` when it is not one, or one that no server and no client would understand.
    pub(super) fn read(version: Version, text: &'a str) -> Option<Self> {
        let fields: Fields<'a> = match version {
            Version::V1 => serde_json::from_str(text).ok()?,
            Version::V2 => serde_json::from_str::<Row<'a>>(text).ok()?.0,
        };
        let is_text = |raw: &RawValue| raw.get().starts_with('"');
        (is_text(fields.topic) && is_text(fields.event)).then_some(Self { text, fields })
    }

    /// The topic.
    pub(super) fn topic(&self) -> Cow<'a, str> {
        unquoted(self.fields.topic).unwrap_or_default()
    }

    /// The event.
    pub(super) fn event(&self) -> Cow<'a, str> {
        unquoted(self.fields.event).unwrap_or_default()
    }

    /// The payload, if there is one that is not `null`.
    pub(super) fn payload(&self) -> Option<&'a RawValue> {
        self.fields.payload
    }

    /// The ref as it is compared: without quotes, because a number and its text are the same to everybody.
    pub(super) fn reference(&self) -> Option<&'a str> {
        self.fields.reference.map(plain)
    }

    /// The ref as it was written.
    pub(super) fn raw_ref(&self) -> Option<&'a str> {
        self.fields.reference.map(RawValue::get)
    }

    /// The join's ref as it is compared.
    pub(super) fn join_ref(&self) -> Option<&'a str> {
        self.fields.join_ref.map(plain)
    }

    /// The join's ref as it was written.
    pub(super) fn raw_join_ref(&self) -> Option<&'a str> {
        self.fields.join_ref.map(RawValue::get)
    }

    /// Nothing changed yet.
    pub(super) fn edits(&self) -> Edits<'a> {
        Edits::of(self.text)
    }

    /// The frame with another topic, and nothing else that is other: the very same one if the topic is.
    pub(super) fn on_topic(&self, topic: &str, original: &Utf8Bytes) -> Utf8Bytes {
        let mut edits = self.edits();
        self.retopic(&mut edits, topic);
        edits.frame(original)
    }

    /// Puts another topic into a frame that is changed elsewhere too.
    pub(super) fn retopic(&self, edits: &mut Edits<'a>, topic: &str) {
        if self.topic() != topic {
            edits.replace(self.fields.topic, quoted(topic));
        }
    }
}

/// A text in JSON, as text; `None` for anything else.
pub(super) fn unquoted(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inside = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inside))
}

/// A text as JSON writes it.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn plain(raw: &RawValue) -> &str {
    let text = raw.get();
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Replacements in a JSON text.
pub(super) struct Edits<'a> {
    text: &'a str,
    list: Vec<(usize, usize, String)>,
}

impl<'a> Edits<'a> {
    /// No change to `text`.
    pub(super) const fn of(text: &'a str) -> Self {
        Self { text, list: Vec::new() }
    }

    /// Puts `with` in the place of `part`, which was read out of the text.
    pub(super) fn replace(&mut self, part: &RawValue, with: String) {
        let start = (part.get().as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        let end = start.wrapping_add(part.get().len());
        if self.text.get(start..end) != Some(with.as_str()) {
            self.list.push((start, end, with));
        }
    }

    /// The text with all replacements; `None` when there are none.
    pub(super) fn apply(mut self) -> Option<String> {
        if self.list.is_empty() {
            return None;
        }
        self.list.sort_unstable_by_key(|(start, ..)| *start);
        let grown: usize = self.list.iter().map(|(_, _, with)| with.len()).sum();
        let mut out = String::with_capacity(self.text.len() + grown);
        let mut at = 0;
        for (start, end, with) in &self.list {
            out.push_str(self.text.get(at..*start).unwrap_or_default());
            out.push_str(with);
            at = *end;
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        Some(out)
    }

    /// The frame with all replacements: the very same one when there are none.
    pub(super) fn frame(self, original: &Utf8Bytes) -> Utf8Bytes {
        self.apply().map_or_else(|| original.clone(), Utf8Bytes::from)
    }
}

/// A frame of our own. Refs are JSON; a missing one is `null`, or left out where the version names its fields.
pub(super) fn compose(
    version: Version,
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &str,
) -> Utf8Bytes {
    let (topic, event) = (quoted(topic), quoted(event));
    let reference = reference.unwrap_or("null");
    let text = match (version, join_ref) {
        (Version::V2, _) => {
            let join_ref = join_ref.unwrap_or("null");
            format!("[{join_ref},{reference},{topic},{event},{payload}]")
        }
        (Version::V1, None) => {
            format!(r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference}}}"#)
        }
        (Version::V1, Some(join_ref)) => format!(
            r#"{{"topic":{topic},"event":{event},"payload":{payload},"ref":{reference},"join_ref":{join_ref}}}"#
        ),
    };
    Utf8Bytes::from(text)
}

/// The refs of our own requests.
#[derive(Debug, Default)]
pub(super) struct Refs(u64);

impl Refs {
    /// One that was never used, as it is compared.
    pub(super) fn next(&mut self) -> String {
        self.0 += 1;
        format!("{OWN_REF}{}", self.0)
    }
}

/// Whether a ref is of a request of ours.
pub(super) fn is_own(reference: Option<&str>) -> bool {
    reference.is_some_and(|reference| reference.starts_with(OWN_REF))
}
