//! `01_schemas.sql` and `02_tables.sql`: the schemas, and the tables that move into them.

use std::collections::BTreeSet;

use super::moves::{Move, Moves, word};
use super::step::{File, Step};
use crate::checks::catalogue::{Catalogue, Kind};
use crate::checks::quote::{self, ident, literal, qualified};

pub(super) fn schemas(old: &Catalogue, moves: &Moves<'_>, compat: Option<&str>) -> File {
    let mut steps = vec![extensions(old)];
    for schema in moves.schemas() {
        let known = format!("to_regnamespace({})", literal(&ident(schema)));
        let create = Step::new(
            format!("schema {schema}"),
            format!("{known} is not null"),
            format!("create schema {};", ident(schema)),
        );
        steps.push(create.undo(format!("drop schema {};", ident(schema))));
        let comment = comment(moves, schema);
        steps.push(Step::new(
            format!("a comment on schema {schema}, unless it has one"),
            format!("{known} is not null and obj_description({known}, 'pg_namespace') is not null"),
            format!("comment on schema {} is {};", ident(schema), literal(&comment)),
        ));
    }
    if let Some(compat) = compat.filter(|it| !moves.schemas().contains(it)) {
        let known = format!("to_regnamespace({})", literal(&ident(compat)));
        let step = Step::new(
            format!("schema {compat}, for compatibility views"),
            format!("{known} is not null"),
            format!("create schema {};", ident(compat)),
        );
        steps.push(step);
    }
    File {
        name: "01_schemas.sql",
        title: "schemas and their comments",
        about: "Makes the schemas that the map names, each with a comment, and warns of extensions that old has and this database lacks.",
        undo: "drop the schemas once they are empty (undo the later files first).",
        by_hand: Vec::new(),
        steps,
    }
}

fn comment(moves: &Moves<'_>, schema: &str) -> String {
    let tables = moves.tables.iter().filter(|it| it.schema == schema);
    let functions = moves.functions.iter().filter(|it| it.schema == schema);
    let mut parts: Vec<String> = tables
        .map(|it| match it.is_renamed() {
            true => format!("{} as {}", it.relation.name, it.name),
            false => it.name.clone(),
        })
        .collect();
    parts.extend(functions.map(|it| format!("{}()", it.name)));
    format!("Holds what was in {}: {}.", moves.legacy, parts.join(", "))
}

/// A dump restored without an extension has errors already; this says which one it was.
fn extensions(old: &Catalogue) -> Step {
    let names: Vec<_> = old.extensions.iter().map(|it| it.name.as_str()).collect();
    Step::always(
        "warns of extensions that old has and this database lacks",
        format!(
            "if exists (select from unnest({0}) name where name not in (select extname from pg_catalog.pg_extension)) then\n  \
               raise warning 'extensions of old that are not here: %', (select string_agg(name, ', ') from unnest({0}) name where name not in (select extname from pg_catalog.pg_extension));\nend if;",
            quote::texts(&names)
        ),
    )
}

pub(super) fn tables(old: &Catalogue, moves: &Moves<'_>) -> File {
    let steps = moves.tables.iter().map(|it| relocation(old, moves, it)).collect();
    File {
        name: "02_tables.sql",
        title: "tables and views move",
        about: "Moves what a dump restored into the legacy schema to its schema and name. Rows, policies, indexes, keys, triggers, grants,\n\
                comments, identity columns and the sequences that fill a column go along; views and foreign keys follow by themselves.\n\
                Enum and composite types, and sequences that no column owns, stay where they are: columns know them by identity.",
        undo: "undo 05_compat.sql first, then:",
        by_hand: moves.by_hand.clone(),
        steps,
    }
}

fn relocation(old: &Catalogue, moves: &Moves<'_>, it: &Move<'_>) -> Step {
    let kind = word(it.relation.kind);
    let there = format!("to_regclass({})", literal(&it.new_name()));
    // Where a view moved, the old place holds its compatibility view: nothing tells the two apart, so its new place has to do.
    let done = match it.relation.kind {
        Kind::View => format!("{there} is not null"),
        _ => format!(
            "{there} is not null and not exists (select from pg_catalog.pg_class c where c.oid = to_regclass({}) and c.relkind <> 'v')",
            literal(&it.old_name())
        ),
    };
    let way = way(old, moves, it);
    let change: Vec<_> =
        way.iter().map(|(at, what)| format!("alter {kind} {at} {what};")).collect();
    let mut undo = Vec::new();
    if it.schema != moves.legacy {
        let schema = ident(moves.legacy);
        undo.push(format!("alter {kind} {} set schema {schema};", it.new_name()));
    }
    if it.is_renamed() {
        let at = qualified(moves.legacy, &it.name);
        undo.push(format!("alter {kind} {at} rename to {};", ident(&it.relation.name)));
    }
    let step = Step::new(format!("{kind} {}", it.shown()), done, change.join("\n"));
    step.undo(undo.join(" "))
}

/// The statements, each with the name it starts from. A rename comes before or after the move, wherever the name between them is
/// free; where it is free in neither schema, a third name stands between.
fn way(old: &Catalogue, moves: &Moves<'_>, it: &Move<'_>) -> Vec<(String, String)> {
    let (from, to) = (&it.relation.name, &it.name);
    let move_to = format!("set schema {}", ident(&it.schema));
    let rename = |to: &str| format!("rename to {}", ident(to));
    if it.schema == moves.legacy {
        return vec![(it.old_name(), rename(to))];
    }
    if !it.is_renamed() {
        return vec![(it.old_name(), move_to)];
    }
    let between = qualified(moves.legacy, to);
    if !names(old, moves.legacy).contains(to.as_str()) {
        return vec![(it.old_name(), rename(to)), (between, move_to)];
    }
    let mut taken = names(old, &it.schema);
    taken.extend(moves.tables.iter().filter(|m| m.schema == it.schema).map(|m| m.name.as_str()));
    if !taken.contains(from.as_str()) {
        return vec![(it.old_name(), move_to), (qualified(&it.schema, from), rename(to))];
    }
    let third = format!("cutover moves {from}").chars().take(40).collect::<String>();
    vec![
        (it.old_name(), rename(&third)),
        (qualified(moves.legacy, &third), move_to),
        (qualified(&it.schema, &third), rename(to)),
    ]
}

/// Every name that a relation, an index or a sequence has in that schema.
fn names<'c>(old: &'c Catalogue, schema: &str) -> BTreeSet<&'c str> {
    let relations = old.relations.iter().filter(|it| it.schema == schema);
    let sequences = old.sequences.iter().filter(|it| it.schema == schema);
    relations
        .flat_map(|it| it.indexes.iter().map(|index| index.name.as_str()).chain([it.name.as_str()]))
        .chain(sequences.map(|it| it.name.as_str()))
        .collect()
}
