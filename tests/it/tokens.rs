//! Users' tokens on their way to the other project: signed again if they can be verified, untouched if not, whatever the project
//! publishes or fails to publish as its keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cutover::side::Side;
use cutover::tokens::jwk::signing_key;
use cutover::tokens::key::SigningKey;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::upstream::{Upstream, response, usual};
use crate::support::world::{Client, Setup, World};

const OLD_SECRET: &str = "the old secret, at least thirty-two bytes";
pub const NEW_SECRET: &str = "the new secret, at least thirty-two bytes";
pub const OLD_ES: &str = include_str!("fixtures/old-es256.jwk");
const NEW_ES: &str = include_str!("fixtures/new-es256.jwk");
const OLD_RS: &str = include_str!("fixtures/old-rs256.jwk");
const NEW_RS: &str = include_str!("fixtures/new-rs256.jwk");
const JWKS: &str = "/auth/v1/.well-known/jwks.json";

/// Exchange, everybody on new; no cooldown is ever over and no refresh due unless a test says so.
pub fn exchange() -> Setup {
    World::start()
        .rollout(100)
        .set("tokens.mode", "\"exchange\"")
        .set("tokens.jwks_cooldown", "\"1h\"")
        .set("tokens.jwks_refresh", "\"1h\"")
        .set("tokens.jwks_wait", "\"10s\"")
}

fn secrets() -> Setup {
    exchange()
        .set("projects.old.jwt_secret", &format!("{OLD_SECRET:?}"))
        .set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}"))
}

fn quoted(jwk: &str) -> String {
    format!("'{}'", jwk.trim())
}

pub fn claims() -> Value {
    json!({
        "iss": "https://old-ref.supabase.co/auth/v1", "sub": "ada", "aud": "authenticated",
        "exp": 4_000_000_000_u64, "iat": 1_700_000_000, "role": "authenticated", "aal": "aal2",
        "session_id": "7a1d1b0e", "app_metadata": {"provider": "email"}
    })
}

pub fn made_by(key: &SigningKey, claims: &Value) -> String {
    key.sign(claims.to_string().as_bytes()).unwrap()
}

pub fn with(world: &World, token: &str) -> Client {
    world.client().with("authorization", &format!("Bearer {token}"))
}

/// The tokens that a side saw.
fn asked(upstream: &Upstream) -> Vec<String> {
    let seen = upstream.seen();
    let bearers = seen.iter().filter_map(|seen| seen.header("authorization"));
    bearers.map(|bearer| bearer.strip_prefix("Bearer ").unwrap().to_owned()).collect()
}

/// The token that a side saw last.
pub fn seen(upstream: &Upstream) -> String {
    asked(upstream).pop().unwrap()
}

pub fn part(token: &str, n: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(n).unwrap()).unwrap())
        .unwrap()
}

/// What a project publishes of private JWKs.
pub fn set(keys: &[&str]) -> String {
    let public = |key: &&str| {
        let mut key: Value = serde_json::from_str(key).unwrap();
        for part in ["d", "p", "q", "dp", "dq", "qi"] {
            key.as_object_mut().unwrap().remove(part);
        }
        key
    };
    json!({ "keys": keys.iter().map(public).collect::<Vec<_>>() }).to_string()
}

/// From now on the side publishes this, and answers everything else as usual.
fn publishes(upstream: &Upstream, side: Side, answer: String) {
    upstream.answers(move |seen| match seen.target() == JWKS {
        true => answer.clone(),
        false => usual(side),
    });
}

fn ok(body: &str) -> String {
    response("200 OK", "content-type: application/json\r\n", body)
}

fn fetches(upstream: &Upstream) -> usize {
    upstream.seen().iter().filter(|seen| seen.target() == JWKS).count()
}

async fn first_fetches_are_over(world: &World) {
    eventually("both sides' first fetch", async || {
        let mut all = 0.0;
        for side in Side::ALL {
            all += world.metric("cutover_jwks_fetches_total", &format!("side=\"{side}\"")).await;
        }
        all >= 2.0
    })
    .await;
}

