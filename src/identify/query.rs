//! Reading and replacing single parameters of a raw query, leaving every other byte alone (trap 36).

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr3_iter;
use percent_encoding::percent_decode_str;

/// The decoded value of the first parameter of this name.
#[must_use]
pub fn value<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let (_, raw) = parameters(query).find(|(key, _)| is(key, name))?;
    Some(decode(query.get(raw)?))
}

/// The query with the value of each parameter of this name replaced; `None` when there is none.
#[must_use]
pub fn replace(query: &str, name: &str, new_value: &str) -> Option<String> {
    let mut replaced = String::with_capacity(query.len() + new_value.len());
    let mut copied = 0;
    for (_, raw) in parameters(query).filter(|(key, _)| is(key, name)) {
        replaced.push_str(query.get(copied..raw.start)?);
        replaced.push_str(new_value);
        copied = raw.end;
    }
    (copied > 0).then(|| replaced + query.get(copied..).unwrap_or_default())
}

/// Each parameter's raw name and where its raw value stands. A parameter without `=` has no value.
fn parameters(query: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    pieces(query, b'&').filter_map(|(piece, equals)| {
        let equals = equals?;
        Some((query.get(piece.start..equals)?, equals + 1..piece.end))
    })
}

/// Where each parameter of a raw query stands, and where its first `=`, if it has one. They are separated by `&` and by `also`.
pub(crate) fn pieces(query: &str, also: u8) -> impl Iterator<Item = (Range<usize>, Option<usize>)> {
    let mut marks = memchr3_iter(b'&', also, b'=', query.as_bytes());
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let (start, mut equals) = (next?, None);
        next = None;
        let mut end = query.len();
        for at in marks.by_ref() {
            if query.as_bytes().get(at) != Some(&b'=') {
                (end, next) = (at, Some(at + 1));
                break;
            }
            equals = equals.or(Some(at));
        }
        Some((start..end, equals))
    })
}

/// Whether a raw name says this one. Decoding never makes a text longer.
fn is(raw: &str, name: &str) -> bool {
    raw.len() >= name.len() && decode(raw) == name
}

fn decode(raw: &str) -> Cow<'_, str> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Cow::Borrowed(raw);
    }
    let spaced = raw.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_and_replaces_only_the_named_value() {
        let query = "select=a+b&apikey=k%31&x=%2F&apikey";
        assert_eq!(value(query, "apikey").unwrap(), "k1");
        assert_eq!(value(query, "select").unwrap(), "a b");
        assert_eq!(value(query, "y"), None);
        assert_eq!(replace(query, "y", "n"), None);
        assert_eq!(
            replace("a=1&apikey=old&b=%20", "apikey", "new").unwrap(),
            "a=1&apikey=new&b=%20"
        );
        assert_eq!(replace("api%6Bey=old", "apikey", "new").unwrap(), "api%6Bey=new");
    }

    proptest! {
        #[test]
        fn parameters_are_what_splitting_makes_of_them(query in "([a-c]|=|&|%61|%|\\+|é){0,12}") {
            let found: Vec<_> = parameters(&query).map(|(key, value)| (key, &query[value])).collect();
            let split: Vec<_> = query.split('&').filter_map(|part| part.split_once('=')).collect();
            prop_assert_eq!(&found, &split);
            for name in ["a", "b", "é", "", " ", "ab"] {
                let plain = split.iter().find(|(key, _)| decode(key) == name).map(|(_, value)| decode(value));
                prop_assert_eq!(value(&query, name), plain);
            }
        }

        #[test]
        fn replacing_touches_only_the_named_values(parts in prop::collection::vec("[a-c]{1,2}(=[a-c%+é]{0,4})?", 0..6)) {
            let query = parts.join("&");
            let by_hand: Vec<String> = parts
                .iter()
                .map(|part| if part.starts_with("a=") { "a=NEW".to_owned() } else { part.clone() })
                .collect();
            prop_assert_eq!(replace(&query, "a", "NEW").unwrap_or(query), by_hand.join("&"));
        }
    }
}
