//! Which side, and why: over sockets.

use cutover::side::Side;

use crate::support::world::{OVERRIDE_TOKEN, SERVICE_OLD, World, token_of};

#[tokio::test]
async fn a_user_has_one_side_whatever_and_however_often_it_asks() {
    let world = World::start().rollout(40).set("workers", "2").await;
    // ada's bucket is 3375 with the salt "cutover"; the other's is 8885.
    for (user, side) in [("ada", Side::New), ("5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11", Side::Old)] {
        for _ in 0..10 {
            world.as_user(user).get("/rest/v1/todos").await.served_by(side);
            world.as_user(user).post("/rest/v1/vendor_api_keys", "{}").await.served_by(side);
        }
    }
    // An expired token still hashes by its subject: the 401 must come from the user's own side.
    let expired = token_of(&serde_json::json!({ "sub": "ada", "exp": 1 }));
    let client = world.client().with("authorization", &format!("Bearer {expired}"));
    client.get("/rest/v1/todos").await.served_by(Side::New);
}

#[tokio::test]
async fn a_backend_acts_for_its_user_only_with_a_service_key() {
    let world = World::start().rollout(40).await;
    let backend = world.client().without("apikey").with("apikey", SERVICE_OLD);
    let answer = backend.get("/rest/v1/todos").await;
    answer.served_by(Side::Old);
    assert_eq!(answer.header("x-cutover-reason"), Some("service"));
    let answer = backend.with("x-user-id", "ada").get("/rest/v1/todos").await;
    answer.served_by(Side::New);
    assert_eq!(answer.header("x-cutover-bucket"), Some("3375"));
    let answer = world.client().with("x-user-id", "ada").get("/rest/v1/todos").await;
    assert_eq!(answer.header("x-cutover-reason"), Some("anonymous"), "not with an anon key");
}

#[tokio::test]
async fn the_override_counts_with_its_token_alone_and_never_passes() {
    let world = World::start().await;
    let tester = world.as_user("ada").with("x-cutover-side", "new");
    tester.get("/rest/v1/todos").await.served_by(Side::Old);
    let wrong = tester.clone().with("x-cutover-override-token", "wrong-token-0123456789");
    wrong.get("/rest/v1/todos").await.served_by(Side::Old);
    let right = tester.with("x-cutover-override-token", OVERRIDE_TOKEN);
    let answer = right.get("/rest/v1/todos").await;
    answer.served_by(Side::New);
    assert_eq!(answer.header("x-cutover-reason"), Some("override"));
    for seen in world.old.seen().iter().chain(&world.new.seen()) {
        assert!(seen.head.headers.iter().all(|(name, _)| !name.starts_with("x-cutover")));
    }
}

#[tokio::test]
async fn nobody_stays_where_its_address_says() {
    let world = World::start().rollout(50).set("trusted_proxies", "[\"127.0.0.1/32\"]").await;
    let mut sides = Vec::new();
    for host in 1..30 {
        let client = world.client().with("x-forwarded-for", &format!("203.0.113.{host}"));
        let side = client.get("/rest/v1/todos").await.side();
        assert_eq!(client.get("/rest/v1/other").await.side(), side, "sticky");
        sides.push(side);
    }
    assert!(sides.contains(&Side::Old) && sides.contains(&Side::New));
}

#[tokio::test]
async fn pins_rules_and_caps_are_heard() {
    let world = World::start()
        .rollout(40)
        .set("rollout.pins.old", "[\"ada\"]")
        .set("rollout.rules", "[{ claim = \"app_metadata.beta\", equals = true, side = \"new\" }]")
        .set("rollout.domains.vendors", "1")
        .await;
    let answer = world.as_user("ada").get("/rest/v1/todos").await;
    assert_eq!((answer.side(), answer.header("x-cutover-reason")), (Side::Old, Some("pin")));
    let beta = serde_json::json!({ "sub": "zoe", "app_metadata": { "beta": true } });
    let client = world.client().with("authorization", &format!("Bearer {}", token_of(&beta)));
    let answer = client.get("/rest/v1/todos").await;
    assert_eq!((answer.side(), answer.header("x-cutover-reason")), (Side::New, Some("rule")));
    // Bucket 719: in at 40 %, out at the cap of 1 %.
    let user = world.as_user("00000000-0000-0000-0000-000000000000");
    user.get("/rest/v1/todos").await.served_by(Side::New);
    let answer = user.get("/rest/v1/vendor_api_keys").await;
    assert_eq!((answer.side(), answer.header("x-cutover-reason")), (Side::Old, Some("domain_cap")));
}