#[tokio::test]
async fn trap_02_a_users_token_is_signed_again_for_the_other_project_on_every_route() {
    let world = secrets()
        .set("projects.new.issuer", "\"https://new/auth/v1\"")
        .set("routes.graphql", "\"rollout\"")
        .set("storage.s3", "\"new\"")
        .await;
    let token = made_by(&SigningKey::legacy(OLD_SECRET), &claims());
    for target in ["/rest/v1/todos", "/storage/v1/object/a/b", "/functions/v1/hello", "/graphql/v1"]
    {
        with(&world, &token).get(target).await.served_by(Side::New);
        let made = seen(&world.new);
        assert_eq!(part(&made, 0), json!({"alg": "HS256", "typ": "JWT"}), "{target}");
        let mut want = claims();
        want["iss"] = json!("https://new/auth/v1");
        assert_eq!(part(&made, 1).to_string(), want.to_string());
        assert_eq!(made_by(&SigningKey::legacy(NEW_SECRET), &want), made, "the new project's own");
        // Keys are fetched at any time.
        let all = world.new.seen();
        let last = all.iter().rfind(|seen| seen.target() == target).unwrap();
        assert_eq!(last.head.all("authorization").len(), 1);
    }
    assert_eq!(world.metric("cutover_tokens_signed_total", "side=\"new\"").await, 4.0);
    with(&world, &token).get("/storage/v1/s3/a/b").await.served_by(Side::New);
    assert_eq!(seen(&world.new), token, "what S3 may have signed is not touched");
    with(&world, &token).get("/auth/v1/user").await.served_by(Side::Old);
    assert_eq!(seen(&world.old), token, "its own side gets its own bytes");
}

#[tokio::test]
async fn trap_34_the_other_projects_kid_and_algorithm_are_used() {
    for (key, alg, kid) in [(NEW_ES, "ES256", "new-es256"), (NEW_RS, "RS256", "new-rs256")] {
        let world = exchange()
            .set("projects.old.jwt_secret", &format!("{OLD_SECRET:?}"))
            .set("projects.new.signing_key", &quoted(key))
            .await;
        let token = made_by(&SigningKey::legacy(OLD_SECRET), &claims());
        with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
        let made = seen(&world.new);
        assert_eq!(part(&made, 0), json!({"alg": alg, "kid": kid, "typ": "JWT"}));
        assert_eq!(part(&made, 1)["iss"], format!("http://{}/auth/v1", world.new.address));
        with(&world, &made).get("/rest/v1/todos").await.served_by(Side::New);
        assert_eq!(seen(&world.new), made, "what is the new project's passes untouched");
    }
}

#[tokio::test]
async fn a_published_key_verifies_and_the_other_direction_works_too() {
    for (key, alg) in [(OLD_ES, "ES256"), (OLD_RS, "RS256")] {
        let world = exchange()
            .set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}"))
            .set("projects.old.signing_key", &quoted(OLD_ES))
            .await;
        publishes(&world.old, Side::Old, ok(&set(&[OLD_ES, OLD_RS])));
        first_fetches_are_over(&world).await;
        world.change("tokens.jwks_refresh", "\"1s\"").await;
        let token = made_by(&signing_key(key).unwrap(), &claims());
        eventually(alg, async || {
            with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
            part(&seen(&world.new), 0)["alg"] == "HS256"
        })
        .await;
        let back = made_by(&SigningKey::legacy(NEW_SECRET), &claims());
        with(&world, &back).get("/auth/v1/user").await.served_by(Side::Old);
        assert_eq!(part(&seen(&world.old), 0)["kid"], "old-es256");
        let fetch = world.old.seen().into_iter().find(|seen| seen.target() == JWKS).unwrap();
        assert_eq!(fetch.header("host"), Some(world.old.address.to_string().as_str()));
        assert_eq!(fetch.header("authorization"), None);
        assert_eq!(fetch.header("apikey"), None);
    }
}

