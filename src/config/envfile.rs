//! Files of `KEY=value` lines: `#` comments, an optional `export`, quotes. Nothing is expanded.

use std::ops::Range;

/// One line that sets a variable.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) value: String,
    /// Where the value stands in the text, quotes included.
    pub(crate) span: Range<usize>,
}

/// Reads a whole file: the lines that set a variable, and the numbers of those that can't be read.
pub(crate) fn parse(text: &str) -> (Vec<Line>, Vec<usize>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let mut start = 0;
    for (i, raw) in text.split('\n').enumerate() {
        let line = raw.strip_suffix('\r').unwrap_or(raw);
        // A byte order mark, as editors on Windows leave it.
        let line = if i == 0 { line.strip_prefix('\u{feff}').unwrap_or(line) } else { line };
        let offset = start + raw.find(line).unwrap_or_default();
        start += raw.len() + 1;
        let blank = line.trim_start();
        if blank.is_empty() || blank.starts_with('#') {
            continue;
        }
        match read(line, offset, i + 1) {
            Some(line) => good.push(line),
            None => bad.push(i + 1),
        }
    }
    (good, bad)
}

fn read(line: &str, offset: usize, number: usize) -> Option<Line> {
    let (left, right) = line.split_once('=')?;
    let name = left.trim();
    let name = match name.strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim_start(),
        _ => name,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty() || !name.bytes().all(plain) {
        return None;
    }
    let written = right.trim_start_matches([' ', '\t']);
    let at = line.len() - written.len();
    let (value, length) = match written.chars().next() {
        Some('"') => double_quoted(written)?,
        Some('\'') => {
            let end = written.get(1..)?.find('\'')?;
            (written.get(1..=end)?.to_owned(), end + 2)
        }
        _ => unquoted(written),
    };
    let rest = written.get(length..)?.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return None;
    }
    let start = offset + at;
    Some(Line { number, name: name.to_owned(), value, span: start..start + length })
}

/// The text up to a comment (a `#` at the start or after white space) or the end of the line.
fn unquoted(written: &str) -> (String, usize) {
    let mut end = written.len();
    let mut before = ' ';
    for (i, c) in written.char_indices() {
        if c == '#' && before.is_whitespace() {
            end = i;
            break;
        }
        before = c;
    }
    let value = written.get(..end).unwrap_or_default().trim_end();
    (value.to_owned(), value.len())
}

fn double_quoted(written: &str) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut chars = written.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        match c {
            '"' => return Some((value, i + 1)),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_shells_and_compose_read_them() {
        let text = "\u{feff}# head\r\nA=1\r\n export B = two words # why\nC=\"a \\\"b\\\" #c\" # d\nD='x\\n'\nE=\nF=#all\nG=a#b\n\n";
        let (lines, bad) = parse(text);
        let read: Vec<_> = lines.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
        let want = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "a \"b\" #c"),
            ("D", "x\\n"),
            ("E", ""),
            ("F", ""),
            ("G", "a#b"),
        ];
        assert_eq!(read, want);
        assert!(bad.is_empty());
        let spans: Vec<_> = lines.iter().map(|l| &text[l.span.clone()]).collect();
        assert_eq!(spans, ["1", "two words", "\"a \\\"b\\\" #c\"", "'x\\n'", "", "", "a#b"]);
        assert_eq!(lines[1].number, 3);
    }

    #[test]
    fn lines_that_set_nothing_are_named() {
        let (lines, bad) = parse("A=1\nnonsense\nB C=1\nD=\"open\nE=\"x\" y\n=1\n");
        assert_eq!(lines.len(), 1);
        assert_eq!(bad, [2, 3, 4, 5, 6]);
    }
}
