//! Every fault names its source, its key, what was found and what is allowed; and no secret.

use super::*;

const LONG: &str = concat!(
    "salt = \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"",
);

/// More lines of the file, and the fault that they must lead to: its key, and pieces of what is found and allowed.
const BAD: &[(&str, &str, &str, &str)] = &[
    ("salt = \"\"", "rollout.salt", "an empty value", "1 to 256 characters"),
    (LONG, "rollout.salt", "xxx…", "1 to 256 characters"),
    ("hash = \"sha1\"", "rollout.hash", "\"sha1\"", "\"sha256\" or \"md5\""),
    ("anonymous = true", "rollout.anonymous", "true", "\"sticky\" or"),
    ("service_role = \"rollout\"", "rollout.service_role", "\"rollout\"", "\"old\" or \"new\""),
    ("force = \"production\"", "rollout.force", "\"production\"", "\"old\" or \"new\""),
    ("allow_reshuffle = \"true\"", "rollout.allow_reshuffle", "\"true\"", "true or false"),
    ("override_token = \"short\"", "rollout.override_token", "not shown", "at least 16"),
    ("override_token = \"with space in it\"", "rollout.override_token", "not shown", "ASCII"),
    (
        "pins = { old = [\"a\"], new = [\"b\", \"a\"] }",
        "rollout.pins.new[1]",
        "rollout.pins.old[0]",
        "one side",
    ),
    ("pins = { old = \"a\" }", "rollout.pins.old", "\"a\"", "a list"),
    ("pins = { left = [] }", "rollout.pins.left", "unknown key", "known key"),
    (
        "rules = [{ claim = \"\", equals = 1, side = \"new\" }]",
        "rollout.rules[0].claim",
        "empty",
        "path",
    ),
    ("rules = [{ claim = \"a\", side = \"new\" }]", "rollout.rules[0].equals", "nothing", "value"),
    (
        "rules = [{ claim = \"a\", equals = 1, side = \"v2\" }]",
        "rollout.rules[0].side",
        "\"v2\"",
        "\"old\"",
    ),
    (
        "rules = [{ claim = \"a\", equals = 1, side = \"new\", x = 1 }]",
        "rollout.rules[0].x",
        "unknown",
        "claim",
    ),
    ("domains = { billing = 5 }", "rollout.domains.billing", "does not name", "the map is empty"),
    ("domains = { a = 101 }\n[schema.tables]\nt = \"a\"", "rollout.domains.a", "101", "0 to 100"),
    (
        "hash = \"md5\"\n[rollout.domains]\na = 1.5\n[schema.tables]\nt = \"a\"",
        "rollout.domains.a",
        "1.5",
        "whole",
    ),
    ("on_new_unavailable = \"old\"", "rollout.on_new_unavailable", "\"old\"", "\"old_for_reads\""),
    ("env_file = \"none.env\"", "rollout.env_file", "No such file", "readable file"),
    ("watch_dir = \"none\"", "rollout.watch_dir", "No such file", "readable directory"),
    ("percentag = 5", "rollout.percentag", "unknown key", "did you mean rollout.percentage?"),
    ("[rolout]\nsalt = \"x\"", "rolout", "unknown key", "listed in docs/configuration.md"),
    ("[cors]\ncredentials = true", "cors.credentials", "any", "listed cors.origins"),
    ("[cors]\norigins = [\"*\"]", "cors.origins[0]", "\"*\"", "[] = any"),
    ("[cors]\norigins = [\"https://a.b/\"]", "cors.origins[0]", "https://a.b/", "as browsers send"),
    ("[routes]\nauth = \"rollout\"", "routes.auth", "\"rollout\"", "refresh tokens"),
    ("[routes]\nstorage = \"both\"", "routes.storage", "\"both\"", "\"rollout\" or"),
    ("[tokens]\nmode = \"mixed\"", "tokens.mode", "\"mixed\"", "\"exchange\""),
    ("[storage.buckets]\n\"a/b\" = \"c\"", "storage.buckets.a/b", "\"a/b\"", "bucket's name"),
    ("[storage.buckets]\na = \"b/../c\"", "storage.buckets.a", "b/../c", "bucket's name"),
    (
        "[storage.buckets]\na = \"x/f\"\nb = \"x/f\"",
        "storage.buckets",
        "a and b both lead to x/f",
        "both ways",
    ),
    (
        "[storage.buckets]\na = \"b\"\nb = \"c\"",
        "storage.buckets",
        "b is a bucket of old",
        "both ways",
    ),
    (
        "[storage]\nbuckets = { a = \"b\" }\nowners = { a = \"old\", b = \"new\" }",
        "storage.owners.a",
        "its name on new, b, has new",
        "one owner",
    ),
    ("[storage.owners]\na = \"both\"", "storage.owners.a", "\"both\"", "\"old\" or \"new\""),
    ("[functions.names]\na = \"b//c\"", "functions.names.a", "b//c", "segments"),
    (
        "[schema]\ncompat = \"\"\ncross_schema_embeds = \"compat\"",
        "schema.cross_schema_embeds",
        "\"compat\"",
        "while schema.compat is empty",
    ),
    ("[schema]\nlegacy = \"\"", "schema.legacy", "empty", "a name"),
    ("[schema.tables]\n\"a b\" = \"x\"", "schema.tables.a b", "\"a b\"", "a name"),
    ("[schema.tables]\n\"*\" = \"x\"", "schema.tables.*", "\"*\"", "prefix"),
    ("[schema.tables]\na = \"x.y.z\"", "schema.tables.a", "\"x.y.z\"", "schema.name"),
    ("[schema.tables]\na = { canonical = true }", "schema.tables.a.to", "nothing", "schema"),
    ("[schema.functions]\na = 5", "schema.functions.a", "5", "schema.name"),
    ("[identity]\nsources = []", "identity.sources", "empty list", "at least one"),
    ("[identity]\nsources = [\"token\"]", "identity.sources[0]", "\"token\"", "cookie:NAME"),
    ("[identity]\nsources = [\"header:a b\"]", "identity.sources[0]", "header:a b", "header:NAME"),
    ("[identity]\nuser_header = \"x user\"", "identity.user_header", "x user", "header"),
    ("[admin]\nlisten = \"0.0.0.0:8001\"", "admin.token", "nothing", "CUTOVER_ADMIN_TOKEN"),
    (
        "[admin]\nlisten = \"127.0.0.1:8000\"",
        "admin.listen",
        "listen is 0.0.0.0:8000",
        "of its own",
    ),
    ("[admin]\nlisten = \"8001\"", "admin.listen", "\"8001\"", "address and port"),
    ("[tls]\nlisten = \"0.0.0.0:8443\"\ncert = \"c\"", "tls.key", "nothing", "all of"),
    ("[log]\nlevel = \"=loud=\"", "log.level", "=loud=", "debug"),
    ("[keys]\nunknown = \"guess\"", "keys.unknown", "\"guess\"", "\"refuse\" or \"pass\""),
    ("[limits]\nconnections = \"10\"", "limits.connections", "\"10\"", "whole number from 1"),
    ("[limits]\nheader_timeout = 1.5", "limits.header_timeout", "1.5", "\"30s\""),
    ("[limits]\nheader_timeout = \"10 s\"", "limits.header_timeout", "\"10 s\"", "\"30s\""),
    ("[limits]\nheader_timeout = \"10\"", "limits.header_timeout", "\"10\"", "ms, s, m or h"),
    ("[limits]\nheader_timeout = \"18446744073709551615h\"", "limits.header_timeout", "h\"", "10m"),
    ("[projects.old.more]\nx = 1", "projects.old.more", "unknown key", "known key"),
    ("x = 1\n[limits.connections]\n", "limits.connections", "a table", "whole number"),
];

