use http::{HeaderValue, Method, StatusCode};

use super::fixture::{Request, get, sent, settings};
use super::*;
use crate::side::Side::{New, Old};

/// Legacy path → path on new, in the domain `vendors`; and back, byte for byte.
fn there_and_back(legacy: &str, new: &str) {
    assert_eq!(sent(None, legacy, New), ("vendors".into(), new.into()), "to new");
    assert_eq!(sent(Some("vendors"), new, Old), ("public".into(), legacy.into()), "to old");
}

/// Path in the new dialect → path on old; and back, byte for byte.
fn back_and_there(new: &str, legacy: &str) {
    assert_eq!(sent(Some("vendors"), new, Old), ("public".into(), legacy.into()), "to old");
    assert_eq!(sent(Some("public"), legacy, New), ("vendors".into(), new.into()), "to new");
}

fn unchanged(path: &str) {
    assert_eq!(sent(None, path, New).1, path);
}

#[test]
fn trap_05_the_profile_header_is_the_methods_own() {
    for (method, header) in [
        (Method::GET, "accept-profile"),
        (Method::HEAD, "accept-profile"),
        (Method::OPTIONS, "accept-profile"),
        (Method::POST, "content-profile"),
        (Method::PATCH, "content-profile"),
        (Method::PUT, "content-profile"),
        (Method::DELETE, "content-profile"),
    ] {
        // supabase-py sends both; the other one is a different schema here to show that it is not read.
        let mut request = Request::new(method.clone(), None, "/api_keys");
        let other = if header == "accept-profile" { "content-profile" } else { "accept-profile" };
        request.headers.insert(other, HeaderValue::from_static("billing"));
        request.headers.insert(header, HeaderValue::from_static("vendors"));
        let translated = request.to(&settings(), Old).unwrap();
        assert_eq!(translated.profile_header, header, "{method}");
        assert_eq!(translated.profile, "public", "{method}");
        assert_eq!(translated.tail.as_deref(), Some("/vendor_api_keys"), "{method}");
    }
}

#[test]
fn trap_06_no_header_is_the_legacy_schema_and_is_made_explicit() {
    let settings = settings();
    for (path, side, profile) in [
        ("/memory_entries", New, "security_service"),
        ("/memory_entries", Old, "public"),
        ("/nobody_knows", New, "public"),
        ("/nobody_knows", Old, "public"),
        ("/", New, "public"),
        ("", Old, "public"),
    ] {
        for explicit in [None, Some("public")] {
            let translated = get(explicit, path).to(&settings, side).unwrap();
            assert_eq!(translated.profile, profile, "{path} {side:?} {explicit:?}");
        }
    }
}

#[test]
fn trap_07_each_relation_has_its_own_schema() {
    for (path, profile, there) in [
        ("/memory_entries", "security_service", "/memory_entries"),
        ("/vendor_api_keys", "vendors", "/api_keys"),
        ("/vendor_api_keys_v2", "vendors", "/api_keys"),
        ("/smart_recall_cards", "intelligence", "/smart_recall_cards"),
        ("/vendor%5Fapi_keys?id=eq.1", "vendors", "/api_keys?id=eq.1"),
        ("/memory%5Fentries", "security_service", "/memory%5Fentries"),
        ("/%C3%BCn%C3%AFcode", "ai_chat", "/w%C3%B6rter"),
        ("/vendor_odd", "vendors", "/odd-name.x%20%22y%22"),
        ("/rpc/match_memories", "security_service", "/rpc/match_memories"),
        ("/rpc/vendor_stats?year=2026", "vendors", "/rpc/stats?year=2026"),
        ("/nobody_knows?x=eq.1", "public", "/nobody_knows?x=eq.1"),
        ("/rpc/nobody_knows", "public", "/rpc/nobody_knows"),
    ] {
        assert_eq!(sent(None, path, New), (profile.into(), there.into()), "{path}");
        assert_eq!(sent(None, path, Old), ("public".into(), path.into()), "{path}");
    }
    for (schema, path, there) in [
        ("vendors", "/api_keys", "/vendor_api_keys"),
        ("security_service", "/api_keys", "/api_keys"),
        ("intelligence", "/cache", "/intelligence_cache"),
        ("intelligence", "/smart_recall_cards", "/smart_recall_cards"),
        ("intelligence", "/rpc/chunks", "/rpc/memory_chunks"),
        ("ai_chat", "/w%C3%B6rter", "/%C3%BCn%C3%AFcode"),
    ] {
        assert_eq!(
            sent(Some(schema), path, Old),
            ("public".into(), there.into()),
            "{schema}{path}"
        );
        assert_eq!(sent(Some(schema), path, New), (schema.into(), path.into()), "{schema}{path}");
    }
}

