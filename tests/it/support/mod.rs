//! What the tests speak: a [`world::World`] with a running proxy between recording upstreams, clients that speak HTTP/1.1 byte
//! by byte (libraries refuse to say what attackers say), and waiting for conditions instead of sleeping.

pub mod collector;
pub mod conn;
pub mod corpus;
pub mod fault;
pub mod frames;
pub mod http2;
pub mod kubernetes;
pub mod process;
pub mod realtime;
pub mod strict;
pub mod tls;
pub mod upstream;
pub mod websocket;
pub mod world;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// An address at which nobody listens, and nobody can as long as this is held: a port that was given back is another's a moment later.
pub struct Nobody {
    _socket: Socket,
    pub address: SocketAddr,
}

impl Nobody {
    pub fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { _socket: socket, address }
    }

    /// Its URL, as a TOML value.
    pub fn url(&self) -> String {
        format!("\"http://{}\"", self.address)
    }
}

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Says what a test was at when it failed.
pub struct Named<'a>(pub &'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was at: {}", self.0);
        }
    }
}

/// Fails the test when something does not happen in time.
pub async fn within<T>(what: &str, doing: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, doing).await {
        Ok(done) => done,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks again and again until the answer is yes.
pub async fn eventually(what: &str, mut asked: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !asked().await {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The sum, on a page of metrics, over every series of a metric whose labels hold `labels`.
pub fn sum(page: &str, name: &str, labels: &str) -> f64 {
    let lines = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && line.contains(labels)
    });
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}
