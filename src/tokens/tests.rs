//! Tables and properties over tokens and keys of all kinds.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cache::{Answer, ENTRY_BYTES, ExchangeCache};
use super::jwk::{KeyFault, MOST_KEYS, published_keys, signing_key};
use super::key::Algorithm;
use super::*;
use crate::side::Side;

const NOW: u64 = 1_800_000_000;
const OLD_SECRET: &str = "the old secret, at least thirty-two bytes";
const NEW_SECRET: &str = "the new secret, at least thirty-two bytes";
const OLD_ES: &str = include_str!("../../tests/it/fixtures/old-es256.jwk");
const NEW_ES: &str = include_str!("../../tests/it/fixtures/new-es256.jwk");
const OLD_RS: &str = include_str!("../../tests/it/fixtures/old-rs256.jwk");
const NEW_RS: &str = include_str!("../../tests/it/fixtures/new-rs256.jwk");
const SMALL_RS: &str = include_str!("../../tests/it/fixtures/small-rs256.jwk");

fn oct(secret: &str, kid: &str) -> String {
    json!({"kty": "oct", "kid": kid, "alg": "HS256", "k": URL_SAFE_NO_PAD.encode(secret)})
        .to_string()
}

fn project(side: Side, secret: Option<&str>, key: Option<&str>) -> Project {
    let (secret, key) = (secret.map(Secret::new), key.map(Secret::new));
    let url = format!("https://{side}/jwks");
    Project::new(secret.as_ref(), key.as_ref(), &format!("https://{side}/auth/v1"), &url).unwrap()
}

/// What a project can be given.
type Given<'a> = (Option<&'a str>, Option<&'a str>);

fn settings(old: Given<'_>, new: Given<'_>) -> Settings {
    Settings {
        mode: Mode::Exchange,
        cache_entries: 100,
        projects: Pair {
            old: project(Side::Old, old.0, old.1),
            new: project(Side::New, new.0, new.1),
        },
        ..Settings::default()
    }
}

/// The public half of private JWKs, as a project publishes it.
fn jwks(keys: &[&str]) -> String {
    let public = |key: &&str| {
        let mut key: Value = serde_json::from_str(key).unwrap();
        for part in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            key.as_object_mut().unwrap().remove(part);
        }
        key
    };
    json!({ "keys": keys.iter().map(public).collect::<Vec<_>>() }).to_string()
}

fn published(side: Side, set: &str) -> Published {
    let keys = published_keys(set.as_bytes()).unwrap();
    let mut published = Published { version: 1, ..Published::default() };
    let fetched = Fetched { url: format!("https://{side}/jwks"), keys };
    published.sides[side] = Some(Arc::new(fetched));
    published
}

fn claims(side: Side) -> Value {
    json!({
        "iss": format!("https://{side}/auth/v1"), "sub": "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11",
        "aud": "authenticated", "exp": NOW + 3600, "iat": NOW - 60, "email": "ada@example.com",
        "app_metadata": {"provider": "email", "providers": ["email"]}, "role": "authenticated",
        "aal": "aal2", "session_id": "7a1d1b0e-6a77-4b7d-a2cc-3b7c6d2f8a55", "is_anonymous": false
    })
}

fn signed(key: &SigningKey, claims: &Value) -> String {
    key.sign(claims.to_string().as_bytes()).unwrap()
}

fn part(token: &str, n: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap()).unwrap())
        .unwrap()
}

fn none() -> Published {
    Published::default()
}

