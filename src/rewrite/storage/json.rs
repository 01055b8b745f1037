//! JSON whose texts are replaced where they stand: every other byte, the order, the blanks and the digits of numbers stay.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::rewrite::query::{Span, Splices};

/// A JSON text that is being changed.
#[derive(Debug)]
pub(crate) struct Editor<'a> {
    text: &'a str,
    splices: Splices,
}

/// A value in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Value<'a>(&'a RawValue);

impl<'a> Editor<'a> {
    /// Begins; `None` when it is no JSON.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<(Self, Value<'a>)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let root: &RawValue = serde_json::from_str(text).ok()?;
        Some((Self { text, splices: Splices::default() }, Value(root)))
    }

    /// Puts a text in the place of a value.
    pub(crate) fn replace(&mut self, value: Value<'a>, with: &str) {
        if let (Some(span), Ok(with)) = (self.span(value), serde_json::to_string(with)) {
            self.splices.replace(span, with);
        }
    }

    /// Gives an object a member, in the place of the one that it has.
    pub(crate) fn set(&mut self, object: Value<'a>, key: &str, text: &str) {
        if let Some(value) = object.member(key) {
            return self.replace(value, text);
        }
        if !object.0.get().starts_with('{') {
            return;
        }
        let is_empty = object.0.get().trim_start_matches('{').trim_ascii_start() == "}";
        if let (Some(span), Ok(key), Ok(text)) =
            (self.span(object), serde_json::to_string(key), serde_json::to_string(text))
        {
            // Behind the brace.
            let comma = if is_empty { "" } else { "," };
            self.splices.insert(span.start + 1, format!("{key}:{text}{comma}"));
        }
    }

    /// The changed text; `None` when nothing changed.
    pub(crate) fn done(self) -> Option<Vec<u8>> {
        self.splices.apply(self.text).map(String::into_bytes)
    }

    /// Where a value stands: it was borrowed from the text.
    fn span(&self, value: Value<'a>) -> Option<Span> {
        let raw = value.0.get();
        let start = (raw.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)?;
        let end = start + raw.len();
        (self.text.get(start..end)? == raw).then_some(Span { start, end })
    }
}

impl<'a> Value<'a> {
    /// Its text, if it is one.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        let raw = self.0.get();
        if !raw.starts_with('"') {
            return None;
        }
        serde_json::from_str::<String>(raw).ok().map(Cow::Owned)
    }

    /// Whether it is null or an empty text: where a name may be left out, Storage takes both for none.
    pub(crate) fn is_nothing(self) -> bool {
        matches!(self.0.get(), "null" | "\"\"")
    }

    /// Whether it is null.
    pub(crate) fn is_null(self) -> bool {
        self.0.get() == "null"
    }

    /// Whether it is an array.
    pub(crate) fn is_list(self) -> bool {
        self.0.get().starts_with('[')
    }

    /// Its members, in order and with repetitions; none if it is no object.
    pub(crate) fn members(self) -> Vec<(String, Self)> {
        let mut found = Vec::new();
        if self.0.get().starts_with('{') {
            let mut reader = serde_json::Deserializer::from_str(self.0.get());
            if reader.deserialize_map(Members(&mut found)).is_err() {
                found.clear();
            }
        }
        found
    }

    /// The last member of this name, which is the one that counts; `None` if there is none.
    pub(crate) fn member(self, key: &str) -> Option<Self> {
        let [found] = self.pick([key])?;
        found
    }

    /// The same for several names, in one pass that keeps nothing else: whoever sends a body chooses how many members it has. `None` when
    /// the name of a member is no text (half a surrogate pair): others would read the members all the same.
    pub(crate) fn pick<const N: usize>(self, keys: [&str; N]) -> Option<[Option<Self>; N]> {
        let mut found = [None; N];
        if self.0.get().starts_with('{') {
            let mut reader = serde_json::Deserializer::from_str(self.0.get());
            reader.deserialize_map(Pick { keys: &keys, found: &mut found }).ok()?;
        }
        Some(found)
    }

    /// Its items; none if it is no array.
    pub(crate) fn items(self) -> Vec<Self> {
        let mut found = Vec::new();
        if self.is_list() {
            let mut reader = serde_json::Deserializer::from_str(self.0.get());
            if reader.deserialize_seq(Items(&mut found)).is_err() {
                found.clear();
            }
        }
        found
    }
}