#[tokio::test]
async fn an_unknown_kid_is_fetched_once_and_who_asked_waits_for_it() {
    let world = exchange()
        .set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}"))
        .set("tokens.jwks_cooldown", "\"100ms\"")
        .await;
    publishes(&world.old, Side::Old, ok(&set(&[])));
    let good = async || {
        world.metric("cutover_jwks_fetches_total", "side=\"old\",result=\"success\"").await
    };
    eventually("an empty set", async || good().await == 1.0).await;
    publishes(&world.old, Side::Old, ok(&set(&[OLD_ES])));
    let token = made_by(&signing_key(OLD_ES).unwrap(), &claims());
    eventually("the end of the pause", async || {
        world.metric("cutover_jwks_age_seconds", "side=\"old\"").await > 0.1
    })
    .await;
    let asks = (0..10).map(|_| with(&world, &token)).map(async |client| {
        client.get("/rest/v1/todos").await.served_by(Side::New);
    });
    futures_util::future::join_all(asks).await;
    let theirs = asked(&world.new);
    assert_eq!(theirs.len(), 10);
    for token in theirs {
        assert_eq!(part(&token, 0)["alg"], "HS256", "who began the fetch, and who joined it");
    }
    assert_eq!(good().await, 2.0, "no refresh was due, and one fetch was enough");
    let count = good().await;
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(good().await, count, "what is known is not asked again");
}

#[tokio::test]
async fn a_flood_of_made_up_kids_costs_one_fetch_and_nobody_waits_in_vain() {
    let world = exchange().set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}")).await;
    publishes(&world.old, Side::Old, ok(&set(&[])));
    publishes(&world.new, Side::New, ok(&set(&[])));
    first_fetches_are_over(&world).await;
    let before = (fetches(&world.old), fetches(&world.new));
    for n in 0..100 {
        let mut key: Value = serde_json::from_str(OLD_ES).unwrap();
        key["kid"] = json!(format!("made-up-{n}"));
        let token = made_by(&signing_key(&key.to_string()).unwrap(), &claims());
        // Each would wait for ten seconds, which the test has not.
        with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
        assert_eq!(seen(&world.new), token, "the side itself refuses it");
    }
    assert_eq!((fetches(&world.old), fetches(&world.new)), before, "the cooldown of an hour");
    assert_eq!(world.metric("cutover_tokens_unproven_total", "side=\"new\"").await, 100.0);
}

#[tokio::test]
async fn keys_stay_while_nothing_better_is_answered() {
    let world = exchange()
        .set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}"))
        .set("tokens.jwks_cooldown", "\"100ms\"")
        .set("tokens.jwks_refresh", "\"1s\"")
        .await;
    publishes(&world.old, Side::Old, ok(&set(&[OLD_ES])));
    let labels = |result: &str| format!("side=\"old\",result=\"{result}\"");
    let token = made_by(&signing_key(OLD_ES).unwrap(), &claims());
    eventually("the first good fetch", async || {
        world.metric("cutover_jwks_fetches_total", &labels("success")).await > 0.0
    })
    .await;
    let large = format!("{{\"keys\":[\"{}\"]}}", "x".repeat(300 * 1024));
    for (answer, result) in [
        (response("500 Internal Server Error", "", "{}"), "refused"),
        (response("302 Found", "location: /elsewhere\r\n", &set(&[])), "refused"),
        (ok("<html>"), "unreadable"),
        (ok(&large), "unreadable"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 50\r\nconnection: close\r\n\r\n{".into(),
            "unreachable",
        ),
    ] {
        let before = world.metric("cutover_jwks_fetches_total", &labels(result)).await;
        publishes(&world.old, Side::Old, answer);
        eventually(result, async || {
            world.metric("cutover_jwks_fetches_total", &labels(result)).await > before
        })
        .await;
        with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
        assert_eq!(part(&seen(&world.new), 0)["alg"], "HS256", "after {result}");
    }
    assert!(world.metric("cutover_jwks_age_seconds", "side=\"old\"").await > 0.0);
    // An empty set is an answer: the key was revoked.
    publishes(&world.old, Side::Old, ok(&set(&[])));
    eventually("the key is gone", async || {
        with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
        seen(&world.new) == token
    })
    .await;
}

