//! Catalogues in, SQL out. That PostgreSQL takes the SQL, and what it does, is tested in tests/e2e/suite/plan.test.mjs.

use proptest::prelude::*;

use super::*;
use crate::checks::catalogue::{Column, Function, Grant, Kind, Named, Relation, Schema, Server};
use crate::rewrite::schema::Entry;

fn relation(name: &str, kind: Kind) -> Relation {
    Relation {
        schema: "public".into(),
        name: name.into(),
        kind,
        owner: "postgres".into(),
        comment: None,
        partition_of: None,
        estimated_rows: -1,
        row_security: true,
        row_security_forced: false,
        replica_identity: 'd',
        options: Vec::new(),
        definition: None,
        columns: vec![column("id"), column("user")],
        primary_key: vec!["id".into()],
        policies: Vec::new(),
        grants: vec![grant("authenticated", "SELECT"), grant("postgres", "INSERT")],
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        triggers: Vec::new(),
    }
}

fn column(name: &str) -> Column {
    Column {
        name: name.into(),
        type_: "integer".into(),
        not_null: false,
        default: None,
        identity: None,
        generated: None,
        comment: None,
        grants: Vec::new(),
    }
}

fn grant(grantee: &str, privilege: &str) -> Grant {
    Grant { grantee: grantee.into(), privilege: privilege.into(), grantable: false }
}

fn function(name: &str, body: &str, settings: &[&str]) -> Function {
    Function {
        schema: "public".into(),
        name: name.into(),
        kind: 'f',
        owner: "postgres".into(),
        comment: None,
        identity_arguments: "integer".into(),
        argument_names: vec![String::new()],
        arguments_with_default: 0,
        result: Some("bigint".into()),
        is_trigger: false,
        language: "plpgsql".into(),
        volatility: 'v',
        security_definer: false,
        settings: settings.iter().map(ToString::to_string).collect(),
        body: body.into(),
        definition: Some(format!("CREATE FUNCTION … {body}")),
        grants: vec![grant("public", "EXECUTE")],
    }
}

fn catalogue(relations: Vec<Relation>, functions: Vec<Function>) -> Catalogue {
    let schema = |name: &str| Schema {
        name: name.into(),
        owner: "postgres".into(),
        comment: None,
        grants: vec![grant("public", "USAGE")],
    };
    Catalogue {
        server: Server {
            version: 170_000,
            database: "app".into(),
            role: "postgres".into(),
            bypasses_row_security: true,
            now: 0.0,
            wal_level: "logical".into(),
            authenticator: Vec::new(),
        },
        schemas: vec![schema("extensions"), schema("public"), schema("private")],
        relations,
        functions,
        sequences: Vec::new(),
        publications: Vec::new(),
        default_grants: Vec::new(),
        extensions: Vec::new(),
    }
}

fn map(tables: &[(&str, &str)], functions: &[(&str, &str)]) -> SchemaMap {
    let entries = |lines: &[(&str, &str)]| -> Vec<Entry> {
        let entry = |(old, to): &(&str, &str)| {
            let (schema, name) = match to.split_once('.') {
                Some((schema, name)) => (schema, Some(name.to_owned())),
                None => (*to, None),
            };
            let canonical = !old.ends_with("_v2");
            Entry { old: (*old).into(), schema: schema.into(), name, canonical }
        };
        lines.iter().map(entry).collect()
    };
    SchemaMap::build("public", &entries(tables), &entries(functions)).unwrap()
}

fn with_compat() -> Options {
    Options { compat: Some("public".into()), ..Options::default() }
}

fn changes(plan: &Plan, file: &str) -> Vec<String> {
    let file = plan.files.iter().find(|it| it.name.contains(file)).unwrap();
    file.steps.iter().map(|step| step.change.clone()).collect()
}

fn tables(names: &[&str]) -> Vec<Relation> {
    names.iter().map(|name| relation(name, Kind::Table)).collect()
}

#[test]
fn a_table_moves_by_the_way_that_is_free() {
    let to = |lines: &[(&str, &str)], names: &[&str], moved: &str| {
        let old = catalogue(tables(names), Vec::new());
        let plan = plan(&old, &map(lines, &[]), &with_compat());
        let changes = changes(&plan, "tables");
        let found = changes.iter().find(|it| it.contains(&format!("\"{moved}\""))).unwrap();
        found.replace("alter table ", "").replace('\n', " ")
    };
    assert_eq!(to(&[("a", "s")], &["a"], "a"), "\"public\".\"a\" set schema \"s\";");
    assert_eq!(
        to(&[("a", "s.b")], &["a"], "a"),
        "\"public\".\"a\" rename to \"b\"; \"public\".\"b\" set schema \"s\";"
    );
    assert_eq!(
        to(&[("a", "s.b")], &["a", "b"], "a"),
        "\"public\".\"a\" set schema \"s\"; \"s\".\"a\" rename to \"b\";"
    );
    // The new name is taken before the move, the old one after it.
    assert_eq!(
        to(&[("x", "s.b"), ("b", "s.x")], &["b", "x"], "x"),
        "\"public\".\"b\" rename to \"cutover moves b\"; \"public\".\"cutover moves b\" set schema \"s\"; \
         \"s\".\"cutover moves b\" rename to \"x\";"
    );
}

