//! Statements that an operator can copy: names without quotes where they need none.

use crate::checks::quote;

pub(crate) use crate::checks::quote::literal;

/// A name as SQL wants it: quoted where it has to be.
pub(crate) fn ident(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if begins && name.chars().all(is_plain) && !is_reserved(name) {
        return name.to_owned();
    }
    quote::ident(name)
}

fn is_reserved(name: &str) -> bool {
    RESERVED.split_ascii_whitespace().any(|word| word == name)
}

/// `schema.name`
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// PostgreSQL's reserved words (its appendix C), also those that may name a function or type: none is a table's name without quotes.
const RESERVED: &str = " \
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation column concurrently \
    constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp current_user default \
    deferrable desc distinct do else end except false fetch for foreign freeze from full grant group having ilike in initially inner \
    intersect into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null offset on only or order \
    outer overlaps placing primary references returning right select session_user similar some symmetric system_user table tablesample then \
    to trailing true union unique user using variadic verbose when where window with ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_have_to_be() {
        for (name, want) in [
            ("orders", "orders"),
            ("_x1", "_x1"),
            ("Orders", "\"Orders\""),
            ("1st", "\"1st\""),
            ("order", "\"order\""),
            ("window", "\"window\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(ident(name), want);
        }
        assert_eq!(qualified("ai_chat", "user"), "ai_chat.\"user\"");
        assert_eq!((literal("it's"), literal("a\\b")), ("'it''s'".into(), "E'a\\\\b'".into()));
    }
}