#[test]
fn unmapped_names_and_foreign_schemas() {
    let mut settings = settings();
    for (profile, path) in [
        ("app_crm", "/api_keys"),
        ("graphql_public", "/rpc/graphql"),
        ("compat", "/vendor_api_keys?select=*,organizations(*)"),
        ("Vendors", "/api_keys"),
        ("\u{fc}", "/vendor_api_keys"),
        ("vendors", "/"),
    ] {
        for side in Side::ALL {
            for unmapped in [Unmapped::Pass, Unmapped::Refuse] {
                settings.unmapped = unmapped;
                let translated = get(Some(profile), path).to(&settings, side).unwrap();
                assert_eq!(translated.profile.as_bytes(), profile.as_bytes());
                assert_eq!((translated.tail, translated.query), (None, None), "{profile}{path}");
            }
        }
    }
    // New-only, asked of old: policy.
    settings.unmapped = Unmapped::Pass;
    let request = get(Some("vendors"), "/billing_records?select=api_keys(*)");
    let translated = request.to(&settings, Old).unwrap();
    assert_eq!((translated.profile, translated.query), ("vendors".parse().unwrap(), None));
    settings.unmapped = Unmapped::Refuse;
    assert!(request.to(&settings, New).is_ok(), "native");
    let refusal = request.to(&settings, Old).unwrap_err();
    assert_eq!(
        refusal.message(),
        "Could not find the table 'vendors.billing_records' in the schema map"
    );
    let refusal = get(None, "/rpc/nobody?x=1").to(&settings, New).unwrap_err();
    assert_eq!(refusal.message(), "Could not find the function 'public.nobody' in the schema map");
    assert!(get(None, "/nobody_knows").to(&settings, Old).is_ok(), "native");
}

#[test]
fn trap_08_only_what_the_map_knows_is_a_table() {
    for path in [
        // Alias, foreign key, its column and a computed relationship are no tables.
        "/vendor_api_keys?select=x:vendor_id(name)",
        "/vendor_api_keys?select=fk_org!inner(name)",
        "/vendor_api_keys?select=x:fk_org!vendor_id(name)",
        "/vendor_api_keys?select=vendor_organizations_fkey(*)",
    ] {
        let there = path.replace("/vendor_api_keys", "/api_keys");
        there_and_back(path, &there);
    }
    // An alias that is the name of another table, and one that is the new name of the target.
    there_and_back(
        "/vendor_api_keys?select=vendor_usage_logs:vendor_organizations(name)",
        "/api_keys?select=vendor_usage_logs:organizations(name)",
    );
    there_and_back(
        "/vendor_api_keys?select=organizations:vendor_organizations(name)",
        "/api_keys?select=organizations(name)",
    );
    // A hint that is a table is a junction and is renamed; a foreign key is not.
    there_and_back(
        "/vendor_api_keys?select=k:vendor_organizations!vendor_usage_logs!inner(name)",
        "/api_keys?select=k:organizations!usage_logs!inner(name)",
    );
    there_and_back(
        "/vendor_api_keys?select=vendor_organizations!left!fk_org(name)",
        "/api_keys?select=vendor_organizations:organizations!left!fk_org(name)",
    );
}

