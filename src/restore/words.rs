//! The names in the texts of PostgREST's and PostgreSQL's errors, said in the client's dialect.
//!
//! A text is read word by word. A word counts as a name only where such texts have names: after a schema and a
//! dot, after `table`, `relation`, `schema` and the like, and in PostgREST's own errors between quotes. A word
//! elsewhere (a column, a constraint, what a function raised) stays.

use serde_json::Value;

use crate::rewrite::rest::Words;
use crate::side::Side;

/// Where in an error a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// `message` or `details`.
    Text,
    /// `hint`: may suggest names that the client's dialect does not have.
    Hint,
    /// Inside the list in `details` of PGRST201, where names stand bare.
    Relationship,
}

/// Restores the texts of one error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Speech<'a> {
    pub(crate) words: &'a Words,
    /// The profile that was sent.
    pub(crate) sent: &'a str,
    /// The client's profile.
    pub(crate) client: &'a str,
    pub(crate) code: &'a str,
}

/// A text at work.
#[derive(Default)]
struct Text {
    out: String,
    /// Up to where `out` holds the text.
    at: usize,
    /// How many parentheses are open at the word being read.
    depth: usize,
    /// Something names what the client's dialect does not have.
    unknown: bool,
}

impl Text {
    fn count_parentheses(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                b'(' => self.depth += 1,
                b')' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    fn replace(&mut self, text: &str, word: Word<'_>, with: &str) {
        self.out.push_str(text.get(self.at..word.start).unwrap_or_default());
        self.out.push_str(with);
        self.at = word.start + word.text.len();
    }
}

#[derive(Clone, Copy)]
struct Word<'t> {
    start: usize,
    text: &'t str,
    /// All before it, all after it.
    before: &'t str,
    after: &'t str,
}

