//! The schema map against what PostgREST shows of both projects: exposed, there, granted.

use super::answer::Rest;
use super::shape::{Inventory, Shapes, nearest};
use super::sql::{ident, qualified};
use crate::checks::doctor::finding::{Finding, Status};
use crate::side::Side;

/// One table or function of the map, by its names on both sides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mapped {
    /// The schema on old.
    pub(crate) legacy: String,
    /// The name on old.
    pub(crate) old: String,
    /// The schema on new.
    pub(crate) schema: String,
    /// The name on new.
    pub(crate) new: String,
}

impl Mapped {
    /// `legacy.old` on old, `schema.new` on new.
    pub(crate) fn new(legacy: &str, old: &str, schema: &str, new: &str) -> Self {
        Self {
            legacy: legacy.to_owned(),
            old: old.to_owned(),
            schema: schema.to_owned(),
            new: new.to_owned(),
        }
    }

    /// Schema and name on a side.
    pub(crate) fn place(&self, side: Side) -> (&str, &str) {
        match side {
            Side::Old => (&self.legacy, &self.old),
            Side::New => (&self.schema, &self.new),
        }
    }

    /// `schema.name` on a side, as people write it.
    pub(crate) fn on(&self, side: Side) -> String {
        let (schema, name) = self.place(side);
        format!("{schema}.{name}")
    }
}

const RELOAD: &str = "notify pgrst, 'reload schema';";

/// Whether a schema is exposed. `is_there`: whether the database has it, where that is known.
pub(crate) fn exposed(side: Side, schema: &str, rest: &Rest, is_there: Option<bool>) -> Finding {
    const ID: &str = "rest.exposed";
    match rest {
        Rest::NotExposed => {
            let create = match is_there {
                Some(false) => {
                    format!("create schema {}; -- it is not there either\n", ident(schema))
                }
                _ => String::new(),
            };
            let fix = format!(
                "on {side}: dashboard, Project Settings, Data API, Exposed schemas: add {schema}\nself-hosted, with all others in the list:\n{create}alter role authenticator set pgrst.db_schemas = 'public, …, {schema}';\nnotify pgrst, 'reload config';"
            );
            Finding::fail(ID, side, schema, "PostgREST does not expose the schema (PGRST106)", fix)
        }
        Rest::Denied { message } => {
            let seen = format!("exposed, but: {message} (42501)");
            Finding::fail(ID, side, schema, seen, grant_schema(schema))
        }
        // No table of that name, but the schema was looked into.
        Rest::Fine | Rest::NoTable { .. } | Rest::NoFunction { .. } | Rest::NoColumn { .. } => {
            Finding::pass(ID, side, schema, "exposed")
        }
        other => unclear(ID, side, schema, other),
    }
}

fn grant_schema(schema: &str) -> String {
    let schema = ident(schema);
    format!(
        "grant usage on schema {schema} to anon, authenticated, service_role;\ngrant all on all tables in schema {schema} to anon, authenticated, service_role;\nalter default privileges in schema {schema} grant all on tables to anon, authenticated, service_role;"
    )
}

/// Whether a mapped table is on a side. `inventory` is what is known of that side's tables; what lies in the schema `compat` are views.
pub(crate) fn table(
    side: Side,
    mapped: &Mapped,
    rest: &Rest,
    inventory: &Inventory,
    compat: Option<&str>,
) -> Finding {
    const ID: &str = "rest.table";
    let (schema, name) = mapped.place(side);
    let subject = mapped.on(side);
    match rest {
        Rest::NoTable { hint } => {
            let of_tables = inventory.iter().filter(|(other, _)| compat != Some(other.as_str()));
            let found = elsewhere(schema, name, of_tables, |shapes| {
                shapes.tables.keys().filter(|name| !shapes.views.contains(*name))
            });
            let near = found.clone().or_else(|| hint.clone());
            let seen = format!("no such table (PGRST205){}", said_near(near.as_deref()));
            let fix = match side {
                Side::Old => format!(
                    "correct the name in [schema.tables], or take the line out: old has no {subject}"
                ),
                Side::New => format!("{}\n{RELOAD}", moved(mapped, found.as_deref())),
            };
            Finding::fail(ID, side, &subject, seen, fix)
        }
        Rest::Fine | Rest::Denied { .. } | Rest::NoColumn { .. } => {
            Finding::pass(ID, side, &subject, "found")
        }
        // rest.exposed says it once for the whole schema.
        Rest::NotExposed => {
            Finding::skip(ID, side, &subject, "its schema is not exposed", "see rest.exposed")
        }
        other => unclear(ID, side, &subject, other),
    }
}

