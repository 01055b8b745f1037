//! A raw query string, read without being decoded: a cursor that sees the decoded bytes and remembers where
//! the raw ones are, and the splices that replace names in it. Whatever no splice names stays byte for byte.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::identify::query::pieces;

/// What an inserted name may carry raw: RFC 3986's unreserved characters, and `$`.
const NAME: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$');

/// The parser met something that the grammar does not have; nothing there may be changed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown;

/// A piece of the raw query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// One parameter: where its name and, if it has one, its value stand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Param {
    pub(crate) key: Span,
    pub(crate) value: Option<Span>,
}

/// The parameters of a query. PostgREST's reader separates at `&` and at `;`, so both do here.
pub(crate) fn params(query: &str) -> impl Iterator<Item = Param> {
    pieces(query, b';').map(|(Range { start, end }, equals)| Param {
        key: Span { start, end: equals.unwrap_or(end) },
        value: equals.map(|at| Span { start: at + 1, end }),
    })
}

/// Whether a piece of a query says this name. Decoding never makes a text longer.
pub(crate) fn is(query: &str, span: Span, name: &str) -> bool {
    span.end - span.start >= name.len() && decode(query, span).is_some_and(|text| text == name)
}

/// Decodes a piece of a query (`+` is a space); `None` when it is no UTF-8.
pub(crate) fn decode(query: &str, span: Span) -> Option<Cow<'_, str>> {
    let raw = query.get(span.start..span.end)?;
    if !raw.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(raw));
    }
    let spaced = raw.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().ok()?;
    Some(Cow::Owned(decoded.into_owned()))
}

/// Encodes a name for a path.
pub(crate) fn encode_segment(name: &str) -> String {
    utf8_percent_encode(name, NAME).to_string()
}

/// Encodes a name for a place inside the query's grammar, in double quotes where it needs them.
pub(crate) fn encode_name(name: &str, is_quoted: bool) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
    if plain {
        return encode_segment(name);
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    let encoded = encode_segment(&escaped);
    if is_quoted { encoded } else { format!("%22{encoded}%22") }
}

/// A name as the client wrote it.
#[derive(Clone, Debug)]
pub(crate) struct Name<'q> {
    /// Decoded, without quotes.
    pub(crate) text: Cow<'q, str>,
    /// The raw bytes with the quotes.
    pub(crate) whole: Span,
    /// The raw bytes between the quotes, or all of them.
    pub(crate) inner: Span,
}

impl Name<'_> {
    pub(crate) fn is_quoted(&self) -> bool {
        self.whole != self.inner
    }
}

/// Reads a piece of a query decoded, byte by byte.
#[derive(Clone, Debug)]
pub(crate) struct Cursor<'q> {
    query: &'q str,
    pub(crate) at: usize,
    end: usize,
}

impl<'q> Cursor<'q> {
    pub(crate) fn new(query: &'q str, span: Span) -> Self {
        Self { query, at: span.start, end: span.end.min(query.len()) }
    }

