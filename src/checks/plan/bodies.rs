//! Finds, in the text of functions, the names of what moves.
//!
//! A tokenizer of SQL's words: it skips comments, folds bare names to lower case, reads quoted ones, joins `schema.name`, and looks
//! into strings too, because dynamic SQL is in them. It takes any text, also of languages that are not SQL, and never fails: what it
//! finds is for a person to read, and nothing is rewritten by it.

use super::moves::Moves;

/// How the text says the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// With the legacy schema before it.
    Qualified,
    /// Without a schema: `search_path` says which one.
    Unqualified,
    /// Inside a string: dynamic SQL, or a text that is compared.
    Text,
}

/// One name of what moves, in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Counted from 1, as PostgreSQL counts a body's lines.
    pub(super) line: usize,
    /// The line, trimmed.
    pub(super) text: String,
    pub(super) manner: Manner,
    /// Whether a relation is meant, else a function.
    pub(super) is_table: bool,
    /// The old name.
    pub(super) old: String,
    /// The schema on new.
    pub(super) schema: String,
    /// The name on new.
    pub(super) name: String,
}

/// Every name in `text` of what moves, one per line and name.
pub(super) fn references(text: &str, moves: &Moves<'_>) -> Vec<Reference> {
    let lines: Vec<&str> = text.split('\n').collect();
    let mut found: Vec<Reference> = Vec::new();
    for chain in chains(text) {
        let Some((manner, name)) = meant(&chain, moves.legacy) else { continue };
        let place = match (moves.table(name), moves.function(name), moves.merged.get(name)) {
            // A function is meant where a call stands; in a string it may be either.
            (_, Some(it), _) if chain.is_called => Some((false, &it.schema, &it.name)),
            (Some(it), _, _) => Some((true, &it.schema, &it.name)),
            (_, _, Some((schema, name))) => Some((true, schema, name)),
            (_, Some(it), _) if chain.in_string => Some((false, &it.schema, &it.name)),
            _ => None,
        };
        let Some((is_table, schema, new)) = place else { continue };
        let reference = Reference {
            line: chain.line,
            text: lines.get(chain.line - 1).map(|it| it.trim().to_owned()).unwrap_or_default(),
            manner,
            is_table,
            old: name.to_owned(),
            schema: schema.clone(),
            name: new.clone(),
        };
        if !found.contains(&reference) {
            found.push(reference);
        }
    }
    found
}

/// The part of a chain that may name what moves: `public.orders.id`, `orders.id`, `orders`; never the `orders` of `o.orders`.
fn meant<'t>(chain: &'t Chain, legacy: &str) -> Option<(Manner, &'t str)> {
    let (manner, name) = match chain.parts.as_slice() {
        [schema, name, ..] if schema == legacy => (Manner::Qualified, name),
        [name, ..] => (Manner::Unqualified, name),
        [] => return None,
    };
    Some((if chain.in_string { Manner::Text } else { manner }, name))
}

/// Names with dots between them.
#[derive(Debug, PartialEq, Eq)]
struct Chain {
    parts: Vec<String>,
    line: usize,
    in_string: bool,
    /// `(` follows.
    is_called: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Name(String),
    /// A word that is a name only after a dot, or in quotes.
    Reserved(String),
    Dot,
    Open,
    Other,
    /// The inside of a string.
    Text(String),
}

fn chains(text: &str) -> Vec<Chain> {
    let letters: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    collect(&letters, 1, false, &mut found);
    found
}

fn collect(letters: &[char], first_line: usize, in_string: bool, found: &mut Vec<Chain>) {
    let mut at = 0;
    let mut line = first_line;
    let mut chain: Option<Chain> = None;
    let mut after_dot = false;
    while let Some((token, next)) = token(letters, at, in_string) {
        let lines = letters.iter().take(next).skip(at).filter(|c| **c == '\n').count();
        at = next;
        match (token, &mut chain) {
            (None, _) => {}
            (Some(Token::Name(name) | Token::Reserved(name)), Some(open)) if after_dot => {
                open.parts.push(name);
                after_dot = false;
            }
            (Some(Token::Name(name)), _) => {
                found.extend(chain.take());
                chain = Some(Chain { parts: vec![name], line, in_string, is_called: false });
                after_dot = false;
            }
            (Some(Token::Dot), Some(_)) => after_dot = true,
            (Some(token), _) => {
                if let Some(mut open) = chain.take() {
                    open.is_called = token == Token::Open;
                    found.push(open);
                }
                after_dot = false;
                if let Token::Text(inner) = token {
                    let inner: Vec<char> = inner.chars().collect();
                    collect(&inner, line, true, found);
                }
            }
        }
        line += lines;
    }
    found.extend(chain);
}

