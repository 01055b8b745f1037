//! What differs between rows that have been fetched. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::tally::Key;

/// The digests of a row's columns; `None`: NULL.
pub type Cells = Vec<Option<String>>;

/// The rows of some keys. More than one row has a key only where two old tables become one, or where the key is none.
pub type Found = BTreeMap<Key, Vec<Cells>>;

/// How a row differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Old has it, new has not.
    Missing,
    /// New has it, old has not.
    Extra,
    /// Both have it, with other values.
    Changed,
}

/// A row that differs. It carries no value but its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// How.
    pub kind: Kind,
    /// The values of the key's columns.
    pub key: Key,
    /// The columns that differ, by name; empty unless the row is there once on both sides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<String>,
}

/// The keys whose rows differ, from the digests of both sides' rows in some buckets.
#[must_use]
pub fn keys(old: Vec<(Key, u128)>, new: Vec<(Key, u128)>) -> BTreeSet<Key> {
    let mut sides: BTreeMap<Key, [Vec<u128>; 2]> = BTreeMap::new();
    for (key, digest) in old {
        sides.entry(key).or_default()[0].push(digest);
    }
    for (key, digest) in new {
        sides.entry(key).or_default()[1].push(digest);
    }
    let differ = sides.into_iter().filter_map(|(key, [mut old, mut new])| {
        old.sort_unstable();
        new.sort_unstable();
        (old != new).then_some(key)
    });
    differ.collect()
}

/// How the rows of one key differ; `None`: they don't.
#[must_use]
pub fn judge(key: &Key, columns: &[String], old: &Found, new: &Found) -> Option<Difference> {
    let of = |side: &Found| {
        let mut rows = side.get(key).cloned().unwrap_or_default();
        rows.sort_unstable();
        rows
    };
    let (old, new) = (of(old), of(new));
    let (kind, columns) = match (old.as_slice(), new.as_slice()) {
        (old, new) if old == new => return None,
        (_, []) => (Kind::Missing, Vec::new()),
        ([], _) => (Kind::Extra, Vec::new()),
        ([old], [new]) => {
            let cells = columns.iter().zip(old.iter().zip(new));
            let differ = cells.filter(|(_, (old, new))| old != new);
            (Kind::Changed, differ.map(|(name, _)| name.clone()).collect())
        }
        _ => (Kind::Changed, Vec::new()),
    };
    Some(Difference { kind, key: key.clone(), columns })
}

/// The text of a JSON value that does not depend on the order of its keys or on spaces. Numbers stay as they were written: a `numeric`
/// is not read as a float.
#[must_use]
pub fn canonical(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    write_canonical(json.trim(), &mut text, 0);
    text
}

/// Deeper than this, a text is taken as it stands.
const DEPTH: usize = 64;

fn write_canonical(json: &str, text: &mut String, depth: usize) {
    use serde_json::value::RawValue;
    let separate = |text: &mut String, i: usize| {
        if i > 0 {
            text.push(',');
        }
    };
    match json.as_bytes().first() {
        Some(b'{') if depth < DEPTH => {
            if let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) {
                text.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    separate(text, i);
                    text.push_str(&serde_json::Value::from(name.as_str()).to_string());
                    text.push(':');
                    write_canonical(value.get(), text, depth + 1);
                }
                text.push('}');
                return;
            }
        }
        Some(b'[') if depth < DEPTH => {
            if let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(json) {
                text.push('[');
                for (i, value) in values.iter().enumerate() {
                    separate(text, i);
                    write_canonical(value.get(), text, depth + 1);
                }
                text.push(']');
                return;
            }
        }
        // One character may be written in several ways.
        Some(b'"') => {
            if let Ok(value) = serde_json::from_str::<String>(json) {
                text.push_str(&serde_json::Value::from(value).to_string());
                return;
            }
        }
        _ => {}
    }
    text.push_str(json);
}

/// The digest of one value of a row that PostgREST sent; `None` for NULL.
#[must_use]
pub fn cell(json: &str) -> Option<String> {
    let text = canonical(json);
    (text != "null").then(|| format!("{:x}", Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        vec![text.to_owned()]
    }

    #[test]
    fn json_is_one_text_however_it_was_written() {
        for (written, canonical_text) in [
            (
                r#"{"b":1, "a" : [ 1 , {"d":null,"c":true}]}"#,
                r#"{"a":[1,{"c":true,"d":null}],"b":1}"#,
            ),
            (r#"{"Ab":1,"b":2,"a":3}"#, r#"{"Ab":1,"a":3,"b":2}"#),
            (r#""\u00e4\/""#, r#""ä/""#),
            ("1.00", "1.00"),
            ("12345678901234567890.123", "12345678901234567890.123"),
            (" [ ] ", "[]"),
            ("{", "{"),
            ("", ""),
        ] {
            assert_eq!(canonical(written), canonical_text, "{written}");
        }
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        assert_eq!(canonical(&deep), deep);
        assert_ne!(canonical("1.0"), canonical("1.00"), "clients see two texts");
        assert_eq!(cell("null"), None);
        assert_ne!(cell("\"null\""), None);
        assert_ne!(cell("\"\""), None, "an empty text is not NULL");
    }

    #[test]
    fn a_key_differs_by_what_its_rows_are() {
        let row = |key_text: &str, digest| (key(key_text), digest);
        let old =
            vec![row("same", 1), row("gone", 2), row("other", 3), row("twice", 4), row("twice", 5)];
        let new =
            vec![row("twice", 5), row("twice", 4), row("other", 9), row("more", 2), row("same", 1)];
        let found: Vec<_> = keys(old, new).into_iter().map(|key| key.concat()).collect();
        assert_eq!(found, ["gone", "more", "other"]);
    }

    #[test]
    fn a_difference_names_its_columns() {
        let columns = ["a".to_owned(), "b".to_owned()];
        let row =
            |a: Option<&str>, b: Option<&str>| vec![a.map(str::to_owned), b.map(str::to_owned)];
        let side = |rows: &[Cells]| match rows {
            [] => Found::new(),
            rows => Found::from([(key("k"), rows.to_vec())]),
        };
        let (x, y, z) = (row(Some("1"), None), row(Some("1"), Some("")), row(Some("2"), Some("")));
        type Case<'a> = (&'a [Cells], &'a [Cells], Option<(Kind, &'a [&'a str])>);
        let cases: [Case<'_>; 8] = [
            (&[], &[], None),
            (std::slice::from_ref(&x), std::slice::from_ref(&x), None),
            (std::slice::from_ref(&x), &[], Some((Kind::Missing, &[]))),
            (&[], std::slice::from_ref(&x), Some((Kind::Extra, &[]))),
            (std::slice::from_ref(&x), std::slice::from_ref(&y), Some((Kind::Changed, &["b"]))),
            (
                std::slice::from_ref(&x),
                std::slice::from_ref(&z),
                Some((Kind::Changed, &["a", "b"])),
            ),
            (&[x.clone(), y.clone()], &[y.clone(), x.clone()], None),
            (&[x.clone(), y.clone()], std::slice::from_ref(&x), Some((Kind::Changed, &[]))),
        ];
        for (old, new, expected) in cases {
            let found = judge(&key("k"), &columns, &side(old), &side(new));
            let found = found.map(|found| (found.kind, found.columns));
            let expected = expected
                .map(|(kind, columns)| (kind, columns.iter().map(ToString::to_string).collect()));
            assert_eq!(found, expected, "{old:?} {new:?}");
        }
    }
}
