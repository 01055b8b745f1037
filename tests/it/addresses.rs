//! What one client address may take, at its edge, and that the others have nothing to do with it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use cutover::side::Side;
use tokio::net::TcpSocket;

use crate::support::conn::{Answer, Conn};
use crate::support::world::{ANON_OLD, World};
use crate::support::{eventually, http2, websocket};

/// A connection from another address of this machine.
async fn from(source: &str, world: &World) -> Conn {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(source.parse::<IpAddr>().unwrap(), 0)).unwrap();
    Conn::new(socket.connect(world.address).await.unwrap())
}

async fn asks(conn: &mut Conn, world: &World) -> Answer {
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    conn.answer().await
}

/// Whether a new connection is served now; one that is far beyond its limit gets no answer.
async fn is_served(source: &str, world: &World) -> bool {
    let mut conn = from(source, world).await;
    conn.try_send(world.client().says("GET", "/rest/v1/todos", None)).await;
    conn.head().await.is_some_and(|head| head.start.contains(" 200 "))
}

/// A connection that was served, and stays.
async fn served(source: &str, world: &World) -> Conn {
    let mut conn = from(source, world).await;
    asks(&mut conn, world).await.served_by(Side::Old);
    conn
}

#[tokio::test]
async fn one_connection_too_many_of_an_address_is_503_and_a_place_that_is_free_again_is_used() {
    let world = World::start().set("limits.connections_per_address", "3").set("workers", "2").await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(served("127.0.0.1", &world).await);
    }
    let mut fourth = from("127.0.0.1", &world).await;
    let answer = asks(&mut fourth, &world).await;
    answer.refused(503, "CUT5032");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(fourth.is_closed().await);
    let _other = served("127.0.0.2", &world).await;
    assert_eq!(world.old.count(), 4);
    drop(open.pop());
    eventually("a free place", async || is_served("127.0.0.1", &world).await).await;
    assert!(world.metric("cutover_errors_total", "kind=\"too_many_of_address\"").await >= 1.0);
    assert_eq!(world.metric("cutover_errors_total", "kind=\"too_many_connections\"").await, 0.0);
}

#[tokio::test]
async fn a_flood_of_one_address_takes_no_places_from_the_others() {
    let world = World::start()
        .set("limits.connections_per_address", "2")
        .set("limits.connections", "20")
        .await;
    // They say nothing, so that those who get an answer wait for a head, and hold a place until `header_timeout`.
    let mut flood = Vec::new();
    for _ in 0..100 {
        flood.push(from("127.0.0.1", &world).await);
    }
    eventually("the others closed without an answer", async || {
        world.metric("cutover_errors_total", "kind=\"too_many_of_address\"").await >= 94.0
    })
    .await;
    assert!(world.metric("cutover_client_connections_open", "").await <= 6.0);
    let _other = served("127.0.0.2", &world).await;
    drop(flood);
    eventually("a free place", async || is_served("127.0.0.1", &world).await).await;
}

#[tokio::test]
async fn a_trusted_proxys_connections_are_many_clients() {
    let world = World::start()
        .set("limits.connections_per_address", "1")
        .set("trusted_proxies", "[\"127.0.0.1\"]")
        .await;
    let _open = [served("127.0.0.1", &world).await, served("127.0.0.1", &world).await];
    let _one = served("127.0.0.2", &world).await;
    asks(&mut from("127.0.0.2", &world).await, &world).await.refused(503, "CUT5032");
}

#[tokio::test]
async fn a_changed_limit_holds_for_the_next_connection() {
    let world = World::start().set("limits.connections_per_address", "1").await;
    let _one = served("127.0.0.2", &world).await;
    asks(&mut from("127.0.0.2", &world).await, &world).await.refused(503, "CUT5032");
    world.change("limits.connections_per_address", "2").await;
    eventually("one more", async || is_served("127.0.0.2", &world).await).await;
    world.change("limits.connections_per_address", "0").await;
    let _more = [served("127.0.0.2", &world).await, served("127.0.0.2", &world).await];
}

/// Asks until one is refused, all on one connection; answers how many passed before, and the refusal. Anew, from another address, where that took
/// so long that the limit gave one back.
async fn until_refused(world: &World, burst: usize) -> (usize, Answer, Conn) {
    for last in 10..100 {
        let begun = Instant::now();
        let mut conn = from(&format!("127.0.1.{last}"), world).await;
        let mut passed = 0;
        let refusal = loop {
            let answer = asks(&mut conn, world).await;
            match answer.status {
                200 => passed += 1,
                _ => break answer,
            }
            assert!(passed < burst + 100, "nobody is refused");
        };
        if begun.elapsed() < Duration::from_millis(900) {
            return (passed, refusal, conn);
        }
    }
    panic!("this machine is too slow to ask {burst} times within a second");
}

#[tokio::test]
async fn one_request_too_many_of_an_address_is_429_and_says_when_to_come_back() {
    let world = World::start()
        .set("limits.requests_per_address", "1")
        .set("limits.burst_per_address", "5")
        .set("workers", "2")
        .set("cors.origins", "[\"https://app.example\"]")
        .await;
    let (passed, refusal, mut conn) = until_refused(&world, 5).await;
    assert_eq!(passed, 5);
    refusal.refused(429, "CUT429");
    assert_eq!(refusal.header("retry-after"), Some("1"));
    assert_eq!(refusal.header("connection"), None, "the connection is as good as before");
    let before = world.old.count();
    served("127.0.0.2", &world).await;
    assert_eq!(world.old.count(), before + 1, "no side sees what is refused");
    // What the header says is true.
    tokio::time::sleep(Duration::from_secs(1)).await;
    asks(&mut conn, &world).await.served_by(Side::Old);
    assert!(world.metric("cutover_errors_total", "kind=\"too_many_requests\"").await >= 1.0);
    assert!(world.metric("cutover_requests_total", "status=\"4xx\"").await >= 1.0);
}

