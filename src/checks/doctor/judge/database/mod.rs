//! Both databases' catalogues against each other, table by table of the map.

mod bodies;
mod grants;
mod ids;
mod names;
mod policies;
mod publication;
#[cfg(test)]
pub(crate) mod tests;

use super::rest::Mapped;
use super::sql::{ident, qualified};
use crate::checks::catalogue::{Catalogue, Function, Kind, Relation};
use crate::checks::doctor::finding::Finding;
use crate::side::{Pair, Side};

pub(crate) use ids::{Greatest, counted};
pub(crate) use names::Names;

/// What is compared.
pub(crate) struct Databases<'a> {
    /// The map's tables.
    pub(crate) tables: &'a [Mapped],
    /// The map's functions.
    pub(crate) functions: &'a [Mapped],
    /// The schema of compatibility views on new.
    pub(crate) compat: Option<&'a str>,
    /// What was read; `None`: no database of that side could be asked.
    pub(crate) sides: Pair<Option<&'a Catalogue>>,
    /// The greatest value of each column that a sequence fills.
    pub(crate) greatest: &'a Pair<Greatest>,
}

/// The roles that PostgREST takes on (`supabase-wire.md` 1.2).
const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];

/// Every line that the databases that were read have to say.
pub(crate) fn judged(asked: &Databases<'_>) -> Vec<Finding> {
    let names = Names::new(asked.tables, asked.functions);
    let mut findings = Vec::new();
    for side in Side::ALL {
        let Some(catalogue) = asked.sides[side] else { continue };
        for mapped in asked.tables {
            findings.push(table(side, mapped, catalogue));
            if let Some(relation) = relation(side, mapped, catalogue) {
                findings.extend(names::called_like_a_table(side, relation, asked.tables));
            }
        }
        findings.extend(asked.functions.iter().map(|it| function(side, it, catalogue)));
    }
    findings.extend(ids::sequences(asked));
    if let Some(new) = asked.sides.new {
        if let Some(schema) = asked.compat {
            findings.extend(asked.tables.iter().filter_map(|it| view(schema, it, new)));
        }
        findings.extend(bodies::name_moved_tables(asked, new));
        findings.extend(grants::schemas(asked.tables, new));
    }
    for mapped in asked.tables {
        let relation = |side: Side| relation(side, mapped, asked.sides[side]?);
        let relations = Pair { old: relation(Side::Old), new: relation(Side::New) };
        findings.extend(row_security(mapped, relations));
        findings.extend(vectors(mapped, relations));
        if let Pair { old: Some(old), new: Some(new) } = relations {
            findings.extend(policies::compare(mapped, old, new, &names));
            findings.extend(grants::compare(mapped, old, new));
        }
    }
    if let Pair { old: Some(old), new: Some(new) } = asked.sides {
        findings.extend(publication::compare(asked.tables, old, new));
        findings.extend(asked.functions.iter().flat_map(|it| arguments(it, old, new)));
    }
    findings
}

fn relation<'c>(side: Side, mapped: &Mapped, catalogue: &'c Catalogue) -> Option<&'c Relation> {
    let (schema, name) = mapped.place(side);
    catalogue.relation(schema, name)
}

fn table(side: Side, mapped: &Mapped, catalogue: &Catalogue) -> Finding {
    const ID: &str = "db.table";
    let subject = mapped.on(side);
    match relation(side, mapped, catalogue) {
        Some(_) => Finding::pass(ID, side, &subject, "found"),
        None => {
            Finding::fail(ID, side, &subject, "the database has no such table", "see rest.table")
        }
    }
}

fn function(side: Side, mapped: &Mapped, catalogue: &Catalogue) -> Finding {
    const ID: &str = "db.function";
    let subject = mapped.on(side);
    let (schema, name) = mapped.place(side);
    match catalogue.functions(schema, name).next() {
        Some(_) => Finding::pass(ID, side, &subject, "found"),
        None => {
            let seen = "the database has no such function";
            Finding::fail(ID, side, &subject, seen, "see rest.function")
        }
    }
}

/// Whether each overload of old's is on new.
fn arguments(mapped: &Mapped, old: &Catalogue, new: &Catalogue) -> Vec<Finding> {
    let of = |side: Side, catalogue: &Catalogue| -> Vec<String> {
        let (schema, name) = mapped.place(side);
        catalogue.functions(schema, name).map(signature).collect()
    };
    let (old, new) = (of(Side::Old, old), of(Side::New, new));
    if new.is_empty() {
        return Vec::new();
    }
    let missing = old.iter().filter(|it| !new.contains(it)).map(|it| {
        let seen = format!("old takes ({it}), new takes ({})", new.join(") or ("));
        let fix = "create it on new with the same names and types of arguments: clients name them";
        Finding::fail("db.function", Side::New, &mapped.on(Side::New), seen, fix)
    });
    missing.collect()
}

/// Arguments without the schemas of their types, which moved with an extension.
fn signature(function: &Function) -> String {
    names::without_schemas(&function.identity_arguments)
}

