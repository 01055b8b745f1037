//! What one client does is not felt by the others, and takes no more than its share.

use cutover::side::Side;

use crate::support::conn::Conn;
use crate::support::tls::{Authority, TlsUpstream};
use crate::support::upstream::response;
use crate::support::websocket::{echoes, realtime};
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, within};

/// A world whose new side speaks HTTP/2, which all requests of a worker share.
async fn with_http2() -> (World, TlsUpstream) {
    let authority = Authority::new();
    let upstream = TlsUpstream::start(&authority.issues("new-ref.example"), &["h2"]).await;
    let world = World::start()
        .rollout(100)
        .set("workers", "1")
        .set("projects.new.url", &format!("\"https://{}\"", upstream.address))
        .set("projects.new.host", "\"new-ref.example\"")
        .set("projects.new.ca", "\"ca.pem\"")
        .file("ca.pem", &authority.pem)
        .await;
    (world, upstream)
}

/// Asks and does not read the answer.
async fn asks_only(world: &World, target: &str) -> Conn {
    let mut conn = world.raw().await;
    conn.send(world.as_user("ada").says("GET", target, None)).await;
    conn
}

#[tokio::test]
async fn clients_that_do_not_read_do_not_stall_the_others_of_a_shared_connection() {
    let (world, upstream) = with_http2().await;
    let mut idle = Vec::new();
    for _ in 0..8 {
        idle.push(asks_only(&world, "/rest/v1/big").await);
    }
    eventually("all are asked", async || upstream.seen().len() == 8).await;
    let user = world.as_user("bob");
    for _ in 0..20 {
        within("an answer", user.get("/rest/v1/todos")).await.served_by(Side::New);
    }
    assert!(upstream.seen().iter().all(|seen| seen.connection == 1), "they did share one");
}

#[tokio::test]
async fn long_requests_do_not_use_up_the_streams_for_the_others() {
    let (world, upstream) = with_http2().await;
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(asks_only(&world, "/rest/v1/hold").await);
    }
    eventually("all are asked", async || upstream.seen().len() == 64).await;
    let answer = within("an answer", world.as_user("bob").get("/rest/v1/todos")).await;
    answer.served_by(Side::New);
    assert_eq!(upstream.seen().last().unwrap().connection, 2, "the first connection is full");
    drop(held);
    world.is_quiet().await;
    world.as_user("bob").get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(upstream.seen().last().unwrap().connection, 1, "and has room again");
}

#[tokio::test]
async fn a_cold_start_makes_one_shared_connection_and_not_one_per_request() {
    let (world, upstream) = with_http2().await;
    let asking = (0..40).map(|_| async { world.as_user("ada").get("/rest/v1/todos").await });
    for answer in within("the answers", futures_util::future::join_all(asking)).await {
        answer.served_by(Side::New);
    }
    assert!(upstream.seen().iter().all(|seen| seen.connection == 1));
}

#[tokio::test]
async fn a_websocket_keeps_its_place_among_the_connections() {
    let world = World::start().set("limits.connections", "2").set("workers", "1").await;
    echoes(&world.old);
    let (first, second) = (realtime(&world).await, realtime(&world).await);
    assert_eq!(world.metric("cutover_client_connections_open", "").await, 2.0);
    world.client().get("/rest/v1/todos").await.refused(503, "CUT503");
    drop(first);
    eventually("a free place", async || {
        world.metric("cutover_client_connections_open", "").await == 1.0
    })
    .await;
    world.old.answers_as_usual();
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    drop(second);
}

/// A link in a mail is used up by its first GET, and a function may do anything: neither is ever sent twice.
#[tokio::test]
async fn only_reads_are_repeated_on_a_connection_that_breaks() {
    for (target, times) in
        [("/rest/v1/todos", 2), ("/auth/v1/verify?token=a", 1), ("/functions/v1/pay", 1)]
    {
        let world = World::start().set("workers", "1").await;
        let client = world.client();
        client.get("/rest/v1/todos").await.served_by(Side::Old);
        world.is_quiet().await;
        // The kept connection takes the request and ends without an answer.
        world.old.does(|_, _| async { None });
        client.get(target).await.refused(502, "CUT5021");
        assert_eq!(world.old.count(), 1 + times, "{target}");
    }
}

#[tokio::test]
async fn the_scheme_that_a_trusted_proxy_names_is_the_clients() {
    for (trusted, scheme) in [("[\"127.0.0.0/8\"]", "https"), ("[]", "http")] {
        let world = World::start().set("trusted_proxies", trusted).await;
        let own = format!("http://{}/storage/v1/upload/resumable/x", world.old.address);
        world.old.answers(move |_| response("201 Created", &format!("location: {own}\r\n"), ""));
        let mut conn = world.raw().await;
        conn.send(format!(
            "POST /storage/v1/upload/resumable HTTP/1.1\r\nhost: api.example.com\r\napikey: {ANON_OLD}\r\n\
             x-forwarded-proto: https\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
        let want = format!("{scheme}://api.example.com/storage/v1/upload/resumable/x.");
        let answer = conn.answer_to("POST").await;
        assert!(answer.header("location").unwrap().starts_with(&want), "{answer:?}");
        assert_eq!(world.old.last().header("x-forwarded-proto"), Some(scheme));
    }
}
