//! What a worker remembers, across changes of the settings: requests of an older snapshot go on while those of a newer one come, and each
//! must be answered as if nothing were remembered.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use crate::identify::cache::TokenCache;
use crate::identify::claims::{self, Wanted, unsigned_token};
use crate::secret::Secret;
use crate::side::{Pair, Side};
use crate::tokens::cache::{Answer, ExchangeCache};
use crate::tokens::key::{SigningKey, VerifyingKey};
use crate::tokens::{Fetched, Mode, Project, Published, Settings, Verdict, exchange};

const NOW: u64 = 1_800_000_000;
const SECRETS: [&str; 3] = [
    "the first secret of these, which is a public one",
    "the second secret of these, which is a public one",
    "the third secret of these, which nobody trusts at first",
];

/// Two versions of the settings: what old signs with was changed.
fn settings() -> [Settings; 2] {
    [0, 1].map(|version| Settings {
        mode: Mode::Exchange,
        cache_entries: 4,
        projects: Pair::from_fn(|side| {
            let at = if side == Side::New { 1 } else { version * 2 };
            Project::new(Some(&Secret::new(SECRETS[at])), None, side.as_str(), side.as_str())
                .unwrap()
        }),
        ..Settings::default()
    })
}

/// What was published: nothing, and then the third secret as a key of old.
fn published() -> [Published; 2] {
    let fetched = Fetched { url: "old".to_owned(), keys: vec![VerifyingKey::legacy(SECRETS[2])] };
    let known = Pair { old: Some(Arc::new(fetched)), new: None };
    [Published::default(), Published { version: 1, sides: known }]
}

fn tokens() -> Vec<String> {
    let keys = SECRETS.map(SigningKey::legacy);
    let signed = |key: &SigningKey, sub: &str, lives: u64| {
        key.sign(json!({"sub": sub, "exp": NOW + lives}).to_string().as_bytes()).unwrap()
    };
    let mut tokens: Vec<String> = keys.iter().map(|key| signed(key, "ada", 1000)).collect();
    tokens.extend(keys.iter().map(|key| signed(key, "bob", 30)));
    tokens.push(unsigned_token(&json!({"sub": "eve", "exp": NOW + 1000})));
    tokens
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn an_exchanged_token_is_the_one_of_the_settings_and_keys_of_its_request(
        steps in prop::collection::vec((0..2_usize, 0..2_usize, 0..7_usize, any::<bool>(), 0..4_u64), 1..40),
    ) {
        let (settings, published, tokens) = (settings(), published(), tokens());
        let cache = ExchangeCache::default();
        let mut now = NOW;
        for (version, keys, token, new, later) in steps {
            now += later;
            let side = if new { Side::New } else { Side::Old };
            let (settings, published, token) = (&settings[version], &published[keys], &tokens[token]);
            let expected = match exchange(settings, published, token, side, now) {
                Verdict::Accepted { .. } => Answer::Untouched,
                Verdict::Signed { token, .. } => Answer::Instead(token),
                Verdict::Unproven => Answer::Unproven,
                Verdict::UnknownKey => Answer::Needed,
            };
            let answer = cache.answer(settings, published, token, side, now);
            // Signed again a second later it has another `iat` and no other meaning: what was remembered may go.
            let is_same = match (&answer, &expected) {
                (Answer::Instead(one), Answer::Instead(other)) => claims_but_iat(one) == claims_but_iat(other),
                (one, other) => one == other,
            };
            prop_assert!(is_same, "{answer:?} instead of {expected:?}");
        }
    }

    #[test]
    fn the_facts_of_a_token_are_those_that_the_rules_of_its_request_want(
        steps in prop::collection::vec((0..3_usize, 0..6_usize, prop::option::weighted(0.1, 0..5_usize)), 1..60),
    ) {
        let wanted = [vec![], vec![vec!["tier".to_owned()]], vec![vec!["tier".to_owned()], vec!["beta".to_owned()]]]
            .map(Wanted::new);
        let tokens = [0, 1, 2, 3, 4, 5].map(|n| unsigned_token(&json!({"sub": format!("u{n}"), "tier": n, "beta": n % 2 == 0})));
        let cache = TokenCache::new(3);
        for (wants, token, entries) in steps {
            entries.into_iter().for_each(|entries| cache.resize(entries));
            let (wanted, token) = (&wanted[wants], &tokens[token]);
            let read = cache.read(token, wanted);
            prop_assert_eq!(&*read, &claims::read(token, wanted));
        }
    }
}

fn claims_but_iat(token: &Secret) -> serde_json::Value {
    use base64::Engine as _;
    let claims = token.expose().split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap();
    let mut claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims.as_object_mut().unwrap().remove("iat");
    claims
}
