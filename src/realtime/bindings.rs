//! What a channel asks of `postgres_changes`, said to a side, and what is heard of it, said again in the client's words
//! (`supabase-wire.md` 4.3 and 4.4).
//!
//! The server looks for a binding's tables with SQL `LIKE`, and refuses **all** bindings of a channel if one of them finds no
//! table in the publication. So a whole schema that was split is asked for as `schema: "*"`, once, and what does not belong to it
//! is dropped here: one binding for each domain would fail as soon as one domain has no published table.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::frame::{Edits, quoted, unquoted};
use crate::rewrite::schema::SchemaMap;
use crate::side::Side;

/// A schema and a table.
pub(super) type Words<'a> = (Cow<'a, str>, Cow<'a, str>);

/// What the server takes for an absent schema.
const DEFAULT_SCHEMA: &str = "public";
/// Every schema, or every table.
const ANY: &str = "*";

/// One binding, as the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    /// The JSON object.
    pub(super) text: Box<str>,
    /// Its id as the client knows it: the place of the first equal binding of the channel, from 1, so that it stays the same when
    /// the channel is joined again elsewhere. Never 0, which SDKs take for none.
    pub(super) id: u32,
    asked: Asked,
}

/// What a binding hears.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Asked {
    /// One table.
    Table { schema: Box<str>, table: Box<str> },
    /// All tables of a schema.
    Schema(Box<str>),
    /// A table in whatever schema, or everything.
    Anywhere { table: Option<Box<str>> },
    /// What the server refuses, or a pattern for its `LIKE`: it goes and comes as it is.
    AsItIs,
}

/// One binding as a side hears it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    /// The JSON object.
    pub(super) text: Box<str>,
    /// Which of the channel's bindings it serves.
    pub(super) serves: usize,
    /// The only table that it may hear of: the side's `LIKE` may find more (trap 48).
    only: Option<(Box<str>, Box<str>)>,
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, default)]
    schema: Part<'a>,
    #[serde(borrow, default)]
    table: Part<'a>,
    #[serde(borrow, default)]
    filter: Part<'a>,
}

/// A member of an object; one that is `null` is there.
#[derive(Clone, Copy, Default)]
struct Part<'a>(Option<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Part<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&'de RawValue>::deserialize(deserializer).map(|raw| Self(Some(raw)))
    }
}

impl<'a> Part<'a> {
    fn is_absent(self) -> bool {
        self.0.is_none()
    }

    fn text(self) -> Option<Cow<'a, str>> {
        self.0.and_then(unquoted)
    }
}

/// The bindings of a join; `None` when one of them is not an object. A `null` is left out, as the server leaves it out.
pub(super) fn read(list: &[&RawValue]) -> Option<Vec<Binding>> {
    let mut bindings: Vec<Binding> = Vec::with_capacity(list.len());
    for raw in list.iter().filter(|raw| raw.get() != "null") {
        if !raw.get().starts_with('{') {
            return None;
        }
        bindings.push(binding(raw.get(), bindings.len()));
        let (last, before) = bindings.split_last_mut()?;
        if let Some(first) = before.iter().find(|first| first.text == last.text) {
            last.id = first.id;
        }
    }
    Some(bindings)
}

fn binding(text: &str, place: usize) -> Binding {
    let id = u32::try_from(place).map_or(u32::MAX, |place| place.saturating_add(1));
    let asked = serde_json::from_str(text).map_or(Asked::AsItIs, |written| asked(&written));
    Binding { text: text.into(), id, asked }
}

/// Reads as the server does: only some combinations of members mean anything to it.
fn asked(written: &Written<'_>) -> Asked {
    let unfiltered = written.filter.is_absent();
    let (schema, table) = match (written.schema.text(), written.table.text()) {
        (Some(schema), Some(table)) => (schema, table),
        (Some(schema), None) if written.table.is_absent() && unfiltered => (schema, ANY.into()),
        (None, Some(table)) if written.schema.is_absent() && unfiltered => {
            (DEFAULT_SCHEMA.into(), table)
        }
        _ => return Asked::AsItIs,
    };
    if schema.contains('%') || table.contains('%') {
        return Asked::AsItIs;
    }
    match (&*schema, &*table) {
        (ANY, ANY) => Asked::Anywhere { table: None },
        (ANY, table) => Asked::Anywhere { table: Some(table.into()) },
        (schema, ANY) => Asked::Schema(schema.into()),
        (schema, table) => Asked::Table { schema: schema.into(), table: table.into() },
    }
}

