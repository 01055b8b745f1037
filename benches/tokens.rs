//! What the exchange of a token costs: almost nothing for one that the worker remembers, and one verification and one signature for one
//! that it does not.

#![expect(missing_docs, reason = "criterion's macro makes a public function without one")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use cutover::secret::Secret;
use cutover::side::{Pair, Side};
use cutover::tokens::cache::ExchangeCache;
use cutover::tokens::key::SigningKey;
use cutover::tokens::{Mode, Project, Published, Settings, exchange, jwk};

const NOW: u64 = 1_800_000_000;
const SECRETS: Pair<&str> = Pair {
    old: "the old secret, at least thirty-two bytes",
    new: "the new secret, at least thirty-two bytes",
};
const OLD_ES: &str = include_str!("../tests/it/fixtures/old-es256.jwk");
const NEW_ES: &str = include_str!("../tests/it/fixtures/new-es256.jwk");
const OLD_RS: &str = include_str!("../tests/it/fixtures/old-rs256.jwk");
const NEW_RS: &str = include_str!("../tests/it/fixtures/new-rs256.jwk");

/// A project with its secret, and a signing key where there is one.
fn settings(keys: Pair<Option<&str>>) -> Settings {
    let project = |side: Side| {
        let key = keys[side].map(Secret::new);
        let secret = Secret::new(SECRETS[side]);
        Project::new(Some(&secret), key.as_ref(), side.as_str(), "").unwrap_or_default()
    };
    Settings {
        mode: Mode::Exchange,
        cache_entries: 10_000,
        projects: Pair::from_fn(project),
        ..Settings::default()
    }
}

/// A token of the size that Supabase issues.
fn token(key: &SigningKey) -> String {
    let claims = serde_json::json!({
        "iss": "https://old-ref.supabase.co/auth/v1", "sub": "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11",
        "aud": "authenticated", "exp": 1_900_000_000, "iat": 1_799_999_000, "email": "ada@example.com",
        "role": "authenticated", "aal": "aal1", "amr": [{"method": "password", "timestamp": 1_799_999_000}],
        "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {"name": "Ada"},
        "session_id": "7a1d1b0e-6a77-4b7d-a2cc-3b7c6d2f8a55", "is_anonymous": false
    });
    key.sign(claims.to_string().as_bytes()).unwrap_or_default()
}

fn tokens(criterion: &mut Criterion) {
    let published = Published::default();
    let mut group = criterion.benchmark_group("token");

    let shared = settings(Pair { old: None, new: None });
    let from_old = token(&SigningKey::legacy(SECRETS.old));
    let cache = ExchangeCache::default();
    group.bench_function("remembered", |bencher| {
        bencher.iter(|| cache.answer(&shared, &published, black_box(&from_old), Side::New, NOW));
    });
    let forged = token(&SigningKey::legacy("guessed"));
    group.bench_function("forged", |bencher| {
        bencher.iter(|| exchange(&shared, &published, black_box(&forged), Side::New, NOW));
    });
    for (name, old, new) in [
        ("HS256 to HS256", None, None),
        ("HS256 to ES256", None, Some(NEW_ES)),
        ("ES256 to HS256", Some(OLD_ES), None),
        ("ES256 to ES256", Some(OLD_ES), Some(NEW_ES)),
        ("RS256 to RS256", Some(OLD_RS), Some(NEW_RS)),
    ] {
        let settings = settings(Pair { old, new });
        let key = old.and_then(|key| jwk::signing_key(key).ok());
        let from_old = token(&key.unwrap_or_else(|| SigningKey::legacy(SECRETS.old)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| exchange(&settings, &published, black_box(&from_old), Side::New, NOW));
        });
    }
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
