//! The embeds of a request, and what each name that mentions one becomes on the other side.
//!
//! PostgREST finds an embed by its alias, or by its target if it has none (before version 16 by its target as
//! well when it has one). So a renamed target keeps the client's name as its alias, the JSON keeps its shape,
//! and everything that mentions the embed still finds it. Only two kinds of mention have to change: of a
//! spread, which can't have an alias, and of the target of an embed whose alias the client chose itself.

use super::query::{Cursor, Name, Param, Span, Splices, Unknown, encode_name, is, params};
use super::schema::SchemaMap;
use super::select::{DEPTH_MAX, Embed, embeds};

/// How a table's name is said in the other dialect, within the one schema that a request has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way<'m> {
    /// A legacy name to its name in this schema of new.
    ToNew(&'m str),
    /// A name in this schema of new to the legacy name.
    ToOld(&'m str),
}

impl<'m> Way<'m> {
    /// `None`: not a table of this schema that the map knows.
    pub(crate) fn table<'n>(self, map: &'n SchemaMap, name: &'n str) -> Option<&'n str> {
        match self {
            Self::ToNew(schema) => {
                map.tables().to_new(name).filter(|p| p.schema == schema).map(|p| p.name)
            }
            Self::ToOld(schema) => map.tables().to_old(schema, name),
        }
    }
}

/// What a query becomes.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) splices: Splices,
    /// Each renamed embed: the name on the side, the client's name.
    pub(crate) renamed: Vec<(String, String)>,
    /// Something was not understood and left alone.
    pub(crate) unknown: bool,
}

/// The `select` parameters of a query, read.
#[derive(Debug)]
pub(crate) struct Scope<'q> {
    query: &'q str,
    /// The embeds of the first, if there is one.
    select: Option<Vec<Embed<'q>>>,
    /// Those of the others.
    repeated: Vec<Vec<Embed<'q>>>,
    unknown: bool,
}

impl<'q> Scope<'q> {
    /// Reads every `select` of a query. PostgREST uses the first; the others are translated like it.
    pub(crate) fn read(query: &'q str) -> Self {
        let mut scope = Self { query, select: None, repeated: Vec::new(), unknown: false };
        for param in params(query) {
            let Some(value) = param.value.filter(|_| is(query, param.key, "select")) else {
                continue;
            };
            let embeds = embeds(query, value).unwrap_or_else(|Unknown| {
                scope.unknown = true;
                Vec::new()
            });
            match scope.select {
                None => scope.select = Some(embeds),
                Some(_) => scope.repeated.push(embeds),
            }
        }
        scope
    }

    /// All embeds, in the order of the query.
    fn embeds(&self) -> impl Iterator<Item = &Embed<'q>> {
        self.select.iter().chain(&self.repeated).flatten()
    }

    /// The targets of all embeds, as the client calls them.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &str> {
        self.embeds().map(|embed| &*embed.target.text)
    }

    /// Says the query's names the other way.
    pub(crate) fn rewrite(&self, map: &SchemaMap, way: Way<'_>) -> Rewritten {
        let mut out = Rewritten { unknown: self.unknown, ..Rewritten::default() };
        for embed in self.embeds() {
            rename_embed(map, way, embed, &mut out);
        }
        let Some(first) = &self.select else { return out };
        let nodes: Vec<Node<'_>> = first.iter().map(|embed| Node::new(map, way, embed)).collect();
        if nodes.iter().any(|node| node.new_target.is_some()) {
            let mentions = Mentions { query: self.query, nodes: &nodes };
            for param in params(self.query) {
                mentions.param(param, &mut out);
            }
        }
        out
    }
}