impl Binding {
    /// A binding of the old API, whose topic names schema, table and filter.
    pub(super) fn of_topic(schema: &str, table: Option<&str>, filter: Option<&str>) -> Self {
        let mut text = format!(r#"{{"schema":{}"#, quoted(schema));
        for (name, value) in [("table", table), ("filter", filter)] {
            if let Some(value) = value {
                text.push_str(&format!(r#","{name}":{}"#, quoted(value)));
            }
        }
        text.push('}');
        binding(&text, 0)
    }

    /// How the ok reply lists it: as it was written, with the id.
    pub(super) fn listed(&self) -> String {
        let inside = self.text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        match inside.map(str::trim).filter(|inside| !inside.is_empty()) {
            Some(inside) => format!(r#"{{{inside},"id":{}}}"#, self.id),
            None => format!(r#"{{"id":{}}}"#, self.id),
        }
    }

    /// Adds what `side` has to hear for this binding, the `serves`-th of its channel.
    pub(super) fn spread(
        &self,
        serves: usize,
        side: Side,
        map: &SchemaMap,
        out: &mut Vec<Upstream>,
    ) {
        let tables = map.tables();
        let as_it_is =
            |only: Option<(&str, &str)>| self.upstream(serves, None, None, only.map(owned));
        match (&self.asked, side) {
            (Asked::AsItIs, _) | (Asked::Anywhere { table: None }, _) => out.push(as_it_is(None)),
            (Asked::Table { schema, table }, Side::New) if **schema == *map.legacy() => {
                out.push(match tables.to_new(table) {
                    Some(place) => self.exactly(serves, place.schema, place.name),
                    None => as_it_is(Some((schema, table))),
                });
            }
            (Asked::Table { schema, table }, _) => {
                let old = match side {
                    Side::Old => tables.to_old(schema, table),
                    Side::New => None,
                };
                out.push(match old {
                    Some(old) if **schema != *map.legacy() => {
                        self.exactly(serves, map.legacy(), old)
                    }
                    _ => as_it_is(Some((schema, table))),
                });
            }
            (Asked::Schema(schema), Side::New) if **schema == *map.legacy() => {
                out.push(self.upstream(serves, Some(ANY), None, None));
            }
            (Asked::Schema(schema), Side::Old)
                if **schema != *map.legacy() && map.domain(schema).is_some() =>
            {
                out.push(self.upstream(serves, Some(map.legacy()), None, None));
            }
            (Asked::Schema(_), _) => out.push(as_it_is(None)),
            (Asked::Anywhere { table: Some(table) }, _) => {
                // A renamed table has its old name nowhere on new, and a binding that finds nothing fails its whole channel.
                let place = tables.to_new(table).filter(|place| place.name != &**table);
                out.push(match (place, side) {
                    (Some(place), Side::New) => self.exactly(serves, place.schema, place.name),
                    _ => as_it_is(None),
                });
            }
        }
    }

    fn exactly(&self, serves: usize, schema: &str, table: &str) -> Upstream {
        let only = Some(owned((schema, table)));
        let written = match &self.asked {
            Asked::Table { schema: s, table: t } => (&**s == schema, &**t == table),
            _ => (false, false),
        };
        let schema = (!written.0).then_some(schema);
        let table = (!written.1).then_some(table);
        self.upstream(serves, schema, table, only)
    }

    fn upstream(
        &self,
        serves: usize,
        schema: Option<&str>,
        table: Option<&str>,
        only: Option<(Box<str>, Box<str>)>,
    ) -> Upstream {
        Upstream { text: self.said(schema, table), serves, only }
    }

    /// The binding with other words.
    fn said(&self, schema: Option<&str>, table: Option<&str>) -> Box<str> {
        let Ok(written) = serde_json::from_str::<Written<'_>>(&self.text) else {
            return self.text.clone();
        };
        let mut edits = Edits::of(&self.text);
        let mut missing = String::new();
        for (name, part, value) in
            [("schema", written.schema, schema), ("table", written.table, table)]
        {
            match (part.0, value) {
                (Some(raw), Some(value)) => edits.replace(raw, quoted(value)),
                (None, Some(value)) => missing.push_str(&format!(r#""{name}":{},"#, quoted(value))),
                (_, None) => {}
            }
        }
        let text = edits.apply().map_or_else(|| self.text.clone(), String::into_boxed_str);
        match text.strip_prefix('{') {
            Some(rest) if !missing.is_empty() => format!("{{{missing}{rest}").into_boxed_str(),
            _ => text,
        }
    }

    /// How the client knows the table of an event that `side` sent for `upstream`; `None` when the binding did not ask for it.
    pub(super) fn words<'e>(
        &self,
        upstream: &Upstream,
        side: Side,
        map: &SchemaMap,
        (schema, table): (&'e str, &'e str),
    ) -> Option<Words<'e>> {
        let tables = map.tables();
        let legacy = map.legacy();
        let as_it_is = (Cow::Borrowed(schema), Cow::Borrowed(table));
        if let Some((only_schema, only_table)) = &upstream.only
            && (schema, table) != (&**only_schema, &**only_table)
        {
            return None;
        }
        let in_old_words = || {
            let old = tables.to_old(schema, table).map(str::to_owned);
            old.map(|old| (Cow::Owned(legacy.to_owned()), Cow::Owned(old)))
        };
        match (&self.asked, side) {
            (Asked::AsItIs, _) => Some(as_it_is),
            (Asked::Table { schema, table }, _) => {
                Some((Cow::Owned((**schema).to_owned()), Cow::Owned((**table).to_owned())))
            }
            (Asked::Schema(asked), Side::New) if **asked == *legacy => {
                in_old_words().or_else(|| (schema == legacy).then_some(as_it_is))
            }
            (Asked::Schema(asked), Side::Old)
                if **asked != *legacy && map.domain(asked).is_some() =>
            {
                let place = tables.to_new(table)?;
                let is_theirs = schema == legacy && *place.schema == **asked;
                let name = Cow::Owned(place.name.to_owned());
                is_theirs.then(|| (Cow::Owned((**asked).to_owned()), name))
            }
            (Asked::Schema(asked), _) => (schema == &**asked).then_some(as_it_is),
            (Asked::Anywhere { table: asked }, _) => {
                // Old words: whoever says `*` names no dialect, and was there before the new one.
                let words = match side {
                    Side::New => in_old_words().unwrap_or(as_it_is),
                    Side::Old => as_it_is,
                };
                asked.as_ref().is_none_or(|asked| *words.1 == **asked).then_some(words)
            }
        }
    }

    /// The schema and table of the one place that this binding means, where it means one.
    pub(super) fn place(&self) -> Option<(&str, &str)> {
        match &self.asked {
            Asked::Table { schema, table } => Some((schema, table)),
            _ => None,
        }
    }
}

impl Upstream {
    /// The one table that it hears of, if it is one.
    pub(super) fn place(&self) -> Option<(&str, &str)> {
        self.only.as_ref().map(|(schema, table)| (&**schema, &**table))
    }

    /// The topic that says this on the old API; `None` for a binding that no topic can say.
    pub(super) fn topic(&self) -> Option<String> {
        let written: Written<'_> = serde_json::from_str(&self.text).ok()?;
        let mut topic = format!("realtime:{}", written.schema.text()?);
        for part in [written.table, written.filter] {
            if let Some(text) = part.text() {
                topic.push(':');
                topic.push_str(&text);
            }
        }
        Some(topic)
    }
}

fn owned((schema, table): (&str, &str)) -> (Box<str>, Box<str>) {
    (schema.into(), table.into())
}