/// The token at `at` and where the next begins; `None` for the token: space or a comment. `None`: the end.
fn token(letters: &[char], at: usize, in_string: bool) -> Option<(Option<Token>, usize)> {
    let first = *letters.get(at)?;
    let second = letters.get(at + 1).copied();
    let token = match (first, second) {
        ('-', Some('-')) if !in_string => (None, line_end(letters, at)),
        ('/', Some('*')) if !in_string => (None, comment_end(letters, at)),
        ('\'', _) => {
            let escapes = at > 0 && matches!(letters.get(at - 1), Some('e' | 'E'));
            quoted(letters, at, '\'', escapes, Token::Text)
        }
        ('"', _) => quoted(letters, at, '"', false, Token::Name),
        ('$', _) => dollar_quoted(letters, at),
        ('.', _) => (Some(Token::Dot), at + 1),
        ('(', _) => (Some(Token::Open), at + 1),
        (letter, _) if letter.is_whitespace() => (None, at + 1),
        (letter, _) if starts_name(letter) => {
            let rest = letters.iter().skip(at).take_while(|c| continues_name(**c));
            let name: String = rest.collect();
            let length = name.chars().count();
            (Some(bare(name.to_ascii_lowercase())), at + length)
        }
        // A number such as 1.5, or 1e3, is no name.
        (letter, _) if letter.is_ascii_digit() => {
            let length = letters
                .iter()
                .skip(at)
                .take_while(|c| c.is_ascii_alphanumeric() || **c == '.' || **c == '_')
                .count();
            (Some(Token::Other), at + length)
        }
        _ => (Some(Token::Other), at + 1),
    };
    Some(token)
}

/// PostgreSQL's reserved words.
const RESERVED: &str = "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint \
    create current_date current_role current_time current_timestamp current_user default deferrable desc distinct do else end \
    except false fetch for foreign from grant group having in initially intersect into lateral leading limit localtime \
    localtimestamp not null offset on only or order placing primary references returning select session_user some symmetric \
    system_user table then to trailing true union unique user using variadic when where window with";

fn bare(word: String) -> Token {
    match RESERVED.split_ascii_whitespace().any(|it| it == word) {
        true => Token::Reserved(word),
        false => Token::Name(word),
    }
}

const fn starts_name(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_' || !letter.is_ascii()
}

const fn continues_name(letter: char) -> bool {
    starts_name(letter) || letter.is_ascii_digit() || letter == '$'
}

fn line_end(letters: &[char], at: usize) -> usize {
    at + letters.iter().skip(at).take_while(|c| **c != '\n').count()
}

/// Comments nest in SQL.
fn comment_end(letters: &[char], at: usize) -> usize {
    let mut depth = 0_usize;
    let mut here = at;
    while let Some(letter) = letters.get(here) {
        match (letter, letters.get(here + 1)) {
            ('/', Some('*')) => (depth, here) = (depth + 1, here + 2),
            ('*', Some('/')) => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            break;
        }
    }
    here
}

/// The inside up to the closing quote, or the end; a doubled quote stands for one.
fn quoted(
    letters: &[char],
    at: usize,
    quote: char,
    escapes: bool,
    made: fn(String) -> Token,
) -> (Option<Token>, usize) {
    let mut inner = String::new();
    let mut here = at + 1;
    while let Some(&letter) = letters.get(here) {
        if letter == '\\' && escapes {
            // What is escaped can't end the string. A line break after it stays one: lines are counted by them.
            inner.extend(letters.get(here + 1));
            here += 2;
            continue;
        }
        if letter == quote {
            if letters.get(here + 1) != Some(&quote) {
                return (Some(made(inner)), here + 1);
            }
            here += 1;
        }
        inner.push(letter);
        here += 1;
    }
    (Some(made(inner)), here.min(letters.len()))
}