/// A view that judges with its owner's rights shows everybody's rows (PostgreSQL 15: `security_invoker`).
fn view(schema: &str, mapped: &Mapped, new: &Catalogue) -> Option<Finding> {
    const ID: &str = "db.compat";
    if (schema, &mapped.old) == (&mapped.schema, &mapped.new) {
        return None;
    }
    let relation = new.relation(schema, &mapped.old)?;
    let subject = format!("{schema}.{}", mapped.old);
    let place = qualified(schema, &mapped.old);
    if relation.kind != Kind::View {
        let seen =
            format!("a table, not a view: its rows are not those of {}", mapped.on(Side::New));
        let fix = format!(
            "see that it holds nothing of its own; then on new: drop table {place};\nand make the view of rest.compat"
        );
        return Some(Finding::fail(ID, Side::New, &subject, seen, fix));
    }
    let is_on = |option: &String| {
        let value = option.strip_prefix("security_invoker=");
        value.is_some_and(|value| matches!(value, "true" | "on" | "yes" | "1"))
    };
    if relation.options.iter().any(is_on) {
        return Some(Finding::pass(ID, Side::New, &subject, "judges with the caller's rights"));
    }
    let seen = "judges with its owner's rights: row level security of the table below is bypassed";
    let fix = format!("on new: alter view {place} set (security_invoker = true);");
    Some(Finding::fail(ID, Side::New, &subject, seen, fix))
}

fn row_security(mapped: &Mapped, relations: Pair<Option<&Relation>>) -> Vec<Finding> {
    const ID: &str = "db.rls";
    let of = |side: Side| relations[side].filter(|it| it.kind.is_table());
    let enable = |side: Side| {
        let (schema, name) = mapped.place(side);
        format!("on {side}: alter table {} enable row level security;", qualified(schema, name))
    };
    let subject = mapped.on(Side::New);
    match (of(Side::Old), of(Side::New)) {
        (Some(old), Some(new)) if old.row_security && !new.row_security => {
            let seen = "row level security is on on old and off on new: every user sees every row";
            vec![Finding::fail(ID, Side::New, &subject, seen, enable(Side::New))]
        }
        (Some(old), Some(new)) if !old.row_security && new.row_security => {
            let seen = "row level security is off on old and on on new: without policies nobody sees a row";
            vec![Finding::warn(
                ID,
                Side::New,
                &subject,
                seen,
                "see that new's policies let users see what they saw",
            )]
        }
        (Some(old), Some(new))
            if old.row_security && old.row_security_forced != new.row_security_forced =>
        {
            let seen = "FORCE ROW LEVEL SECURITY differs: it decides what functions of the table's owner see";
            let word = if old.row_security_forced { "force" } else { "no force" };
            let fix = format!(
                "on new: alter table {} {word} row level security;",
                qualified(&mapped.schema, &mapped.new)
            );
            vec![Finding::warn(ID, Side::New, &subject, seen, fix)]
        }
        (Some(old), Some(_)) if old.row_security => {
            vec![Finding::pass(ID, None, &subject, "on on both sides")]
        }
        (old, new) => [(Side::Old, old), (Side::New, new)]
            .into_iter()
            .filter_map(|(side, it)| Some((side, it?)))
            .map(|(side, it)| match it.row_security {
                true => Finding::pass(ID, side, &mapped.on(side), "on"),
                false => {
                    let seen = "row level security is off: grants alone decide who sees its rows";
                    Finding::warn(ID, side, &mapped.on(side), seen, enable(side))
                }
            })
            .collect(),
    }
}

fn vectors(mapped: &Mapped, relations: Pair<Option<&Relation>>) -> Vec<Finding> {
    const ID: &str = "db.vectors";
    let Some(new) = relations.new.filter(|it| it.kind.is_table()) else { return Vec::new() };
    let index = |relation: &Relation, column: &str| {
        let is_it = |it: &&crate::checks::catalogue::Index| {
            matches!(it.method.as_str(), "hnsw" | "ivfflat")
                && it.valid
                && it.columns.iter().any(|name| name == column)
        };
        relation.indexes.iter().find(is_it).map(|it| it.definition.clone())
    };
    let is_vector = |type_: &str| {
        let base = type_.split('(').next().unwrap_or_default();
        matches!(base.rsplit('.').next(), Some("vector" | "halfvec" | "sparsevec"))
    };
    let columns = new.columns.iter().filter(|it| is_vector(&it.type_));
    let judged = columns.map(|column| {
        let subject = format!("{}.{}", mapped.on(Side::New), column.name);
        if index(new, &column.name).is_some() {
            return Finding::pass(ID, Side::New, &subject, "has an index");
        }
        let on_old = relations.old.and_then(|old| index(old, &column.name));
        let (seen, like) = match &on_old {
            Some(definition) => ("old has an index for it, new has none: searches read the whole table", format!("as on old: {definition}")),
            None => ("no hnsw or ivfflat index: searches read the whole table", "fine while it is small".to_owned()),
        };
        let fix = format!(
            "on new: create index concurrently on {} using hnsw ({} vector_cosine_ops); -- the operator class that the queries use\n{like}",
            qualified(&mapped.schema, &mapped.new),
            ident(&column.name)
        );
        Finding::warn(ID, Side::New, &subject, seen, fix)
    });
    judged.collect()
}