impl Speech<'_> {
    /// Restores a value in place; whether it changed.
    pub(crate) fn restore(&self, value: &mut Value, place: Place) -> bool {
        match value {
            Value::String(text) => match self.text(text, place) {
                Some(Some(restored)) => {
                    *text = restored;
                    true
                }
                Some(None) => {
                    *value = Value::Null;
                    true
                }
                None => false,
            },
            Value::Array(items) => {
                items.iter_mut().fold(false, |changed, item| self.restore(item, place) | changed)
            }
            Value::Object(fields) => {
                let place = if self.code == "PGRST201" { Place::Relationship } else { place };
                fields
                    .iter_mut()
                    .fold(false, |changed, (_, item)| self.restore(item, place) | changed)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// `None`: unchanged; `Some(None)`: to be blanked.
    #[allow(clippy::option_option, reason = "three outcomes, used once, right above")]
    fn text(&self, text: &str, place: Place) -> Option<Option<String>> {
        let mut done = Text::default();
        let mut from = 0;
        while let Some(word) = next_word(text, from) {
            done.count_parentheses(text.get(from..word.start).unwrap_or_default());
            from = word.start + word.text.len();
            if let Some(end) = self.qualified(text, word, &mut done) {
                from = end;
            } else if let Some(said) = self.single(word, place, &mut done) {
                done.replace(text, word, &said);
            }
        }
        let suggests = matches!(self.code, "PGRST200" | "PGRST202" | "PGRST205");
        if done.unknown && place == Place::Hint && suggests {
            return Some(None);
        }
        if done.at == 0 {
            return None;
        }
        done.out.push_str(text.get(done.at..).unwrap_or_default());
        (done.out != text).then_some(Some(done.out))
    }

    /// `schema.name`, also `"schema"."name"`; the end of the second word when it was one.
    fn qualified(&self, text: &str, word: Word<'_>, done: &mut Text) -> Option<usize> {
        let dot = if word.after.starts_with("\".\"") { 3 } else { 1 };
        if !self.is_schema(word.text) || !(dot == 3 || word.after.starts_with('.')) {
            return None;
        }
        let from = word.start + word.text.len() + dot;
        let name = next_word(text, from).filter(|name| name.start == from)?;
        match self.names(word.text, name.text) {
            Some((schema, said)) => {
                done.replace(text, word, schema);
                done.replace(text, name, said);
            }
            None => done.unknown = true,
        }
        Some(name.start + name.text.len())
    }

    /// Whether the side has its tables in this schema.
    fn is_schema(&self, word: &str) -> bool {
        let is_domain = || self.words.map.domain(word).is_some();
        word == self.sent || (self.words.side == Side::New && is_domain())
    }

    /// The client's schema and name for a qualified name of the side.
    fn names<'n>(&'n self, schema: &'n str, name: &'n str) -> Option<(&'n str, &'n str)> {
        let map = &self.words.map;
        if schema == self.sent
            && let Some(client) = self.renamed(name)
        {
            return Some((self.client, client));
        }
        let functions_first = matches!(self.code, "PGRST202" | "PGRST203");
        let kinds = if functions_first {
            [map.functions(), map.tables()]
        } else {
            [map.tables(), map.functions()]
        };
        match self.words.side {
            // The legacy schema, or the one of compatibility views: the names are the client's own.
            Side::New if map.domain(schema).is_none() => Some((self.client, name)),
            Side::New => kinds
                .iter()
                .find_map(|names| names.to_old(schema, name))
                .map(|old| (map.legacy(), old)),
            Side::Old => kinds
                .iter()
                .find_map(|names| names.to_new(name))
                .map(|place| (place.schema, place.name)),
        }
    }

    /// What a word that is no schema with a dot becomes.
    fn single(&self, word: Word<'_>, place: Place, done: &mut Text) -> Option<String> {
        let keyword = keyword(word.before);
        if keyword == "schema" && self.is_schema(word.text) {
            return Some(self.client.to_owned());
        }
        if place == Place::Relationship {
            // Between parentheses stand columns.
            return if done.depth > 0 {
                None
            } else {
                self.of_schema(word.text).map(str::to_owned)
            };
        }
        if self.code.starts_with("PGRST1") && word.is_quoted() {
            return self.renamed(word.text).map(str::to_owned);
        }
        if self.code.starts_with("PGRST2") && word.is_quoted() {
            let said = self.of_schema(word.text);
            let suggested = word.before.ends_with("Perhaps you meant '");
            done.unknown |= suggested && said.is_none();
            return said.map(str::to_owned);
        }
        match keyword {
            "table" | "relation" | "view" | "function" => {
                self.renamed(word.text).map(str::to_owned)
            }
            // PostgREST numbers the aliases of embedded tables: `api_keys_1`.
            "column" if word.after.starts_with('.') => self.column_table(word.text),
            _ => None,
        }
    }

    fn column_table(&self, word: &str) -> Option<String> {
        if let Some(client) = self.renamed(word) {
            return Some(client.to_owned());
        }
        let (name, number) = word.rsplit_once('_')?;
        let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let client = if numbered { self.renamed(name)? } else { return None };
        Some(format!("{client}_{number}"))
    }

    /// The client's name for the request's own table or function, or for an embed.
    fn renamed(&self, name: &str) -> Option<&str> {
        let own = self.words.own.iter();
        own.chain(&self.words.embeds)
            .find(|(sent, _)| sent == name)
            .map(|(_, client)| client.as_str())
    }

    /// The client's name for a table in the schema that was asked.
    fn of_schema<'n>(&'n self, name: &'n str) -> Option<&'n str> {
        if let Some(client) = self.renamed(name) {
            return Some(client);
        }
        let tables = self.words.map.tables();
        match self.words.side {
            Side::New if self.words.map.domain(self.sent).is_none() => Some(name),
            Side::New => tables.to_old(self.sent, name),
            Side::Old => {
                tables.to_new(name).filter(|place| place.schema == self.client).map(|p| p.name)
            }
        }
    }
}

impl Word<'_> {
    /// `'name'`, `"name"`, and both names of `'name!name'`; not the column in `'column' column of 'table'`.
    fn is_quoted(self) -> bool {
        let opens = self.before.ends_with(['\'', '"', '!']);
        let closes = self.after.starts_with(['\'', '"', '!']);
        let is_column = self.after.get(1..).is_some_and(|rest| rest.starts_with(" column of"));
        opens && closes && !is_column
    }
}

/// The word before an opening quote and a space: `table` in `for table "`.
fn keyword(before: &str) -> &str {
    let before = before.strip_suffix(['"', '\'']).unwrap_or(before);
    let Some(before) = before.strip_suffix(' ') else { return "" };
    before.rsplit(|c: char| !c.is_alphanumeric()).next().unwrap_or_default()
}

/// The first word at or after a place.
fn next_word(text: &str, from: usize) -> Option<Word<'_>> {
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
    let start = from + text.get(from..)?.find(is_word)?;
    let (before, rest) = text.split_at_checked(start)?;
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at_checked(end)?;
    Some(Word { start, text: word, before, after })
}
