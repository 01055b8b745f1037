use http::HeaderValue;
use serde_json::json;

use super::claims::unsigned_token;
use super::keyring::{ProjectKeys, UnknownKeys};
use super::*;
use crate::secret::Secret;
use crate::side::Pair;

fn keyring() -> Keyring {
    let keys = |anon: &str, service: &str| ProjectKeys {
        anon: vec![Secret::new(anon)],
        service: vec![Secret::new(service)],
    };
    let projects =
        Pair { old: keys("anon-old", "service-old"), new: keys("sb_publishable_n", "sb_secret_n") };
    Keyring::build(&projects, UnknownKeys::Refuse).unwrap()
}

fn settings(sources: Vec<Source>) -> Settings {
    Settings { sources, user_header: HeaderName::from_static("x-user-id"), cache_entries: 10 }
}

fn default_settings() -> Settings {
    settings(vec![Source::Jwt, Source::Header(HeaderName::from_static("x-api-key"))])
}

fn ask(pairs: &[(&'static str, &str)], query: Option<&str>, settings: &Settings) -> Identity {
    let keyring = keyring();
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let credentials = Credentials::of(&headers, query, &keyring);
    identify(&headers, query, &credentials, settings, &keyring, &mut |token| {
        Arc::new(claims::read(token, &claims::Wanted::default()))
    })
}

fn bearer(claims: &Value) -> String {
    format!("Bearer {}", unsigned_token(claims))
}

fn user(key: &str) -> Option<String> {
    Some(key.to_owned())
}

fn key_of(identity: &Identity) -> Option<String> {
    match identity {
        Identity::User(user) => Some(user.key().to_owned()),
        Identity::Service | Identity::Anonymous => None,
    }
}

#[test]
fn a_bearer_tokens_subject_is_the_key_whatever_the_apikey() {
    let ada = bearer(&json!({"sub": "ada", "role": "authenticated"}));
    for apikey in ["anon-old", "sb_publishable_n", "service-old", "stranger"] {
        let identity =
            ask(&[("apikey", apikey), ("authorization", &ada)], None, &default_settings());
        assert_eq!(key_of(&identity), user("ada"), "{apikey}");
    }
}

#[test]
fn an_expired_or_forged_token_still_hashes_by_its_subject() {
    let expired = bearer(&json!({"sub": "ada", "exp": 1}));
    assert_eq!(
        key_of(&ask(&[("authorization", &expired)], None, &default_settings())),
        user("ada")
    );
}

#[test]
fn the_scheme_is_case_insensitive_and_keys_are_nobody() {
    let ada = bearer(&json!({"sub": "ada"})).replace("Bearer", "bearer");
    assert_eq!(key_of(&ask(&[("authorization", &ada)], None, &default_settings())), user("ada"));
    assert_eq!(
        ask(&[("authorization", "Bearer anon-old")], None, &default_settings()),
        Identity::Anonymous
    );
    assert_eq!(ask(&[("x-api-key", "anon-old")], None, &default_settings()), Identity::Anonymous);
    assert_eq!(
        ask(&[("authorization", "Basic YTpi")], None, &default_settings()),
        Identity::Anonymous
    );
}

#[test]
fn a_service_key_without_a_user_is_a_service() {
    for pairs in [
        &[("apikey", "service-old")][..],
        &[("apikey", "sb_secret_n"), ("authorization", "Bearer sb_secret_n")],
        &[("apikey", "anon-old"), ("authorization", "Bearer service-old")],
    ] {
        assert_eq!(ask(pairs, None, &default_settings()), Identity::Service, "{pairs:?}");
    }
    // PostgREST takes the role from Authorization: an anon key there is not a service, whatever the apikey.
    let mixed = [("apikey", "service-old"), ("authorization", "Bearer anon-old")];
    assert_eq!(ask(&mixed, None, &default_settings()), Identity::Anonymous);
    // A token of the service role signed by hand, without a subject.
    let token = bearer(&json!({"role": "service_role"}));
    assert_eq!(ask(&[("authorization", &token)], None, &default_settings()), Identity::Service);
}

#[test]
fn x_user_id_counts_only_together_with_a_service_key() {
    let with = |key: &str| ask(&[("apikey", key), ("x-user-id", "ada")], None, &default_settings());
    assert_eq!(key_of(&with("service-old")), user("ada"));
    assert_eq!(with("anon-old"), Identity::Anonymous);
    let bob = bearer(&json!({"sub": "bob"}));
    let both = [("apikey", "service-old"), ("authorization", &*bob), ("x-user-id", "ada")];
    assert_eq!(key_of(&ask(&both, None, &default_settings())), user("bob"));
}

/// Anybody can write this token; its side is the one who finds that out.
#[test]
fn x_user_id_does_not_count_with_a_token_that_says_it_is_the_service() {
    let forged = bearer(&json!({"role": "service_role"}));
    for apikey in ["anon-old", "service-old"] {
        let headers = [("apikey", apikey), ("authorization", &*forged), ("x-user-id", "ada")];
        assert_eq!(ask(&headers, None, &default_settings()), Identity::Service, "{apikey}");
    }
}

#[test]
fn sources_are_asked_in_order() {
    let settings = settings(vec![
        Source::Query("uid".into()),
        Source::Cookie("uid".into()),
        Source::Header(HeaderName::from_static("x-device")),
        Source::Jwt,
    ]);
    let ada = bearer(&json!({"sub": "ada"}));
    let all = [("cookie", "a=b; uid=\"crumb\""), ("x-device", "phone"), ("authorization", &*ada)];
    assert_eq!(key_of(&ask(&all, Some("x=1&uid=q%C3%BC"), &settings)), user("qü"));
    assert_eq!(key_of(&ask(&all, Some("x=1"), &settings)), user("crumb"));
    assert_eq!(key_of(&ask(&all[1..], None, &settings)), user("phone"));
    assert_eq!(key_of(&ask(&all[2..], None, &settings)), user("ada"));
    assert_eq!(ask(&[("x-device", " ")], None, &settings), Identity::Anonymous);
}