#[test]
fn each_kind_of_relation_is_altered_by_its_own_word() {
    for (kind, word) in [
        (Kind::Table, "table"),
        (Kind::Partitioned, "table"),
        (Kind::View, "view"),
        (Kind::Materialised, "materialized view"),
        (Kind::Foreign, "foreign table"),
    ] {
        let old = catalogue(vec![relation("a", kind)], Vec::new());
        let plan = plan(&old, &map(&[("a", "s")], &[]), &with_compat());
        let expected = format!("alter {word} \"public\".\"a\" set schema \"s\";");
        assert_eq!(changes(&plan, "tables"), [expected]);
    }
}

#[test]
fn partitions_follow_their_table_unless_the_map_names_them() {
    let mut relations = tables(&["events", "events_1", "events_2", "other"]);
    relations[0].kind = Kind::Partitioned;
    for partition in &mut relations[1..3] {
        partition.partition_of = Some(Named { schema: "public".into(), name: "events".into() });
    }
    let lines = [("events", "s.happenings"), ("events_2", "archive")];
    let old = catalogue(relations, Vec::new());
    let plan = plan(&old, &map(&lines, &[]), &with_compat());
    let does: Vec<_> = plan.files[1].steps.iter().map(|it| it.does.as_str()).collect();
    assert_eq!(
        does,
        [
            "table public.events → s.happenings",
            "table public.events_2 → archive.events_2",
            "table public.events_1 → s.events_1"
        ]
    );
}

#[test]
fn of_two_that_merge_the_canonical_one_moves() {
    let lines = [("keys", "v.keys"), ("keys_v2", "v.keys")];
    let map = map(&lines, &[]);
    let old = catalogue(tables(&["keys", "keys_v2"]), Vec::new());
    let merged = plan(&old, &map, &with_compat());
    assert_eq!(changes(&merged, "tables"), ["alter table \"public\".\"keys\" set schema \"v\";"]);
    assert!(
        merged.notes[0].starts_with("public.keys_v2 becomes v.keys as well"),
        "{:?}",
        merged.notes
    );
    assert!(changes(&merged, "compat").iter().any(|it| it.contains("view \"public\".\"keys_v2\"")));
    // Alone, the other one moves.
    let old = catalogue(tables(&["keys_v2"]), Vec::new());
    let alone = plan(&old, &map, &with_compat());
    assert!(changes(&alone, "tables")[0].contains("\"keys_v2\""));
}

#[test]
fn rights_are_those_of_old_and_not_more() {
    let old = catalogue(tables(&["a"]), Vec::new());
    let plan = plan(&old, &map(&[("a", "s")], &[]), &with_compat());
    let grants = changes(&plan, "grants");
    assert_eq!(
        grants.iter().find(|it| it.contains("on table")).unwrap(),
        "revoke all on table \"s\".\"a\" from public, \"anon\", \"authenticated\", \"service_role\";\n\
         grant SELECT on table \"s\".\"a\" to \"authenticated\";"
    );
    let view = changes(&plan, "compat");
    assert_eq!(
        view[0],
        "create or replace view \"public\".\"a\" with (security_invoker = true) as\n  \
         select \"id\", \"user\" from \"s\".\"a\";"
    );
    assert!(!view.iter().any(|it| it.contains("INSERT")), "the owner's rights are the owner's");
}

#[test]
fn functions_find_what_moved() {
    let lines = [("a", "s"), ("b", "s.c"), ("c", "t")];
    // Body, its settings, compat, what the search_path becomes, whether somebody has to look.
    for (body, settings, compat, path, by_hand) in [
        ("select from a", vec![], true, None, false),
        ("select from a", vec![], false, Some("public, extensions, s"), false),
        ("select from a", vec!["search_path=public, x"], false, Some("public, x, s"), false),
        ("select from public.a", vec![], false, None, true),
        ("select from public.a", vec![], true, None, false),
        ("select from b", vec![], false, None, true),
        // s.c was b: a path through s first would find the wrong one.
        ("select from a, c", vec![], false, None, true),
        ("execute 'select from a'", vec![], false, None, true),
        ("execute 'select from a'", vec![], true, None, false),
        ("truncate a", vec![], true, None, true),
        ("insert into a on conflict on constraint k do nothing", vec![], true, None, true),
        ("perform moved(1)", vec![], true, Some("public, extensions, s"), false),
        ("perform public.moved(1)", vec![], true, None, true),
        ("perform renamed(1)", vec![], true, None, true),
    ] {
        let functions = vec![
            function("f", body, &settings),
            function("moved", "", &[]),
            function("renamed", "", &[]),
        ];
        let old = catalogue(tables(&["a", "b", "c"]), functions);
        let moved = [("moved", "s"), ("renamed", "s.other")];
        let options = if compat { with_compat() } else { Options::default() };
        let plan = plan(&old, &map(&lines, &moved), &options);
        let case = format!("{body} {settings:?} {compat}: {:?}", plan.findings);
        let steps = plan.files[2].steps.iter().map(|it| it.does.as_str());
        let found = steps.filter_map(|it| it.strip_prefix("search_path of public.f: ")).next();
        assert_eq!(found, path, "{case}");
        assert!(!plan.findings.is_empty(), "{case}");
        assert_eq!(plan.findings.iter().any(|it| it.by_hand), by_hand, "{case}");
    }
}