fn instead(verdict: Verdict) -> String {
    match verdict {
        Verdict::Signed { token, .. } => token.expose().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn trap_02_and_35_every_pair_of_keys_signs_again_with_the_same_claims() {
    let (es, rs) = (signing_key(OLD_ES).unwrap(), signing_key(OLD_RS).unwrap());
    let secret = SigningKey::legacy(OLD_SECRET);
    let old_set = published(Side::Old, &jwks(&[OLD_ES, OLD_RS]));
    let oct = oct(NEW_SECRET, "new-oct");
    for issuer in [&es, &rs, &secret] {
        for (given, kid, alg) in [
            ((Some(NEW_SECRET), None), Value::Null, "HS256"),
            ((None, Some(NEW_ES)), json!("new-es256"), "ES256"),
            ((Some(NEW_SECRET), Some(NEW_RS)), json!("new-rs256"), "RS256"),
            ((None, Some(oct.as_str())), json!("new-oct"), "HS256"),
        ] {
            let settings = settings((Some(OLD_SECRET), None), given);
            let token = signed(issuer, &claims(Side::Old));
            let made = instead(exchange(&settings, &old_set, &token, Side::New, NOW));
            assert_eq!(part(&made, 0)["alg"], alg);
            assert_eq!(part(&made, 0)["kid"], kid);
            let mut want = claims(Side::Old);
            want["iss"] = json!("https://new/auth/v1");
            assert_eq!(part(&made, 1).to_string(), want.to_string(), "in the same order too");
            let again = exchange(&settings, &old_set, &made, Side::New, NOW);
            assert_eq!(again, Verdict::Accepted { until: NOW + 3600 }, "{issuer:?} to {alg}");
            let own = exchange(&settings, &old_set, &token, Side::Old, NOW);
            assert_eq!(own, Verdict::Accepted { until: NOW + 3600 }, "its own side");
        }
    }
}

#[test]
fn trap_35_no_time_is_extended_or_added_and_iat_is_not_in_the_future() {
    let settings = settings((Some(OLD_SECRET), None), (Some(NEW_SECRET), None));
    let key = SigningKey::legacy(OLD_SECRET);
    for (given, want) in [
        (json!({"sub": "a"}), json!({"sub": "a"})),
        (json!({"exp": NOW - 20, "sub": "a"}), json!({"exp": NOW - 20, "sub": "a"})),
        (json!({"iat": NOW + 3000, "sub": "a"}), json!({"iat": NOW, "sub": "a"})),
        (json!({"iat": NOW - 3000, "sub": "a"}), json!({"iat": NOW - 3000, "sub": "a"})),
        (
            json!({"nbf": NOW + 20, "exp": NOW, "sub": "a"}),
            json!({"nbf": NOW + 20, "exp": NOW, "sub": "a"}),
        ),
    ] {
        let made = exchange(&settings, &none(), &signed(&key, &given), Side::New, NOW);
        let mut made = part(&instead(made), 1);
        assert_eq!(made.as_object_mut().unwrap().remove("iss").unwrap(), "https://new/auth/v1");
        assert_eq!(made, want);
    }
}

#[test]
fn trap_34_the_same_bytes_under_another_kid_are_signed_again() {
    let same = OLD_SECRET;
    let (old_oct, new_oct) = (oct(same, "old-kid"), oct(same, "new-kid"));
    let token = signed(&signing_key(&old_oct).unwrap(), &claims(Side::Old));
    // The new side knows these bytes under another name, or under none.
    for (given, kid) in
        [((None, Some(new_oct.as_str())), json!("new-kid")), ((Some(same), None), Value::Null)]
    {
        for old in [(None, Some(old_oct.as_str())), (Some(same), None)] {
            let settings = settings(old, given);
            let made = instead(exchange(&settings, &none(), &token, Side::New, NOW));
            assert_eq!(part(&made, 0)["kid"], kid);
            let own = exchange(&settings, &none(), &token, Side::Old, NOW);
            assert_eq!(own, Verdict::Accepted { until: NOW + 3600 });
        }
    }
}

#[test]
fn a_kid_chooses_the_key_and_a_key_its_algorithm() {
    let set = published(Side::Old, &jwks(&[OLD_ES]));
    let settings = settings((Some(OLD_SECRET), None), (Some(NEW_SECRET), None));
    let forged = |header: Value, key: &dyn Fn(&[u8]) -> Vec<u8>| {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let claims = claims(Side::Old).to_string();
        let message =
            format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.as_bytes()));
        let signature = encode(&key(message.as_bytes()));
        format!("{message}.{signature}")
    };
    let hmac = |secret: Vec<u8>| {
        move |message: &[u8]| {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
            aws_lc_rs::hmac::sign(&key, message).as_ref().to_vec()
        }
    };
    let jwk: Value = serde_json::from_str(OLD_ES).unwrap();
    let half = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let public = [vec![4], half("x"), half("y")].concat();
    for (what, token) in [
        ("none", forged(json!({"alg": "none"}), &|_| Vec::new())),
        ("none, in capitals", forged(json!({"alg": "None", "kid": "old-es256"}), &|_| Vec::new())),
        (
            "the public key as a secret",
            forged(json!({"alg": "HS256", "kid": "old-es256"}), &hmac(public.clone())),
        ),
        ("the same without kid", forged(json!({"alg": "HS256"}), &hmac(public))),
        (
            "the secret under the name of another key",
            forged(json!({"alg": "HS256", "kid": "old-es256"}), &hmac(OLD_SECRET.into())),
        ),
        (
            "an empty signature",
            forged(json!({"alg": "ES256", "kid": "old-es256"}), &|_| Vec::new()),
        ),
        ("zeros", forged(json!({"alg": "ES256", "kid": "old-es256"}), &|_| vec![0; 64])),
        (
            "the secret under another algorithm",
            forged(json!({"alg": "ES256"}), &hmac(OLD_SECRET.into())),
        ),
        ("an empty secret", forged(json!({"alg": "HS256"}), &hmac(Vec::new()))),
        ("a secret beside it", forged(json!({"alg": "HS256"}), &hmac(b"guessed".to_vec()))),
    ] {
        for side in Side::ALL {
            assert_eq!(exchange(&settings, &set, &token, side, NOW), Verdict::Unproven, "{what}");
        }
    }
}

