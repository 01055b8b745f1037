//! What phases 2 and 3 cost for a request with a user's token that the worker has seen before, and that the cost does not
//! depend on the percentage or on the number of pins.

#![expect(missing_docs, reason = "criterion's macro makes a public function without one")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use base64::Engine;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use cutover::decide::bucket::{Bucket, Hash};
use cutover::decide::percentage::Percentage;
use cutover::decide::{Anonymous, Belongs, Owner, Owners, Question, Settings, decide};
use cutover::identify::cache::TokenCache;
use cutover::identify::claims::Wanted;
use cutover::identify::credentials::Credentials;
use cutover::identify::keyring::{Keyring, ProjectKeys, UnknownKeys};
use cutover::identify::{self, Identity, Source, identify};
use cutover::route::Route;
use cutover::secret::Secret;
use cutover::side::{Pair, Side};
use http::{HeaderMap, HeaderName, HeaderValue};

const USER: &str = "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11";

fn settings(percentage: u8, pins: usize) -> Settings {
    Settings {
        percentage: Percentage::from_whole(percentage).unwrap_or_default(),
        force: None,
        salt: "onasis-core-v2".into(),
        hash: Hash::Sha256,
        service_role: Side::Old,
        anonymous: Anonymous::Sticky,
        pins: (0..pins).map(|n| (format!("pinned-{n}"), Side::New)).collect(),
        rules: Vec::new(),
        wanted: Wanted::default(),
        domains: Default::default(),
        override_token: None,
        owners: Owners::from_fn(|_| Owner::Rollout),
    }
}

/// A token of the size that Supabase issues.
fn token() -> String {
    let claims = serde_json::json!({
        "iss": "https://old-ref.supabase.co/auth/v1", "sub": USER, "aud": "authenticated", "exp": 1_900_000_000,
        "iat": 1_800_000_000, "email": "ada@example.com", "role": "authenticated", "aal": "aal1",
        "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {"name": "Ada"},
        "session_id": "7a1d1b0e-6a77-4b7d-a2cc-3b7c6d2f8a55", "is_anonymous": false
    });
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!(
        "{}.{}.{}",
        part(r#"{"alg":"HS256","typ":"JWT"}"#),
        part(&claims.to_string()),
        "c".repeat(43)
    )
}

fn keyring() -> Keyring {
    let keys = |anon: &str| ProjectKeys { anon: vec![Secret::new(anon)], service: Vec::new() };
    let projects = Pair { old: keys("old-anon"), new: keys("sb_publishable_new") };
    Keyring::build(&projects, UnknownKeys::Refuse).unwrap_or_default()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.bench_function("bucket", |b| {
        b.iter(|| Bucket::of(Hash::Sha256, "onasis-core-v2", black_box(USER)))
    });
    let identity = Identity::User(identify::User::plain(USER));
    for (percentage, pins) in [(0, 0), (50, 0), (100, 0), (50, 10_000)] {
        let settings = settings(percentage, pins);
        let question = Question {
            identity: &identity,
            route: Route::Rest,
            belongs: Belongs::ToRoute,
            domain: Some("vendors"),
            override_ask: None,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            random: 0,
        };
        let name = BenchmarkId::new("percent_pins", format!("{percentage}_{pins}"));
        group.bench_function(name, |b| b.iter(|| decide(black_box(&question), &settings)));
    }
    group.finish();
    identified(c);
}

fn identified(c: &mut Criterion) {
    let mut group = c.benchmark_group("identify");
    let keyring = keyring();
    let settings = identify::Settings {
        sources: vec![Source::Jwt, Source::Header(HeaderName::from_static("x-api-key"))],
        user_header: HeaderName::from_static("x-user-id"),
        cache_entries: 1000,
    };
    let mut headers = HeaderMap::new();
    headers.insert("apikey", HeaderValue::from_static("old-anon"));
    let bearer = format!("Bearer {}", token());
    headers.insert(
        "authorization",
        HeaderValue::from_str(&bearer).unwrap_or(HeaderValue::from_static("")),
    );
    let query = Some("select=id,title&limit=10");
    for (name, entries) in [("token_known", 1000), ("token_new", 0)] {
        let (cache, wanted) = (TokenCache::new(entries), Wanted::default());
        group.bench_function(name, |b| {
            b.iter(|| {
                let credentials = Credentials::of(black_box(&headers), query, &keyring);
                let mut read = |token: &str| cache.read(token, &wanted);
                identify(&headers, query, &credentials, &settings, &keyring, &mut read)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
