//! The right side of a filter: read only as far as to know where it ends, and whether it tests for null.

use super::query::{Cursor, Unknown};

impl Cursor<'_> {
    /// Whether this is `is.null` or `not.is.null`, the filter on an embed instead of a column.
    pub(crate) fn null_test(mut self) -> bool {
        self.eat("not.");
        if !self.eat("is.") {
            return false;
        }
        let is_null =
            b"null".iter().all(|b| self.bump().is_some_and(|c| c.eq_ignore_ascii_case(b)));
        is_null && matches!(self.peek(), None | Some(b',' | b')' | b' '))
    }

    /// Skips `op.value` inside a logic tree, up to the comma or parenthesis that ends it.
    pub(crate) fn logic_operand(&mut self) -> Result<(), Unknown> {
        while self.eat("not.") {}
        let is_in = self.sees("in.");
        if self.skip_while(|b| b.is_ascii_lowercase()) == 0 {
            return Err(Unknown);
        }
        if self.eat("(") {
            self.skip_while(|b| b != b')');
            self.eat(")");
        }
        if !self.eat(".") {
            return Err(Unknown);
        }
        if is_in { self.in_list() } else { self.logic_value() }
    }

    fn in_list(&mut self) -> Result<(), Unknown> {
        self.skip_space();
        if !self.eat("(") {
            return Err(Unknown);
        }
        loop {
            self.list_element();
            if !self.eat(",") {
                break;
            }
        }
        if self.eat(")") { Ok(()) } else { Err(Unknown) }
    }

    fn logic_value(&mut self) -> Result<(), Unknown> {
        if self.peek() == Some(b'{') {
            let mut ahead = self.clone();
            ahead.bump();
            ahead.skip_while(|b| !matches!(b, b'{' | b'}'));
            if ahead.eat("}") {
                *self = ahead;
                return Ok(());
            }
        }
        self.list_element();
        Ok(())
    }

    /// A quoted value that a comma or parenthesis follows, or everything up to the next of those.
    fn list_element(&mut self) {
        if self.peek() == Some(b'"') {
            let mut ahead = self.clone();
            if ahead.name().is_ok() && matches!(ahead.peek(), None | Some(b',' | b')')) {
                *self = ahead;
                return;
            }
        }
        self.skip_while(|b| !matches!(b, b',' | b')'));
    }
}