    /// The next decoded byte and how many raw bytes it takes.
    fn next(&self) -> Option<(u8, usize)> {
        let rest = self.query.as_bytes().get(self.at..self.end)?;
        match *rest {
            [b'%', high, low, ..] => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => Some((high << 4 | low, 3)),
                _ => Some((b'%', 1)),
            },
            [b'+', ..] => Some((b' ', 1)),
            [byte, ..] => Some((byte, 1)),
            [] => None,
        }
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.next().map(|(byte, _)| byte)
    }

    pub(crate) fn bump(&mut self) -> Option<u8> {
        let (byte, width) = self.next()?;
        self.at += width;
        Some(byte)
    }

    /// Takes this text if it comes next.
    pub(crate) fn eat(&mut self, text: &str) -> bool {
        let mut ahead = self.clone();
        let found = text.bytes().all(|byte| ahead.bump() == Some(byte));
        if found {
            *self = ahead;
        }
        found
    }

    /// Whether this text comes next.
    pub(crate) fn sees(&self, text: &str) -> bool {
        self.clone().eat(text)
    }

    pub(crate) fn skip_space(&mut self) {
        let next = self.query.as_bytes().get(self.at);
        if next.is_some_and(|byte| !matches!(byte, b' ' | b'\t' | b'+' | b'%')) {
            return;
        }
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.bump();
        }
    }

    /// Takes bytes while `f` holds; how many it took.
    pub(crate) fn skip_while(&mut self, f: impl Fn(u8) -> bool) -> usize {
        let mut taken = 0;
        while self.peek().is_some_and(&f) {
            self.bump();
            taken += 1;
        }
        taken
    }

    /// Takes a name: double-quoted, or letters, digits, `_`, `$`, inner spaces and dashes (not `->`).
    pub(crate) fn name(&mut self) -> Result<Name<'q>, Unknown> {
        self.skip_space();
        if self.peek() == Some(b'"') { self.quoted() } else { self.plain() }
    }

    fn quoted(&mut self) -> Result<Name<'q>, Unknown> {
        let start = self.at;
        self.bump();
        let inner_start = self.at;
        let mut escaped = false;
        loop {
            let before = self.at;
            match self.bump().ok_or(Unknown)? {
                b'\\' => {
                    self.bump().ok_or(Unknown)?;
                    escaped = true;
                }
                b'"' => {
                    let inner = Span { start: inner_start, end: before };
                    let text = decode(self.query, inner).ok_or(Unknown)?;
                    let text = if escaped { Cow::Owned(unescape(&text)) } else { text };
                    return Ok(Name { text, whole: Span { start, end: self.at }, inner });
                }
                _ => {}
            }
        }
    }

    fn plain(&mut self) -> Result<Name<'q>, Unknown> {
        match self.simple() {
            Some(name) => Ok(name),
            None => self.any_plain(),
        }
    }

    /// Takes a name of ASCII letters, digits, `_` and `$` that nothing follows which could belong to it: nearly every name is one, and its
    /// bytes are what they stand for.
    fn simple(&mut self) -> Option<Name<'q>> {
        let rest = self.query.as_bytes().get(self.at..self.end)?;
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let may_go_on = |byte: &u8| matches!(byte, b'-' | b' ' | b'+' | b'%' | 0x80..);
        if length == 0 || rest.get(length).is_some_and(may_go_on) {
            return None;
        }
        let whole = Span { start: self.at, end: self.at + length };
        let text = self.query.get(whole.start..whole.end)?;
        self.at = whole.end;
        Some(Name { text: Cow::Borrowed(text), whole, inner: whole })
    }

    /// Takes any other name without quotes.
    fn any_plain(&mut self) -> Result<Name<'q>, Unknown> {
        let start = self.at;
        let mut end = start;
        let mut after_dash = true;
        while let Some(byte) = self.peek() {
            match byte {
                b'-' if self.sees("->") => break,
                b'-' if after_dash => return Err(Unknown),
                b'-' | b' ' => after_dash = byte == b'-' || after_dash,
                b'_' | b'$' | 0x80.. => after_dash = false,
                _ if byte.is_ascii_alphanumeric() => after_dash = false,
                _ => break,
            }
            self.bump();
            if byte != b' ' {
                end = self.at;
            }
        }
        if after_dash {
            return Err(Unknown);
        }
        let whole = Span { start, end };
        let text = decode(self.query, whole).ok_or(Unknown)?;
        Ok(Name { text, whole, inner: whole })
    }

    /// Takes a JSON path: any number of `->key` and `->>key`. Whether there was one.
    pub(crate) fn json_path(&mut self) -> Result<bool, Unknown> {
        let mut found = false;
        while self.eat("->") {
            found = true;
            self.eat(">");
            if self.peek() == Some(b'"') {
                self.quoted()?;
                continue;
            }
            let mut taken = 0;
            while let Some(byte) = self.peek() {
                if matches!(byte, b'(' | b':' | b'.' | b',' | b'>' | b')') || self.sees("->") {
                    break;
                }
                self.bump();
                taken += 1;
            }
            if taken == 0 {
                return Err(Unknown);
            }
        }
        Ok(found)
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    out
}

/// Replacements in a raw text; whatever they don't name stays as it is.
#[derive(Debug, Default)]
pub(crate) struct Splices(Vec<(Span, String)>);

impl Splices {
    pub(crate) fn replace(&mut self, span: Span, with: String) {
        self.0.push((span, with));
    }

    pub(crate) fn insert(&mut self, at: usize, text: String) {
        self.replace(Span { start: at, end: at }, text);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }

    /// The changed text; `None` when nothing changes.
    pub(crate) fn apply(mut self, raw: &str) -> Option<String> {
        self.0.retain(|(span, with)| raw.get(span.start..span.end) != Some(with.as_str()));
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by_key(|(span, _)| (span.start, span.end));
        let mut out = String::with_capacity(raw.len() + 64);
        let mut at = 0;
        for (span, with) in &self.0 {
            out.push_str(raw.get(at..span.start)?);
            out.push_str(with);
            at = span.end;
        }
        out.push_str(raw.get(at..)?);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_simple_name_is_read_as_any_other(query in "([a-c0_$]{1,3}|-|>| |%|%61|\\+|é|\"|\\.|,){0,6}") {
            let whole = Span { start: 0, end: query.len() };
            for start in (0..=query.len()).filter(|at| query.is_char_boundary(*at)) {
                let (mut quick, mut slow) = [start; 2].map(|start| Cursor::new(&query, Span { start, ..whole })).into();
                let read = |name: Result<Name<'_>, Unknown>| name.map(|name| (name.text.into_owned(), name.whole, name.inner));
                prop_assert_eq!(read(quick.plain()), read(slow.any_plain()));
                prop_assert!(slow.at == quick.at);
            }
        }

        #[test]
        fn parameters_are_what_splitting_makes_of_them(query in "([a-c]|=|&|;|%61|%|\\+|é){0,12}") {
            let text = |span: Span| &query[span.start..span.end];
            let found: Vec<_> =
                params(&query).map(|param| (text(param.key), param.value.map(text))).collect();
            let plain: Vec<_> = query
                .split(['&', ';'])
                .map(|piece| match piece.split_once('=') {
                    Some((key, value)) => (key, Some(value)),
                    None => (piece, None),
                })
                .collect();
            prop_assert_eq!(found, plain);
            for param in params(&query) {
                for name in ["a", "ab", " ", "é", ""] {
                    let plain = decode(&query, param.key).is_some_and(|key| key == name);
                    prop_assert_eq!(is(&query, param.key, name), plain);
                }
            }
        }
    }
}
