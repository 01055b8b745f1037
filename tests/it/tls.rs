//! TLS and HTTP/2, towards clients and upstreams.

use std::fs;
#[cfg(target_os = "linux")]
use std::path::Path;
#[cfg(target_os = "linux")]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bytes::Bytes;
use cutover::side::Side;
use futures_util::{SinkExt as _, StreamExt as _};
use http::Version;
use http_body_util::{BodyExt as _, Full};
#[cfg(target_os = "linux")]
use notify::{
    EventKind, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::conn::Conn;
use crate::support::realtime::{Order, Realtime, changes, join};
use crate::support::tls::{Authority, TlsUpstream};
use crate::support::world::{ANON_OLD, World, token};
use crate::support::{eventually, http2, within};

#[tokio::test]
async fn clients_choose_http2_or_http1_by_alpn() {
    let authority = Authority::new();
    let world = authority.world().await;
    let address = world.tls_address.unwrap();
    let stream = authority.connect(address, "localhost", &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = http2::over(stream).await;
    let answer = sender.send_request(http2::get("/rest/v1/todos")).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, Version::HTTP_2));
    assert_eq!(world.old.last().header("x-forwarded-proto"), Some("https"));
    for offered in [&["http/1.1"][..], &[]] {
        let mut conn = Conn::new(authority.connect(address, "localhost", offered).await);
        for _ in 0..2 {
            conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
            conn.answer().await.served_by(Side::Old);
        }
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_handshakes_and_old_connections_live_on() {
    let authority = Authority::new();
    let world = authority.world().await;
    let address = world.tls_address.unwrap();
    let certificate = async || {
        let stream = authority.connect(address, "localhost", &["http/1.1"]).await;
        let chain = stream.get_ref().1.peer_certificates().unwrap();
        (chain[0].to_vec(), stream)
    };
    let (first, stream) = certificate().await;
    let mut kept = Conn::new(stream);
    let pair = authority.issues("localhost");
    fs::write(world.folder.path().join("tls.key"), &pair.key).unwrap();
    fs::write(world.folder.path().join("tls.crt"), &pair.cert).unwrap();
    eventually("the new certificate", async || certificate().await.0 != first).await;
    kept.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    kept.answer().await.served_by(Side::Old);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn half_a_certificate_changes_nothing() {
    let authority = Authority::new();
    let world = authority.world().await;
    let certificate = async || {
        let address = world.tls_address.unwrap();
        let stream = authority.connect(address, "localhost", &["http/1.1"]).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let whole = certificate().await;
    // Beside it first: from its first moment at this path it is half of one.
    let (beside, path) = (world.folder.path().join("half"), world.folder.path().join("tls.crt"));
    fs::write(&beside, "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    fs::rename(&beside, &path).unwrap();
    let (looks, _watcher) = opened(&path);
    // Once to see that it is another one, once to read it, and once more when that has come to nothing.
    eventually("looks at it", async || looks.load(SeqCst) >= 3).await;
    assert!(certificate().await == whole);
}

/// How often a file is opened from now on, for as long as the watcher is held.
#[cfg(target_os = "linux")]
fn opened(path: &Path) -> (Arc<AtomicUsize>, impl Sized) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&count);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let opened = EventKind::Access(AccessKind::Open(AccessMode::Any));
        counting.fetch_add(usize::from(event.unwrap().kind == opened), SeqCst);
    })
    .unwrap();
    watcher.watch(path, RecursiveMode::NonRecursive).unwrap();
    (count, watcher)
}

#[tokio::test]
async fn a_connection_too_many_over_tls_is_503_and_ends() {
    let authority = Authority::new();
    let world = authority.world().set("limits.connections", "1").await;
    let address = world.tls_address.unwrap();
    let mut held = world.raw().await;
    held.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    held.answer().await.served_by(Side::Old);
    let mut conn = Conn::new(authority.connect(address, "localhost", &["http/1.1"]).await);
    conn.send(world.client().says("GET", "/rest/v1/todos", None)).await;
    conn.answer().await.refused(503, "CUT503");
    let stream = authority.connect(address, "localhost", &["h2"]).await;
    let mut sender = http2::over(stream).await;
    let answer = sender.send_request(http2::get("/rest/v1/todos")).await.unwrap();
    assert_eq!(answer.status(), 503);
    http2::body(answer).await.unwrap();
    // The refused connection does not keep its place.
    eventually("its end", async || sender.is_closed()).await;
    assert_eq!(world.old.count(), 1);
}

/// A world whose new project speaks TLS under a name of its own.
async fn with_upstream(offered: &[&str]) -> (World, TlsUpstream) {
    let authority = Authority::new();
    let pair = authority.issues("new-ref.example");
    let upstream = TlsUpstream::start(&pair, offered).await;
    let world = World::start()
        .rollout(100)
        .set("projects.new.url", &format!("\"https://{}\"", upstream.address))
        .set("projects.new.host", "\"new-ref.example\"")
        .set("projects.new.ca", "\"ca.pem\"")
        .file("ca.pem", &authority.pem)
        .await;
    (world, upstream)
}

#[tokio::test]
async fn an_upstream_that_offers_http2_gets_it_under_its_own_name() {
    let (world, upstream) = with_upstream(&["h2", "http/1.1"]).await;
    let user = world.as_user("ada");
    for _ in 0..5 {
        user.get("/rest/v1/todos").await.served_by(Side::New);
    }
    let body = "x".repeat(200_000);
    user.post("/rest/v1/todos", &body).await.served_by(Side::New);
    let seen = upstream.seen();
    for one in &seen {
        assert_eq!(one.version, Version::HTTP_2);
        assert_eq!(one.host, "new-ref.example");
        assert_eq!(one.sni.as_deref(), Some("new-ref.example"));
        assert_eq!((one.path.as_str(), one.connection), ("/rest/v1/todos", 1));
    }
    assert_eq!(seen.last().unwrap().body.len(), 200_000);
}

#[tokio::test]
async fn an_upstream_without_http2_gets_http1_over_tls() {
    let (world, upstream) = with_upstream(&["http/1.1"]).await;
    for _ in 0..3 {
        world.as_user("ada").get("/rest/v1/todos").await.served_by(Side::New);
        world.is_quiet().await;
    }
    for one in upstream.seen() {
        assert_eq!((one.version, one.connection), (Version::HTTP_11, 1));
        assert_eq!(
            (one.host.as_str(), one.sni.as_deref()),
            ("new-ref.example", Some("new-ref.example"))
        );
    }
}

#[tokio::test]
async fn http2_goes_through_from_end_to_end() {
    let (world, upstream) = with_upstream(&["h2"]).await;
    let mut sender = http2::open(&world).await;
    let body = Bytes::from(vec![b'y'; 1_000_000]);
    let mut request = http2::get("/rest/v1/todos").map(|_| Full::new(body).boxed());
    *request.method_mut() = http::Method::POST;
    let token = token("ada");
    request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let answer = within("an answer", sender.send_request(request)).await.unwrap();
    assert_eq!(answer.headers()["x-upstream"], "new");
    assert_eq!(upstream.seen()[0].body.len(), 1_000_000);
}

#[tokio::test]
async fn a_stranger_behind_the_address_is_502() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let upstream = TlsUpstream::start(&stranger.issues("new-ref.example"), &["http/1.1"]).await;
    let setup = |host: &str, ca: &str| {
        World::start()
            .rollout(100)
            .set("projects.new.url", &format!("\"https://{}\"", upstream.address))
            .set("projects.new.host", &format!("{host:?}"))
            .set("projects.new.ca", "\"ca.pem\"")
            .file("ca.pem", ca)
    };
    for (host, ca) in [("new-ref.example", &authority.pem), ("other.example", &stranger.pem)] {
        let world = setup(host, ca).await;
        world.as_user("ada").get("/rest/v1/todos").await.refused(502, "CUT502");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_socket_of_realtime_over_tls_hears_all_and_its_goodbye() {
    let authority = Authority::new();
    let world = authority.world().await;
    let old = Realtime::on(&world.old);
    let stream = authority.connect(world.tls_address.unwrap(), "localhost", &["http/1.1"]).await;
    let url = format!("wss://localhost/realtime/v1/websocket?apikey={ANON_OLD}");
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let said = join("changes", &changes("notes"), Some(&token("ada")), "1").text(1);
    socket.send(said).await.unwrap();
    assert!(within("the reply", socket.next()).await.unwrap().unwrap().is_text());
    assert_eq!(world.old.last().header("x-forwarded-proto"), Some("https"));
    let large = Message::text(format!("{{\"x\":\"{}\"}}", "x".repeat(1_000_000)));
    old.orders(Order::Say(large.clone()));
    assert_eq!(within("a message", socket.next()).await.unwrap().unwrap(), large);
    world.change("rollout.force", "\"new\"").await;
    let goodbye = within("the goodbye", socket.next()).await.unwrap().unwrap();
    assert!(matches!(goodbye, Message::Close(Some(frame)) if u16::from(frame.code) == 1012));
    assert!(within("the end", socket.next()).await.is_none());
}
