//! What realtime follows: membership in its publication, and what a change carries.

use super::super::rest::Mapped;
use super::super::sql::qualified;
use super::relation;
use crate::checks::catalogue::{Catalogue, Relation};
use crate::checks::doctor::finding::Finding;
use crate::side::Side;

/// The publication that Supabase's Realtime follows.
const REALTIME: &str = "supabase_realtime";

/// Compares membership and replica identity of each mapped table.
pub(super) fn compare(tables: &[Mapped], old: &Catalogue, new: &Catalogue) -> Vec<Finding> {
    const ID: &str = "db.publication";
    let Some(theirs) = old.publication(REALTIME) else {
        let seen = "old has no such publication: nothing is followed there";
        return vec![Finding::pass(ID, None, REALTIME, seen)];
    };
    let mut findings = Vec::new();
    let ours = new.publication(REALTIME);
    if ours.is_none() {
        let fix = format!("on new: create publication {REALTIME};");
        let seen = "new has no such publication: realtime follows nothing";
        findings.push(Finding::fail(ID, Side::New, REALTIME, seen, fix));
    } else if new.server.wal_level != "logical" {
        let seen =
            format!("wal_level of new is {}: realtime follows nothing", new.server.wal_level);
        let fix = "on new: alter system set wal_level = logical; and restart it";
        findings.push(Finding::fail(ID, Side::New, REALTIME, seen, fix));
    }
    for mapped in tables {
        let subject = mapped.on(Side::New);
        let was = theirs.has(&mapped.legacy, &mapped.old);
        let is = ours.is_some_and(|it| it.has(&mapped.schema, &mapped.new));
        let place = qualified(&mapped.schema, &mapped.new);
        // A table that is not there at all has a line of its own.
        let Some(on_new) = relation(Side::New, mapped, new) else { continue };
        findings.push(match (was, is) {
            (true, false) => {
                let seen = "realtime follows it on old, and not on new: subscriptions fall silent";
                let fix = format!("on new: alter publication {REALTIME} add table {place};");
                Finding::fail(ID, Side::New, &subject, seen, fix)
            }
            (false, true) => {
                let seen = "realtime follows it on new, and not on old";
                let fix = format!(
                    "if it is not meant, on new: alter publication {REALTIME} drop table {place};"
                );
                Finding::warn(ID, Side::New, &subject, seen, fix)
            }
            (true, true) => Finding::pass(ID, None, &subject, "followed on both sides"),
            (false, false) => Finding::pass(ID, None, &subject, "followed on neither side"),
        });
        if is && let Some(on_old) = relation(Side::Old, mapped, old) {
            findings.push(identity(mapped, on_old, on_new));
        }
    }
    findings
}

/// `d` without a primary key identifies nothing: updates and deletions of a published table are then refused by PostgreSQL itself.
fn identity(mapped: &Mapped, old: &Relation, new: &Relation) -> Finding {
    const ID: &str = "db.replica_identity";
    let subject = mapped.on(Side::New);
    let place = qualified(&mapped.schema, &mapped.new);
    let is_nothing = |it: &Relation| {
        it.replica_identity == 'n' || it.replica_identity == 'd' && it.primary_key.is_empty()
    };
    let word = |it: &Relation| match it.replica_identity {
        'f' => "full",
        'n' => "nothing",
        'i' => "an index",
        _ => "the primary key",
    };
    if is_nothing(new) && !is_nothing(old) {
        let seen =
            "it is published and has no replica identity: every update and delete on it fails";
        let fix =
            format!("on new: add the primary key, or: alter table {place} replica identity full;");
        return Finding::fail(ID, Side::New, &subject, seen, fix);
    }
    if old.replica_identity != new.replica_identity {
        let seen =
            format!("{} on old, {} on new: the old row in changes differs", word(old), word(new));
        let full = if old.replica_identity == 'f' { "full" } else { "default" };
        let fix = format!("on new: alter table {place} replica identity {full};");
        return Finding::warn(ID, Side::New, &subject, seen, fix);
    }
    Finding::pass(ID, None, &subject, word(new))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{catalogue, relation};
    use super::*;
    use crate::checks::catalogue::{Named, Publication};
    use crate::checks::doctor::finding::Status;

    fn with(schema: &str, is_member: bool) -> Catalogue {
        let mut it = catalogue();
        it.relations.push(relation(schema, "orders"));
        let member = Named { schema: schema.to_owned(), name: "orders".to_owned() };
        it.publications.push(Publication {
            name: REALTIME.to_owned(),
            all_tables: false,
            insert: true,
            update: true,
            delete: true,
            tables: if is_member { vec![member] } else { vec![] },
        });
        it
    }

    fn statuses(old: &Catalogue, new: &Catalogue) -> Vec<(Status, &'static str)> {
        let tables = [Mapped::new("public", "orders", "market", "orders")];
        compare(&tables, old, new).iter().map(|it| (it.status, it.id)).collect()
    }

    #[test]
    fn what_is_followed_on_old_is_followed_on_new() {
        const MEMBER: &str = "db.publication";
        const IDENTITY: &str = "db.replica_identity";
        let (yes, no) = (|| with("market", true), || with("market", false));
        let old = with("public", true);
        assert_eq!(statuses(&old, &yes()), [(Status::Pass, MEMBER), (Status::Pass, IDENTITY)]);
        assert_eq!(statuses(&old, &no()), [(Status::Fail, MEMBER)]);
        assert_eq!(statuses(&with("public", false), &yes())[0], (Status::Warn, MEMBER));
        let mut none = yes();
        none.publications.clear();
        assert_eq!(statuses(&old, &none)[0], (Status::Fail, MEMBER));
        let mut replica = yes();
        replica.server.wal_level = "replica".to_owned();
        assert_eq!(statuses(&old, &replica)[0], (Status::Fail, MEMBER));
        assert_eq!(statuses(&catalogue(), &yes()), [(Status::Pass, MEMBER)]);
        let mut full = old.clone();
        full.relations[0].replica_identity = 'f';
        assert_eq!(statuses(&full, &yes())[1], (Status::Warn, IDENTITY));
        let mut keyless = yes();
        keyless.relations[0].primary_key.clear();
        assert_eq!(statuses(&old, &keyless)[1], (Status::Fail, IDENTITY));
    }
}