struct Members<'v, 'a>(&'v mut Vec<(String, Value<'a>)>);

impl<'a> Visitor<'a> for Members<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some((key, value)) = map.next_entry::<String, &'a RawValue>()? {
            self.0.push((key, Value(value)));
        }
        Ok(())
    }
}

/// The values of some members.
struct Pick<'v, 'a> {
    keys: &'v [&'v str],
    found: &'v mut [Option<Value<'a>>],
}

impl<'a> Visitor<'a> for Pick<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<(), M::Error> {
        while let Some(place) = map.next_key_seed(PlaceOf(self.keys))? {
            let value = map.next_value::<&'a RawValue>()?;
            if let Some(found) = place.and_then(|place| self.found.get_mut(place)) {
                *found = Some(Value(value));
            }
        }
        Ok(())
    }
}

/// Which of these texts one is; none of them is not a fault.
struct PlaceOf<'v>(&'v [&'v str]);

impl<'a> DeserializeSeed<'a> for PlaceOf<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for PlaceOf<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|key| *key == name))
    }
}

struct Items<'v, 'a>(&'v mut Vec<Value<'a>>);

impl<'a> Visitor<'a> for Items<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut seq: S) -> Result<(), S::Error> {
        while let Some(value) = seq.next_element::<&'a RawValue>()? {
            self.0.push(Value(value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_replaced_changes() {
        let text = r#" { "a" : "x\u002fy", "n":1e400, "n": 12345678901234567890123, "l":[ "p" ,"q"], "o":{"a":null} } "#;
        let (mut editor, root) = Editor::read(text.as_bytes()).unwrap();
        assert_eq!(root.member("a").unwrap().text().unwrap(), "x/y");
        assert_eq!(root.member("n").unwrap().text(), None);
        assert!(root.member("o").unwrap().member("a").unwrap().is_nothing());
        editor.replace(root.member("a").unwrap(), "z\"");
        editor.replace(root.member("l").unwrap().items()[1], "r");
        editor.set(root.member("o").unwrap(), "b", "c");
        let want = text
            .replace(r#""x\u002fy""#, r#""z\"""#)
            .replace(r#""q""#, r#""r""#)
            .replace(r#"{"a":null"#, r#"{"b":"c","a":null"#);
        assert_eq!(String::from_utf8(editor.done().unwrap()).unwrap(), want);
    }

    #[test]
    fn nothing_replaced_is_nothing_changed_and_no_json_is_none() {
        let (mut editor, root) = Editor::read(br#"{"a":"b"}"#).unwrap();
        editor.replace(root.member("a").unwrap(), "b");
        assert_eq!(editor.done(), None);
        for bad in [&b""[..], b"{", b"\xff", b"{} x"] {
            assert!(Editor::read(bad).is_none());
        }
        let (_, root) = Editor::read(br#"{"a":1,"a":2,"b\u0063":3,"d":[{"a":4}]}"#).unwrap();
        let texts = root.pick(["bc", "a", "x"]).unwrap().map(|value| value.map(|v| v.0.get()));
        assert_eq!(texts, [Some("3"), Some("2"), None], "the last one counts");
        let (_, root) = Editor::read(br#"{"a":1,"\ud800":2}"#).unwrap();
        assert!(root.pick(["a"]).is_none(), "and not: there is none");
        let deep = "[".repeat(100_000);
        assert!(Editor::read(deep.as_bytes()).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[\\[\\]{}\",:a0\\\\ ]{0,30}") {
            if let Some((editor, root)) = Editor::read(text.as_bytes()) {
                root.members();
                root.items();
                prop_assert_eq!(editor.done(), None);
            }
        }
    }
}