fn rename_embed(map: &SchemaMap, way: Way<'_>, embed: &Embed<'_>, out: &mut Rewritten) {
    if let Some(hint) = &embed.hint
        && let Some(new) = way.table(map, &hint.text)
    {
        replace_name(out, hint, new);
    }
    let target = &embed.target;
    let Some(new) = way.table(map, &target.text).filter(|new| *new != target.text) else { return };
    out.renamed.push((new.to_owned(), target.text.clone().into_owned()));
    match &embed.alias {
        _ if embed.is_spread => replace_name(out, target, new),
        None => out.splices.insert(target.whole.end, format!(":{}", encode_name(new, false))),
        Some(alias) if alias.text == new => {
            let redundant = Span { start: alias.whole.end, end: target.whole.end };
            out.splices.replace(redundant, String::new());
        }
        Some(_) => replace_name(out, target, new),
    }
}

fn replace_name(out: &mut Rewritten, name: &Name<'_>, new: &str) {
    if name.text != new {
        out.splices.replace(name.inner, encode_name(new, name.is_quoted()));
    }
}

/// An embed with what its target becomes.
struct Node<'a> {
    embed: &'a Embed<'a>,
    /// `None`: stays as it is.
    new_target: Option<&'a str>,
}

impl<'a> Node<'a> {
    fn new(map: &'a SchemaMap, way: Way<'_>, embed: &'a Embed<'a>) -> Self {
        let target = &*embed.target.text;
        Self { embed, new_target: way.table(map, target).filter(|new| *new != target) }
    }

    /// The name by which the side will know it.
    fn known_as_there(&self) -> &str {
        match self.new_target {
            Some(new) if self.embed.is_spread => new,
            _ => self.embed.known_as(),
        }
    }
}

/// The places outside `select` that mention embeds.
struct Mentions<'a> {
    query: &'a str,
    nodes: &'a [Node<'a>],
}

impl<'a> Mentions<'a> {
    fn param(&self, param: Param, out: &mut Rewritten) {
        let Some(value) = param.value else { return };
        // A key that is no path of names mentions nothing: an argument of a function may be called anything.
        let Ok((path, has_json)) = path(self.query, param.key) else { return };
        let Some((last, above)) = path.split_last() else { return };
        let mut splices = Splices::default();
        let reserved = above.is_empty()
            && matches!(&*last.text, "select" | "columns" | "on_conflict" | "limit" | "offset");
        if reserved {
            return;
        }
        let is_logic = matches!(&*last.text, "and" | "or") && !has_json;
        let Some(parent) = self.walk(above, is_logic, &mut splices) else {
            // Leads to nothing on either side: the names that lead somewhere still have to agree.
            out.splices.append(splices);
            return;
        };
        let read = match &*last.text {
            "order" if !has_json => self.order(value, parent, &mut splices),
            "and" | "or" if !has_json => self.logic(value, parent, &mut splices),
            _ => {
                let is_null = Cursor::new(self.query, value).null_test();
                if is_null && !has_json {
                    self.mention(parent, last, Mention::ByEffectiveName, &mut splices);
                }
                Ok(())
            }
        };
        match read {
            Ok(()) => out.splices.append(splices),
            Err(Unknown) => out.unknown = true,
        }
    }

