use http::{HeaderMap, HeaderValue, Method, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::rewrite::rest::RestRestore;
use crate::rewrite::rest::fixture::{Request, get, settings};
use crate::rewrite::{CrossSchemaEmbeds, Unmapped};
use crate::side::Side::{self, New, Old};

const SELECT: &str = "select=*,vendor_organizations(*),k:vendor_usage_logs(*)";

fn of(request: &Request, side: Side) -> RestRestore {
    request.to(&settings(), side).unwrap().restore
}

fn legacy(path: &str) -> RestRestore {
    of(&get(None, path), New)
}

fn domain(path: &str) -> RestRestore {
    of(&get(Some("vendors"), path), Old)
}

/// An error with one text as its message, restored.
fn message(restore: &RestRestore, code: &str, text: &str) -> String {
    let body = json!({"code": code, "message": text, "details": null, "hint": null}).to_string();
    match restore.body(body.as_bytes()) {
        None => text.to_owned(),
        Some(body) => {
            let body: Value = serde_json::from_slice(&body).unwrap();
            body["message"].as_str().unwrap().to_owned()
        }
    }
}

fn hint(restore: &RestRestore, code: &str, text: &str) -> Option<String> {
    let body = json!({"code": code, "message": "m", "details": null, "hint": text}).to_string();
    let Some(body) = restore.body(body.as_bytes()) else { return Some(text.to_owned()) };
    let body: Value = serde_json::from_slice(&body).unwrap();
    body["hint"].as_str().map(str::to_owned)
}

#[test]
fn trap_11_messages_of_postgrest_speak_the_legacy_dialect() {
    let restore = legacy(&format!("/vendor_api_keys?{SELECT}"));
    for (code, on_new, said) in [
        (
            "PGRST205",
            "Could not find the table 'vendors.api_keys' in the schema cache",
            "Could not find the table 'public.vendor_api_keys' in the schema cache",
        ),
        (
            "PGRST200",
            "Could not find a relationship between 'api_keys' and 'organizations' in the schema cache",
            "Could not find a relationship between 'vendor_api_keys' and 'vendor_organizations' in the schema cache",
        ),
        (
            "PGRST200",
            "Searched for a foreign key relationship between 'api_keys' and 'fk_x' using the hint 'usage_logs' in \
             the schema 'vendors', but no matches were found.",
            "Searched for a foreign key relationship between 'vendor_api_keys' and 'fk_x' using the hint \
             'vendor_usage_logs' in the schema 'public', but no matches were found.",
        ),
        (
            "PGRST204",
            "Could not find the 'api_keys' column of 'api_keys' in the schema cache",
            "Could not find the 'api_keys' column of 'vendor_api_keys' in the schema cache",
        ),
        (
            "PGRST108",
            "'usage_logs' is not an embedded resource in this request",
            "'vendor_usage_logs' is not an embedded resource in this request",
        ),
    ] {
        assert_eq!(message(&restore, code, on_new), said);
    }
}

#[test]
fn trap_11_messages_of_postgresql_speak_the_legacy_dialect() {
    let restore = legacy(&format!("/vendor_api_keys?{SELECT}"));
    for (code, on_new, said) in [
        (
            "42501",
            "permission denied for table api_keys",
            "permission denied for table vendor_api_keys",
        ),
        ("42501", "permission denied for schema vendors", "permission denied for schema public"),
        (
            "42501",
            "new row violates row-level security policy for table \"api_keys\"",
            "new row violates row-level security policy for table \"vendor_api_keys\"",
        ),
        (
            "42P01",
            "relation \"vendors.api_keys\" does not exist",
            "relation \"public.vendor_api_keys\" does not exist",
        ),
        (
            "42P01",
            "relation \"vendors\".\"platform_sessions\" does not exist",
            "relation \"public\".\"vendor_platform_sessions\" does not exist",
        ),
        (
            "23503",
            "insert or update on table \"api_keys\" violates foreign key constraint \"api_keys_org_fkey\"",
            "insert or update on table \"vendor_api_keys\" violates foreign key constraint \"api_keys_org_fkey\"",
        ),
        (
            "23502",
            "null value in column \"api_keys\" of relation \"api_keys\" violates not-null constraint",
            "null value in column \"api_keys\" of relation \"vendor_api_keys\" violates not-null constraint",
        ),
        ("42703", "column api_keys.x does not exist", "column vendor_api_keys.x does not exist"),
        (
            "42703",
            "column organizations_1.x does not exist",
            "column vendor_organizations_1.x does not exist",
        ),
        // Any schema of new, by the map.
        (
            "P0001",
            "see shared_services.settings and intelligence.smart_recall_x.",
            "see public.user_settings and public.smart_recall_x.",
        ),
        // What is not in the map, and words that are no names, stay.
        (
            "P0001",
            "vendors.billing_records api_keys organizations 'api_keys' vendors",
            "vendors.billing_records api_keys organizations 'api_keys' vendors",
        ),
        (
            "22P02",
            "invalid input syntax for type uuid: \"api_keys\"",
            "invalid input syntax for type uuid: \"api_keys\"",
        ),
    ] {
        assert_eq!(message(&restore, code, on_new), said);
    }
}

#[test]
fn trap_11_messages_speak_the_new_dialect() {
    let restore = domain("/api_keys?select=*,organizations(*)");
    for (code, on_old, said) in [
        (
            "PGRST205",
            "Could not find the table 'public.vendor_api_keys' in the schema cache",
            "Could not find the table 'vendors.api_keys' in the schema cache",
        ),
        (
            "PGRST200",
            "between 'vendor_api_keys' and 'vendor_organizations' in the schema 'public'",
            "between 'api_keys' and 'organizations' in the schema 'vendors'",
        ),
        (
            "42501",
            "permission denied for table vendor_api_keys",
            "permission denied for table api_keys",
        ),
        ("42501", "permission denied for schema public", "permission denied for schema vendors"),
        (
            "42P01",
            "relation \"public.user_settings\" does not exist",
            "relation \"shared_services.settings\" does not exist",
        ),
        // A table of another domain has no name in the client's schema.
        (
            "PGRST200",
            "between 'profiles' and 'user_settings'",
            "between 'profiles' and 'user_settings'",
        ),
        // Another table's bare name: only the request's own and its embeds are known.
        ("42501", "permission denied for table profiles", "permission denied for table profiles"),
    ] {
        assert_eq!(message(&restore, code, on_old), said);
    }
}

#[test]
fn merged_tables_and_functions_keep_the_name_that_the_client_used() {
    let restore = legacy("/vendor_api_keys_v2");
    let text = "Could not find the table 'vendors.api_keys' in the schema cache";
    assert!(message(&restore, "PGRST205", text).contains("'public.vendor_api_keys_v2'"));

    let restore = of(&Request::new(Method::POST, None, "/rpc/vendor_stats"), New);
    assert_eq!(
        message(
            &restore,
            "PGRST202",
            "Could not find the function vendors.stats(a, b) in the schema cache"
        ),
        "Could not find the function public.vendor_stats(a, b) in the schema cache"
    );
    assert_eq!(
        message(&restore, "42501", "permission denied for function stats"),
        "permission denied for function vendor_stats"
    );
    // A function and a table of one name: the code says which is meant.
    let text = "intelligence.chunks";
    assert_eq!(message(&restore, "PGRST203", text), "public.memory_chunks");
    assert_eq!(message(&restore, "PGRST205", text), "public.card_chunks");
}

#[test]
fn trap_11_lists_of_candidates() {
    let restore = legacy(&format!("/vendor_api_keys?{SELECT}"));
    let body = json!({
        "code": "PGRST201",
        "details": [
            {"cardinality": "many-to-one", "embedding": "api_keys with organizations",
             "relationship": "api_keys_org_fkey using api_keys(organizations) and organizations(id)"},
            {"cardinality": "many-to-many", "embedding": "api_keys with organizations",
             "relationship": "usage_logs using fk_a(x) and fk_b(y)"}
        ],
        "hint": "Try changing 'organizations' to one of the following: 'organizations!api_keys_org_fkey', \
                 'organizations!usage_logs'. Find the desired relationship in the 'details' key.",
        "message": "Could not embed because more than one relationship was found for 'api_keys' and 'organizations'"
    });
    let restored = restore.body(body.to_string().as_bytes()).unwrap();
    let expected = json!({
        "code": "PGRST201",
        "details": [
            {"cardinality": "many-to-one", "embedding": "vendor_api_keys with vendor_organizations",
             "relationship":
                "api_keys_org_fkey using vendor_api_keys(organizations) and vendor_organizations(id)"},
            {"cardinality": "many-to-many", "embedding": "vendor_api_keys with vendor_organizations",
             "relationship": "vendor_usage_logs using fk_a(x) and fk_b(y)"}
        ],
        "hint": "Try changing 'vendor_organizations' to one of the following: \
                 'vendor_organizations!api_keys_org_fkey', 'vendor_organizations!vendor_usage_logs'. \
                 Find the desired relationship in the 'details' key.",
        "message": "Could not embed because more than one relationship was found for 'vendor_api_keys' and \
                    'vendor_organizations'"
    });
    // As text: the order of the keys is kept.
    assert_eq!(String::from_utf8(restored).unwrap(), expected.to_string());
}

#[test]
fn hints_are_said_in_the_clients_dialect_or_blanked() {
    let restore = legacy("/vendor_api_keys");
    for (code, text, said) in [
        (
            "PGRST205",
            "Perhaps you meant the table 'vendors.platform_sessions'",
            Some("Perhaps you meant the table 'public.vendor_platform_sessions'"),
        ),
        ("PGRST205", "Perhaps you meant the table 'vendors.billing_records'", None),
        (
            "PGRST202",
            "Perhaps you meant to call the function vendors.stats(a)",
            Some("Perhaps you meant to call the function public.vendor_stats(a)"),
        ),
        ("PGRST202", "Perhaps you meant to call the function vendors.secret(a)", None),
        (
            "PGRST200",
            "Perhaps you meant 'usage_logs' instead of 'logs'.",
            Some("Perhaps you meant 'vendor_usage_logs' instead of 'logs'."),
        ),
        ("PGRST200", "Perhaps you meant 'billing_records' instead of 'logs'.", None),
        ("42703", "Perhaps you meant vendors.nothing.", Some("Perhaps you meant vendors.nothing.")),
    ] {
        assert_eq!(hint(&restore, code, text).as_deref(), said, "{text}");
    }
    let restore = domain("/api_keys");
    let known = "Perhaps you meant the table 'public.vendor_usage_logs'";
    assert_eq!(
        hint(&restore, "PGRST205", known).as_deref(),
        Some("Perhaps you meant the table 'vendors.usage_logs'")
    );
    let unknown = "Perhaps you meant the table 'public.legacy_only'";
    assert_eq!(hint(&restore, "PGRST205", unknown), None);
}

#[test]
fn trap_11_exposed_schemas_never_leak() {
    let settings = settings();
    // Whatever the rest of the body looks like.
    let odd = br#"{"code":"PGRST106","hint":["secret_a"]}"#;
    assert_eq!(
        legacy("/vendor_api_keys").body(odd).as_deref(),
        Some(br#"{"code":"PGRST106","hint":null}"#.as_slice())
    );
    for side in Side::ALL {
        for profile in [None, Some("public"), Some("vendors"), Some("app_crm"), Some("no_such")] {
            for method in [Method::GET, Method::POST] {
                let request = Request::new(method, profile, "/nobody_knows");
                let restore = request.to(&settings, side).unwrap().restore;
                let client = profile.unwrap_or("public");
                for body in [
                    json!({"code": "PGRST106", "details": null,
                        "hint": "Only the following schemas are exposed: secret_a, secret_b",
                        "message": "Invalid schema: x"}),
                    json!({"code": "PGRST106", "details": "secret_a", "hint": null,
                        "message": "The schema must be one of the following: secret_a, secret_b"}),
                ] {
                    let restored = restore.body(body.to_string().as_bytes()).unwrap();
                    let expected = json!({"code": "PGRST106", "details": null, "hint": null,
                        "message": format!("Invalid schema: {client}")});
                    let restored: Value = serde_json::from_slice(&restored).unwrap();
                    assert_eq!(restored, expected);
                }
                assert!(restore.wants_body(StatusCode::NOT_ACCEPTABLE, &HeaderMap::new()));
            }
        }
    }
}

#[test]
fn trap_12_a_300_is_an_answer_with_a_body() {
    let restore = legacy("/vendor_api_keys");
    let mut headers = HeaderMap::new();
    for (status, content_type, wanted) in [
        (300, "application/json; charset=utf-8", true),
        (400, "application/vnd.pgrst.object+json", true),
        (404, "", true),
        (500, "text/plain", true),
        (503, "text/html", false),
        (200, "application/json", false),
        (206, "application/json", false),
        (302, "application/json", false),
        (304, "application/json", false),
    ] {
        headers.remove("content-type");
        if !content_type.is_empty() {
            headers.insert("content-type", HeaderValue::from_static(content_type));
        }
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(restore.wants_body(status, &headers), wanted, "{status} {content_type}");
    }
}

#[test]
fn bodies_that_are_no_errors_of_postgrest_are_untouched() {
    let restore = legacy("/vendor_api_keys");
    for body in [
        "",
        "vendors.api_keys",
        "{\"code\":",
        "[{\"code\":\"PGRST205\",\"message\":\"vendors.api_keys\"}]",
        "{\"message\":\"vendors.api_keys\"}",
        "{\"code\":1,\"message\":\"vendors.api_keys\"}",
        "{\"code\":\"P0001\",\"message\":null,\"hint\":\"vendors.api_keys\"}",
        "{\"code\":\"P0001\",\"message\":\"nothing to say\"}",
        "{\"code\":\"P0001\",\"message\":\"m\",\"vendors\":\"vendors.api_keys\"}",
    ] {
        assert_eq!(restore.body(body.as_bytes()), None, "{body}");
    }
    assert_eq!(restore.body(b"\xff\xfe"), None);
    // In the client's own dialect nothing is translated back.
    let native = of(&get(Some("vendors"), "/api_keys"), New);
    assert_eq!(native.body(br#"{"code":"PGRST205","message":"'vendors.api_keys'"}"#), None);
}

#[test]
fn views_of_compatibility_speak_legacy() {
    let restore = legacy("/memory_entries?select=profiles(*)");
    for (code, text, said) in [
        ("PGRST205", "the table 'compat.memory_entries'", "the table 'public.memory_entries'"),
        ("PGRST200", "'a' in the schema 'compat'", "'a' in the schema 'public'"),
        ("P0001", "see shared_services.settings", "see public.user_settings"),
    ] {
        assert_eq!(message(&restore, code, text), said);
    }
}

#[test]
fn content_profile_is_the_clients() {
    let cases = [
        (None, "/vendor_api_keys", New, "vendors", "public"),
        (Some("vendors"), "/api_keys", Old, "public", "vendors"),
        (None, "/memory_entries?select=profiles(*)", New, "compat", "public"),
        (Some("app_crm"), "/x", New, "app_crm", "app_crm"),
        // Not what was sent: a function may set any header.
        (None, "/vendor_api_keys", New, "other", "other"),
    ];
    for (profile, path, side, answered, restored) in cases {
        let restore = of(&get(profile, path), side);
        let mut headers = HeaderMap::new();
        restore.headers(&mut headers);
        assert!(headers.is_empty(), "only if present");
        headers.insert("content-profile", HeaderValue::from_static(answered));
        restore.headers(&mut headers);
        assert_eq!(headers["content-profile"], restored, "{profile:?} {path}");
    }
}

#[test]
fn locations_name_the_clients_table() {
    let restore = legacy(&format!("/vendor_api_keys?{SELECT}"));
    for (on_new, said) in [
        ("/api_keys?id=eq.1", "/vendor_api_keys?id=eq.1"),
        ("/api_keys", "/vendor_api_keys"),
        ("/rest/v1/api_keys?id=eq.1", "/rest/v1/vendor_api_keys?id=eq.1"),
        (
            "https://x.supabase.co/rest/v1/api_keys?id=eq.1",
            "https://x.supabase.co/rest/v1/vendor_api_keys?id=eq.1",
        ),
        (
            "/api_keys?id=eq.1&select=%2A%2Cvendor_organizations%3Aorganizations%28%2A%29%2Ck%3Ausage_logs%28%2A%29",
            "/vendor_api_keys?id=eq.1&select=%2A%2Cvendor_organizations%28%2A%29%2Ck%3Avendor_usage_logs%28%2A%29",
        ),
        ("/api_keys_2?id=eq.api_keys", "/api_keys_2?id=eq.api_keys"),
        ("/other?x=/api_keys", "/other?x=/api_keys"),
        ("https://elsewhere", "https://elsewhere"),
        ("", ""),
    ] {
        for header in ["location", "content-location"] {
            let mut headers = HeaderMap::new();
            headers.insert(header, HeaderValue::from_static(on_new));
            restore.headers(&mut headers);
            assert_eq!(headers[header], said);
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert("location", HeaderValue::from_static("/vendor_api_keys?id=eq.1"));
    domain("/api_keys").headers(&mut headers);
    assert_eq!(headers["location"], "/api_keys?id=eq.1");
    let restore = of(&get(None, "/rpc/vendor_stats"), New);
    headers.insert("location", HeaderValue::from_static("/rpc/stats?a=1"));
    restore.headers(&mut headers);
    assert_eq!(headers["location"], "/rpc/vendor_stats?a=1");
}

proptest! {
    /// Whatever PostgREST says of the request's own table and embeds comes back by the client's names.
    #[test]
    fn restored_names_are_the_clients(table in 0..4_usize, embed in 0..4_usize) {
        use crate::rewrite::rest::fixture::VENDORS;
        let ((old, new), (old_embed, new_embed)) = (VENDORS[table], VENDORS[embed]);
        let there = legacy(&format!("/{old}?select=x:{old_embed}(*)"));
        let back = domain(&format!("/{new}?select=x:{new_embed}(*)"));
        let on_new = format!("'vendors.{new}' and '{new_embed}' in the schema 'vendors'");
        let on_old = format!("'public.{old}' and '{old_embed}' in the schema 'public'");
        prop_assert_eq!(&message(&there, "PGRST200", &on_new), &on_old);
        prop_assert_eq!(message(&back, "PGRST200", &on_old), on_new);
    }

    #[test]
    fn nothing_panics(text in ".{0,60}", code in "PGRST(106|20[0-5])|42P01", location in "[ -~]{0,40}") {
        let mut settings = settings();
        settings.unmapped = Unmapped::Pass;
        settings.cross_schema_embeds = CrossSchemaEmbeds::Pass;
        let body = json!({"code": code, "message": text, "details": [{"a": text}], "hint": text});
        for (profile, path) in [(None, "/vendor_api_keys"), (Some("vendors"), "/api_keys")] {
            for side in Side::ALL {
                let restore = get(profile, path).to(&settings, side).unwrap().restore;
                let restored = restore.body(body.to_string().as_bytes());
                let read = restored.map(|bytes| serde_json::from_slice::<Value>(&bytes));
                prop_assert!(read.is_none_or(|value| value.is_ok()));
                let mut headers = HeaderMap::new();
                headers.insert("location", HeaderValue::from_str(&location).unwrap());
                restore.headers(&mut headers);
            }
        }
    }
}
