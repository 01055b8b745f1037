//! Which layer wins, what a variable may hold, and where a value is said to come from.

use super::*;
use crate::identify::keyring::Role;
use crate::side::Side;

#[test]
fn the_later_layer_wins_and_is_named() {
    let all = "env_file = \"cutover.env\"\nwatch_dir = \"live\"\n";
    let number = |home: &Home| {
        let state = home.start().rollout();
        let source = state.source.replace(&format!("{}/", home.directory.path().display()), "");
        (state.percentage.to_string(), source)
    };
    let home = Home::new(&GOOD.replace("percentage", "# percentage"));
    assert_eq!(number(&home), ("0".into(), "default".into()));
    assert_eq!(number(&Home::new(GOOD)), ("10".into(), "config.toml".into()));

    let home = Home::with(all);
    home.write("cutover.env", "# nothing yet\n");
    fs::create_dir(home.path("live")).unwrap();
    assert_eq!(number(&home), ("10".into(), "config.toml".into()));
    home.write("cutover.env", "export V2_ROLLOUT_PERCENTAGE='20' # week 2\nOTHER=1\n");
    assert_eq!(number(&home), ("20".into(), "env file cutover.env".into()));
    home.write("live/V2_ROLLOUT_PERCENTAGE", "30\n");
    home.write("live/..data_x", "hidden");
    home.write("live/README", "not ours");
    assert_eq!(number(&home), ("30".into(), "live/V2_ROLLOUT_PERCENTAGE".into()));
    let home = home.env("V2_ROLLOUT_PERCENTAGE", " 40.5");
    assert_eq!(
        number(&home),
        ("40.5".into(), "V2_ROLLOUT_PERCENTAGE (process environment)".into())
    );
    let warnings = Control::start(home.sources()).unwrap().2;
    assert!(
        warnings[0].contains("V2_ROLLOUT_PERCENTAGE (process environment) and can't change"),
        "{warnings:?}"
    );
}

#[test]
fn well_known_variables_and_files_of_secrets() {
    let home = Home::new("# all from the environment\n")
        .env("SUPABASE_URL_OLD", "http://127.0.0.1:54321")
        .env("SUPABASE_URL_NEW", "https://new.example.com/base/")
        .env("SUPABASE_ANON_KEY_OLD", "[\"one\", \"two\"]")
        .env("SUPABASE_ANON_KEY_NEW_FILE", "secrets/anon")
        .env("SUPABASE_SERVICE_ROLE_KEY_OLD", "")
        .env("CUTOVER_PROJECTS__NEW__SERVICE_ROLE_KEY_FILE", "secrets/service")
        .env("SUPABASE_ENV", "v2")
        .env("CUTOVER_ADMIN_URL", "http://127.0.0.1:8001")
        .env("CUTOVER_SERVICE_HOST", "10.0.0.1");
    home.write("secrets/anon", "from-file\n");
    home.write("secrets/service", "service-from-file");
    let snapshot = home.check().unwrap().snapshot;
    assert_eq!(snapshot.decide.force, Some(Side::New));
    let projects = &snapshot.forward.projects;
    assert_eq!((projects.old.dial_port, projects.old.tls), (54321, false));
    assert_eq!(projects.new.path_prefix, "/base");
    assert_eq!(projects.new.host_header, "new.example.com");
    let sent =
        |side, role| snapshot.keyring.key_for(side, role).map(|key| key.text.expose().to_owned());
    assert_eq!(sent(Side::Old, Role::Anon).as_deref(), Some("one"));
    assert_eq!(snapshot.keyring.role("two"), Some(Role::Anon));
    assert_eq!(sent(Side::New, Role::Anon).as_deref(), Some("from-file"));
    assert_eq!(sent(Side::New, Role::Service).as_deref(), Some("service-from-file"));
    assert_eq!(sent(Side::Old, Role::Service), None);
    let missing = Home::new(GOOD).env("CUTOVER_ADMIN_TOKEN_FILE", "nowhere").faults();
    assert!(
        missing.contains(
            "CUTOVER_ADMIN_TOKEN_FILE (process environment): admin.token: found \"nowhere\""
        ),
        "{missing}"
    );
}