#[test]
fn bad_values_are_named() {
    for (more, key, found, allowed) in BAD {
        let faults = Home::with(more).check().expect_err(more);
        let fault = faults.0.iter().find(|fault| fault.key == *key);
        let fault = fault.unwrap_or_else(|| panic!("{more}: {key} in {faults}"));
        assert!(fault.source.contains("config.toml"), "{more}: {fault}");
        assert!(fault.found.contains(found), "{more}: {fault}");
        assert!(fault.allowed.contains(allowed), "{more}: {fault}");
    }
}

#[test]
fn a_percentage_is_refused_in_every_layer() {
    for (bad, toml) in [
        ("abc", "\"abc\""),
        ("-1", "-1"),
        ("101", "101"),
        ("NaN", "nan"),
        ("", "\"\""),
        ("0.001", "0.001"),
        ("1e1", "\"1e1\""),
    ] {
        let number = GOOD.replace("= 10 ", &format!("= {toml} "));
        let file = Home::new(&number).faults();
        assert!(file.starts_with("config.toml:11: rollout.percentage: found "), "{file}");

        let env = Home::new(GOOD).env("V2_ROLLOUT_PERCENTAGE", bad).faults();
        assert!(
            env.starts_with(
                "V2_ROLLOUT_PERCENTAGE (process environment): rollout.percentage: found"
            ),
            "{env}"
        );
        let env = Home::new(GOOD).env("CUTOVER_ROLLOUT__PERCENTAGE", bad).faults();
        assert!(env.starts_with("CUTOVER_ROLLOUT__PERCENTAGE (process environment)"), "{env}");

        let home = Home::with("env_file = \"cutover.env\"");
        home.write("cutover.env", &format!("# x\nV2_ROLLOUT_PERCENTAGE={bad}\n"));
        let faults = home.faults();
        assert!(
            faults.starts_with(
                "env file cutover.env:2 (V2_ROLLOUT_PERCENTAGE): rollout.percentage: found"
            ),
            "{faults}"
        );

        let home = Home::with("watch_dir = \"live\"");
        home.write("live/V2_ROLLOUT_PERCENTAGE", &format!("{bad}\n"));
        let faults = home.faults();
        assert!(
            faults.starts_with("live/V2_ROLLOUT_PERCENTAGE: rollout.percentage: found"),
            "{faults}"
        );
        assert!(
            faults.ends_with("allowed: a number from 0 to 100 with at most two decimals"),
            "{faults}"
        );
    }
}