#[tokio::test]
async fn a_client_behind_a_trusted_proxy_is_counted_by_its_own_address() {
    let world = World::start()
        .set("limits.requests_per_address", "1")
        .set("limits.burst_per_address", "2")
        .set("trusted_proxies", "[\"127.0.0.1\"]")
        .await;
    let client = |address: &str| world.client().with("x-forwarded-for", address);
    let statuses = async |addresses: &[String]| {
        let mut statuses = Vec::new();
        for address in addresses {
            statuses.push(client(address).get("/rest/v1/todos").await.status);
        }
        statuses
    };
    for n in 0..20 {
        let (host, next) = (format!("192.0.2.{}", 2 * n + 1), format!("192.0.2.{}", 2 * n + 2));
        let (net, other) = (format!("2001:db8:{n:x}:0"), format!("2001:db8:{n:x}:1"));
        let begun = Instant::now();
        let one = statuses(&[host.clone(), format!("6.6.6.6, {host}"), format!("{host}:99")]).await;
        let network =
            statuses(&[format!("{net}::1"), format!("{net}:1::2"), format!("{net}::3")]).await;
        let took = begun.elapsed();
        assert_eq!(statuses(&[next, format!("{other}::1")]).await, [200, 200]);
        // Where this machine took longer, one was given back: anew, with others.
        if took < Duration::from_millis(900) {
            assert_eq!((one, network), (vec![200, 200, 429], vec![200, 200, 429]));
            return;
        }
    }
    panic!("this machine is too slow to ask six times within a second");
}

#[tokio::test]
async fn http2_streams_preflights_unknown_paths_and_handshakes_all_count() {
    let world = World::start()
        .set("limits.requests_per_address", "1")
        .set("limits.burst_per_address", "3")
        .await;
    // Far more than can pass: what is asked is whether they count at all, not how fast this machine is.
    let mut sender = http2::open(&world).await;
    let mut refused = 0;
    for _ in 0..20 {
        let answer = sender.send_request(http2::get("/rest/v1/todos")).await.unwrap();
        refused += usize::from(answer.status() == 429);
        if answer.status() == 429 {
            assert!(answer.headers().contains_key("retry-after"));
        }
    }
    assert!(refused >= 10, "{refused} of 20");
    let preflight = "OPTIONS /rest/v1/t HTTP/1.1\r\nhost: a\r\norigin: https://a\r\naccess-control-request-method: GET\r\n\r\n";
    let unknown = "GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n";
    for (source, text) in [("127.0.0.3", preflight), ("127.0.0.4", unknown)] {
        let mut conn = from(source, &world).await;
        conn.send(text.repeat(20)).await;
        let mut refused = 0;
        for _ in 0..20 {
            refused += usize::from(conn.answer().await.status == 429);
        }
        assert!(refused >= 10, "{refused} of 20");
    }
    let path = format!("/realtime/v1/websocket?apikey={ANON_OLD}&vsn=1.0.0");
    let mut refused = 0;
    for _ in 0..20 {
        refused += usize::from(websocket::open(&world, &path).await.is_err());
    }
    assert!(refused >= 10, "{refused} of 20");
}

#[tokio::test]
async fn a_changed_pace_holds_for_the_next_request_and_off_is_off() {
    let world = World::start().await;
    let mut conn = from("127.0.0.2", &world).await;
    let refused = async |conn: &mut Conn| {
        let mut refused = 0;
        for _ in 0..30 {
            refused += usize::from(asks(conn, &world).await.status == 429);
        }
        refused
    };
    assert_eq!(refused(&mut conn).await, 0);
    world.change("limits.requests_per_address", "1").await;
    assert!(refused(&mut conn).await >= 15);
    world.change("limits.requests_per_address", "0").await;
    assert_eq!(refused(&mut conn).await, 0);
}

#[tokio::test]
async fn a_refused_upload_is_answered_and_what_follows_on_its_connection_is_read_rightly() {
    let world = World::start()
        .set("limits.requests_per_address", "1")
        .set("limits.burst_per_address", "1")
        .await;
    let mut conn = world.raw().await;
    let body = "{\"a\":1}GET /rest/v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = world.client().says("POST", "/rest/v1/todos", Some(body));
    conn.send(post.repeat(10)).await;
    let mut refused = 0;
    for _ in 0..10 {
        refused += usize::from(conn.answer().await.status == 429);
    }
    assert!(refused >= 5, "{refused} of 10");
    assert!(world.old.seen().iter().all(|seen| seen.target() == "/rest/v1/todos"));
    let mut large = world.raw().await;
    let much = world.client().says("POST", "/rest/v1/todos", Some(&"x".repeat(3_000_000)));
    large.try_send(&much).await;
    let answer = large.answer().await;
    assert!(matches!(answer.status, 200 | 429), "{answer:?}");
}
