use super::*;

fn keys() -> Mapped {
    Mapped::new("public", "vendor_keys", "vendors", "keys")
}

fn inventory(tables: &[(&str, &str)]) -> Inventory {
    let mut inventory = Inventory::new();
    for (schema, name) in tables {
        let shapes: &mut Shapes = inventory.entry((*schema).to_owned()).or_default();
        shapes.tables.insert((*name).to_owned(), Default::default());
        shapes.functions.insert((*name).to_owned(), Vec::new());
    }
    inventory
}

fn denied() -> Rest {
    Rest::Denied { message: "permission denied for table keys".to_owned() }
}

fn said(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_schema_is_exposed_if_it_was_looked_into() {
    for (rest, want, word) in [
        (Rest::Fine, Status::Pass, "exposed"),
        (Rest::NoTable { hint: None }, Status::Pass, "exposed"),
        (Rest::NotExposed, Status::Fail, "PGRST106"),
        (denied(), Status::Fail, "42501"),
        (Rest::NoKey { said: said("401") }, Status::Skip, "401"),
        (Rest::NotReady { said: said("503 PGRST002") }, Status::Fail, "PGRST002"),
        (Rest::Nothing { why: said("late") }, Status::Fail, "late"),
    ] {
        let found = exposed(Side::New, "billing", &rest, None);
        assert_eq!(found.status, want, "{rest:?}");
        assert!(found.seen.contains(word), "{found:?}");
    }
    let fix = exposed(Side::New, "billing", &Rest::NotExposed, Some(false)).fix;
    for part in ["Exposed schemas", "pgrst.db_schemas", "create schema billing", "reload config"] {
        assert!(fix.contains(part), "{fix}");
    }
}

#[test]
fn a_missing_table_is_named_with_what_is_near_and_how_it_gets_there() {
    let none = Rest::NoTable { hint: None };
    let found = table(Side::New, &keys(), &none, &inventory(&[("public", "vendor_keys")]), None);
    assert_eq!(found.status, Status::Fail);
    assert_eq!(found.subject, "vendors.keys");
    let near = inventory(&[("vendors", "key"), ("public", "orders")]);
    assert!(table(Side::New, &keys(), &none, &near, None).seen.contains("nearest: vendors.key"));
    let hint = Rest::NoTable { hint: Some(said("Perhaps you meant the table 'vendors.kees'")) };
    assert!(
        table(Side::New, &keys(), &hint, &Inventory::new(), None).seen.contains("vendors.kees")
    );
    let old = table(Side::Old, &keys(), &none, &Inventory::new(), None);
    assert!(old.fix.contains("[schema.tables]"), "{}", old.fix);
    for rest in [Rest::Fine, denied()] {
        assert_eq!(table(Side::New, &keys(), &rest, &near, None).status, Status::Pass);
    }
    assert_eq!(table(Side::New, &keys(), &Rest::NotExposed, &near, None).status, Status::Skip);
}

#[test]
fn a_table_that_still_lies_in_the_legacy_schema_is_moved() {
    let plain = Mapped::new("public", "orders", "marketplace", "orders");
    let none = Rest::NoTable { hint: None };
    let found = table(Side::New, &plain, &none, &inventory(&[("public", "orders")]), None);
    assert!(found.fix.contains("alter table public.orders set schema marketplace;"), "{found:?}");
    assert!(found.fix.contains("notify pgrst, 'reload schema';"), "{found:?}");
    // A compatibility view of that name stays where it is.
    let mut views = inventory(&[("public", "orders")]);
    let by_schema = table(Side::New, &plain, &none, &views, Some("public"));
    views.get_mut("public").unwrap().views.insert("orders".to_owned());
    let by_kind = table(Side::New, &plain, &none, &views, None);
    for found in [by_schema, by_kind] {
        assert!(found.fix.contains("cutover plan") && !found.fix.contains("alter"), "{found:?}");
    }
}

#[test]
fn a_function_is_known_from_the_inventory_or_the_hint_and_never_called() {
    let mapped = Mapped::new("public", "match", "security", "match");
    let here = inventory(&[("security", "match")]);
    assert_eq!(function(Side::New, &mapped, None, &here).status, Status::Pass);
    let gone = function(
        Side::New,
        &mapped,
        None,
        &inventory(&[("security", "other"), ("public", "match")]),
    );
    assert_eq!(gone.status, Status::Fail);
    assert!(gone.seen.contains("PGRST202") && gone.seen.contains("public.match"), "{gone:?}");
    assert!(gone.fix.contains("alter function public.match"), "{gone:?}");
    let hint = |text: &str| Rest::NoFunction { hint: Some(said(text)) };
    for (rest, want) in [
        (hint("Perhaps you meant to call the function security.match(a, b)"), Status::Pass),
        (hint("Perhaps you meant to call the function security.matches(a)"), Status::Skip),
        (Rest::NoFunction { hint: None }, Status::Skip),
        (Rest::NotExposed, Status::Skip),
        (Rest::Nothing { why: said("late") }, Status::Fail),
    ] {
        let found = function(Side::New, &mapped, Some(&rest), &Inventory::new());
        assert_eq!(found.status, want, "{rest:?}");
    }
}

#[test]
fn what_may_be_read_on_old_may_be_read_on_new() {
    for (reader, old, new, want) in [
        (Reader::User, Rest::Fine, Rest::Fine, Status::Pass),
        (Reader::User, Rest::Fine, denied(), Status::Fail),
        (Reader::Anon, denied(), denied(), Status::Pass),
        (Reader::Service, denied(), denied(), Status::Fail),
        (Reader::Anon, denied(), Rest::Fine, Status::Warn),
        (Reader::User, Rest::BadToken { said: said("401") }, Rest::Fine, Status::Skip),
        (Reader::User, Rest::Fine, Rest::NoTable { hint: None }, Status::Skip),
        (Reader::User, Rest::Fine, Rest::Nothing { why: said("late") }, Status::Skip),
    ] {
        assert_eq!(granted(&keys(), reader, &old, &new).status, want, "{reader:?} {old:?} {new:?}");
    }
    let schema = Rest::Denied { message: said("permission denied for schema vendors") };
    let fix = granted(&keys(), Reader::User, &Rest::Fine, &schema).fix;
    assert!(fix.contains("grant usage on schema vendors to authenticated;"), "{fix}");
    assert!(fix.contains("on vendors.keys to authenticated;"), "{fix}");
}

#[test]
fn a_missing_view_comes_with_its_statement() {
    let found = compat("public", &keys(), &Rest::NoTable { hint: None });
    assert_eq!(found.status, Status::Fail);
    let view = "create view public.vendor_keys with (security_invoker = true) as select * from vendors.keys;";
    assert!(found.fix.contains(view), "{}", found.fix);
    assert_eq!(compat("public", &keys(), &Rest::Fine).status, Status::Pass);
}