#[test]
fn any_key_can_be_a_variable() {
    let home = Home::new(GOOD)
        .env("CUTOVER_ROLLOUT__PINS__NEW", "[\"ada\"]")
        .env(
            "CUTOVER_ROLLOUT__RULES",
            "[{\"claim\": \"app_metadata.beta\", \"equals\": true, \"side\": \"new\"}]",
        )
        .env("CUTOVER_ROLLOUT__DOMAINS__BILLING", "5")
        .env(
            "CUTOVER_SCHEMA__TABLES",
            "{ invoices = \"billing\", old_name = { to = \"billing.x\", canonical = true } }",
        )
        .env("CUTOVER_TRUSTED_PROXIES", "[\"10.0.0.0/8\", \"::1\"]")
        .env("CUTOVER_DEBUG_HEADERS", "true")
        .env("CUTOVER_LIMITS__CONNECTIONS", "7")
        .env("CUTOVER_LIMITS__HEADER_TIMEOUT", "3")
        .env("CUTOVER_UPSTREAM__TIMEOUT", "1500ms")
        .env("CUTOVER_WORKERS", "3");
    let report = home.check().unwrap();
    let snapshot = &report.snapshot;
    assert_eq!(snapshot.decide.pins["ada"], Side::New);
    assert_eq!(snapshot.decide.rules[0].claim, ["app_metadata", "beta"]);
    assert_eq!(snapshot.decide.rules[0].equals, serde_json::json!(true));
    assert_eq!(snapshot.decide.domains["billing"], percent("5"));
    assert_eq!(snapshot.accept.trusted_proxies.len(), 2);
    assert!(snapshot.accept.debug_headers);
    assert_eq!(snapshot.accept.limits.connections, 7);
    assert_eq!(snapshot.accept.limits.header_timeout.as_secs(), 3);
    assert_eq!(snapshot.forward.timeout.as_millis(), 1500);
    assert_eq!(report.startup.workers, 3);
    let source = |key: &str| &report.provenance.iter().find(|(name, _)| name == key).unwrap().1;
    assert_eq!(source("workers"), "CUTOVER_WORKERS (process environment)");
    assert_eq!(source("listen"), "default");
    assert!(source("rollout.percentage").ends_with("config.toml:11"));
}

#[test]
fn the_defaults_are_those_of_the_design() {
    use crate::decide::{Owner, bucket::Hash};
    use crate::route::Route;
    let report = Home::new(GOOD).check().unwrap();
    let (startup, snapshot) = (report.startup, report.snapshot);
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    assert_eq!(startup.listen.to_string(), "0.0.0.0:8000");
    assert_eq!(startup.admin.to_string(), "127.0.0.1:8001");
    assert!(startup.tls.is_none() && startup.workers > 0 && startup.admin_token.is_none());
    assert_eq!(startup.drain_timeout.as_secs(), 30);
    assert_eq!(startup.realtime_drain.as_secs(), 10);
    assert_eq!(
        (startup.log.json, startup.log.level.as_str(), startup.log.access),
        (false, "info", true)
    );
    assert_eq!(
        (snapshot.decide.salt.as_str(), snapshot.decide.hash),
        ("onasis-core-v2", Hash::Sha256)
    );
    for route in Route::ALL {
        let want = match route {
            Route::Auth | Route::Graphql => Owner::Side(Side::Old),
            _ => Owner::Rollout,
        };
        assert_eq!(snapshot.decide.owners.of(route), want);
    }
    assert_eq!(snapshot.rewrite.compat.as_deref(), Some("public"));
    assert_eq!(snapshot.accept.limits.frame_bytes, 5 * 1024 * 1024);
    assert_eq!(snapshot.identify.user_header, "x-user-id");
}

#[test]
fn warnings_name_what_is_missing_or_without_effect() {
    let home =
        Home::new(&GOOD.replace("anon_key = \"new-anon\"", "")).env("SUPABASE_JWT_SECRET_OLD", "s");
    let warnings =
        home.env("SUPABASE_SERVICE_ROLE_KEY_OLD", "k").check().unwrap().warnings.join("\n");
    for part in [
        "SUPABASE_ANON_KEY_NEW",
        "projects.new.service_role_key is not set",
        "jwt_secret has no effect",
    ] {
        assert!(warnings.contains(part), "{part}: {warnings}");
    }
    let same = Home::new(&GOOD.replace("b.example", "a.example")).check().unwrap().warnings;
    assert_eq!(same, ["projects.old.url and projects.new.url are the same project"]);
}
