//! Where functions, triggers and policies name what moves, and whether that goes on working.

use std::fmt;

use serde::Serialize;

use super::Options;
use super::bodies::{self, Manner, Reference};
use super::functions::Outcome;
use super::moves::Moves;
use crate::checks::catalogue::{Catalogue, is_managed};

/// One line of somebody's text that names what moves. Nothing rewrites it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// `function`, `trigger` or `policy`.
    pub kind: &'static str,
    /// The schema on old, of a trigger or policy its table's.
    pub schema: String,
    /// Its name; of a function with its arguments, of a trigger or policy with its table.
    pub object: String,
    /// The line in the body, counted from 1 as PostgreSQL does.
    pub line: usize,
    /// That line.
    pub text: String,
    /// What is named, in old's words.
    pub names: String,
    /// Where it is on new.
    pub becomes: String,
    /// Whether somebody has to change it before it works on new.
    pub by_hand: bool,
    /// Why it works, or what to do.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, schema, object, line, text, names, becomes, what, .. } = self;
        write!(
            f,
            "{kind} {schema}.{object}, line {line}: {text} [{names} is {becomes} on new: {what}]"
        )
    }
}

pub(super) fn findings(
    old: &Catalogue,
    moves: &Moves<'_>,
    outcomes: &[Outcome<'_>],
    options: &Options,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for outcome in outcomes {
        let function = outcome.function;
        let object = format!("{}({})", function.name, function.identity_arguments);
        for reference in &outcome.references {
            let judged = judge(outcome, reference, moves, options);
            found.push(finding("function", &function.schema, &object, reference, moves, judged));
        }
    }
    for relation in old.relations.iter().filter(|it| !is_managed(&it.schema)) {
        for trigger in &relation.triggers {
            let object = format!("{} on {}", trigger.name, relation.name);
            found.extend(texts("trigger", &relation.schema, &object, &trigger.definition, moves));
        }
        for policy in &relation.policies {
            let object = format!("{} on {}", policy.name, relation.name);
            for text in [&policy.using, &policy.check].into_iter().flatten() {
                found.extend(texts("policy", &relation.schema, &object, text, moves));
            }
        }
    }
    found.dedup();
    found
}

/// Names inside strings: all else in a trigger or policy is known by identity, and so is a constant such as `'a'::regclass`.
fn texts(
    kind: &'static str,
    schema: &str,
    object: &str,
    text: &str,
    moves: &Moves<'_>,
) -> Vec<Finding> {
    let text = text.replace("'::regclass", "\"::regclass");
    let references = bodies::references(&text, moves);
    let inside = references.into_iter().filter(|it| it.manner == Manner::Text);
    let advice = "a text that is compared or run: see that it still says what is meant";
    inside.map(|it| finding(kind, schema, object, &it, moves, (true, advice.to_owned()))).collect()
}

fn finding(
    kind: &'static str,
    schema: &str,
    object: &str,
    reference: &Reference,
    moves: &Moves<'_>,
    (by_hand, what): (bool, String),
) -> Finding {
    Finding {
        kind,
        schema: schema.to_owned(),
        object: object.to_owned(),
        line: reference.line,
        text: reference.text.clone(),
        names: format!("{}.{}", moves.legacy, reference.old),
        becomes: format!("{}.{}", reference.schema, reference.name),
        by_hand,
        what,
    }
}

fn judge(
    outcome: &Outcome<'_>,
    reference: &Reference,
    moves: &Moves<'_>,
    options: &Options,
) -> (bool, String) {
    let there = format!("{}.{}", reference.schema, reference.name);
    let by_hand = |why: &str| (true, format!("{why}: say {there}"));
    let is_covered = options.compat.as_deref() == Some(moves.legacy) && reference.is_table;
    let words = reference.text.to_ascii_lowercase();
    if is_covered && words.contains("truncate") {
        return by_hand("a view can't be truncated");
    }
    if is_covered && words.contains("on constraint") {
        return by_hand("a view has no constraints to name");
    }
    match reference.manner {
        Manner::Text if outcome.function.is_trigger && reference.old != reference.name => {
            by_hand("tg_table_name and tg_relid::text have the new name")
        }
        _ if is_covered => {
            let view = format!("{}.{}", moves.legacy, reference.old);
            (false, format!("works, through the view {view}"))
        }
        Manner::Text => by_hand("dynamic SQL, or a text that is compared"),
        Manner::Qualified
            if reference.schema == moves.legacy && reference.old == reference.name =>
        {
            (false, "works".to_owned())
        }
        Manner::Qualified => by_hand("nothing has that name any more"),
        Manner::Unqualified if outcome.lost.contains(&reference.old) => {
            by_hand("no search_path leads there")
        }
        Manner::Unqualified if outcome.search_path.is_some() => {
            (false, "works, through the function's new search_path".to_owned())
        }
        Manner::Unqualified if !outcome.lost.is_empty() => by_hand("no search_path leads there"),
        Manner::Unqualified => {
            (false, "isn't found by that name on old either, or works as before".to_owned())
        }
    }
}