#[test]
fn trap_09_embeds_across_domains() {
    let mut settings = settings();
    let paths = [
        "/memory_entries?select=id,k:vendor_api_keys(id)",
        "/memory_entries?select=id,memory_chunks(profiles(id))",
        "/rpc/match_memories?select=id,...profiles(id)",
        "/nobody_knows?select=id,profiles(id)",
        "/vendor_api_keys?select=a,api_keys(id)",
    ];
    for path in paths {
        settings.cross_schema_embeds = CrossSchemaEmbeds::Compat;
        let request = get(None, path);
        let translated = request.to(&settings, New).unwrap();
        assert_eq!(translated.profile, "compat", "{path}");
        assert_eq!((&translated.tail, &translated.query), (&None, &None), "{path}");
        assert_eq!(request.to(&settings, Old).unwrap().profile, "public", "{path}");

        settings.compat = None;
        assert!(request.to(&settings, New).is_err(), "{path}: no compat schema");
        settings.cross_schema_embeds = CrossSchemaEmbeds::Refuse;
        assert!(request.to(&settings, New).is_err(), "{path}");
        settings.compat = Some("compat".into());
        assert!(request.to(&settings, New).is_err(), "{path}");
        assert!(request.to(&settings, Old).is_ok(), "{path}");
    }
    let refusal = get(None, paths[0]).to(&settings, New).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::CrossSchemaEmbed {
            resource: "memory_entries".into(),
            embed: "vendor_api_keys".into()
        }
    );
    // Pass: as far as the main table's schema goes.
    settings.cross_schema_embeds = CrossSchemaEmbeds::Pass;
    let path = "/vendor_api_keys?select=vendor_organizations(id),profiles(id),api_keys(id)";
    let translated = get(None, path).to(&settings, New).unwrap();
    assert_eq!(translated.profile, "vendors");
    assert_eq!(
        translated.query.unwrap(),
        "select=vendor_organizations:organizations(id),profiles(id),api_keys(id)"
    );
    // Within one domain, at any depth, nothing is across.
    settings.cross_schema_embeds = CrossSchemaEmbeds::Refuse;
    let path = "/memory_entries?select=memory_chunks(api_keys(organizations(id)))";
    assert_eq!(get(None, path).to(&settings, New).unwrap().profile, "security_service");
}

#[test]
fn trap_10_functions_are_mapped_apart_and_their_arguments_are_not_read() {
    let settings = settings();
    // `memory_chunks` is a table of one domain and a function of another.
    assert_eq!(sent(None, "/memory_chunks", New).0, "security_service");
    assert_eq!(
        sent(None, "/rpc/memory_chunks", New),
        ("intelligence".into(), "/rpc/chunks".into())
    );
    // An RPC POST follows Content-Profile, and its base for embeds is the function's schema.
    let path = "/rpc/vendor_stats?select=id,...vendor_api_keys(id)&vendor_api_keys.id=eq.1";
    let request = Request::new(Method::POST, None, path);
    let translated = request.to(&settings, New).unwrap();
    assert_eq!(translated.profile_header, "content-profile");
    assert_eq!(translated.profile, "vendors");
    assert_eq!(
        request.sent(&translated).path(),
        "/rpc/stats?select=id,...api_keys(id)&api_keys.id=eq.1"
    );
    // Arguments of a GET stay, unless they are paths into an embed.
    assert_eq!(
        sent(
            None,
            "/rpc/vendor_stats?vendor_api_keys=3&select=...vendor_api_keys(id)&or.vendor_api_keys=eq.1&a[]=%zz",
            New
        )
        .1,
        "/rpc/stats?vendor_api_keys=3&select=...api_keys(id)&or.vendor_api_keys=eq.1&a[]=%zz"
    );
}

