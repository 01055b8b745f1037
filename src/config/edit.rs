//! Changing one value in a text and nothing else: comments, order, spacing, line ends and every other value stay byte
//! for byte. Pure; the caller checks the result as a whole before it is written.

use std::fmt;
use std::ops::Range;

use toml_edit::{ImDocument, Item, TableLike};

use super::envfile;

/// Why a text can't be edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEditable {
    /// It is no TOML.
    #[error("it is not valid TOML")]
    NotToml,
    /// The section is there but is no table, or no place for a new key can be found in it.
    #[error("the section has no place for the key")]
    NoPlace,
}

/// A value to write: a number, or a word that is quoted where the format asks for it.
#[derive(Clone, Copy, Debug)]
pub enum New<'a> {
    /// Written as it is.
    Number(&'a str),
    /// Quoted in TOML.
    Word(&'a str),
}

impl fmt::Display for New<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(text) => f.write_str(text),
            Self::Word(text) => write!(f, "\"{}\"", text.escape_default()),
        }
    }
}

/// Sets `section.key` in a TOML text, wherever and however it is written there; adds it where it is not.
///
/// # Errors
/// [`NotEditable`]
pub fn toml(text: &str, section: &str, key: &str, new: New<'_>) -> Result<String, NotEditable> {
    let document = ImDocument::parse(text).map_err(|_| NotEditable::NotToml)?;
    let newline = newline_of(text);
    let Some(item) = document.as_table().get(section) else {
        return Ok(append(text, &format!("[{section}]{newline}{key} = {new}"), newline));
    };
    if let Some(value) = item.get(key) {
        let span = value.span().ok_or(NotEditable::NoPlace)?;
        return splice(text, span, &new.to_string());
    }
    match item {
        Item::Value(value) => {
            let inline = value.as_inline_table().ok_or(NotEditable::NoPlace)?;
            let open = value.span().ok_or(NotEditable::NoPlace)?.start + 1;
            let comma = if inline.is_empty() { " " } else { "," };
            splice(text, open..open, &format!(" {key} = {new}{comma}"))
        }
        Item::Table(table) if table.is_dotted() => {
            let leaf = first_key(table).ok_or(NotEditable::NoPlace)?;
            let start = text.get(..leaf.start).ok_or(NotEditable::NoPlace)?;
            let line = start.rfind('\n').map_or(0, |at| at + 1);
            splice(text, line..line, &format!("{section}.{key} = {new}{newline}"))
        }
        // Only its sub-tables are there, such as [rollout.pins]: TOML lets the table itself come later.
        Item::Table(table) if table.is_implicit() => {
            Ok(append(text, &format!("[{section}]{newline}{key} = {new}"), newline))
        }
        Item::Table(table) => {
            let header = table.span().ok_or(NotEditable::NoPlace)?.start;
            let rest = text.get(header..).ok_or(NotEditable::NoPlace)?;
            match rest.find('\n') {
                Some(end) => {
                    let at = header + end + 1;
                    splice(text, at..at, &format!("{key} = {new}{newline}"))
                }
                None => Ok(append(text, &format!("{key} = {new}"), newline)),
            }
        }
        _ => Err(NotEditable::NoPlace),
    }
}

/// Where the first key below a table of dotted keys is written.
fn first_key(table: &dyn TableLike) -> Option<Range<usize>> {
    table.iter().find_map(|(name, item)| match item.as_table() {
        // A sub-table with a header of its own stands elsewhere.
        Some(inner) if inner.is_dotted() => first_key(inner),
        Some(_) => None,
        None => table.key(name).and_then(toml_edit::Key::span),
    })
}

/// Sets a variable in a text of `NAME=value` lines: in the line that counts (the last), or in a new one at the end.
#[must_use]
pub fn env(text: &str, name: &str, value: &str) -> String {
    let (lines, _) = envfile::parse(text);
    let newline = newline_of(text);
    let Some(line) = lines.iter().rfind(|line| line.name == name) else {
        return append(text, &format!("{name}={value}"), newline);
    };
    let quote = text
        .get(line.span.clone())
        .and_then(|old| old.chars().next())
        .filter(|c| matches!(c, '"' | '\''));
    let mut written =
        quote.map_or_else(|| value.to_owned(), |quote| format!("{quote}{value}{quote}"));
    // `NAME= # why`: the value must not run into the comment.
    if line.span.is_empty() && text.get(line.span.end..).is_some_and(|rest| rest.starts_with('#')) {
        written.push(' ');
    }
    // The span comes from this very text.
    splice(text, line.span.clone(), &written).unwrap_or_else(|_| text.to_owned())
}

fn splice(text: &str, span: Range<usize>, new: &str) -> Result<String, NotEditable> {
    let before = text.get(..span.start).ok_or(NotEditable::NoPlace)?;
    let after = text.get(span.end..).ok_or(NotEditable::NoPlace)?;
    Ok(format!("{before}{new}{after}"))
}

fn append(text: &str, lines: &str, newline: &str) -> String {
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
    format!("{text}{gap}{lines}{newline}")
}

/// The line end that the text uses.
fn newline_of(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}
