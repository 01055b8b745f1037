//! Expressions of one side in the words of the other, and names that mean two things.

use std::collections::BTreeMap;

use super::super::rest::Mapped;
use crate::checks::catalogue::Relation;
use crate::checks::doctor::finding::Finding;
use crate::side::Side;

/// The map, to be read from either side.
pub(crate) struct Names {
    tables: Vec<Mapped>,
    /// (schema, name) on new → on old, tables and functions.
    to_old: BTreeMap<(String, String), (String, String)>,
    /// The other way.
    to_new: BTreeMap<(String, String), (String, String)>,
}

impl Names {
    /// Reads the map's lines.
    pub(crate) fn new(tables: &[Mapped], functions: &[Mapped]) -> Self {
        let pair = |it: &Mapped| {
            ((it.schema.clone(), it.new.clone()), (it.legacy.clone(), it.old.clone()))
        };
        let to_old: BTreeMap<_, _> = tables.iter().chain(functions).map(pair).collect();
        let to_new =
            tables.iter().chain(functions).map(pair).map(|(new, old)| (old, new)).collect();
        Self { tables: tables.to_vec(), to_old, to_new }
    }

    /// An expression of the other side's catalogue, about the table `own`, as `side` would say it. White space is made one.
    ///
    /// PostgreSQL qualifies relations and functions (the catalogue is read with an empty `search_path`), and writes columns behind
    /// their relation's bare name: that one is the table's own, or one that the expression names in full elsewhere.
    pub(crate) fn said_on(&self, side: Side, expression: &str, own: &Mapped) -> String {
        let map = match side {
            Side::Old => &self.to_old,
            Side::New => &self.to_new,
        };
        let chains = parts(expression);
        let named: Vec<&Vec<String>> = chains.iter().filter_map(Part::chain).collect();
        let bare = |name: &str| {
            let from = |it: &&Mapped| it.place(side.other()).1 == name;
            let is_named = |it: &&Mapped| {
                let (schema, name) = it.place(side.other());
                named
                    .iter()
                    .any(|chain| matches!(&chain[..], [a, b, ..] if a == schema && b == name))
            };
            let mentioned = self.tables.iter().filter(from).find(is_named);
            let table = Some(own).filter(from).or(mentioned)?;
            Some(table.place(side).1.to_owned())
        };
        let said = chains.iter().map(|part| match part {
            Part::Chain(chain) => {
                let mut chain = chain.clone();
                let mapped = match &chain[..] {
                    [schema, name, ..] => map.get(&(schema.clone(), name.clone())),
                    _ => None,
                };
                match (mapped, &chain[..]) {
                    (Some((schema, name)), _) => {
                        let (schema, name) = (schema.clone(), name.clone());
                        chain.splice(..2, [schema, name]);
                    }
                    (None, [first, _, ..]) => {
                        if let Some(name) = bare(first) {
                            chain.splice(..1, [name]);
                        }
                    }
                    _ => {}
                }
                chain.join(".")
            }
            Part::Other(text) => text.clone(),
        });
        said.collect::<String>().split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// `name extensions.vector` is `name vector`.
pub(super) fn without_schemas(text: &str) -> String {
    let said = parts(text).into_iter().map(|part| match part {
        Part::Chain(mut chain) => chain.pop().unwrap_or_default(),
        Part::Other(text) => text,
    });
    said.collect()
}

/// A piece of SQL: names with dots between them, or anything else.
enum Part {
    Chain(Vec<String>),
    Other(String),
}

impl Part {
    fn chain(&self) -> Option<&Vec<String>> {
        match self {
            Self::Chain(chain) => Some(chain),
            Self::Other(_) => None,
        }
    }
}

/// Takes SQL apart. Texts between apostrophes stay whole; put together again, nothing is lost but the quotes of names.
fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = text;
    let mut is_joined = false;
    while let Some(first) = rest.chars().next() {
        let (length, name) = match first {
            '"' => quoted(rest),
            '\'' => (literal(rest), None),
            c if c == '_' || c.is_alphabetic() => {
                let is_inner = |c: char| c == '_' || c == '$' || c.is_alphanumeric();
                let length = rest.find(|c| !is_inner(c)).unwrap_or(rest.len());
                (length, rest.get(..length).map(str::to_owned))
            }
            c => (c.len_utf8(), None),
        };
        let (piece, after) = rest.split_at(length);
        rest = after;
        match name {
            Some(name) => {
                match parts.last_mut() {
                    Some(Part::Chain(chain)) if is_joined => chain.push(name),
                    _ => parts.push(Part::Chain(vec![name])),
                }
                let is_name = |c: char| c == '"' || c == '_' || c.is_alphabetic();
                is_joined = rest.strip_prefix('.').is_some_and(|it| it.starts_with(is_name));
                if is_joined {
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            None => {
                is_joined = false;
                match parts.last_mut() {
                    Some(Part::Other(text)) => text.push_str(piece),
                    _ => parts.push(Part::Other(piece.to_owned())),
                }
            }
        }
    }
    parts
}

/// A quoted name: its length with the quotes, and the name.
fn quoted(text: &str) -> (usize, Option<String>) {
    let length = closed(text, '"');
    let name = text.get(1..length.saturating_sub(1)).unwrap_or_default();
    (length, Some(name.replace("\"\"", "\"")))
}

fn literal(text: &str) -> usize {
    closed(text, '\'')
}

/// The length of what begins with a quote, to its end; a doubled one is inside.
fn closed(text: &str, quote: char) -> usize {
    let mut at = 1;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find(quote)) {
        at += found + 1;
        if !text.get(at..).is_some_and(|rest| rest.starts_with(quote)) {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// Foreign keys that are called like a renamed table: in `select=…` a client may mean either, and the proxy takes it for the table.
pub(super) fn called_like_a_table(
    side: Side,
    relation: &Relation,
    tables: &[Mapped],
) -> Vec<Finding> {
    let renamed = tables.iter().filter(|it| it.old != it.new);
    let names: Vec<&str> = renamed.map(|it| it.place(side).1).collect();
    let keys = relation.foreign_keys.iter();
    let called = keys.flat_map(|key| key.columns.iter().chain([&key.name]));
    let found = called.filter(|name| names.contains(&name.as_str())).map(|name| {
        let subject = format!("{}.{}.{name}", relation.schema, relation.name);
        let seen = "a foreign key or its column is called like a table that new renames";
        let fix = "an embed or hint by that name is rewritten as the table's: name the table in such selects, or rename the key";
        Finding::warn("db.names", side, &subject, seen, fix)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (Names, Mapped) {
        let keys = Mapped::new("public", "vendor_keys", "vendors", "keys");
        let tables = [
            keys.clone(),
            Mapped::new("public", "vendor_orgs", "vendors", "orgs"),
            Mapped::new("public", "other_orgs", "others", "orgs"),
            Mapped::new("public", "orders", "market", "orders"),
        ];
        let functions = [Mapped::new("public", "is_member", "vendors", "is_member")];
        (Names::new(&tables, &functions), keys)
    }

    #[test]
    fn an_expression_is_said_in_the_other_sides_words_and_back() {
        let (names, own) = names();
        for (old, new) in [
            ("(user_id = auth.uid())", "(user_id = auth.uid())"),
            ("public.is_member(org)", "vendors.is_member(org)"),
            (
                "(EXISTS ( SELECT 1 FROM public.vendor_orgs WHERE (vendor_orgs.id = vendor_keys.org)))",
                "(EXISTS ( SELECT 1 FROM vendors.orgs WHERE (orgs.id = keys.org)))",
            ),
            ("(name = 'public.orders')", "(name = 'public.orders')"),
            ("(x = 'it''s vendor_keys.a')", "(x = 'it''s vendor_keys.a')"),
            ("public.unmapped.a", "public.unmapped.a"),
            ("(SELECT orders.id FROM public.orders)", "(SELECT orders.id FROM market.orders)"),
        ] {
            assert_eq!(names.said_on(Side::New, old, &own), new);
            assert_eq!(names.said_on(Side::Old, new, &own), old);
        }
        let spaced = names.said_on(Side::Old, "(a\n   AND b)", &own);
        assert_eq!(spaced, "(a AND b)");
    }

    #[test]
    fn types_are_compared_without_their_schemas() {
        for (text, want) in [
            ("query extensions.vector, n integer", "query vector, n integer"),
            ("a double precision DEFAULT 0.5", "a double precision DEFAULT 0.5"),
            ("\"Odd Name\" public.mood[]", "Odd Name mood[]"),
        ] {
            assert_eq!(without_schemas(text), want);
        }
    }

    #[test]
    fn nothing_breaks_the_reader() {
        for text in ["", "'", "\"", "a.", ".a", "'a''", "\"a\"\"", "Ünï.cødé", "a..b", "1.5"] {
            let _ = parts(text);
        }
    }
}