#[test]
fn trap_15_the_same_path_differs_by_profile_and_method() {
    let settings = settings();
    let path = "/api_keys?select=id";
    let seen: Vec<(String, Option<String>)> =
        [(Method::GET, None), (Method::GET, Some("vendors")), (Method::GET, Some("app_crm"))]
            .into_iter()
            .map(|(method, profile)| {
                let translated = Request::new(method, profile, path).to(&settings, Old).unwrap();
                (translated.profile.to_str().unwrap().to_owned(), translated.tail)
            })
            .collect();
    assert_eq!(
        seen,
        [
            ("public".into(), None),
            ("public".into(), Some("/vendor_api_keys".into())),
            ("app_crm".into(), None),
        ],
        "the URL alone says nothing"
    );
    let twice = [0, 1].map(|_| {
        let translated = get(Some("vendors"), path).to(&settings, Old).unwrap();
        format!("{translated:?}")
    });
    assert_eq!(twice[0], twice[1], "pure");
}

#[test]
fn trap_36_bytes_that_need_no_change_keep_their_form() {
    let query = "z=eq.a+b%20c&select=+id+,%22first%20name%22,data-%3E%3Ekey&id=in.(1,2)&id=gt.0&&flag&=x&caf\
                 %c3%a9=ilike.*%25*;and=(a.eq.1,b.eq.2)";
    unchanged(&format!("/memory_entries?{query}"));
    there_and_back(&format!("/vendor_api_keys?{query}"), &format!("/api_keys?{query}"));
    // Only the bytes of the names change.
    there_and_back(
        "/vendor_api_keys/extra//?select=+%2A,+vendor_organizations%21inner%28name%29+&x=eq.%2F&x=eq.+",
        "/api_keys/extra//?select=+%2A,+vendor_organizations:organizations%21inner%28name%29+&x=eq.%2F&x=eq.+",
    );
    there_and_back("/vendor_plain?select=vendor_plain(*)", "/vendor_plain?select=vendor_plain(*)");
    // No query, and an empty one.
    there_and_back("/vendor_api_keys?", "/api_keys?");
    there_and_back("/vendor_api_keys", "/api_keys");
}

#[test]
fn trap_38_head_is_translated_like_get() {
    let path = "/vendor_api_keys?select=*&limit=1";
    let head = Request::new(Method::HEAD, None, path);
    let translated = head.to(&settings(), New).unwrap();
    assert_eq!(translated.profile_header, "accept-profile");
    assert_eq!(translated.profile, "vendors");
    assert_eq!(head.sent(&translated).path(), "/api_keys?select=*&limit=1");
}