#[test]
fn a_bad_value_is_refused_even_where_a_later_layer_hides_it() {
    let faults =
        Home::new(&GOOD.replace("= 10 ", "= 500 ")).env("V2_ROLLOUT_PERCENTAGE", "5").faults();
    assert!(faults.contains("config.toml:11: rollout.percentage: found 500"), "{faults}");
}

#[test]
fn the_edges_of_every_range_hold() {
    use crate::config::keys::{KEYS, Kind, duration_text};
    for key in KEYS {
        let (min, max, unit) = match key.kind {
            Kind::Integer { min, max } => (min, max, ""),
            Kind::Duration { min, max } => (min, max, "ms"),
            _ => continue,
        };
        let variable = crate::config::variables::preferred_name(key.name);
        let tried =
            |n: u64| Home::new(GOOD).env(&variable, &format!("{n}{unit}")).check().map(|_| ());
        assert_eq!(tried(min), Ok(()), "{}", key.name);
        assert_eq!(tried(max), Ok(()), "{}", key.name);
        let fault = tried(max + 1).unwrap_err().to_string();
        let shown = if unit.is_empty() { max.to_string() } else { duration_text(max) };
        assert!(fault.contains(key.name) && fault.contains(&shown), "{fault}");
        if min > 0 {
            assert!(tried(min - 1).is_err(), "{}", key.name);
        }
    }
}

#[test]
fn seven_different_faults_are_all_named_at_once() {
    let home = Home::new(
        r#"listen = "nowhere"
[projects.old]
url = "ftp://a.example.com"
[rollout]
percentage = 101
hash = "crc"
salts = "x"
[routes]
auth = "rollout"
"#,
    );
    let faults = home.check().unwrap_err();
    let mut keys: Vec<_> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
    keys.sort_unstable();
    let want = [
        "listen",
        "projects.new.url",
        "projects.old.url",
        "rollout.hash",
        "rollout.percentage",
        "rollout.salts",
        "routes.auth",
    ];
    assert_eq!(keys, want, "{faults}");
}

#[test]
fn broken_toml_is_one_fault_with_its_line_and_without_its_text() {
    let faults = Home::new("[projects.old]\nanon_key = \"hunter2\nurl = 1\n").faults();
    assert!(faults.starts_with("config.toml:2: found invalid basic string"), "{faults}");
    assert!(!faults.contains("hunter2"), "{faults}");
    assert!(Home::new("").faults().contains("config.toml: found an empty file"));
    let missing = Sources { file: Some("/no/such.toml".into()), ..Sources::default() };
    assert!(
        check(&missing).unwrap_err().to_string().starts_with("/no/such.toml: found No such file")
    );
}

#[test]
fn variables_that_name_no_key_are_faults() {
    let faults = Home::new(GOOD).env("CUTOVER_ROLLOUT__PERCENTGE", "5").faults();
    let want = "CUTOVER_ROLLOUT__PERCENTGE (process environment): CUTOVER_ROLLOUT__PERCENTGE: found an unknown variable, \
                allowed: a known key; did you mean rollout.percentage?";
    assert_eq!(faults, want);
    let faults = Home::new(GOOD).env("SUPABASE_ENV", "staging").faults();
    assert!(
        faults.contains("found \"staging\", allowed: \"production\" (old), \"v2\" (new), or empty"),
        "{faults}"
    );
    let twice =
        Home::new(GOOD).env("V2_ROLLOUT_PERCENTAGE", "5").env("CUTOVER_ROLLOUT__PERCENTAGE", "5");
    assert!(twice.faults().contains("one variable for one key"));
    let home = Home::with("env_file = \".env\"");
    home.write(".env", "CUTOVER_ROLLOUT__ENV_FILE=x\nwhat is this\n");
    let faults = home.faults();
    assert!(
        faults.contains("env file .env:1 (CUTOVER_ROLLOUT__ENV_FILE): rollout.env_file"),
        "{faults}"
    );
    assert!(faults.contains("env file .env:2: found a line that sets no variable"), "{faults}");
}

