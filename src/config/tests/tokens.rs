//! Keys of the exchange: what is refused, what is warned of, and in which words.

use super::*;

const ES: &str = include_str!("../../../tests/it/fixtures/new-es256.jwk");
const LONG: &str = "thirty-two bytes and some more of them";

/// Projects with more keys, and tokens exchanged between them.
fn exchange(old: &str, new: &str) -> Home {
    let text = GOOD
        .replace("anon_key = \"old-anon\"", &format!("anon_key = \"old-anon\"\n{old}"))
        .replace("anon_key = \"new-anon\"", &format!("anon_key = \"new-anon\"\n{new}"));
    Home::new(&format!("{text}\n[tokens]\nmode = \"exchange\"\n"))
}

fn key(jwk: &str) -> String {
    format!("signing_key = '{}'", jwk.trim())
}

fn secret(text: &str) -> String {
    format!("jwt_secret = {text:?}")
}

#[test]
fn the_other_project_has_to_be_signed_for() {
    let faults = exchange(&secret(LONG), "").faults();
    for part in [
        "config.toml:",
        "projects.new.signing_key: found nothing",
        "projects.new.signing_key or projects.new.jwt_secret",
        "users sign in at old (routes.auth)",
    ] {
        assert!(faults.contains(part), "{part}: {faults}");
    }
    let other = exchange("", &secret(LONG));
    let with_new = other.read("config.toml") + "[routes]\nauth = \"new\"\n";
    assert!(Home::new(&with_new).faults().contains("projects.old.signing_key: found nothing"));
    for good in [secret(LONG), key(ES)] {
        assert_eq!(exchange(&secret(LONG), &good).check().unwrap().warnings, [""; 0]);
    }
}

#[test]
fn a_key_that_can_not_sign_is_named_and_not_shown() {
    let part = |name: &str| {
        let key: serde_json::Value = serde_json::from_str(ES).unwrap();
        key[name].as_str().unwrap().to_owned()
    };
    let without_kid = ES.replace("\"kid\":\"new-es256\",", "");
    assert_ne!(without_kid, ES);
    for (bad, found) in [
        (key("hunter2"), "no JWK (not shown)"),
        (key(&ES.replace("\"d\":", "\"was_d\":")), "without its private part (not shown)"),
        (key(&ES.replace("P-256", "P-521")), "of another kind than"),
        (key(&without_kid), "without kid (not shown)"),
        (key(&ES.replace(&part("d"), "AAAA")), "do not make a key (not shown)"),
    ] {
        let faults = exchange(&secret(LONG), &bad).faults();
        for part in ["config.toml:10: projects.new.signing_key", found, "with its kid"] {
            assert!(faults.contains(part), "{part}: {faults}");
        }
        assert!(!faults.contains("hunter2") && !faults.contains(&part("x")), "{faults}");
    }
    let unused = Home::new(&GOOD.replace("[rollout]", "signing_key = \"hunter2\"\n[rollout]"));
    let warnings = unused.check().unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "projects.new.signing_key has no effect with tokens.mode = \"shared\", but for `cutover doctor`"
        ]
    );
}

#[test]
fn weak_secrets_and_one_way_exchanges_are_warned_of() {
    let warnings = exchange(&secret("short"), &key(ES)).check().unwrap().warnings;
    assert_eq!(
        warnings,
        ["projects.old.jwt_secret has fewer than 32 bytes: who has one token can guess it"]
    );
    let warnings = exchange("", &secret(LONG)).check().unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "projects.old has neither signing_key nor jwt_secret: tokens that new issued can't be signed for old, which answers 401 to them"
        ]
    );
}

#[test]
fn names_and_addresses_follow_the_project() {
    let home = exchange(&secret(LONG), &secret(LONG));
    let live = home.start().live().load_full();
    let new = &live.tokens.projects.new;
    assert_eq!(new.issuer, "https://b.example.com/auth/v1");
    assert_eq!(new.jwks_url, "https://b.example.com/auth/v1/.well-known/jwks.json");
    let more = "issuer = \"mine\"\njwks_url = \"https://keys.example.com/set.json\"\n";
    let home = exchange(&secret(LONG), &format!("{}\n{more}", secret(LONG)));
    let other = home.start().live().load_full();
    assert_eq!(other.tokens.projects.new.issuer, "mine");
    assert_eq!(other.tokens.projects.new.jwks_url, "https://keys.example.com/set.json");
    assert_ne!(other.tokens.version(), live.tokens.version());
    home.write(
        "config.toml",
        &home.read("config.toml").replace("percentage = 10", "percentage = 11"),
    );
    assert_eq!(home.start().live().load_full().tokens.version(), other.tokens.version());
    let shown = format!("{live:?} {other:?}");
    assert!(!shown.contains(LONG), "{shown}");
}
