//! `03_functions.sql`: functions move, and those that find tables by `search_path` go on finding them.

use std::collections::BTreeSet;

use super::Options;
use super::bodies::{self, Manner, Reference};
use super::moves::{FunctionMove, Moves};
use super::step::{File, Step};
use crate::checks::catalogue::{Catalogue, Function, is_managed};
use crate::checks::quote::{ident, literal, qualified, texts};

/// What `function` finds by name, and how it will find it on new.
#[derive(Clone, Debug)]
pub(super) struct Outcome<'f> {
    pub(super) function: &'f Function,
    pub(super) references: Vec<Reference>,
    /// The `search_path` that it needs; `None`: it keeps what it has.
    pub(super) search_path: Option<Vec<String>>,
    /// Names that no `search_path` leads to.
    pub(super) lost: BTreeSet<String>,
}

pub(super) fn functions(moves: &Moves<'_>, outcomes: &[Outcome<'_>], old: &Catalogue) -> File {
    let mut steps: Vec<_> = moves.functions.iter().map(|it| relocation(moves, it, old)).collect();
    for outcome in outcomes {
        if let Some(path) = &outcome.search_path {
            steps.push(search_path(moves, outcome.function, path, old));
        }
    }
    File {
        name: "03_functions.sql",
        title: "functions move",
        about: "Moves functions to their schema and name; what calls them by identity (policies, triggers, views, defaults) follows. Bodies\n\
                are text and stay as they are. Where a body finds something by search_path alone, the function gets one that leads there.",
        undo: "after a changed search_path: alter function … reset search_path, or what old has. Then:",
        by_hand: Vec::new(),
        steps,
    }
}

fn relocation(moves: &Moves<'_>, it: &FunctionMove<'_>, catalogue: &Catalogue) -> Step {
    let (schema, legacy) = (literal(&ident(&it.schema)), literal(&ident(moves.legacy)));
    let (name, old) = (literal(&it.name), literal(it.old));
    let own = "not exists (select from pg_catalog.pg_depend d where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')";
    let count = it.overloads.len();
    // Overloads that are there on old already are not those that move.
    let leaves = it.schema == moves.legacy && moves.function(&it.name).is_some();
    let there = if leaves { 0 } else { catalogue.functions(&it.schema, &it.name).count() };
    let all = count + there;
    let done = format!(
        "(select count(*) >= {all} from pg_catalog.pg_proc p where p.pronamespace = to_regnamespace({schema}) and p.proname = {name})"
    );
    let mut change = format!(
        "if not exists (select from pg_catalog.pg_proc p where p.pronamespace = to_regnamespace({legacy}) and p.proname = {old} and {own}) then\n  \
           raise undefined_function using message = {};\nend if;\n",
        literal(&format!(
            "function {}.{} is not here: restore the dump first",
            moves.legacy, it.old
        ))
    );
    change.push_str(&format!(
        "declare one record;\nbegin\n  for one in select p.oid::regprocedure::text as was from pg_catalog.pg_proc p where p.pronamespace = to_regnamespace({legacy}) and p.proname = {old} and {own} loop\n"
    ));
    // A rename before the move: the name of the arguments' types in `was` is the same in both statements only for the first.
    let mut statement = String::new();
    if it.schema != moves.legacy {
        statement.push_str(&format!(
            "    execute 'alter routine ' || one.was || {};\n",
            literal(&format!(" set schema {}", ident(&it.schema)))
        ));
    }
    if it.name != it.old {
        let here = qualified(&it.schema, it.old);
        statement.push_str(&format!(
            "    execute 'alter routine ' || {} || substr(one.was, strpos(one.was, '(')) || {};\n",
            literal(&here),
            literal(&format!(" rename to {}", ident(&it.name)))
        ));
    }
    change.push_str(&statement);
    change.push_str("  end loop;\nend;");
    let undo = format!(
        "alter routine {} rename to {}; alter routine {} set schema {}; (with the arguments, if there are several)",
        qualified(&it.schema, &it.name),
        ident(it.old),
        qualified(&it.schema, it.old),
        ident(moves.legacy)
    );
    let shown = format!("{}.{} → {}.{}", moves.legacy, it.old, it.schema, it.name);
    Step::new(format!("function {shown}, {count} of that name"), done, change).undo(undo)
}