/// How a table gets to its place on new.
fn moved(mapped: &Mapped, found: Option<&str>) -> String {
    let Mapped { legacy, old, schema, new } = mapped;
    if found == Some(&format!("{legacy}.{old}")) {
        let from = qualified(legacy, old);
        let rename = match old == new {
            true => String::new(),
            false => format!("alter table {from} rename to {};\n", ident(new)),
        };
        let renamed = qualified(legacy, new);
        return format!("on new: {rename}alter table {renamed} set schema {};", ident(schema));
    }
    format!(
        "restore it to new and move it to {schema}.{new} (cutover plan writes the SQL), or correct [schema.tables]; if it is there already, the schema cache is old:"
    )
}

fn said_near(near: Option<&str>) -> String {
    near.map_or_else(String::new, |near| format!("; nearest: {near}"))
}

/// The same name in another schema, or a name that is nearly the same.
fn elsewhere<'i, N>(
    schema: &str,
    name: &str,
    inventory: impl Iterator<Item = (&'i String, &'i Shapes)>,
    names: impl Fn(&'i Shapes) -> N,
) -> Option<String>
where
    N: Iterator<Item = &'i String>,
{
    let mut schemas: Vec<_> = inventory.collect();
    // The schema that was asked for first.
    schemas.sort_by_key(|(other, _)| *other != schema);
    let same = schemas.iter().find(|(_, shapes)| names(shapes).any(|other| other == name));
    if let Some((other, _)) = same {
        return Some(format!("{other}.{name}"));
    }
    schemas.iter().find_map(|(other, shapes)| {
        let near = nearest(name, names(shapes).map(String::as_str))?;
        Some(format!("{other}.{near}"))
    })
}

/// Whether a mapped function is on a side. Functions are never called: `rest` is the answer to a call with an argument that none has.
pub(crate) fn function(
    side: Side,
    mapped: &Mapped,
    rest: Option<&Rest>,
    inventory: &Inventory,
) -> Finding {
    const ID: &str = "rest.function";
    let (schema, name) = mapped.place(side);
    let subject = mapped.on(side);
    let missing = |hint: Option<&str>| {
        let found = elsewhere(schema, name, inventory.iter(), |shapes| shapes.functions.keys());
        let near = found.or_else(|| hint.map(str::to_owned));
        let seen = format!("no such function (PGRST202){}", said_near(near.as_deref()));
        let fix = match side {
            Side::Old => format!(
                "correct the name in [schema.functions], or take the line out: old has no {subject}"
            ),
            Side::New => format!(
                "on new: create it, or: alter function {}(…) set schema {};\nthen look at the tables that its body names (cutover plan lists them)\n{RELOAD}",
                qualified(&mapped.legacy, &mapped.old),
                ident(schema)
            ),
        };
        Finding::fail(ID, side, &subject, seen, fix)
    };
    if let Some(shapes) = inventory.get(schema) {
        return match shapes.functions.contains_key(name) {
            true => Finding::pass(ID, side, &subject, "found"),
            false => missing(None),
        };
    }
    match rest {
        // The name is known, the argument is not: that is what the hint says.
        Some(Rest::NoFunction { hint: Some(hint) }) if hint.contains(&format!("{subject}(")) => {
            Finding::pass(ID, side, &subject, "found")
        }
        Some(Rest::NoFunction { hint }) => {
            let near = said_near(hint.as_deref());
            let fix = "functions are not called to find out; give projects.*.service_role_key (OpenAPI) or database_url";
            Finding::skip(ID, side, &subject, format!("can't be told from outside{near}"), fix)
        }
        Some(Rest::NotExposed) => {
            Finding::skip(ID, side, &subject, "its schema is not exposed", "see rest.exposed")
        }
        Some(other) => unclear(ID, side, &subject, other),
        None => Finding::skip(ID, side, &subject, "not asked", "see rest.openapi"),
    }
}

/// Who reads a table in a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The anon key.
    Anon,
    /// A signed-in user, with a token that was signed here for a user that does not exist.
    User,
    /// The service key.
    Service,
}

impl Reader {
    /// The database's role.
    pub(crate) const fn role(self) -> &'static str {
        match self {
            Self::Anon => "anon",
            Self::User => "authenticated",
            Self::Service => "service_role",
        }
    }
}