#[test]
fn trap_44_refusals_have_a_message_for_the_client() {
    let mut settings = settings();
    settings.unmapped = Unmapped::Refuse;
    settings.cross_schema_embeds = CrossSchemaEmbeds::Refuse;
    for (path, status) in [
        ("/nobody_knows", StatusCode::NOT_FOUND),
        ("/memory_entries?select=profiles(id)", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let refusal = get(None, path).to(&settings, New).unwrap_err();
        assert_eq!(refusal.status(), status);
        for text in [&refusal.message(), refusal.details(), refusal.hint()] {
            assert!(!text.is_empty());
            assert!(!text.contains("security_service") && !text.contains("shared_services"));
        }
    }
}

#[test]
fn resources_have_domains_and_bounded_labels() {
    let settings = settings();
    for (profile, path, domain, label) in [
        (None, "/vendor_api_keys?x=1", Some("vendors"), "vendor_api_keys"),
        (None, "/vendor%5Fapi_keys", Some("vendors"), "vendor_api_keys"),
        (Some("vendors"), "/api_keys", Some("vendors"), "vendor_api_keys"),
        (None, "/smart_recall_x", Some("intelligence"), "smart_recall_*"),
        (Some("intelligence"), "/smart_recall_x", Some("intelligence"), "smart_recall_*"),
        (None, "/rpc/match_memories", Some("security_service"), "rpc/match_memories"),
        (None, "/%72pc/match_memories", Some("security_service"), "rpc/match_memories"),
        (Some("vendors"), "/billing_records", Some("vendors"), "unmapped"),
        (None, "/nobody_knows", None, "unmapped"),
        (None, "/rpc", None, "unmapped"),
        (None, "/rpc/", None, "unmapped"),
        (None, "/%FF", None, "unmapped"),
        (None, "/", None, "root"),
        (Some("vendors"), "", Some("vendors"), "root"),
        (Some("app_crm"), "/api_keys", None, "foreign"),
    ] {
        let request = get(profile, path);
        let resource = resolve(&settings, &request.asked());
        assert_eq!((resource.domain(), resource.label()), (domain, label), "{profile:?} {path}");
        // What is counted is the same entry, by its number.
        let entry = resource.counted().map(|(kind, line)| {
            let entry = line.and_then(|line| settings.map.entries().nth(line as usize));
            assert!(entry.is_none_or(|(of, _)| of == kind), "{path}");
            entry.map(|(_, name)| name)
        });
        let want = match label {
            "root" => None,
            "unmapped" | "foreign" => Some(None),
            _ => Some(Some(label.trim_start_matches("rpc/"))),
        };
        assert_eq!(entry, want, "{profile:?} {path}");
    }
}

#[test]
fn every_form_of_embed() {
    for (legacy, new) in [
        ("vendor_organizations(*)", "vendor_organizations:organizations(*)"),
        ("vendor_organizations()", "vendor_organizations:organizations()"),
        ("o:vendor_organizations(*)", "o:organizations(*)"),
        ("o:vendor_organizations!fk!inner(*)", "o:organizations!fk!inner(*)"),
        ("...vendor_organizations(a,b:c)", "...organizations(a,b:c)"),
        ("...vendor_organizations!fk(a)", "...organizations!fk(a)"),
        ("\"vendor_organizations\"(*)", "\"vendor_organizations\":organizations(*)"),
        ("o:%22vendor_organizations%22(*)", "o:%22organizations%22(*)"),
        ("\"my alias\":vendor_organizations(*)", "\"my alias\":organizations(*)"),
        ("a-b:vendor_organizations(*)", "a-b:organizations(*)"),
        ("k+:+vendor_organizations%20(*)+", "k+:+organizations%20(*)+"),
        ("vendor_organizations+(*)", "vendor_organizations:organizations+(*)"),
        (
            "k:vendor_organizations!fk!vendor_usage_logs(*)",
            "k:organizations!fk!vendor_usage_logs(*)",
        ),
        ("k:%22vendor_odd%22(*)", "k:%22odd-name.x%20%5C%22y%5C%22%22(*)"),
        ("vendor_odd(*)", "vendor_odd:%22odd-name.x%20%5C%22y%5C%22%22(*)"),
        (
            "id,vendor_organizations(id,vendor_usage_logs(n,vendor_odd(a)),x),y",
            "id,vendor_organizations:organizations(id,vendor_usage_logs:usage_logs(n,\
             vendor_odd:%22odd-name.x%20%5C%22y%5C%22%22(a)),x),y",
        ),
        (
            "count(),n:count(),amount.sum(),s:amount.avg()::int,data->vendor_organizations,d:data->>\"a(b\"::text,*,\
             created_at::date,é",
            "count(),n:count(),amount.sum(),s:amount.avg()::int,data->vendor_organizations,d:data->>\"a(b\"::text,*,\
             created_at::date,é",
        ),
    ] {
        there_and_back(
            &format!("/vendor_api_keys?select={legacy}"),
            &format!("/api_keys?select={new}"),
        );
    }
    for (new, legacy) in [
        ("organizations(*)", "organizations:vendor_organizations(*)"),
        ("o:organizations!usage_logs(*)", "o:vendor_organizations!vendor_usage_logs(*)"),
        ("...organizations(a)", "...vendor_organizations(a)"),
        ("%22odd-name.x+%5C%22y%5C%22%22(*)", "%22odd-name.x+%5C%22y%5C%22%22:vendor_odd(*)"),
    ] {
        back_and_there(
            &format!("/api_keys?select={new}"),
            &format!("/vendor_api_keys?select={legacy}"),
        );
    }
    // Merged tables: the way back uses the canonical name.
    assert_eq!(
        sent(None, "/vendor_api_keys_v2?select=vendor_api_keys_v2(*)", New).1,
        "/api_keys?select=vendor_api_keys_v2:api_keys(*)"
    );
    assert_eq!(sent(Some("vendors"), "/api_keys", Old).1, "/vendor_api_keys");
}

const SELECT: &str = "select=*,...vendor_organizations(n,...vendor_usage_logs(m)),k:vendor_platform_sessions(*),vendor_odd(*)";
const THERE: &str = "select=*,...organizations(n,...usage_logs(m)),k:platform_sessions(*),\
                     vendor_odd:%22odd-name.x%20%5C%22y%5C%22%22(*)";

#[test]
fn every_other_place_that_names_an_embed() {
    for (legacy, new) in [
        // A spread is known by its target only.
        (
            "vendor_organizations.id=eq.vendor_organizations",
            "organizations.id=eq.vendor_organizations",
        ),
        ("%22vendor_organizations%22.id=eq.1", "%22organizations%22.id=eq.1"),
        ("vendor_organizations.vendor_usage_logs.id=eq.1", "organizations.usage_logs.id=eq.1"),
        (
            "vendor_organizations.data->vendor_usage_logs=eq.1",
            "organizations.data->vendor_usage_logs=eq.1",
        ),
        ("vendor_organizations.order=id.desc", "organizations.order=id.desc"),
        ("vendor_organizations.limit=1", "organizations.limit=1"),
        ("vendor_organizations.offset=1", "organizations.offset=1"),
        ("vendor_organizations.or=(a.eq.1,b.eq.2)", "organizations.or=(a.eq.1,b.eq.2)"),
        ("vendor_organizations.not.and=(a.eq.1)", "organizations.not.and=(a.eq.1)"),
        ("vendor_organizations=not.is.null", "organizations=not.is.null"),
        ("vendor_organizations=is.NULL", "organizations=is.NULL"),
        ("vendor_organizations.vendor_usage_logs=is.null", "organizations.usage_logs=is.null"),
        (
            "or=(vendor_organizations.not.is.null,and(a.in.(1,\"2)\"),not.or(vendor_organizations.is.null,\
             b->>c.fts(english).x,d.cs.{1,2},e.eq.\"a,b\")))",
            "or=(organizations.not.is.null,and(a.in.(1,\"2)\"),not.or(organizations.is.null,\
             b->>c.fts(english).x,d.cs.{1,2},e.eq.\"a,b\")))",
        ),
        (
            "vendor_organizations.not.or=(vendor_usage_logs.is.null,x.eq.1)",
            "organizations.not.or=(usage_logs.is.null,x.eq.1)",
        ),
        ("not.or=(vendor_organizations.is.null)", "not.or=(organizations.is.null)"),
        ("a=eq.1;vendor_organizations.id=eq.1", "a=eq.1;organizations.id=eq.1"),
        (
            "vendor_organizations.or=(vendor_usage_logs.is.null,x.not.is.null)",
            "organizations.or=(usage_logs.is.null,x.not.is.null)",
        ),
        (
            "order=id,vendor_organizations(name).desc.nullslast,x->vendor_organizations.asc",
            "order=id,organizations(name).desc.nullslast,x->vendor_organizations.asc",
        ),
        (
            "vendor_organizations.order=vendor_usage_logs(data->x).asc",
            "organizations.order=usage_logs(data->x).asc",
        ),
        // The client's alias still resolves; the target's name beside an alias is renamed.
        ("k.id=eq.1&k=not.is.null&order=k(id)", "k.id=eq.1&k=not.is.null&order=k(id)"),
        ("vendor_platform_sessions.id=eq.1", "platform_sessions.id=eq.1"),
        ("vendor_platform_sessions.limit=1", "platform_sessions.limit=1"),
        ("order=vendor_platform_sessions(id)", "order=platform_sessions(id)"),
        // The alias that was added is the name that the client used.
        ("vendor_odd.id=eq.1&vendor_odd=is.null", "vendor_odd.id=eq.1&vendor_odd=is.null"),
    ] {
        there_and_back(
            &format!("/vendor_api_keys?{legacy}&{SELECT}"),
            &format!("/api_keys?{new}&{THERE}"),
        );
    }
}

#[test]
fn what_only_looks_like_an_embed_is_left_alone() {
    for same in [
        // A column that is called like a spread table or like the target of an alias.
        "vendor_organizations=eq.1",
        "vendor_platform_sessions=is.null",
        "or=(vendor_organizations.eq.1,vendor_platform_sessions.is.null)",
        "order=vendor_organizations.desc,vendor_organizations",
        "order->x=vendor_organizations(id)",
        "vendor_organizations->x=is.null",
        "or=(vendor_organizations->x.is.null,vendor_organizations->>y.is.null)",
        // Not embedded here: another level, or not at all.
        "vendor_usage_logs.id=eq.1",
        "k.vendor_organizations.id=eq.1",
        "vendor_api_keys.id=eq.1",
        // Columns, not tables.
        "columns=vendor_organizations&on_conflict=vendor_organizations",
        "limit=1&offset=2",
    ] {
        there_and_back(
            &format!("/vendor_api_keys?{same}&{SELECT}"),
            &format!("/api_keys?{same}&{THERE}"),
        );
    }
}

#[test]
fn a_target_named_beside_an_alias_never_becomes_another_embed() {
    assert_eq!(
        sent(
            None,
            "/vendor_api_keys?select=k:vendor_organizations(*),organizations:vendor_id(*)&vendor_organizations.id=eq.1",
            New
        )
        .1,
        "/api_keys?select=k:organizations(*),organizations:vendor_id(*)&k.id=eq.1"
    );
    // A sibling that is known by the name comes before a target that has it.
    there_and_back(
        "/vendor_api_keys?select=k:vendor_organizations(*),...vendor_organizations(a)&vendor_organizations.id=eq.1",
        "/api_keys?select=k:organizations(*),...organizations(a)&organizations.id=eq.1",
    );
}

#[test]
fn unknown_syntax_leaves_the_query_alone_and_is_counted() {
    let settings = settings();
    let deep = |n: usize| format!("{}id{}", "vendor_organizations(".repeat(n), ")".repeat(n));
    for select in [
        "vendor_organizations(",
        "vendor_organizations(*))",
        "vendor_organizations[0](id)",
        "id,,vendor_organizations(*)",
        "vendor_organizations(*),",
        "vendor_organizations->x(*)",
        "a:b:vendor_organizations(*)",
        "vendor_organizations!!fk(*)",
        "vendor_organizations(*)x",
        "...vendor_organizations,id",
        "a:...vendor_organizations(*)",
        "amount.median(),vendor_organizations(*)",
        "\"open,vendor_organizations(*)",
        "id::,vendor_organizations(*)",
        "-a,vendor_organizations(*)",
        "%FF,vendor_organizations(*)",
        &deep(101),
    ] {
        let path = format!("/vendor_api_keys?select={select}&vendor_organizations.id=eq.1");
        let translated = get(None, &path).to(&settings, New).unwrap();
        assert_eq!(translated.query, None, "{select}");
        assert!(translated.unknown_syntax, "{select}");
        assert_eq!(translated.tail.as_deref(), Some("/api_keys"), "{select}");
    }
    let nested = format!("or=({}a.eq.1{})", "and(".repeat(50_000), ")".repeat(50_000));
    let path = format!("/vendor_api_keys?select=...vendor_organizations(a)&{nested}");
    assert!(get(None, &path).to(&settings, New).unwrap().unknown_syntax);
    let translated =
        get(None, &format!("/vendor_api_keys?select={}", deep(100))).to(&settings, New).unwrap();
    assert!(translated.query.is_some() && !translated.unknown_syntax);
    // A mention that is not understood keeps its own bytes; the rest is translated.
    for mention in
        ["order=vendor_organizations(a", "or=(vendor_organizations.is.null", "or=a", "or=(a.1)"]
    {
        let path = format!("/vendor_api_keys?select=...vendor_organizations(a)&{mention}");
        let translated = get(None, &path).to(&settings, New).unwrap();
        assert_eq!(translated.query, Some(format!("select=...organizations(a)&{mention}")));
        assert!(translated.unknown_syntax, "{mention}");
    }
}
