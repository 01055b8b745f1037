//! Sequences: behind their own table, or giving out the same ids on both sides.

use std::collections::BTreeMap;

use super::super::rest::Mapped;
use super::super::sql::{literal, qualified};
use super::Databases;
use crate::checks::catalogue::{Catalogue, Sequence, SequenceOwner};
use crate::checks::doctor::finding::Finding;
use crate::side::{Pair, Side};

const ID: &str = "db.sequences";

/// Schema, table and column → the greatest value in it; missing: it could not be read, or the table is empty.
pub(crate) type Greatest = BTreeMap<(String, String, String), i64>;

/// The columns of mapped tables that a sequence fills: those whose greatest value has to be read.
pub(crate) fn counted(side: Side, tables: &[Mapped], catalogue: &Catalogue) -> Vec<SequenceOwner> {
    let of = |mapped| found(side, mapped, catalogue).filter_map(|it| it.owned_by.clone());
    tables.iter().flat_map(of).collect()
}

fn found<'c>(
    side: Side,
    mapped: &Mapped,
    catalogue: &'c Catalogue,
) -> impl Iterator<Item = &'c Sequence> {
    let (schema, name) = mapped.place(side);
    let (schema, name) = (schema.to_owned(), name.to_owned());
    catalogue.sequences.iter().filter(move |it| {
        it.owned_by.as_ref().is_some_and(|owner| owner.schema == schema && owner.table == name)
    })
}

/// Every line about sequences.
pub(super) fn sequences(asked: &Databases<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for mapped in asked.tables {
        for side in Side::ALL {
            let Some(catalogue) = asked.sides[side] else { continue };
            let greatest = &asked.greatest[side];
            findings
                .extend(found(side, mapped, catalogue).filter_map(|it| behind(side, it, greatest)));
        }
        if let Pair { old: Some(old), new: Some(new) } = asked.sides {
            findings.extend(together(mapped, old, new));
        }
    }
    findings
}

/// A sequence that has not reached what its table holds gives out ids that are taken: the next inserts fail with 23505.
fn behind(side: Side, sequence: &Sequence, greatest: &Greatest) -> Option<Finding> {
    let owner = sequence.owned_by.as_ref()?;
    let subject = format!("{}.{}", sequence.schema, sequence.name);
    let place = (owner.schema.clone(), owner.table.clone(), owner.column.clone());
    let greatest = *greatest.get(&place)?;
    if !sequence.is_readable || sequence.increment < 0 {
        return None;
    }
    let reached = sequence.last_value.unwrap_or(sequence.start - sequence.increment);
    if reached >= greatest {
        return Some(Finding::pass(
            ID,
            side,
            &subject,
            format!("at {reached}, the table at {greatest}"),
        ));
    }
    let seen = format!(
        "at {reached}, but the table already holds {greatest}: the next inserts fail (23505)"
    );
    let fix = format!(
        "on {side}: select setval({}, (select max({}) from {}));",
        literal(&qualified(&sequence.schema, &sequence.name)),
        super::super::sql::ident(&owner.column),
        qualified(&owner.schema, &owner.table)
    );
    Some(Finding::fail(ID, side, &subject, seen, fix))
}

/// Two sequences that count alike give the same id to two rows, one on each side, while users are on both.
fn together(mapped: &Mapped, old: &Catalogue, new: &Catalogue) -> Vec<Finding> {
    let column = |it: &Sequence| it.owned_by.as_ref().map(|owner| owner.column.clone());
    let mut findings = Vec::new();
    for ours in found(Side::Old, mapped, old) {
        let theirs = found(Side::New, mapped, new).find(|it| column(it) == column(ours));
        let Some(theirs) = theirs else { continue };
        if never_meet(ours, theirs) {
            continue;
        }
        let subject = mapped.on(Side::New);
        let seen = format!(
            "both sides give out the same ids for {}: rows written on both while users are split can't be brought together",
            column(ours).unwrap_or_default()
        );
        let fix = format!(
            "let old count odd and new even:\non old: alter sequence {old} increment by 2; select setval({old_text}, nextval({old_text}) / 2 * 2 + 1);\non new: alter sequence {new} increment by 2; select setval({new_text}, (nextval({new_text}) / 2 + 1) * 2);",
            old = qualified(&ours.schema, &ours.name),
            old_text = literal(&qualified(&ours.schema, &ours.name)),
            new = qualified(&theirs.schema, &theirs.name),
            new_text = literal(&qualified(&theirs.schema, &theirs.name)),
        );
        findings.push(Finding::warn(ID, None, &subject, seen, fix));
    }
    findings
}

/// The same step of 2 or more from different remainders, or ranges apart for as long as anybody can think.
fn never_meet(old: &Sequence, new: &Sequence) -> bool {
    const APART: i64 = 1_000_000_000;
    let at = |it: &Sequence| it.last_value.unwrap_or(it.start - it.increment);
    let step = old.increment;
    let is_interleaved = step == new.increment
        && step.abs() > 1
        && at(old).rem_euclid(step) != at(new).rem_euclid(step);
    is_interleaved || at(old).abs_diff(at(new)) >= APART.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalogue, sequence};
    use super::*;
    use crate::checks::doctor::finding::Status;

    fn judged(old: Option<Sequence>, new: Option<Sequence>, greatest: i64) -> Vec<Finding> {
        let tables = [Mapped::new("public", "logs", "stats", "logs")];
        let with = |sequence: Option<Sequence>| {
            let mut it = catalogue();
            it.sequences.extend(sequence);
            it
        };
        let (old, new) = (with(old), with(new));
        let of = |schema: &str| {
            Greatest::from([((schema.to_owned(), "logs".to_owned(), "id".to_owned()), greatest)])
        };
        let greatest = Pair { old: of("public"), new: of("stats") };
        sequences(&Databases {
            tables: &tables,
            functions: &[],
            compat: None,
            sides: Pair { old: Some(&old), new: Some(&new) },
            greatest: &greatest,
        })
    }

    fn at(schema: &str, last: Option<i64>, increment: i64) -> Sequence {
        Sequence { last_value: last, increment, ..sequence(schema, "logs", "id") }
    }

    #[test]
    fn a_sequence_behind_its_table_is_a_failure_with_a_statement() {
        let found = judged(None, Some(at("stats", Some(5), 1)), 9);
        assert_eq!(found[0].status, Status::Fail);
        let statement = "select setval('stats.logs_id_seq', (select max(id) from stats.logs));";
        assert!(found[0].fix.contains(statement), "{found:?}");
        assert_eq!(judged(None, Some(at("stats", Some(9), 1)), 9)[0].status, Status::Pass);
        assert_eq!(
            judged(None, Some(at("stats", None, 1)), 1)[0].status,
            Status::Fail,
            "never used"
        );
        let hidden = Sequence { is_readable: false, ..at("stats", None, 1) };
        assert_eq!(judged(None, Some(hidden), 9), []);
    }

    #[test]
    fn sequences_that_meet_are_worth_a_warning() {
        for (old, new, want) in [
            ((Some(9), 1), (Some(9), 1), 1),
            ((Some(9), 2), (Some(10), 2), 0),
            ((Some(9), 2), (Some(11), 2), 1),
            ((Some(9), 1), (Some(2_000_000_000), 1), 0),
        ] {
            let found =
                judged(Some(at("public", old.0, old.1)), Some(at("stats", new.0, new.1)), 9);
            let warnings = found.iter().filter(|it| it.status == Status::Warn).count();
            assert_eq!(warnings, want, "{old:?} {new:?}: {found:?}");
        }
    }
}