/// Whether a role that may read the table on old may read it on new. `None`: there was nothing to ask with.
pub(crate) fn granted(mapped: &Mapped, reader: Reader, old: &Rest, new: &Rest) -> Finding {
    const ID: &str = "rest.granted";
    let subject = format!("{} as {}", mapped.on(Side::New), reader.role());
    match (old, new) {
        // The service role bypasses row level security, not grants: without them no backend works.
        (Rest::Fine, Rest::Denied { message }) => denied(mapped, reader, &subject, message),
        (_, Rest::Denied { message }) if reader == Reader::Service => {
            denied(mapped, reader, &subject, message)
        }
        (Rest::Denied { .. }, Rest::Denied { .. }) => {
            Finding::pass(ID, Side::New, &subject, "may not read it on either side")
        }
        (Rest::Denied { .. }, Rest::Fine) => Finding::warn(
            ID,
            Side::New,
            &subject,
            format!("{} may read on new what it may not on old", reader.role()),
            format!(
                "if it is not meant, on new: revoke select on {} from {};",
                qualified(&mapped.schema, &mapped.new),
                reader.role()
            ),
        ),
        (Rest::Fine, Rest::Fine) => {
            Finding::pass(ID, Side::New, &subject, "may read it on both sides")
        }
        // Whatever else is wrong has a check of its own; here it is only the reason for not knowing.
        (other, Rest::Fine) | (_, other) => {
            let why = unclear(ID, Side::New, &subject, other);
            Finding { status: Status::Skip, ..why }
        }
    }
}

fn denied(mapped: &Mapped, reader: Reader, subject: &str, message: &str) -> Finding {
    let role = reader.role();
    let place = qualified(&mapped.schema, &mapped.new);
    let usage = match message.contains("schema") {
        true => format!("grant usage on schema {} to {role};\n", ident(&mapped.schema)),
        false => String::new(),
    };
    let fix = format!("on new: {usage}grant select, insert, update, delete on {place} to {role};");
    let seen = format!("{message} (42501)");
    Finding::fail("rest.granted", Side::New, subject, seen, fix)
}

/// Whether the compatibility schema has a view for an old name.
pub(crate) fn compat(schema: &str, mapped: &Mapped, rest: &Rest) -> Finding {
    const ID: &str = "rest.compat";
    let subject = format!("{schema}.{}", mapped.old);
    match rest {
        Rest::NoTable { .. } => {
            let fix = format!(
                "on new: create view {} with (security_invoker = true) as select * from {};\ngrant select, insert, update, delete on {} to anon, authenticated, service_role;\n{RELOAD}",
                qualified(schema, &mapped.old),
                qualified(&mapped.schema, &mapped.new),
                qualified(schema, &mapped.old),
            );
            let seen = "no such view: an embed across domains that names it has nowhere to go";
            Finding::fail(ID, Side::New, &subject, seen, fix)
        }
        Rest::Fine | Rest::Denied { .. } => Finding::pass(ID, Side::New, &subject, "found"),
        Rest::NotExposed => {
            Finding::skip(ID, Side::New, &subject, "its schema is not exposed", "see rest.exposed")
        }
        other => unclear(ID, Side::New, &subject, other),
    }
}

/// An answer that says nothing about the question.
pub(crate) fn unclear(id: &'static str, side: Side, subject: &str, rest: &Rest) -> Finding {
    let (seen, fix) = match rest {
        Rest::NoKey { said } => (said.clone(), "see keys.anon and keys.service".to_owned()),
        Rest::BadToken { said } | Rest::BadClaims { said } => {
            (said.clone(), "see tokens.own and reach.clock".to_owned())
        }
        Rest::NotReady { said } => (
            said.clone(),
            "the database is away or the schema cache is being loaded: ask again in a minute"
                .to_owned(),
        ),
        Rest::Redirect { to } => (format!("a redirection to {to}"), "see reach.url".to_owned()),
        Rest::Nothing { why } => (why.clone(), "see reach.url".to_owned()),
        Rest::NoTable { .. } => ("no such table".to_owned(), "see rest.table".to_owned()),
        Rest::NotExposed => ("its schema is not exposed".to_owned(), "see rest.exposed".to_owned()),
        Rest::Denied { message } => (message.clone(), "see rest.granted".to_owned()),
        Rest::NoColumn { message } => (message.clone(), "see rest.columns".to_owned()),
        Rest::NoFunction { .. } => ("no such function".to_owned(), "see rest.function".to_owned()),
        Rest::Fine => ("answered".to_owned(), String::new()),
        Rest::Other { said } => (
            format!("an answer that says nothing: {said}"),
            "look at the project's logs: API, then Postgres".to_owned(),
        ),
    };
    let is_known = matches!(
        rest,
        Rest::Nothing { .. } | Rest::Redirect { .. } | Rest::NotReady { .. } | Rest::Other { .. }
    );
    match is_known {
        true => Finding::fail(id, side, subject, seen, fix),
        false => Finding::skip(id, side, subject, seen, fix),
    }
}

#[cfg(test)]
#[path = "rest_tests.rs"]
mod tests;
