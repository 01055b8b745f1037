//! Functions on new whose text still names a table where it was.

use super::super::rest::Mapped;
use super::Databases;
use crate::checks::catalogue::{Catalogue, Function, Kind, is_managed};
use crate::checks::doctor::finding::Finding;
use crate::side::Side;

/// Words that a table's name follows.
const BEFORE_A_TABLE: [&str; 8] =
    ["from", "join", "into", "update", "table", "only", "on", "truncate"];

/// One line of a body that names a moved table.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named<'a> {
    /// From 1, inside the body.
    line: usize,
    table: &'a Mapped,
}

/// A line for each function that names moved tables by their old names.
pub(super) fn name_moved_tables(asked: &Databases<'_>, new: &Catalogue) -> Vec<Finding> {
    const ID: &str = "db.bodies";
    let moved: Vec<&Mapped> =
        asked.tables.iter().filter(|it| (&it.legacy, &it.old) != (&it.schema, &it.new)).collect();
    let of_users = |it: &&Function| {
        matches!(it.language.as_str(), "sql" | "plpgsql") && !is_managed(&it.schema)
    };
    let mut findings = Vec::new();
    for function in new.functions.iter().filter(of_users) {
        let named = named(function, &moved);
        if named.is_empty() {
            continue;
        }
        let subject =
            format!("{}.{}({})", function.schema, function.name, function.identity_arguments);
        let shown: Vec<String> = named
            .iter()
            .map(|it| {
                format!(
                    "line {}: {}, now {}",
                    it.line,
                    it.table.on(Side::Old),
                    it.table.on(Side::New)
                )
            })
            .collect();
        let has_view = |it: &Named<'_>| {
            let relation = new.relation(&it.table.legacy, &it.table.old);
            relation.is_some_and(|it| it.kind == Kind::View)
        };
        let seen = shown.join("; ");
        let fix = "create or replace it with the new names (cutover plan lists all of them)";
        findings.push(match named.iter().all(has_view) {
            true => {
                let seen = format!("works through the compatibility views; {seen}");
                Finding::warn(ID, Side::New, &subject, seen, fix)
            }
            false => Finding::fail(ID, Side::New, &subject, seen, fix),
        });
    }
    if findings.is_empty() {
        findings.push(Finding::pass(ID, Side::New, "functions", "none names a moved table"));
    }
    findings
}

fn named<'a>(function: &Function, moved: &[&'a Mapped]) -> Vec<Named<'a>> {
    let path = function.search_path().unwrap_or_default();
    let mut found = Vec::new();
    for (index, line) in function.body.lines().enumerate() {
        let code = line.split("--").next().unwrap_or_default();
        for table in moved {
            let is_reached = table.old == table.new && path.contains(&table.schema);
            if names(code, table, is_reached) {
                found.push(Named { line: index + 1, table });
            }
        }
    }
    found
}

/// Whether a line of code names the table by its old name: in full, or alone where a table is expected. `is_reached`: alone it is found
/// in its new place, by the function's own `search_path`.
fn names(code: &str, table: &Mapped, is_reached: bool) -> bool {
    let words: Vec<&str> = code
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '"')))
        .filter(|word| !word.is_empty())
        .collect();
    let plain = |word: &str| word.replace('"', "").to_lowercase();
    let full = format!("{}.{}", table.legacy, table.old).to_lowercase();
    let old = table.old.to_lowercase();
    words.iter().enumerate().any(|(at, word)| {
        let word = plain(word);
        if word == full || word.starts_with(&format!("{full}.")) {
            return true;
        }
        let before = at.checked_sub(1).and_then(|at| words.get(at)).map(|word| plain(word));
        let is_table = before.is_some_and(|word| BEFORE_A_TABLE.contains(&word.as_str()));
        !is_reached && is_table && word == old
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalogue, function, relation};
    use super::*;
    use crate::checks::doctor::finding::Status;
    use crate::side::Pair;

    fn judged(body: &str, settings: &[&str], has_view: bool) -> Vec<Finding> {
        let tables = [
            Mapped::new("public", "orders", "market", "orders"),
            Mapped::new("public", "vendor_keys", "vendors", "keys"),
        ];
        let mut new = catalogue();
        let mut it = function("market", "f");
        it.body = body.to_owned();
        it.settings = settings.iter().map(|it| (*it).to_owned()).collect();
        new.functions.push(it);
        if has_view {
            let mut view = relation("public", "orders");
            view.kind = Kind::View;
            new.relations.push(view);
        }
        let asked = Databases {
            tables: &tables,
            functions: &[],
            compat: None,
            sides: Pair { old: None, new: Some(&new) },
            greatest: &Pair::default(),
        };
        name_moved_tables(&asked, &new)
    }

    #[test]
    fn a_moved_table_is_found_by_its_line() {
        let path = "search_path=market, extensions";
        for (body, settings, has_view, want, word) in [
            ("select 1", &[][..], false, Status::Pass, "none"),
            (
                "\nselect * from public.orders",
                &[],
                false,
                Status::Fail,
                "line 2: public.orders, now market.orders",
            ),
            ("select * from PUBLIC.\"orders\" o", &[], true, Status::Warn, "line 1"),
            ("insert into orders values (1)", &[], false, Status::Fail, "line 1"),
            ("insert into orders values (1)", &[path], false, Status::Pass, "none"),
            ("delete from vendor_keys", &[path], false, Status::Fail, "vendors.keys"),
            ("execute 'select 1 from public.orders'", &[path], false, Status::Fail, "line 1"),
            ("select 1 -- from public.orders", &[], false, Status::Pass, "none"),
            (
                "select orders from x; select my_orders from public.orders_archive",
                &[],
                false,
                Status::Pass,
                "none",
            ),
            ("select public.orders.id from market.orders", &[], false, Status::Fail, "line 1"),
        ] {
            let found = judged(body, settings, has_view);
            assert_eq!(found[0].status, want, "{body}: {found:?}");
            assert!(found[0].seen.contains(word), "{body}: {found:?}");
        }
    }
}