#[test]
fn keys_under_the_wrong_role_are_refused() {
    use base64::Engine as _;
    let payload =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"role":"service_role"}"#);
    let jwt = format!("x.{payload}.hunter2");
    for key in [jwt.as_str(), "sb_secret_hunter2"] {
        let faults = Home::new(&GOOD.replace("old-anon", key)).faults();
        assert!(
            faults.contains("projects.old.anon_key[0]: found a service role key (not shown)"),
            "{faults}"
        );
        assert!(!faults.contains("hunter2"), "{faults}");
    }
    let twice =
        Home::new(&GOOD.replace("anon_key = \"new-anon\"", "service_role_key = \"old-anon\""))
            .faults();
    assert!(
        twice.contains("the same key is listed as anon_key and as service_role_key"),
        "{twice}"
    );
}

#[test]
fn secrets_are_never_shown() {
    let secret = "hunter2-hunter2-hunter2";
    let home = Home::new(GOOD)
        .env("CUTOVER_ADMIN_TOKEN", secret)
        .env("SUPABASE_SERVICE_ROLE_KEY_OLD", secret)
        .env("SUPABASE_JWT_SECRET_NEW", secret)
        .env("CUTOVER_ROLLOUT__OVERRIDE_TOKEN", secret);
    let report = home.check().unwrap();
    let (control, startup, warnings) = Control::start(home.sources()).unwrap();
    let shown =
        format!("{report:?} {control:?} {startup:?} {warnings:?} {:?}", control.live().load());
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(startup.admin_token.unwrap().expose(), secret);

    let bad = format!("{secret} {secret}");
    for (name, value) in [
        ("CUTOVER_ADMIN_TOKEN", bad.as_str()),
        ("SUPABASE_SERVICE_ROLE_KEY_OLD", &bad),
        ("SUPABASE_SERVICE_ROLE_KEY_OLD", &format!("[\"{secret}\"")),
        ("SUPABASE_ANON_KEY_NEW", &format!("{secret}\n")),
        ("CUTOVER_ROLLOUT__PINS__OLD", &format!("[\"{secret}\", 5")),
        ("SUPABASE_URL_OLD", &format!("https://u:{secret}@h")),
    ] {
        let faults = Home::new(GOOD).env(name, value).faults();
        let pins = name.contains("PINS");
        assert!(pins || !faults.contains("hunter2"), "{name}: {faults}");
    }
    let faults = Home::new(&GOOD.replace("anon_key", "anonkey")).faults();
    assert!(faults.contains("projects.old.anonkey") && !faults.contains("old-anon"), "{faults}");
}

#[test]
fn tls_files_are_looked_at_by_check_and_at_start_and_never_by_a_reload() {
    let home =
        Home::with("[tls]\nlisten = \"127.0.0.1:8443\"\ncert = \"c.pem\"\nkey = \"k.pem\"\n");
    home.write("k.pem", "key");
    let faults = home.faults();
    assert_eq!(faults.lines().count(), 1, "{faults}");
    assert!(faults.contains("tls.cert: found \"c.pem\": No such file"), "{faults}");
    assert!(Control::start(home.sources()).is_err());
    home.write("c.pem", "cert");
    let control = home.start();
    fs::remove_file(home.path("c.pem")).unwrap();
    assert_eq!(control.apply(&set("11")).unwrap().percentage, percent("11"));
}

#[test]
fn a_private_ca_is_read_at_once() {
    let with = |home: Home| home.env("CUTOVER_PROJECTS__NEW__CA", "ca.pem");
    assert!(
        with(Home::new(GOOD)).faults().contains("projects.new.ca: found \"ca.pem\": No such file")
    );
    let home = with(Home::new(GOOD));
    home.write("ca.pem", "hello");
    assert!(home.faults().contains("which holds no certificate"));
    let pem = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
    home.write("ca.pem", &pem);
    assert_eq!(
        home.check().unwrap().snapshot.forward.projects.new.ca_pem.as_deref(),
        Some(pem.as_str())
    );
}

/// A longer claim of a token is not kept, so a rule that asks for one would never match.
#[test]
fn a_rules_value_is_bounded_and_the_bound_is_allowed() {
    let rule = |length: usize| {
        let value = "x".repeat(length - 2);
        GOOD.replace(
            "[rollout]",
            &format!(
                "[rollout]\nrules = [{{ claim = \"a\", equals = \"{value}\", side = \"new\" }}]"
            ),
        )
    };
    assert!(check(&Home::new(&rule(1024)).sources()).is_ok());
    let faults = check(&Home::new(&rule(1025)).sources()).unwrap_err().0;
    assert!(
        faults[0].key.starts_with("rollout.rules") && faults[0].key.ends_with(".equals"),
        "{faults:?}"
    );
    assert!(faults[0].allowed.contains("1024"), "{faults:?}");
}
