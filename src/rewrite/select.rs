//! The grammar of `select=` (`supabase-wire.md` 2.4): where each embed names its alias, target and hint.
//!
//! ```text
//! items  = [ item *("," item) ]
//! item   = "*" / field / embed
//! field  = [name ":"] (name *json / "count()") ["::" cast] ["." aggregate "()"] ["::" cast]
//! embed  = ("..." / [name ":"]) name *2("!" name) "(" items ")"
//! ```
//!
//! Only names are taken out of it; what a name stands for is not this file's business.

use super::query::{Cursor, Name, Span, Unknown};

/// Embeds may nest this deep; PostgREST has no limit, a recursive reader needs one.
pub(crate) const DEPTH_MAX: usize = 100;

/// One embedded resource, in the order of the text.
#[derive(Clone, Debug)]
pub(crate) struct Embed<'q> {
    /// The embed around it; `None` below the request's own table.
    pub(crate) parent: Option<usize>,
    /// `alias:`.
    pub(crate) alias: Option<Name<'q>>,
    /// A table, or a foreign key, its column, or a computed relationship.
    pub(crate) target: Name<'q>,
    /// `!hint`, not `!inner` or `!left`.
    pub(crate) hint: Option<Name<'q>>,
    /// `...target(…)`: its columns are the parent's, so it can have no alias.
    pub(crate) is_spread: bool,
}

impl Embed<'_> {
    /// The name under which filters, orders and the JSON know it.
    pub(crate) fn known_as(&self) -> &str {
        self.alias.as_ref().map_or(&self.target.text, |alias| &alias.text)
    }
}

/// Reads the value of a `select` parameter.
pub(crate) fn embeds(query: &str, value: Span) -> Result<Vec<Embed<'_>>, Unknown> {
    let mut reader = Reader { cursor: Cursor::new(query, value), embeds: Vec::new() };
    reader.items(None, 0)?;
    match reader.cursor.peek() {
        None => Ok(reader.embeds),
        Some(_) => Err(Unknown),
    }
}

struct Reader<'q> {
    cursor: Cursor<'q>,
    embeds: Vec<Embed<'q>>,
}

impl<'q> Reader<'q> {
    fn items(&mut self, parent: Option<usize>, depth: usize) -> Result<(), Unknown> {
        if depth > DEPTH_MAX {
            return Err(Unknown);
        }
        self.cursor.skip_space();
        if matches!(self.cursor.peek(), None | Some(b')')) {
            return Ok(());
        }
        loop {
            self.cursor.skip_space();
            self.item(parent, depth)?;
            self.cursor.skip_space();
            if !self.cursor.eat(",") {
                return Ok(());
            }
        }
    }

    fn item(&mut self, parent: Option<usize>, depth: usize) -> Result<(), Unknown> {
        if self.cursor.eat("*") {
            return self.field_end();
        }
        let is_spread = self.cursor.eat("...");
        let mut name = self.cursor.name()?;
        let mut alias = None;
        if !is_spread && self.cursor.peek() == Some(b':') && !self.cursor.sees("::") {
            self.cursor.bump();
            alias = Some(name);
            name = self.cursor.name()?;
        }
        let is_count = name.text == "count" && self.cursor.eat("()");
        if is_count || !matches!(self.cursor.peek(), Some(b'(' | b'!')) {
            return if is_spread { Err(Unknown) } else { self.field(is_count) };
        }
        let hint = self.hint()?;
        if !self.cursor.eat("(") {
            return Err(Unknown);
        }
        self.embeds.push(Embed { parent, alias, target: name, hint, is_spread });
        self.items(Some(self.embeds.len() - 1), depth + 1)?;
        if self.cursor.eat(")") { Ok(()) } else { Err(Unknown) }
    }

    fn hint(&mut self) -> Result<Option<Name<'q>>, Unknown> {
        let mut hint = None;
        for _ in 0..2 {
            if self.cursor.eat("!") {
                let name = self.cursor.name()?;
                let is_join = matches!(&*name.text, "inner" | "left");
                if !is_join && hint.is_none() {
                    hint = Some(name);
                }
            }
        }
        Ok(hint)
    }

    /// The rest of a field after its name.
    fn field(&mut self, is_count: bool) -> Result<(), Unknown> {
        if !is_count {
            self.cursor.json_path()?;
        }
        self.cast()?;
        if !is_count && self.cursor.eat(".") {
            let found = ["sum", "avg", "count", "max", "min"].iter().any(|f| self.cursor.eat(f));
            if !found || !self.cursor.eat("()") {
                return Err(Unknown);
            }
            self.cast()?;
        }
        self.field_end()
    }

    fn cast(&mut self) -> Result<(), Unknown> {
        let is_cast_byte =
            |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b' ' | 0x80..);
        if self.cursor.eat("::") && self.cursor.skip_while(is_cast_byte) == 0 {
            return Err(Unknown);
        }
        Ok(())
    }

    fn field_end(&mut self) -> Result<(), Unknown> {
        self.cursor.skip_space();
        match self.cursor.peek() {
            None | Some(b',' | b')') => Ok(()),
            Some(_) => Err(Unknown),
        }
    }
}
