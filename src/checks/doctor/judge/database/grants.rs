//! Whether each role of the API may do on new what it may do on old.

use std::collections::BTreeSet;

use super::super::rest::Mapped;
use super::super::sql::{ident, qualified};
use super::ROLES;
use crate::checks::catalogue::{Catalogue, Relation, privileges};
use crate::checks::doctor::finding::Finding;
use crate::side::Side;

const ID: &str = "db.grants";

/// What PostgREST's requests need.
const USED: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

fn used<'r>(relation: &'r Relation, role: &str) -> BTreeSet<&'r str> {
    let all = privileges(&relation.grants, role);
    all.into_iter().filter(|privilege| USED.contains(privilege)).collect()
}

fn listed(privileges: &BTreeSet<&str>) -> String {
    privileges.iter().map(|it| it.to_lowercase()).collect::<Vec<_>>().join(", ")
}

/// Compares the rights on one table.
pub(super) fn compare(mapped: &Mapped, old: &Relation, new: &Relation) -> Vec<Finding> {
    let subject = mapped.on(Side::New);
    let place = qualified(&mapped.schema, &mapped.new);
    let mut findings = Vec::new();
    for role in ROLES {
        let (had, has) = (used(old, role), used(new, role));
        let missing: BTreeSet<&str> = had.difference(&has).copied().collect();
        let added: BTreeSet<&str> = has.difference(&had).copied().collect();
        if !missing.is_empty() {
            let missing = listed(&missing);
            let seen = format!("{role} may {missing} on old, and not on new (42501)");
            let fix = format!("on new: grant {missing} on {place} to {role};");
            findings.push(Finding::fail(ID, Side::New, &subject, seen, fix));
        }
        if !added.is_empty() {
            let added = listed(&added);
            let seen = format!("{role} may {added} on new, and not on old");
            let fix = format!("if it is not meant, on new: revoke {added} on {place} from {role};");
            findings.push(Finding::warn(ID, Side::New, &subject, seen, fix));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::pass(ID, None, &subject, "the same rights on both sides"));
    }
    findings
}

/// A right on a table is worth nothing without one on its schema.
pub(super) fn schemas(tables: &[Mapped], new: &Catalogue) -> Vec<Finding> {
    let names: BTreeSet<&str> = tables.iter().map(|it| it.schema.as_str()).collect();
    let mut findings = Vec::new();
    for schema in names.into_iter().filter_map(|name| new.schema(name)) {
        let of_schema = new.relations.iter().filter(|it| it.schema == schema.name);
        let of_schema: Vec<&Relation> = of_schema.collect();
        for role in ROLES {
            let wants = of_schema.iter().any(|it| !used(it, role).is_empty());
            if wants && !privileges(&schema.grants, role).contains("USAGE") {
                let seen =
                    format!("{role} has rights on its tables, and none on the schema (42501)");
                let fix =
                    format!("on new: grant usage on schema {} to {role};", ident(&schema.name));
                findings.push(Finding::fail(ID, Side::New, &schema.name, seen, fix));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalogue, grant, relation};
    use super::*;
    use crate::checks::catalogue::Schema;
    use crate::checks::doctor::finding::Status;

    #[test]
    fn a_right_that_is_missing_on_new_comes_with_its_statement() {
        let mapped = Mapped::new("public", "orders", "market", "orders");
        let with = |grants: &[(&str, &str)]| {
            let mut it = relation("s", "orders");
            it.grants = grants.iter().map(|(role, privilege)| grant(role, privilege)).collect();
            it
        };
        let old = with(&[
            ("anon", "SELECT"),
            ("authenticated", "SELECT"),
            ("authenticated", "INSERT"),
            ("anon", "TRIGGER"),
        ]);
        let all = with(&[("public", "SELECT"), ("authenticated", "INSERT")]);
        let found = compare(&mapped, &old, &all);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].status, Status::Warn, "service_role reads through public: {found:?}");
        let less = compare(&mapped, &old, &with(&[("anon", "SELECT")]));
        assert_eq!(less[0].status, Status::Fail);
        assert_eq!(less[0].fix, "on new: grant insert, select on market.orders to authenticated;");
        assert_eq!(compare(&mapped, &old, &old)[0].status, Status::Pass);
    }

    #[test]
    fn a_schema_without_usage_is_told_of() {
        let mapped = [Mapped::new("public", "orders", "market", "orders")];
        let mut new = catalogue();
        let mut orders = relation("market", "orders");
        orders.grants = vec![grant("authenticated", "SELECT")];
        new.relations.push(orders);
        let schema = Schema {
            name: "market".to_owned(),
            owner: "postgres".to_owned(),
            comment: None,
            grants: vec![grant("anon", "USAGE")],
        };
        new.schemas.push(schema);
        let found = schemas(&mapped, &new);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].fix, "on new: grant usage on schema market to authenticated;");
        new.schemas[0].grants.push(grant("authenticated", "USAGE"));
        assert_eq!(schemas(&mapped, &new), []);
    }
}
