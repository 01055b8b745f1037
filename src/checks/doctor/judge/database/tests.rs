//! Things to build catalogues from, and the checks of this file's parent.

use super::*;
use crate::checks::catalogue::{Column, Grant, Index, Sequence, SequenceOwner, Server};
use crate::checks::doctor::finding::Status;

pub(crate) fn catalogue() -> Catalogue {
    Catalogue {
        server: Server {
            version: 150_008,
            database: "postgres".to_owned(),
            role: "postgres".to_owned(),
            bypasses_row_security: true,
            now: 0.0,
            wal_level: "logical".to_owned(),
            authenticator: vec![],
        },
        schemas: vec![],
        relations: vec![],
        functions: vec![],
        sequences: vec![],
        publications: vec![],
        default_grants: vec![],
        extensions: vec![],
    }
}

pub(crate) fn grant(grantee: &str, privilege: &str) -> Grant {
    Grant { grantee: grantee.to_owned(), privilege: privilege.to_owned(), grantable: false }
}

pub(crate) fn relation(schema: &str, name: &str) -> Relation {
    Relation {
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind: Kind::Table,
        owner: "postgres".to_owned(),
        comment: None,
        partition_of: None,
        estimated_rows: -1,
        row_security: true,
        row_security_forced: false,
        replica_identity: 'd',
        options: vec![],
        definition: None,
        columns: vec![],
        primary_key: vec!["id".to_owned()],
        policies: vec![],
        grants: vec![],
        indexes: vec![],
        foreign_keys: vec![],
        triggers: vec![],
    }
}

pub(crate) fn function(schema: &str, name: &str) -> Function {
    Function {
        schema: schema.to_owned(),
        name: name.to_owned(),
        kind: 'f',
        owner: "postgres".to_owned(),
        comment: None,
        identity_arguments: String::new(),
        argument_names: vec![],
        arguments_with_default: 0,
        result: Some("integer".to_owned()),
        is_trigger: false,
        language: "plpgsql".to_owned(),
        volatility: 'v',
        security_definer: false,
        settings: vec![],
        body: String::new(),
        definition: None,
        grants: vec![],
    }
}

pub(crate) fn sequence(schema: &str, table: &str, column: &str) -> Sequence {
    Sequence {
        schema: schema.to_owned(),
        name: format!("{table}_{column}_seq"),
        type_: "bigint".to_owned(),
        start: 1,
        increment: 1,
        greatest: i64::MAX,
        cycles: false,
        last_value: None,
        is_readable: true,
        owned_by: Some(SequenceOwner {
            schema: schema.to_owned(),
            table: table.to_owned(),
            column: column.to_owned(),
            is_identity: false,
        }),
        grants: vec![],
    }
}

fn keys() -> Mapped {
    Mapped::new("public", "vendor_keys", "vendors", "keys")
}

#[test]
fn row_level_security_that_went_off_is_the_worst() {
    let with = |is_on: bool| Relation { row_security: is_on, ..relation("s", "t") };
    let (on, off) = (with(true), with(false));
    for (old, new, want) in [
        (Some(&on), Some(&on), &[Status::Pass][..]),
        (Some(&on), Some(&off), &[Status::Fail]),
        (Some(&off), Some(&on), &[Status::Warn]),
        (Some(&off), Some(&off), &[Status::Warn, Status::Warn]),
        (None, Some(&off), &[Status::Warn]),
        (None, Some(&on), &[Status::Pass]),
        (None, None, &[]),
    ] {
        let found = row_security(&keys(), Pair { old, new });
        let shown: Vec<Status> = found.iter().map(|it| it.status).collect();
        assert_eq!(shown, want, "{found:?}");
    }
    let found = row_security(&keys(), Pair { old: Some(&on), new: Some(&off) });
    assert_eq!(found[0].fix, "on new: alter table vendors.keys enable row level security;");
}

#[test]
fn a_view_has_to_judge_with_the_callers_rights() {
    let with = |kind: Kind, options: &[&str]| {
        let mut new = catalogue();
        let options = options.iter().map(|it| (*it).to_owned()).collect();
        new.relations.push(Relation { kind, options, ..relation("public", "vendor_keys") });
        view("public", &keys(), &new).unwrap()
    };
    assert_eq!(with(Kind::View, &["security_invoker=true"]).status, Status::Pass);
    assert_eq!(with(Kind::View, &["security_invoker=on"]).status, Status::Pass);
    assert_eq!(with(Kind::View, &["security_invoker=false"]).status, Status::Fail);
    assert_eq!(with(Kind::View, &[]).status, Status::Fail);
    assert_eq!(with(Kind::Table, &[]).status, Status::Fail);
    assert_eq!(view("public", &keys(), &catalogue()), None);
}

#[test]
fn a_vector_column_wants_an_index() {
    let column = |type_: &str| Column {
        name: "embedding".to_owned(),
        type_: type_.to_owned(),
        not_null: false,
        default: None,
        identity: None,
        generated: None,
        comment: None,
        grants: vec![],
    };
    let index = |method: &str| Index {
        name: "i".to_owned(),
        method: method.to_owned(),
        definition: "CREATE INDEX i ON public.t USING hnsw (embedding)".to_owned(),
        columns: vec!["embedding".to_owned()],
        unique: false,
        primary: false,
        valid: true,
    };
    let with = |type_: &str, method: Option<&str>| {
        let indexes = method.map(index).into_iter().collect();
        Relation { columns: vec![column(type_)], indexes, ..relation("s", "t") }
    };
    let indexed = with("extensions.vector(3)", Some("hnsw"));
    let bare = with("extensions.vector(3)", Some("btree"));
    let judged = |old, new| vectors(&keys(), Pair { old: Some(old), new: Some(new) });
    assert_eq!(judged(&indexed, &indexed)[0].status, Status::Pass);
    let found = judged(&indexed, &bare);
    assert!(found[0].status == Status::Warn && found[0].fix.contains("as on old"), "{found:?}");
    assert!(judged(&bare, &bare)[0].seen.contains("no hnsw"));
    assert_eq!(judged(&bare, &with("text", None)), []);
}

#[test]
fn overloads_are_compared_by_names_and_types_of_arguments() {
    let mapped = Mapped::new("public", "match", "security", "match");
    let with = |schema: &str, arguments: &[&str]| {
        let mut it = catalogue();
        it.functions.extend(arguments.iter().map(|arguments| Function {
            identity_arguments: (*arguments).to_owned(),
            ..function(schema, "match")
        }));
        it
    };
    let old = with("public", &["q public.vector, n integer"]);
    assert_eq!(
        arguments(&mapped, &old, &with("security", &["q extensions.vector, n integer"])),
        []
    );
    let found = arguments(&mapped, &old, &with("security", &["q extensions.vector"]));
    assert!(found[0].status == Status::Fail && found[0].seen.contains("n integer"), "{found:?}");
    assert_eq!(arguments(&mapped, &old, &with("security", &[])), [], "db.function says it");
}
