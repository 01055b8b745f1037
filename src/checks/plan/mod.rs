//! How new becomes what the map says: ordered SQL, from the map and old's catalogue.
//!
//! The SQL is for a new project that holds a restored dump of old. It is written by pure code and never reads a row: names, rights and
//! the last values of sequences are all that it takes from old. Every step asks first whether it is needed, so that a file can be
//! applied twice; `apply` counts by the same questions what is still to do.

mod apply;
mod bodies;
mod compat;
mod findings;
mod functions;
mod grants;
mod moves;
mod realtime;
mod step;
mod tables;
#[cfg(test)]
mod tests;

pub use apply::{ApplyError, Failed, apply, is_same_database, missing_extensions, pending};
pub use findings::Finding;
pub use step::{File, Limits, Step};

use std::collections::BTreeSet;

use crate::checks::catalogue::{Catalogue, is_managed, privileges};
use crate::rewrite::schema::SchemaMap;

/// What the operator chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The schema of compatibility views; `None`: there are none.
    pub compat: Option<String>,
    /// How many numbers of each sequence to leave to old.
    pub sequence_gap: u32,
    /// More schemas to expose.
    pub expose: Vec<String>,
}

/// Files in their order, and what no SQL does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be applied.
    pub files: Vec<File>,
    /// Where functions, triggers and policies name what moves.
    pub findings: Vec<Finding>,
    /// What the operator should know, in sentences.
    pub notes: Vec<String>,
    /// The extensions that old has.
    pub extensions: Vec<String>,
}

/// Writes the plan. Asks nothing but its arguments.
#[must_use]
pub fn plan(old: &Catalogue, map: &SchemaMap, options: &Options) -> Plan {
    let moves = moves::Moves::of(old, map);
    let outcomes = functions::outcomes(old, &moves, options);
    let findings = findings::findings(old, &moves, &outcomes, options);
    let mut functions = functions::functions(&moves, &outcomes, old);
    functions.by_hand = findings.iter().map(ToString::to_string).collect();
    let base = realtime::listed(&old.server.authenticator).unwrap_or_else(|| by_default(old));
    let exposed = realtime::exposed(&moves, options, &base);
    let files = vec![
        tables::schemas(old, &moves, options.compat.as_deref()),
        tables::tables(old, &moves),
        functions,
        grants::grants(old, &moves),
        compat::compat(old, &moves, options),
        realtime::publication(old, &moves),
        realtime::sequences(old, &moves, options),
        exposed,
        realtime::reload(),
    ];
    let mut notes = notes(old, map, &moves, options, &base);
    notes.extend(
        files.iter().filter(|it| it.name.contains("sequences")).flat_map(|it| it.by_hand.clone()),
    );
    Plan {
        notes,
        extensions: old.extensions.iter().map(|it| it.name.clone()).collect(),
        files,
        findings,
    }
}

/// What a project exposes unless it is told otherwise.
fn by_default(old: &Catalogue) -> Vec<String> {
    let names = ["public", "graphql_public"];
    names.into_iter().filter(|name| old.schema(name).is_some()).map(str::to_owned).collect()
}

fn notes(
    old: &Catalogue,
    map: &SchemaMap,
    moves: &moves::Moves<'_>,
    options: &Options,
    base: &[String],
) -> Vec<String> {
    let mut notes = moves.by_hand.clone();
    let missing = |lines: Vec<crate::rewrite::schema::Mapped<'_>>,
                   is_there: &dyn Fn(&str) -> bool| {
        let names = lines.iter().filter(|it| it.name.is_some() && !is_there(it.old));
        names.map(|it| it.old.to_owned()).collect::<Vec<_>>()
    };
    let tables = missing(map.tables().lines(), &|name| old.relation(moves.legacy, name).is_some());
    let functions = missing(map.functions().lines(), &|name| {
        old.functions(moves.legacy, name).next().is_some()
    });
    for (what, names) in [("tables", tables), ("functions", functions)] {
        if !names.is_empty() {
            notes.push(format!("the map names {what} that old doesn't have: {}", names.join(", ")));
        }
    }
    let by_column =
        |it: &&moves::Move<'_>| it.relation.columns.iter().any(|it| !it.grants.is_empty());
    for it in moves.tables.iter().filter(by_column).filter(|_| options.compat.is_some()) {
        notes.push(format!(
            "{}.{} has rights on single columns: who holds only those reaches the table, but not its compatibility view, which reads every column",
            it.schema, it.name
        ));
    }
    let chosen: BTreeSet<&str> = moves
        .schemas()
        .into_iter()
        .chain(options.compat.as_deref())
        .chain(options.expose.iter().map(String::as_str))
        .chain(base.iter().map(String::as_str))
        .collect();
    let used = old.schemas.iter().filter(|it| {
        let reaches = |role| privileges(&it.grants, role).contains("USAGE");
        !is_managed(&it.name)
            && !chosen.contains(it.name.as_str())
            && (reaches("anon") || reaches("authenticated"))
    });
    let used: Vec<_> = used.map(|it| it.name.as_str()).collect();
    if !used.is_empty() {
        notes.push(format!(
            "users may use schemas that this plan doesn't expose: {}; if clients name them, add --expose NAME for each",
            used.join(", ")
        ));
    }
    notes.extend(beside(old, moves));
    notes.push("files of storage, users of auth, edge functions and cron jobs are not SQL's business: docs/plan.md says how they come over".to_owned());
    notes
}

/// What the application hung on the platform's own tables: a dump that leaves their schemas out leaves it out as well.
fn beside(old: &Catalogue, moves: &moves::Moves<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    for it in old.relations.iter().filter(|it| is_managed(&it.schema)) {
        for trigger in it.triggers.iter().filter(|it| !is_managed(&it.function_schema)) {
            let place = moves.function(&trigger.function);
            let place = place.filter(|_| trigger.function_schema == moves.legacy);
            let moved = place.map_or_else(String::new, |place| {
                format!(" (the function is {}.{} on new)", place.schema, place.name)
            });
            notes.push(format!(
                "by hand, once the functions have moved, unless new has it: {}{moved}; a dump without schema {} lacks this trigger",
                trigger.definition, it.schema
            ));
        }
        if !it.policies.is_empty() {
            let names: Vec<_> = it.policies.iter().map(|it| it.name.as_str()).collect();
            notes.push(format!(
                "by hand, unless new has them: policies on {}.{} ({}); a dump without schema {0} lacks them",
                it.schema, it.name, names.join(", ")
            ));
        }
    }
    notes
}
