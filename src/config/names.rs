//! Tables of names: buckets and functions, and who owns them.

use std::collections::BTreeMap;

use figment::value::Value;

use super::tables::{Read, collect, table};
use super::value::{Problem, quoted, shown, text_of};
use crate::rewrite::storage::Folder;
use crate::side::Side;

/// What a bucket or a folder may be called: what Storage itself allows, without what would be read as something else in a path.
const BUCKET: &str =
    "a bucket's name: 1 to 100 visible characters, no /, %, ? or #, and not . or ..";
/// What a function may be called.
const FUNCTION: &str =
    "a function's name: segments of letters, digits, _ and -, with / between them";

fn is_segment(name: &str) -> bool {
    (1..=100).contains(&name.chars().count())
        && !matches!(name, "." | "..")
        && !name.chars().any(|c| c.is_control() || matches!(c, '/' | '%' | '?' | '#' | '\\'))
}

fn is_function(name: &str) -> bool {
    let is_word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    };
    name.len() <= 200 && name.split('/').all(is_word)
}

/// Reads each `name = value` of a table; a problem names its line.
fn lines<T>(
    value: &Value,
    allowed: &str,
    mut line: impl FnMut(&str, &Value) -> Result<T, Problem>,
) -> Read<Vec<T>> {
    collect(table(value, allowed)?.iter().map(|(name, value)| {
        line(name, value).map_err(|problem| {
            let at = format!(".{name}{}", problem.at);
            vec![problem.at(at)]
        })
    }))
}

pub(crate) fn folders(value: &Value) -> Read<Vec<Folder>> {
    let allowed = "old bucket = \"bucket\" or \"bucket/folder\"";
    lines(value, allowed, |old, to| {
        if !is_segment(old) {
            return Err(Problem::new(quoted(old), BUCKET));
        }
        let Some(text) = text_of(to) else { return Err(Problem::new(shown(to), allowed)) };
        if !text.split('/').all(is_segment) {
            return Err(Problem::new(
                quoted(text),
                format!("\"bucket\" or \"bucket/folder\", each {BUCKET}"),
            ));
        }
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        Ok(Folder { old: old.to_owned(), bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    })
}

pub(crate) fn paths(value: &Value) -> Read<BTreeMap<String, String>> {
    let allowed = "old name = \"name\" or \"name/more\"";
    let names = lines(value, allowed, |old, to| {
        let Some(new) = text_of(to) else { return Err(Problem::new(shown(to), allowed)) };
        match [old, new].into_iter().find(|name| !is_function(name)) {
            Some(name) => Err(Problem::new(quoted(name), FUNCTION)),
            None => Ok((old.to_owned(), new.to_owned())),
        }
    })?;
    Ok(names.into_iter().collect())
}

pub(crate) fn owners(value: &Value) -> Read<BTreeMap<String, Side>> {
    let owners = lines(value, "name = \"old\" or \"new\"", |name, side| {
        let read = text_of(side).map(str::trim).and_then(Side::parse);
        match read {
            Some(side) => Ok((name.to_owned(), side)),
            None => Err(Problem::new(shown(side), "\"old\" or \"new\"")),
        }
    })?;
    Ok(owners.into_iter().collect())
}