#[tokio::test]
async fn trap_17_what_can_not_be_verified_arrives_as_it_was_sent() {
    let world = secrets().await;
    let good = made_by(&SigningKey::legacy(OLD_SECRET), &claims());
    let mut expired = claims();
    expired["exp"] = json!(1_700_000_000);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let promoted = json!({"sub": "ada", "role": "service_role"}).to_string();
    let (header, _) = head.split_once('.').unwrap();
    for token in [
        made_by(&SigningKey::legacy(OLD_SECRET), &expired),
        made_by(&SigningKey::legacy("somebody else's secret"), &claims()),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(promoted)),
        format!("{head}."),
        format!(
            "{}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        ),
        "opaque".to_owned(),
    ] {
        let answer = with(&world, &token).get("/rest/v1/todos").await;
        assert_eq!(answer.status, 200, "it is the side that refuses");
        assert_eq!(seen(world.side(answer.side())), token);
    }
    assert_eq!(world.metric("cutover_tokens_signed_total", "").await, 0.0);
}

#[tokio::test]
async fn the_mode_and_the_keys_change_live() {
    let world = secrets().set("tokens.mode", "\"shared\"").await;
    let token = made_by(&SigningKey::legacy(OLD_SECRET), &claims());
    for target in ["/rest/v1/todos", "/storage/v1/object/a/b", "/functions/v1/hello"] {
        with(&world, &token).get(target).await.served_by(Side::New);
        assert_eq!(seen(&world.new), token, "{target}");
    }
    assert_eq!((fetches(&world.old), fetches(&world.new)), (0, 0), "nobody needs keys");
    world.change("tokens.mode", "\"exchange\"").await;
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(part(&seen(&world.new), 0).get("kid"), None);
    assert_ne!(seen(&world.new), token);
    world.old.has_seen(1).await;
    world.change("projects.new.signing_key", &quoted(NEW_ES)).await;
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(part(&seen(&world.new), 0)["kid"], "new-es256", "nothing remembered stays");
    world.change("rollout.percentage", "0").await;
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::Old);
    assert_eq!(seen(&world.old), token);
    world.change("tokens.mode", "\"shared\"").await;
    world.change("rollout.percentage", "100").await;
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(seen(&world.new), token);
}

#[tokio::test]
async fn keys_are_fetched_where_the_settings_say_now() {
    let elsewhere = Upstream::start(Side::Old).await;
    elsewhere.answers(|_| ok(&set(&[OLD_ES])));
    let world = exchange().set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}")).await;
    first_fetches_are_over(&world).await;
    let token = made_by(&signing_key(OLD_ES).unwrap(), &claims());
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(seen(&world.new), token);
    let url = format!("\"http://{}/keys/set.json\"", elsewhere.address);
    world.change("projects.old.jwks_url", &url).await;
    elsewhere.has_seen(1).await;
    assert_eq!(elsewhere.last().target(), "/keys/set.json");
    assert_eq!(elsewhere.last().header("host"), Some(elsewhere.address.to_string().as_str()));
    eventually("the key from elsewhere", async || {
        with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
        part(&seen(&world.new), 0)["alg"] == "HS256"
    })
    .await;
}

#[tokio::test]
async fn a_key_endpoint_that_hangs_delays_a_request_no_longer_than_it_may() {
    let world = exchange()
        .set("projects.new.jwt_secret", &format!("{NEW_SECRET:?}"))
        .set("tokens.jwks_wait", "\"50ms\"")
        .await;
    first_fetches_are_over(&world).await;
    world.old.does(|_, conn| async move {
        std::future::pending::<()>().await;
        Some(conn)
    });
    world.change("projects.old.jwks_url", &format!("\"http://{}/slow\"", world.old.address)).await;
    let token = made_by(&signing_key(OLD_ES).unwrap(), &claims());
    with(&world, &token).get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(seen(&world.new), token);
}