fn search_path(moves: &Moves<'_>, function: &Function, path: &[String], old: &Catalogue) -> Step {
    let oids = moves.function_oids(function, old);
    let wanted = format!(
        "(select 'search_path=' || string_agg(quote_ident(name), ', ' order by place) from unnest({}) with ordinality listed (name, place))",
        texts(path)
    );
    let done = format!(
        "(select coalesce(bool_and({wanted} = any (p.proconfig)), false) from pg_catalog.pg_proc p where p.oid in ({oids}))"
    );
    let listed: Vec<_> = path.iter().map(|it| ident(it)).collect();
    let change = format!(
        "declare one record;\nbegin\n  for one in {oids} loop\n    execute format('alter routine %s set search_path = %s', one.oid::regprocedure, {});\n  end loop;\nend;",
        literal(&listed.join(", "))
    );
    let shown = format!("{}.{}", function.schema, function.name);
    Step::new(format!("search_path of {shown}: {}", path.join(", ")), done, change)
}

/// What every function of the application finds by name, of what moves.
pub(super) fn outcomes<'c>(
    old: &'c Catalogue,
    moves: &Moves<'c>,
    options: &Options,
) -> Vec<Outcome<'c>> {
    let functions = old.functions.iter().filter(|it| !is_managed(&it.schema) && has_text(it));
    let outcomes = functions.map(|function| {
        let references = bodies::references(&function.body, moves);
        outcome(function, references, moves, options, old)
    });
    outcomes.filter(|it| !it.references.is_empty()).collect()
}

/// A `BEGIN ATOMIC` body was parsed when it was made and knows its tables by identity; C has no text.
fn has_text(function: &Function) -> bool {
    !matches!(function.language.as_str(), "c" | "internal")
        && function.definition.as_ref() != Some(&function.body)
}

fn outcome<'c>(
    function: &'c Function,
    references: Vec<Reference>,
    moves: &Moves<'c>,
    options: &Options,
    old: &Catalogue,
) -> Outcome<'c> {
    let mut path = function.search_path().unwrap_or_else(|| {
        // The caller's: what PostgREST sets on old.
        let extensions = old.schema("extensions").map(|_| "extensions".to_owned());
        [moves.legacy.to_owned()].into_iter().chain(extensions).collect()
    });
    let before = path.len();
    let mut lost = BTreeSet::new();
    for reference in references.iter().filter(|it| it.manner == Manner::Unqualified) {
        // Without the legacy schema in its path the name never meant what moves.
        if !path.iter().take(before).any(|it| it == moves.legacy) {
            continue;
        }
        match leads_to(reference, moves, options) {
            Leads::AsBefore => {}
            Leads::Through(schema) if !path.contains(&schema) => path.push(schema),
            Leads::Through(_) => {}
            Leads::Nowhere => {
                lost.insert(reference.old.clone());
            }
        }
    }
    for reference in references.iter().filter(|it| it.manner == Manner::Unqualified) {
        if path.len() > before && is_another(reference, &path, before, moves) {
            lost.insert(reference.old.clone());
        }
    }
    let search_path = (path.len() > before && lost.is_empty()).then_some(path);
    Outcome { function, references, search_path, lost }
}

enum Leads {
    AsBefore,
    Through(String),
    Nowhere,
}

fn leads_to(reference: &Reference, moves: &Moves<'_>, options: &Options) -> Leads {
    let compat = options.compat.as_deref();
    let is_table = reference.is_table;
    let same = reference.old == reference.name;
    match compat {
        Some(compat) if is_table && compat == moves.legacy => Leads::AsBefore,
        Some(compat) if is_table => Leads::Through(compat.to_owned()),
        _ if reference.schema == moves.legacy && same => Leads::AsBefore,
        _ if same => Leads::Through(reference.schema.clone()),
        _ => Leads::Nowhere,
    }
}

/// Whether one of the schemas that were added has another relation or function of that name, before the one that is meant.
fn is_another(reference: &Reference, path: &[String], before: usize, moves: &Moves<'_>) -> bool {
    let added = path.iter().skip(before);
    let holds = |schema: &str| match reference.is_table {
        true => moves.tables.iter().any(|it| it.schema == schema && it.name == reference.old),
        false => moves.functions.iter().any(|it| it.schema == schema && it.name == reference.old),
    };
    let first = added.into_iter().find(|schema| holds(schema));
    first.is_some_and(|first| *first != reference.schema)
}
