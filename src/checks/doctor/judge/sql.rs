//! Statements that an operator can copy.

/// A name as SQL wants it: quoted where it has to be.
pub(crate) fn ident(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if begins && name.chars().all(is_plain) && !RESERVED.contains(&name) {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `schema.name`
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A text as SQL wants it.
pub(crate) fn literal(text: &str) -> String {
    let escape = if text.contains('\\') { "E" } else { "" };
    format!("{escape}'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Words that are no names without quotes, as far as somebody may call a table or column so.
const RESERVED: [&str; 30] = [
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "case",
    "check",
    "column",
    "constraint",
    "create",
    "default",
    "desc",
    "do",
    "end",
    "for",
    "foreign",
    "from",
    "grant",
    "group",
    "limit",
    "not",
    "offset",
    "order",
    "references",
    "select",
    "table",
    "user",
];

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
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(ident(name), want);
        }
        assert_eq!(qualified("ai_chat", "user"), "ai_chat.\"user\"");
        assert_eq!((literal("it's"), literal("a\\b")), ("'it''s'".into(), "E'a\\\\b'".into()));
    }
}
