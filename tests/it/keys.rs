//! API keys, tokens, and headers that could deceive.

use cutover::side::Side;

use crate::support::world::{ANON_NEW, ANON_OLD, Client, SERVICE_NEW, SERVICE_OLD, World, token};

fn keyless(world: &World) -> Client {
    world.client().without("apikey")
}

#[tokio::test]
async fn keys_become_the_sides_own_keys_of_the_same_role() {
    for (percentage, side) in [("0", Side::Old), ("100", Side::New)] {
        let world = World::start()
            .set("rollout.percentage", percentage)
            .set("rollout.service_role", &format!("\"{side}\""))
            .await;
        let (anon, service) = match side {
            Side::Old => (ANON_OLD, SERVICE_OLD),
            Side::New => (ANON_NEW, SERVICE_NEW),
        };
        for (sent, want) in
            [(ANON_OLD, anon), (ANON_NEW, anon), (SERVICE_OLD, service), (SERVICE_NEW, service)]
        {
            keyless(&world)
                .with("apikey", sent)
                .with("authorization", &format!("Bearer {sent}"))
                .get(&format!("/rest/v1/todos?a=eq.1&apikey={sent}&b=eq.+2"))
                .await
                .served_by(side);
            let seen = world.side(side).last();
            assert_eq!(seen.head.all("apikey"), [want]);
            assert_eq!(seen.head.all("authorization"), [format!("Bearer {want}")]);
            assert_eq!(seen.target(), format!("/rest/v1/todos?a=eq.1&apikey={want}&b=eq.+2"));
        }
    }
}

#[tokio::test]
async fn a_users_token_is_never_touched() {
    for (percentage, side, key) in [(0, Side::Old, ANON_OLD), (100, Side::New, ANON_NEW)] {
        let world = World::start().rollout(percentage).await;
        world.as_user("ada").get("/rest/v1/todos").await.served_by(side);
        let seen = world.side(side).last();
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", token("ada")).as_str()));
        assert_eq!(seen.header("apikey"), Some(key));
    }
}

#[tokio::test]
async fn strangers_keys_are_401_wherever_they_stand() {
    let world = World::start().await;
    let asks = [
        keyless(&world).with("apikey", "stranger"),
        world.client().with("authorization", "Bearer sb_secret_stranger"),
        keyless(&world).with("apikey", &token("ada")),
    ];
    for client in asks {
        let answer = client.with("origin", "https://app").get("/rest/v1/todos").await;
        answer.refused(401, "CUT401");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "scripts can read it");
    }
    let answer = world.client().get("/rest/v1/todos?apikey=stranger").await;
    answer.refused(401, "CUT401");
    assert_eq!((world.old.count(), world.new.count()), (0, 0));
}

#[tokio::test]
async fn a_second_credential_behind_the_first_does_not_slip_through() {
    let world = World::start().rollout(100).await;
    // Which one a side would believe is not known, so neither is passed as it is.
    for (first, second) in
        [(token("ada"), SERVICE_OLD.to_owned()), (ANON_OLD.to_owned(), SERVICE_OLD.to_owned())]
    {
        let answer = world
            .client()
            .with("authorization", &format!("Bearer {first}"))
            .with("authorization", &format!("Bearer {second}"))
            .get("/rest/v1/todos")
            .await;
        if answer.status == 200 {
            let seen = world.side(answer.side()).last();
            assert_eq!(seen.head.all("authorization").len(), 1, "{seen:?}");
            assert!(!seen.header("authorization").unwrap().contains(SERVICE_OLD));
        } else {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
    }
    let answer =
        world.client().get(&format!("/rest/v1/todos?apikey={ANON_OLD}&apikey=stranger")).await;
    if answer.status == 200 {
        assert!(!world.side(answer.side()).last().target().contains("stranger"));
    } else {
        assert!((400..500).contains(&answer.status), "{answer:?}");
    }
}

#[tokio::test]
async fn a_role_that_the_side_has_no_key_for_is_never_replaced_by_another() {
    let world = World::start()
        .set("projects.new.service_role_key", "\"\"")
        .set("rollout.service_role", "\"new\"")
        .await;
    let answer = keyless(&world).with("apikey", SERVICE_OLD).get("/rest/v1/todos").await;
    answer.refused(401, "CUT4011");
    assert_eq!(world.new.count(), 0);
}

#[tokio::test]
async fn what_could_deceive_a_side_is_removed_and_the_truth_set() {
    let world = World::start().await;
    world
        .client()
        .with("x-forwarded-for", "6.6.6.6")
        .with("x-forwarded-host", "evil")
        .with("x-forwarded-proto", "https")
        .with("x-forwarded-prefix", "/evil")
        .with("forwarded", "for=6.6.6.6")
        .with("x-real-ip", "6.6.6.6")
        .with("sb-api-key", "evil")
        .with("sb-forwarded-for", "6.6.6.6")
        .with("x-cutover-side", "new")
        .with("x-cutover-override-token", "wrong-token-0123456789")
        .with("cookie", "session=secret")
        .get("/auth/v1/user")
        .await
        .served_by(Side::Old);
    let seen = world.old.last();
    assert_eq!(seen.head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.head.all("x-forwarded-proto"), ["http"]);
    for name in [
        "x-forwarded-host",
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "sb-api-key",
        "sb-forwarded-for",
        "x-cutover-side",
        "x-cutover-override-token",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.head.all("host"), [world.old.address.to_string()]);
    world.client().with("cookie", "session=secret").get("/rest/v1/todos").await;
    assert_eq!(world.old.last().header("cookie"), None, "SQL can see cookies");
}

#[tokio::test]
async fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let world = World::start().set("trusted_proxies", "[\"127.0.0.0/8\", \"10.0.0.0/8\"]").await;
    for (sent, want) in [
        (vec!["203.0.113.9"], "203.0.113.9"),
        (vec!["6.6.6.6, 203.0.113.9, 10.1.2.3"], "203.0.113.9"),
        (vec!["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        (vec![], "127.0.0.1"),
    ] {
        let mut client = world.client();
        for value in &sent {
            client = client.with("x-forwarded-for", value);
        }
        client.get("/rest/v1/todos").await.served_by(Side::Old);
        assert_eq!(world.old.last().head.all("x-forwarded-for"), [want], "{sent:?}");
    }
}

#[tokio::test]
async fn a_connection_header_cannot_remove_what_the_proxy_sets() {
    let world = World::start().await;
    world
        .client()
        .with("connection", "apikey, host, x-forwarded-for, content-length, accept-profile")
        .post("/rest/v1/todos", "{\"a\":1}")
        .await
        .served_by(Side::Old);
    let seen = world.old.last();
    assert_eq!(seen.header("apikey"), Some(ANON_OLD));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("content-profile"), Some("public"));
    assert_eq!(seen.body.bytes, b"{\"a\":1}");
}