#[test]
fn what_names_nothing_that_moves_is_not_listed() {
    let mut atomic = function("atomic", "", &[]);
    atomic.body = "CREATE FUNCTION … BEGIN ATOMIC SELECT FROM a".into();
    atomic.definition = Some(atomic.body.clone());
    let mut managed = function("theirs", "select from a", &[]);
    managed.schema = "storage".into();
    let functions = vec![
        function("f", "-- a\nselect x.a, other.a, aa /* a */ from b", &[]),
        function("g", "select moved from b", &[]),
        function("moved", "", &[]),
        atomic,
        managed,
    ];
    let old = catalogue(tables(&["a"]), functions);
    let plan = plan(&old, &map(&[("a", "s")], &[("moved", "s")]), &with_compat());
    assert_eq!(plan.findings, []);
}

#[test]
fn schemas_that_clients_may_name_are_mentioned() {
    let old = catalogue(tables(&["a"]), Vec::new());
    let map = map(&[("a", "s"), ("missing", "s")], &[]);
    let said = |options: &Options| plan(&old, &map, options).notes.join("\n");
    let notes = said(&with_compat());
    assert!(notes.contains("doesn't expose: private;"), "{notes}");
    assert!(notes.contains("tables that old doesn't have: missing"), "{notes}");
    let exposing = Options { expose: vec!["private".into()], ..with_compat() };
    assert!(!said(&exposing).contains("private"));
    assert!(changes(&plan(&old, &map, &exposing), "exposed")[0].contains("'private'"));
}

#[test]
fn sequences_that_nobody_can_advance_are_mentioned() {
    let mut old = catalogue(tables(&["a"]), Vec::new());
    old.sequences = vec![crate::checks::catalogue::Sequence {
        schema: "public".into(),
        name: "round".into(),
        type_: "integer".into(),
        start: 1,
        increment: 1,
        greatest: 9,
        cycles: true,
        last_value: Some(3),
        is_readable: true,
        owned_by: None,
        grants: Vec::new(),
    }];
    let plan = plan(&old, &map(&[("a", "s")], &[]), &with_compat());
    assert!(changes(&plan, "sequences").is_empty());
    assert!(plan.notes.iter().any(|it| it.contains("public.round cycles")), "{:?}", plan.notes);
}

#[test]
fn a_file_is_one_transaction_with_how_to_undo_it() {
    let old = catalogue(tables(&["a"]), Vec::new());
    let plan = plan(&old, &map(&[("a", "s.b")], &[]), &with_compat());
    let limits = Limits { lock_seconds: 5, statement_seconds: 60 };
    for file in &plan.files {
        let text = file.sql(limits);
        assert!(text.starts_with(&format!("-- {}", file.name)), "{text}");
        assert!(text.contains("\n-- Undo: "), "{text}");
        assert_eq!(text.matches("\nbegin;\nset local lock_timeout = '5s';").count(), 1, "{text}");
        assert!(text.ends_with("\ncommit;\n"), "{text}");
    }
    let undo = "--   alter table \"s\".\"b\" set schema \"public\"; alter table \"public\".\"b\" rename to \"a\";";
    assert!(plan.files[1].sql(limits).contains(undo));
}

/// What stands outside of quotes, dollar quotes read as the code that they are.
fn bare(sql: &str) -> String {
    let mut out = String::new();
    let mut letters = sql.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' | '\'' => {
                while let Some(inner) = letters.next() {
                    if inner == letter && letters.next_if_eq(&letter).is_none() {
                        break;
                    }
                }
            }
            '-' if letters.peek() == Some(&'-') => {
                while letters.next_if(|it| *it != '\n').is_some() {}
            }
            letter => out.push(letter),
        }
    }
    out
}

proptest! {
    /// However tables and columns are called, no part of their names stands outside of quotes.
    #[test]
    fn every_name_is_quoted(name in "[a-z \"'$.;é\n-]{1,12}", column_name in "[A-Z \"';\n]{1,8}") {
        let name = format!("zq{name}");
        let mut table = relation(&name, Kind::Table);
        table.columns.push(column(&format!("zq{column_name}")));
        table.columns[0].grants.push(grant("anon", "SELECT"));
        let old = catalogue(vec![table], vec![function(&name, "select", &[])]);
        let map = map(&[("zq*", "zqs \"'")], &[("zq*", "zqs \"'")]);
        let plan = plan(&old, &map, &with_compat());
        prop_assert_eq!(plan.files[1].steps.len(), 1);
        let limits = Limits { lock_seconds: 1, statement_seconds: 1 };
        for file in &plan.files {
            let bare = bare(&file.sql(limits));
            prop_assert!(!bare.to_lowercase().contains("zq"), "{}\n{bare}", file.sql(limits));
        }
    }
}
