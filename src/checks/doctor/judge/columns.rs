//! Whether a table has the same columns on both sides. What counts is what a client of OLD's notices on NEW.

use super::rest::Mapped;
use super::shape::{Column, Table};
use super::sql::{ident, qualified};
use crate::checks::doctor::finding::Finding;
use crate::side::Side;

const ID: &str = "rest.columns";

/// Compares a table's columns.
pub(crate) fn compare(table: &Mapped, old: &Table, new: &Table) -> Vec<Finding> {
    let subject = table.on(Side::New);
    let place = qualified(&table.schema, &table.new);
    let mut findings = Vec::new();
    for (name, column) in old {
        let named = format!("{subject}.{name}");
        match new.get(name) {
            None => {
                let seen = format!("the column {name} ({}) is on old and not on new", column.type_);
                let fix = format!(
                    "on new: alter table {place} add column {} {};\nnotify pgrst, 'reload schema';",
                    ident(name),
                    column.type_
                );
                findings.push(Finding::fail(ID, Side::New, &named, seen, fix));
            }
            Some(other) if other.type_ != column.type_ => {
                findings.push(types_differ(&named, &place, name, column, other));
            }
            Some(_) => {}
        }
    }
    for (name, column) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        let named = format!("{subject}.{name}");
        if column.is_needed {
            let seen = format!(
                "new wants a value for {name}, which old does not know: every insert of today's clients fails"
            );
            let fix = format!(
                "on new: give it a default, or: alter table {place} alter column {} drop not null;",
                ident(name)
            );
            findings.push(Finding::fail(ID, Side::New, &named, seen, fix));
        } else {
            let seen = format!("only new has the column {name}");
            let fix = "fine if it is meant: `select=*` shows it to clients on new alone, and a move back loses it";
            findings.push(Finding::warn(ID, Side::New, &named, seen, fix));
        }
    }
    if findings.is_empty() {
        let seen = format!("the same {} columns on both sides", old.len());
        findings.push(Finding::pass(ID, None, &subject, seen));
    }
    findings
}

fn types_differ(named: &str, place: &str, name: &str, old: &Column, new: &Column) -> Finding {
    let seen = format!("{} on old, {} on new", old.type_, new.type_);
    let fix = format!(
        "on new: alter table {place} alter column {name} type {type_} using {name}::{type_};\nnotify pgrst, 'reload schema';",
        name = ident(name),
        type_ = old.type_
    );
    if looks_alike(&old.type_, &new.type_) {
        return Finding::warn(ID, Side::New, named, seen, fix);
    }
    Finding::fail(ID, Side::New, named, seen, fix)
}

/// Whether a client gets the same kind of JSON from both types.
fn looks_alike(old: &str, new: &str) -> bool {
    const ALIKE: [&[&str]; 3] = [
        &["smallint", "integer", "bigint", "real", "double precision", "numeric"],
        &["text", "character varying", "character", "citext", "uuid", "name"],
        &["json", "jsonb"],
    ];
    let base = |type_: &str| type_.split('(').next().unwrap_or_default().trim().to_owned();
    let (old, new) = (base(old), base(new));
    old == new || ALIKE.iter().any(|kind| kind.contains(&&*old) && kind.contains(&&*new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::doctor::finding::Status;

    fn table(columns: &[(&str, &str, bool)]) -> Table {
        let column = |(name, type_, is_needed): &(&str, &str, bool)| {
            ((*name).to_owned(), Column { type_: (*type_).to_owned(), is_needed: *is_needed })
        };
        columns.iter().map(column).collect()
    }

    #[test]
    fn what_a_client_notices_is_a_failure() {
        let mapped = Mapped::new("public", "vendor_keys", "vendors", "keys");
        let old = table(&[("id", "uuid", false), ("cents", "integer", true)]);
        for (new, want, word) in [
            (table(&[("id", "uuid", false), ("cents", "integer", true)]), Status::Pass, "same 2"),
            (table(&[("id", "uuid", false)]), Status::Fail, "cents (integer) is on old and not"),
            (
                table(&[("id", "uuid", false), ("cents", "bigint", true)]),
                Status::Warn,
                "bigint on new",
            ),
            (table(&[("id", "uuid", false), ("cents", "text", true)]), Status::Fail, "text on new"),
            (
                table(&[("id", "uuid", false), ("cents", "integer", true), ("x", "text", false)]),
                Status::Warn,
                "only new",
            ),
            (
                table(&[("id", "uuid", false), ("cents", "integer", true), ("x", "text", true)]),
                Status::Fail,
                "insert",
            ),
        ] {
            let found = compare(&mapped, &old, &new);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].status, want, "{found:?}");
            assert!(found[0].seen.contains(word), "{found:?}");
        }
        let missing = compare(&mapped, &old, &table(&[("id", "uuid", false)]));
        assert_eq!(missing[0].subject, "vendors.keys.cents");
        assert!(missing[0].fix.contains("alter table vendors.keys add column cents integer"));
    }
}