/// `$tag$ … $tag$`; a dollar that opens no string is a sign like others.
fn dollar_quoted(letters: &[char], at: usize) -> (Option<Token>, usize) {
    let tag = letters.iter().skip(at + 1).take_while(|c| continues_name(**c) && **c != '$').count();
    let is_parameter = letters.get(at + 1).is_some_and(char::is_ascii_digit);
    if is_parameter || letters.get(at + 1 + tag) != Some(&'$') {
        return (Some(Token::Other), at + 1);
    }
    let tag = letters.iter().skip(at).take(tag + 2).collect::<Vec<_>>();
    let start = at + tag.len();
    let rest = letters.get(start..).unwrap_or_default();
    let length = rest.windows(tag.len()).position(|window| window.iter().eq(tag.iter().copied()));
    let end = length.map_or(letters.len(), |length| start + length);
    let inner = letters.get(start..end).unwrap_or_default().iter().collect();
    (Some(Token::Text(inner)), (end + tag.len()).min(letters.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, usize, bool, bool)> {
        let chains = chains(text);
        chains
            .into_iter()
            .map(|it| (it.parts.join("."), it.line, it.in_string, it.is_called))
            .collect()
    }

    fn names(text: &str) -> Vec<String> {
        read(text).into_iter().map(|it| it.0).collect()
    }

    #[test]
    fn words_are_read_as_postgresql_reads_them() {
        for (text, expected) in [
            ("select Orders", vec!["orders"]),
            ("from \"select\", public.order", vec!["select", "public.order"]),
            ("public . \"Order \"\"x\"\"\" o", vec!["public.Order \"x\"", "o"]),
            ("a -- orders\nb", vec!["a", "b"]),
            ("a /* orders /* x */ y */ b", vec!["a", "b"]),
            ("a /* never ends", vec!["a"]),
            ("orders_archive xorders", vec!["orders_archive", "xorders"]),
            ("'it''s orders'", vec!["it", "s orders"]),
            ("e'\\' orders'", vec!["e", "orders"]),
            ("1.5 2e3 $1 o", vec!["o"]),
            ("$q$ orders $q$", vec!["orders"]),
            ("$$ a ' b $$", vec!["a", "b "]),
            ("größe", vec!["größe"]),
        ] {
            let found = names(text);
            let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
            // Inside a string a lone quote begins another one: its words are found one by one.
            let flat = |names: &[String]| names.join(" ").replace("  ", " ").trim().to_owned();
            assert_eq!(flat(&found), flat(&expected), "{text}");
        }
    }

    #[test]
    fn lines_strings_and_calls_are_known() {
        let text = "\nbegin\n  execute 'truncate\n    orders';\n  perform f (1);";
        let found = read(text);
        let named = |name: &str| found.iter().find(|it| it.0 == name).cloned().unwrap();
        assert_eq!(named("orders"), ("orders".to_owned(), 4, true, false));
        assert_eq!(named("f"), ("f".to_owned(), 5, false, true));
        assert_eq!(named("execute").1, 3);
    }

    proptest! {
        #[test]
        fn any_text_is_read_to_its_end(text in "(?s).{0,80}|[a-z\"'$/*\\-. \n\\\\]{0,60}") {
            let lines = text.split('\n').count();
            for chain in chains(&text) {
                prop_assert!((1..=lines).contains(&chain.line));
            }
        }

        /// A bare name between other words is found wherever it stands, unless a comment hides it.
        #[test]
        fn a_name_is_found(before in "[a-z(), ;=\n]{0,30}", after in "[a-z(), ;=\n]{0,30}") {
            let found = names(&format!("{before} orders {after}"));
            prop_assert!(found.iter().any(|it| it == "orders"));
            let line = before.matches('\n').count() + 1;
            let chains = chains(&format!("{before} orders {after}"));
            prop_assert!(chains.iter().any(|it| it.line == line && it.parts == ["orders"]));
        }
    }
}
