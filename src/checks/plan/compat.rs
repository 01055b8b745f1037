//! `05_compat.sql`: the old names, as views.

use super::Options;
use super::grants::{Object, on_column};
use super::moves::{Move, Moves, word};
use super::step::{File, Step};
use crate::checks::catalogue::{Catalogue, Relation};
use crate::checks::quote::{ident, literal, qualified, texts};

pub(super) fn compat(old: &Catalogue, moves: &Moves<'_>, options: &Options) -> File {
    let mut steps = Vec::new();
    if let Some(compat) = &options.compat {
        for it in &moves.tables {
            // A rename inside the schema of the views leaves the old name free; a move into it takes it.
            if (it.schema.as_str(), it.name.as_str()) != (compat, it.relation.name.as_str()) {
                steps.extend(view(compat, &it.relation.name, it.relation, it));
            }
        }
        for (name, (schema, table)) in &moves.merged {
            let target = moves.tables.iter().find(|it| (&it.schema, &it.name) == (schema, table));
            if let (Some(target), Some(_)) = (target, old.relation(moves.legacy, name)) {
                steps.extend(view(compat, name, target.relation, target));
            }
        }
    }
    File {
        name: "05_compat.sql",
        title: "old names as views",
        about: "Makes a view of each table that moved, under its old name: updatable, with the caller's rights (security_invoker), so that row\n\
                level security of the table holds, and with the table's grants. Defaults are the table's.",
        undo: "drop the views:",
        by_hand: Vec::new(),
        steps,
    }
}

fn view(compat: &str, name: &str, rights: &Relation, it: &Move<'_>) -> Vec<Step> {
    let view = qualified(compat, name);
    let shown = format!("{compat}.{name}");
    let oid = format!("to_regclass({})", literal(&view));
    let columns: Vec<&str> = it.relation.columns.iter().map(|it| it.name.as_str()).collect();
    let listed: Vec<_> = columns.iter().map(|it| ident(it)).collect();
    let done = is_view_of(&oid, &it.new_name(), &columns);
    // Rows of a table that becomes the same one have to be saved before a view may take its name.
    let blocked = format!(
        "exists (select from pg_catalog.pg_class c where c.oid = {oid} and c.relkind in ('r', 'p', 'f'))"
    );
    let is_merged = name != it.relation.name;
    let is_made = done.clone();
    let done = if is_merged { format!("{blocked} or ({done})") } else { done };
    let create = Step::new(
        format!("view {shown} of {}.{}", it.schema, it.name),
        done,
        format!(
            "create or replace view {view} with (security_invoker = true) as\n  select {} from {};",
            listed.join(", "),
            it.new_name()
        ),
    );
    let kind = word(it.relation.kind);
    let text = format!("The old name of {kind} {}.{}; made by cutover plan.", it.schema, it.name);
    let comment = Step::new(
        format!("a comment on view {shown}"),
        guarded(
            is_merged,
            &blocked,
            &format!("coalesce(obj_description({oid}, 'pg_class') = {}, false)", literal(&text)),
        ),
        format!("comment on view {view} is {};", literal(&text)),
    );
    let object = Object::view(&view, format!("view {shown}"), oid.clone());
    let mut steps = vec![create.undo(format!("drop view {view};")), comment];
    let mut granted = vec![object.exactly(&rights.grants)];
    granted.extend(object.others(&rights.grants, &rights.owner));
    for column in rights.columns.iter().filter(|it| !it.grants.is_empty()) {
        granted.extend(on_column(&view, &shown, &oid, &column.name, &column.grants));
    }
    for mut step in granted {
        // Before the table has moved, its old name is the table itself: what is asked here is asked of the view.
        step.done =
            step.done.map(|done| guarded(is_merged, &blocked, &format!("({is_made} and {done})")));
        steps.push(step);
    }
    steps
}

fn guarded(is_merged: bool, blocked: &str, done: &str) -> String {
    if is_merged { format!("{blocked} or {done}") } else { done.to_owned() }
}

/// Whether `oid` is a view with those columns of that relation, with the caller's rights.
fn is_view_of(oid: &str, relation: &str, columns: &[&str]) -> String {
    format!(
        "exists (select from pg_catalog.pg_class c where c.oid = {oid} and c.relkind = 'v' \
         and coalesce(c.reloptions && '{{security_invoker=true,security_invoker=on}}'::text[], false) \
         and {columns} = (select array_agg(t.attname::text order by t.attnum) from pg_catalog.pg_attribute t where t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped) \
         and exists (select from pg_catalog.pg_rewrite r join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid \
         where r.ev_class = c.oid and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid = to_regclass({relation})))",
        columns = texts(columns),
        relation = literal(relation),
    )
}