    /// Follows a path of embeds down; `None` when it names something that is not embedded.
    fn walk(
        &self,
        path: &[Name<'_>],
        is_logic: bool,
        splices: &mut Splices,
    ) -> Option<Option<usize>> {
        let mut parent = None;
        for name in path.iter().filter(|name| !(is_logic && name.text == "not")) {
            parent = Some(self.mention(parent, name, Mention::ByEitherName, splices)?);
        }
        Some(parent)
    }

    /// Finds the embed that a name mentions and renames the mention if need be.
    fn mention(
        &self,
        parent: Option<usize>,
        name: &Name<'_>,
        by: Mention,
        splices: &mut Splices,
    ) -> Option<usize> {
        let children =
            || self.nodes.iter().enumerate().filter(|(_, node)| node.embed.parent == parent);
        if let Some((at, node)) = children().find(|(_, node)| node.embed.known_as() == name.text) {
            let there = node.known_as_there();
            if there != name.text {
                splices.replace(name.inner, encode_name(there, name.is_quoted()));
            }
            return Some(at);
        }
        if by == Mention::ByEffectiveName {
            return None;
        }
        let (at, node) = children().find(|(_, node)| node.embed.target.text == name.text)?;
        if let Some(new) = node.new_target {
            // Another embed may be known by what the target becomes; the alias is never ambiguous.
            let taken = children().any(|(i, other)| i != at && other.known_as_there() == new);
            let there = if taken { node.known_as_there() } else { new };
            splices.replace(name.inner, encode_name(there, name.is_quoted()));
        }
        Some(at)
    }

    /// `order=target(column).desc,…`
    fn order(
        &self,
        value: Span,
        parent: Option<usize>,
        splices: &mut Splices,
    ) -> Result<(), Unknown> {
        let mut cursor = Cursor::new(self.query, value);
        loop {
            let name = cursor.name()?;
            if cursor.eat("(") {
                self.mention(parent, &name, Mention::ByEitherName, splices);
                cursor.name()?;
                cursor.json_path()?;
                cursor.skip_space();
                if !cursor.eat(")") {
                    return Err(Unknown);
                }
            } else {
                cursor.json_path()?;
            }
            let is_direction = |b: u8| b.is_ascii_lowercase() || matches!(b, b'.' | b' ' | b'\t');
            cursor.skip_while(is_direction);
            if !cursor.eat(",") {
                return if cursor.peek().is_none() { Ok(()) } else { Err(Unknown) };
            }
        }
    }

    /// `(target.not.is.null,or(…),column.eq.1)`
    fn logic(
        &self,
        value: Span,
        parent: Option<usize>,
        splices: &mut Splices,
    ) -> Result<(), Unknown> {
        let mut cursor = Cursor::new(self.query, value);
        cursor.skip_space();
        self.logic_list(&mut cursor, parent, 0, splices)?;
        if cursor.peek().is_none() { Ok(()) } else { Err(Unknown) }
    }

    fn logic_list(
        &self,
        cursor: &mut Cursor<'a>,
        parent: Option<usize>,
        depth: usize,
        splices: &mut Splices,
    ) -> Result<(), Unknown> {
        if depth > DEPTH_MAX || !cursor.eat("(") {
            return Err(Unknown);
        }
        loop {
            cursor.skip_space();
            let operator = ["and(", "or(", "not.and(", "not.or("].iter().find(|o| cursor.sees(o));
            if let Some(operator) = operator {
                cursor.eat(operator.trim_end_matches('('));
                self.logic_list(cursor, parent, depth + 1, splices)?;
            } else {
                self.logic_filter(cursor, parent, splices)?;
            }
            cursor.skip_space();
            if !cursor.eat(",") {
                break;
            }
        }
        let closed = cursor.eat(")");
        cursor.skip_space();
        if closed { Ok(()) } else { Err(Unknown) }
    }

    fn logic_filter(
        &self,
        cursor: &mut Cursor<'a>,
        parent: Option<usize>,
        splices: &mut Splices,
    ) -> Result<(), Unknown> {
        let name = cursor.name()?;
        let has_json = cursor.json_path()?;
        cursor.skip_space();
        if !cursor.eat(".") {
            return Err(Unknown);
        }
        if cursor.clone().null_test() && !has_json {
            self.mention(parent, &name, Mention::ByEffectiveName, splices);
        }
        cursor.logic_operand()
    }
}

/// Which names of an embed count at a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mention {
    /// Alias or, without one, target.
    ByEffectiveName,
    /// The target of an embed with an alias as well (PostgREST before version 16).
    ByEitherName,
}

/// Reads a key as a path of names: `a.b.column->json`. Whether the last has a JSON path.
fn path(query: &str, key: Span) -> Result<(Vec<Name<'_>>, bool), Unknown> {
    let mut cursor = Cursor::new(query, key);
    let mut names = vec![cursor.name()?];
    while cursor.eat(".") {
        names.push(cursor.name()?);
    }
    let has_json = cursor.json_path()?;
    if cursor.peek().is_none() { Ok((names, has_json)) } else { Err(Unknown) }
}