#[test]
fn what_can_not_be_verified_stays_as_it_is() {
    let settings = settings((Some(OLD_SECRET), None), (Some(NEW_SECRET), None));
    let key = SigningKey::legacy(OLD_SECRET);
    let good = signed(&key, &claims(Side::Old));
    let verdict = |token: &str| exchange(&settings, &none(), token, Side::New, NOW);
    assert!(matches!(verdict(&good), Verdict::Signed { .. }));
    let with = |name: &str, value: Value| {
        let mut claims = claims(Side::Old);
        claims[name] = value;
        signed(&key, &claims)
    };
    let mut parts: Vec<&str> = good.split('.').collect();
    let other = with("role", json!("service_role"));
    parts[1] = other.split('.').nth(1).unwrap();
    for token in [
        parts.join("."),
        with("exp", json!(NOW - LEEWAY - 1)),
        with("exp", json!("never")),
        with("exp", Value::Null),
        with("nbf", json!(NOW + LEEWAY + 1)),
        signed(&SigningKey::legacy("somebody else's secret"), &claims(Side::Old)),
        key.sign(br#"{"sub":"a","sub":"b"}"#).unwrap(),
        key.sign(b"[]").unwrap(),
        key.sign(b"").unwrap(),
        format!("{good}A"),
        format!("{good} "),
        with("pad", json!("x".repeat(LONGEST_TOKEN))),
        String::new(),
        "opaque".into(),
    ] {
        assert_eq!(verdict(&token), Verdict::Unproven, "{token:.60}");
    }
}

#[test]
fn a_role_is_neither_gained_nor_lost() {
    let settings = settings((Some(OLD_SECRET), None), (None, Some(NEW_ES)));
    for role in ["service_role", "anon", "authenticated", "custom"] {
        let token = signed(&SigningKey::legacy(OLD_SECRET), &json!({ "role": role, "sub": "a" }));
        let made = instead(exchange(&settings, &none(), &token, Side::New, NOW));
        assert_eq!(part(&made, 1)["role"], role);
    }
}

#[test]
fn trap_03_what_a_project_signs_besides_users_tokens_is_worth_nothing_on_the_other_side() {
    let settings = settings((Some(OLD_SECRET), None), (Some(NEW_SECRET), None));
    let verdict = |claims: &Value, side| {
        let token = signed(&SigningKey::legacy(OLD_SECRET), claims);
        exchange(&settings, &none(), &token, side, NOW)
    };
    for claims in [
        json!({ "role": "service_role", "iss": "supabase", "ref": "old", "exp": NOW + 60 }),
        json!({ "role": "service_role", "sub": "", "exp": NOW + 60 }),
        json!({ "role": ["service_role"], "sub": null, "exp": NOW + 60 }),
        json!({ "url": "avatars/x.png", "scope": "download", "exp": NOW + 60 }),
        json!({ "exp": NOW + 60 }),
    ] {
        assert_eq!(verdict(&claims, Side::New), Verdict::Unproven, "{claims}");
        assert_eq!(verdict(&claims, Side::Old), Verdict::Accepted { until: NOW + 60 }, "{claims}");
    }
    for claims in [json!({ "role": "robot" }), json!({ "role": "anon" }), json!({ "sub": "ada" })] {
        assert!(matches!(verdict(&claims, Side::New), Verdict::Signed { .. }), "{claims}");
    }
}

#[test]
fn each_direction_works_if_one_can_be_verified_and_the_other_signed_for() {
    let settings = settings((None, None), (Some(NEW_SECRET), None));
    let set = published(Side::Old, &jwks(&[OLD_ES]));
    let from_old = signed(&signing_key(OLD_ES).unwrap(), &claims(Side::Old));
    let from_new = signed(&SigningKey::legacy(NEW_SECRET), &claims(Side::New));
    let verdict = |token: &str, side| exchange(&settings, &set, token, side, NOW);
    assert!(matches!(verdict(&from_old, Side::New), Verdict::Signed { .. }));
    assert_eq!(verdict(&from_new, Side::Old), Verdict::Unproven, "nothing signs for old");
    let shared = Settings { mode: Mode::Shared, ..settings };
    assert_eq!(exchange(&shared, &set, &from_old, Side::New, NOW), Verdict::Unproven);
}

#[test]
fn an_unknown_kid_asks_the_side_that_may_have_published_it() {
    let settings = settings((None, None), (Some(NEW_SECRET), None));
    let es = signing_key(OLD_ES).unwrap();
    let (from_old, from_new) = (signed(&es, &claims(Side::Old)), signed(&es, &claims(Side::New)));
    let from_elsewhere = signed(&es, &json!({"sub": "a"}));
    let (old, new) = (Pair { old: true, new: false }, Pair { old: false, new: true });
    let both = Pair { old: true, new: true };
    for (token, want) in [(&from_old, old), (&from_new, new), (&from_elsewhere, both)] {
        assert_eq!(exchange(&settings, &none(), token, Side::New, NOW), Verdict::UnknownKey);
        assert_eq!(needed_keys(&settings, &none(), token, NOW), want);
    }
    let known = published(Side::Old, &jwks(&[OLD_ES]));
    assert_eq!(needed_keys(&settings, &known, &from_old, NOW), Pair::default());
    let others = published(Side::Old, &jwks(&[OLD_RS]));
    assert_eq!(needed_keys(&settings, &others, &from_old, NOW), old);
    // Keys of an address that the settings no longer name are nobody's.
    let mut moved = settings.clone();
    moved.projects.old.jwks_url = "https://elsewhere/jwks".into();
    assert_eq!(needed_keys(&moved, &known, &from_old, NOW), old);
    let symmetric = signed(&signing_key(&oct(OLD_SECRET, "x")).unwrap(), &claims(Side::Old));
    assert_eq!(needed_keys(&settings, &none(), &symmetric, NOW), Pair::default());
    let mut late = claims(Side::Old);
    late["exp"] = json!(NOW - 3600);
    assert_eq!(needed_keys(&settings, &none(), &signed(&es, &late), NOW), Pair::default());
}

#[test]
fn private_keys_are_read_or_refused_with_the_reason() {
    for (text, algorithm) in
        [(OLD_ES, Algorithm::Es256), (NEW_RS, Algorithm::Rs256), (&oct("x", ""), Algorithm::Hs256)]
    {
        let key = signing_key(text).unwrap();
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(key.verifying().unwrap().algorithm(), algorithm);
    }
    let edited = |text: &str, name: &str, value: Value| {
        let mut key: Value = serde_json::from_str(text).unwrap();
        key[name] = value;
        key.to_string()
    };
    let other: Value = serde_json::from_str(NEW_ES).unwrap();
    for (text, want) in [
        (String::new(), KeyFault::NotAJwk),
        ("-----BEGIN PRIVATE KEY-----".into(), KeyFault::NotAJwk),
        (r#"{"keys":[]}"#.into(), KeyFault::NotAJwk),
        (edited(OLD_ES, "crv", json!("P-384")), KeyFault::OtherKind),
        (edited(OLD_ES, "alg", json!("ES384")), KeyFault::OtherKind),
        (edited(OLD_RS, "alg", json!("PS256")), KeyFault::OtherKind),
        (edited(OLD_ES, "use", json!("enc")), KeyFault::OtherKind),
        (edited(OLD_ES, "kty", json!("OKP")), KeyFault::OtherKind),
        (edited(OLD_ES, "kid", Value::Null), KeyFault::NoKid),
        (edited(OLD_RS, "kid", json!("")), KeyFault::NoKid),
        (edited(OLD_ES, "d", Value::Null), KeyFault::PublicOnly),
        (edited(OLD_ES, "d", json!("AAAA")), KeyFault::Broken),
        (edited(OLD_ES, "d", other["d"].clone()), KeyFault::Broken),
        (edited(OLD_RS, "p", json!("AAAA")), KeyFault::Broken),
        (edited(OLD_RS, "qi", Value::Null), KeyFault::Broken),
        (SMALL_RS.into(), KeyFault::Broken),
        (edited(&oct("x", "k"), "k", json!("")), KeyFault::Broken),
    ] {
        let fault = signing_key(&text).unwrap_err();
        assert_eq!(fault, want, "{text:.60}");
        let said = fault.to_string();
        assert!(!said.contains(other["d"].as_str().unwrap()) && !said.contains("AAAA"));
    }
}

#[test]
fn one_odd_key_does_not_cost_the_set() {
    let mut set: Value = serde_json::from_str(&jwks(&[OLD_ES, OLD_RS])).unwrap();
    let odd = [
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "ed"}),
        json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(OLD_SECRET), "kid": "public secret"}),
        json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "off"}),
        json!({"kty": 7}),
        json!("text"),
        json!(null),
        serde_json::from_str(SMALL_RS).unwrap(),
    ];
    let keys = set["keys"].as_array_mut().unwrap();
    keys.splice(1..1, odd);
    let kids: Vec<_> = published_keys(set.to_string().as_bytes()).unwrap();
    let kids: Vec<_> = kids.iter().map(|key| key.kid().unwrap()).collect();
    assert_eq!(kids, ["old-es256", "old-rs256"]);
    for nonsense in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>", r#"{"keys":[}"#] {
        assert!(published_keys(nonsense.as_bytes()).is_none(), "{nonsense}");
    }
    assert_eq!(published_keys(br#"{"keys":[]}"#).unwrap(), []);
    let many = vec![OLD_ES; MOST_KEYS + 5];
    assert_eq!(published_keys(jwks(&many).as_bytes()).unwrap().len(), MOST_KEYS);
}

#[test]
fn no_key_is_seen_in_a_debug() {
    let oct = oct(OLD_SECRET, "o");
    let settings = settings((Some(OLD_SECRET), Some(OLD_ES)), (Some(NEW_SECRET), Some(NEW_RS)));
    let shown = format!("{settings:?} {:?}", signing_key(&oct).unwrap());
    for secret in [OLD_SECRET, NEW_SECRET, &URL_SAFE_NO_PAD.encode(OLD_SECRET)] {
        assert!(!shown.contains(secret), "{shown}");
    }
    for text in [OLD_ES, NEW_RS] {
        let key: Value = serde_json::from_str(text).unwrap();
        for part in ["d", "p", "q", "dp", "dq", "qi", "x", "n"] {
            if let Some(part) = key[part].as_str() {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }
    assert!(shown.contains("old-es256") && shown.contains("new-rs256"), "{shown}");
}

#[test]
fn the_cache_is_bounded_and_forgets_at_the_end_and_with_every_change() {
    let cache = ExchangeCache::default();
    let mut settings = settings((Some(OLD_SECRET), None), (Some(NEW_SECRET), None));
    let key = SigningKey::legacy(OLD_SECRET);
    let token = signed(&key, &claims(Side::Old));
    let ask = |settings: &Settings, published: &Published, token: &str, now| {
        cache.answer(settings, published, token, Side::New, now)
    };
    let Answer::Instead(first) = ask(&settings, &none(), &token, NOW) else { panic!() };
    let shown = format!("{cache:?} {first:?}");
    assert!(!shown.contains(&token) && !shown.contains(first.expose()), "{shown}");
    assert_eq!(ask(&settings, &none(), &token, NOW + 1), Answer::Instead(first));
    assert_eq!(cache.len(), (1, 0));
    assert_eq!(cache.answer(&settings, &none(), &token, Side::Old, NOW), Answer::Untouched);
    assert_eq!(cache.len(), (2, 0), "each side apart");
    let late = NOW + 3600 + LEEWAY + 1;
    assert_eq!(ask(&settings, &none(), &token, late), Answer::Unproven, "expired");
    assert!(matches!(ask(&settings, &none(), &token, NOW + 3600), Answer::Instead(_)));
    // A clock that ran a day ahead and was set right again: what was judged meanwhile is judged again.
    let mut another = claims(Side::Old);
    another["sub"] = json!("met while the clock was wrong");
    let another = signed(&key, &another);
    assert_eq!(ask(&settings, &none(), &another, NOW + 86_400), Answer::Unproven);
    assert!(matches!(ask(&settings, &none(), &another, NOW), Answer::Instead(_)));

    let newer = Published { version: 1, ..none() };
    let _answer = ask(&settings, &newer, &token, NOW);
    assert_eq!(cache.len(), (1, 0), "other keys");
    settings.projects.new = project(Side::New, Some("another secret of thirty-two bytes!"), None);
    let Answer::Instead(other) = ask(&settings, &newer, &token, NOW) else { panic!() };
    assert!(!key.verifying().unwrap().verifies(b"", other.expose().as_bytes()));
    assert_eq!(cache.len(), (1, 0), "other settings");

    for n in 0..1000 {
        let mut claims = claims(Side::Old);
        claims["sub"] = json!(format!("user-{n}"));
        let _answer = ask(&settings, &newer, &signed(&key, &claims), NOW);
        let forged = signed(&SigningKey::legacy("guessed"), &claims);
        assert_eq!(ask(&settings, &newer, &forged, NOW), Answer::Unproven);
    }
    let (proven, unproven) = cache.len();
    assert!((1..=100).contains(&proven) && (1..=13).contains(&unproven), "{:?}", cache.len());
    let large = ExchangeCache::default();
    for n in 0..1000 {
        let mut claims = claims(Side::Old);
        claims["pad"] = json!(format!("{n}{}", "x".repeat(2 * ENTRY_BYTES)));
        let token = signed(&key, &claims);
        let _answer = large.answer(&settings, &newer, &token, Side::New, NOW);
    }
    assert!((1..=20).contains(&large.len().0), "they take more room: {:?}", large.len());

    settings.cache_entries = 0;
    for _ in 0..3 {
        assert!(matches!(ask(&settings, &newer, &token, NOW), Answer::Instead(_)));
    }
    assert_eq!(cache.len(), (0, 0));
}

#[test]
fn an_unknown_kid_is_asked_again_once_keys_came() {
    let cache = ExchangeCache::default();
    let settings = settings((None, None), (Some(NEW_SECRET), None));
    let token = signed(&signing_key(OLD_ES).unwrap(), &claims(Side::Old));
    let ask = |published: &Published| cache.answer(&settings, published, &token, Side::New, NOW);
    assert_eq!(ask(&none()), Answer::Needed);
    assert_eq!(cache.len(), (0, 0));
    assert!(matches!(ask(&published(Side::Old, &jwks(&[OLD_ES]))), Answer::Instead(_)));
}

#[test]
fn the_fuzzers_laws_hold_for_what_it_would_find_first() {
    let token = signed(&SigningKey::legacy(OLD_SECRET), &claims(Side::Old));
    let made =
        [token.as_str(), OLD_ES, OLD_RS, "{}", "{\"iat\":1e400}", "{\"a\":1,\"a\":2}", "\u{0}"];
    for text in
        made.iter().chain(&[jwks(&[OLD_ES]).as_str(), claims(Side::Old).to_string().as_str()])
    {
        assert_eq!(fuzz::laws(text.as_bytes()), Ok(()), "{text:.60}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_break_a_law(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert_eq!(fuzz::laws(&bytes), Ok(()));
    }

    #[test]
    fn no_parts_break_a_law(header in any_json(), claims in any_json(), tail in ".{0,10}") {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let token = format!("{}.{}.{tail}", encode(&header), encode(&claims));
        prop_assert_eq!(fuzz::laws(token.as_bytes()), Ok(()));
    }

    #[test]
    fn any_claims_survive(extra in prop::collection::btree_map("[a-z_]{1,8}x", any_json(), 0..8)) {
        let settings = settings((Some(OLD_SECRET), None), (None, Some(NEW_ES)));
        let mut all = claims(Side::Old);
        all.as_object_mut().unwrap().extend(extra);
        let token = signed(&SigningKey::legacy(OLD_SECRET), &all);
        let made = instead(exchange(&settings, &none(), &token, Side::New, NOW));
        all["iss"] = json!("https://new/auth/v1");
        let written = URL_SAFE_NO_PAD.decode(made.split('.').nth(1).unwrap()).unwrap();
        prop_assert_eq!(String::from_utf8(written).unwrap(), all.to_string(), "byte for byte");
        let again = exchange(&settings, &none(), &made, Side::New, NOW);
        prop_assert_eq!(again, Verdict::Accepted { until: NOW + 3600 });
    }

    #[test]
    fn what_a_key_signs_it_verifies_and_no_other_does(claims in prop::collection::vec(any::<u8>(), 0..200)) {
        for (mine, other) in [(OLD_ES, NEW_ES), (OLD_RS, NEW_RS)] {
            let token = signing_key(mine).unwrap().sign(&claims).unwrap();
            let jwt = jwt::Jwt::read(&token).unwrap();
            prop_assert!(jwt.is_signed_by(&signing_key(mine).unwrap().verifying().unwrap()));
            prop_assert!(!jwt.is_signed_by(&signing_key(other).unwrap().verifying().unwrap()));
        }
    }
}
