//! Names and texts as SQL writes them.

/// An identifier, always in quotes: no list of reserved words has to be right for it.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `"schema"."name"`
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", ident(schema), ident(name))
}

/// A text. With a backslash it becomes `E'…'`, which reads alike whatever `standard_conforming_strings` is.
pub(crate) fn literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if doubled.contains('\\') {
        format!("E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// `array[…]::text[]`
pub(crate) fn texts<T: AsRef<str>>(values: &[T]) -> String {
    let values: Vec<_> = values.iter().map(|value| literal(value.as_ref())).collect();
    format!("array[{}]::text[]", values.join(", "))
}

/// A statement's text between dollar quotes that it doesn't contain.
pub(crate) fn dollars(text: &str) -> String {
    let mut tag = "$cutover$".to_owned();
    let mut number = 0;
    while text.contains(&tag) {
        number += 1;
        tag = format!("$cutover{number}$");
    }
    format!("{tag}\n{text}\n{tag}")
}

/// What may stand behind `--`: a name with a line break in it must not end the comment.
pub(crate) fn comment(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || is_line_break(c) { ' ' } else { c }).collect()
}

const fn is_line_break(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(ident("order"), "\"order\"");
        assert_eq!(qualified("My \"s\"", "a.b"), "\"My \"\"s\"\"\".\"a.b\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(texts(&["a", "b'"]), "array['a', 'b''']::text[]");
        assert_eq!(texts::<&str>(&[]), "array[]::text[]");
        assert_eq!(comment("a\nb\r; drop"), "a b ; drop");
    }

    proptest! {
        /// Reading a quoted name back gives the name, and nothing stands outside the quotes.
        #[test]
        fn a_quoted_name_reads_back(name in ".{1,20}") {
            let quoted = ident(&name);
            let inner = &quoted[1..quoted.len() - 1];
            prop_assert_eq!(inner.replace("\"\"", "\u{0}").matches('"').count(), 0);
            prop_assert_eq!(inner.replace("\"\"", "\""), name);
        }

        #[test]
        fn a_statement_never_ends_its_quotes(text in "[a-z$ ]{0,30}|.*\\$cutover[0-9]?\\$.*") {
            let quoted = dollars(&text);
            let tag = quoted.lines().next().unwrap_or_default().to_owned();
            prop_assert_eq!(quoted.matches(&tag).count(), 2);
        }

        #[test]
        fn a_comment_is_one_line(text in any::<String>()) {
            prop_assert!(comment(&text).lines().count() <= 1);
        }
    }
}
