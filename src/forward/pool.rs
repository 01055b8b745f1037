//! A worker's connections to both sides: kept alive, reused newest first, never shared with another worker.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::dial::{Dialed, Dialer, Offer};
use super::error::ConnectError;
use super::request_body::RequestBody;
use super::{Project, Settings};
use crate::local::LocalExecutor;
use crate::observe::{Counter, Gauge, Shard};
use crate::side::{Pair, Side};

/// How often an idle HTTP/2 connection is asked whether it still stands, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);

/// Requests that share one HTTP/2 connection; more open another one. Below what servers allow at once (100 and more): a request beyond
/// that would wait for another to end, and nobody would see why.
const STREAMS: usize = 64;

/// The window of a whole HTTP/2 connection: as large as it can be, so that some clients that stop reading can't use it up and stall
/// all others. What is read ahead for each of them is bounded by the window of its stream.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
const STREAM_WINDOW: u32 = 512 * 1024;

/// Bytes of a response's head over HTTP/2: `Content-Location` repeats the query, which may be long.
const RESPONSE_HEAD: u32 = 256 * 1024;

/// How long a kept connection may take to be ready again. It is at once, unless its own task has not run since its last response.
const READY: Duration = Duration::from_millis(5);

/// Where a connection leads: a kept one is used only for a project that is still reached the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    ca_pem: Option<String>,
}

impl Address {
    fn of(project: &Project) -> Self {
        Self {
            tls: project.tls,
            host: project.dial_host.clone(),
            port: project.dial_port,
            authority: project.authority.as_str().to_owned(),
            ca_pem: project.ca_pem.clone(),
        }
    }

    fn leads_to(&self, project: &Project) -> bool {
        self.port == project.dial_port
            && self.tls == project.tls
            && self.host == project.dial_host
            && self.authority == project.authority.as_str()
            && self.ca_pem == project.ca_pem
    }
}

/// One kept connection.
#[derive(Debug)]
struct Kept {
    sender: http1::SendRequest<RequestBody>,
    address: Rc<Address>,
    until: Instant,
}

/// An HTTP/2 connection, shared by up to [`STREAMS`] requests.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    address: Rc<Address>,
    streams: Rc<Cell<usize>>,
}

#[derive(Debug, Default)]
struct Connections {
    kept: Vec<Kept>,
    shared: Vec<Shared>,
    /// What the side chose last time; `None` before the first TLS connection.
    speaks_http2: Option<bool>,
    /// Held while a connection is made that others could share, so that a cold start makes one and not one per request.
    dialing: Rc<Mutex<()>>,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    dialer: Dialer,
    sides: RefCell<Pair<Connections>>,
    shard: Arc<Shard>,
}

/// An HTTP/1 connection in use. Given back by [`Lease::give_back`] when the response has been read to its end; dropped in
/// any other state, which closes it.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) sender: http1::SendRequest<RequestBody>,
    address: Rc<Address>,
    side: Side,
    pool: Weak<Pool>,
    idle_timeout: Duration,
    idle_connections: usize,
}

/// One stream of an HTTP/2 connection, until it is dropped with its response's body.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) sender: http2::SendRequest<RequestBody>,
    streams: Rc<Cell<usize>>,
}

impl Stream {
    fn of(shared: &Shared) -> Self {
        shared.streams.set(shared.streams.get() + 1);
        Self { sender: shared.sender.clone(), streams: Rc::clone(&shared.streams) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.set(self.streams.get().saturating_sub(1));
    }
}

/// A connection to send one request on.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Lease),
    Http2(Stream),
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(shard: Arc<Shard>) -> Rc<Self> {
        Rc::new(Self { dialer: Dialer::default(), sides: RefCell::default(), shard })
    }

    /// The certificate that a side shows, as DER; `None` without TLS. On a connection of its own, which is closed at once.
    ///
    /// # Errors
    /// [`ConnectError`]: also for a certificate that is not believed.
    pub async fn certificate(
        &self,
        side: Side,
        settings: &Settings,
    ) -> Result<Option<Vec<u8>>, ConnectError> {
        let dialing = self.dialer.dial(&settings.projects[side], Offer::Http1);
        let dialed = tokio::time::timeout(settings.connect_timeout, dialing)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        Ok(dialed.certificate())
    }

    /// A kept connection that still stands, newest first; connections past their time are dropped on the way.
    pub(super) async fn reuse(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
    ) -> Option<Connection> {
        let project = &settings.projects[side];
        if let Some(stream) = self.stream(side, project) {
            return Some(Connection::Http2(stream));
        }
        loop {
            let mut kept = self.sides.borrow_mut()[side].kept.pop()?;
            let is_fresh = kept.until > Instant::now() && kept.address.leads_to(project);
            if is_fresh && is_ready(&mut kept.sender).await {
                return Some(Connection::Http1(self.lease(
                    kept.sender,
                    kept.address,
                    side,
                    settings,
                )));
            }
        }
    }

    /// A stream of an HTTP/2 connection that has room.
    fn stream(&self, side: Side, project: &Project) -> Option<Stream> {
        let shared = &mut self.sides.borrow_mut()[side].shared;
        shared.retain(|shared| !shared.sender.is_closed() && shared.address.leads_to(project));
        shared.iter().find(|shared| shared.streams.get() < STREAMS).map(Stream::of)
    }

    fn lease(
        self: &Rc<Self>,
        sender: http1::SendRequest<RequestBody>,
        address: Rc<Address>,
        side: Side,
        settings: &Settings,
    ) -> Lease {
        Lease {
            sender,
            address,
            side,
            pool: Rc::downgrade(self),
            idle_timeout: settings.idle_timeout,
            idle_connections: settings.idle_connections,
        }
    }

    /// A new connection, or a stream of one that somebody else has made meanwhile.
    pub(super) async fn connect(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
    ) -> Result<Connection, ConnectError> {
        let project = &settings.projects[side];
        let connecting = async {
            let is_shareable =
                || project.tls && self.sides.borrow()[side].speaks_http2 != Some(false);
            if !is_shareable() {
                return self.dial(side, settings, Offer::Any).await;
            }
            let dialing = Rc::clone(&self.sides.borrow()[side].dialing);
            let turn = dialing.lock().await;
            if let Some(stream) = self.stream(side, project) {
                return Ok(Connection::Http2(stream));
            }
            if !is_shareable() {
                // It turned out that everybody needs a connection of their own: all at once, then.
                drop(turn);
            }
            self.dial(side, settings, Offer::Any).await
        };
        tokio::time::timeout(settings.connect_timeout, connecting)
            .await
            .map_err(|_| ConnectError::Timeout)?
    }

    async fn dial(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
        offer: Offer,
    ) -> Result<Connection, ConnectError> {
        let project = &settings.projects[side];
        let stream = self.dialer.dial(project, offer).await?;
        self.shard.count(Counter::UpstreamConnected(side));
        let address = Rc::new(Address::of(project));
        let is_http2 = stream.is_http2();
        self.sides.borrow_mut()[side].speaks_http2 = Some(is_http2);
        if is_http2 {
            let sender = self.http2(stream, side).await?;
            let shared = Shared { sender, address, streams: Rc::default() };
            let stream = Stream::of(&shared);
            self.sides.borrow_mut()[side].shared.push(shared);
            return Ok(Connection::Http2(stream));
        }
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
        let open = self.shard.hold(Gauge::UpstreamConnections(side));
        tokio::task::spawn_local(async move {
            // A connection that breaks tells so to the request that used it.
            let _end = connection.await;
            drop(open);
        });
        Ok(Connection::Http1(self.lease(sender, address, side, settings)))
    }

    async fn http2(
        &self,
        stream: Dialed,
        side: Side,
    ) -> Result<http2::SendRequest<RequestBody>, ConnectError> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_header_list_size(RESPONSE_HEAD)
            .keep_alive_interval(HTTP2_PING)
            .keep_alive_timeout(HTTP2_PING)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectError::Handshake)?;
        let open = self.shard.hold(Gauge::UpstreamConnections(side));
        tokio::task::spawn_local(async move {
            let _end = connection.await;
            drop(open);
        });
        Ok(sender)
    }

    /// A connection of its own for an upgrade: HTTP/1.1, and never back into the pool.
    pub(super) async fn connect_for_upgrade(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
    ) -> Result<http1::SendRequest<RequestBody>, ConnectError> {
        let dialing = self.dialer.dial(&settings.projects[side], Offer::Http1);
        let stream = tokio::time::timeout(settings.connect_timeout, dialing)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        self.shard.count(Counter::UpstreamConnected(side));
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(ConnectError::Handshake)?;
        let open = self.shard.hold(Gauge::UpstreamConnections(side));
        tokio::task::spawn_local(async move {
            let _end = connection.with_upgrades().await;
            drop(open);
        });
        Ok(sender)
    }

    /// Drops every kept connection that is past its time. Called now and then; without it the connections of a side that nobody
    /// asks any more would stay.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut sides = self.sides.borrow_mut();
        for side in Side::ALL {
            sides[side].kept.retain(|kept| kept.until > now && !kept.sender.is_closed());
        }
    }
}

impl Lease {
    /// Keeps the connection for the next request. `hint` is what the side said about how long it will (`Keep-Alive: timeout=N`):
    /// a connection that the side is about to close is not worth the race.
    pub(super) fn give_back(self, hint: Option<Duration>) {
        let Some(pool) = self.pool.upgrade() else { return };
        let wait = hint.map_or(self.idle_timeout, |hint| hint.min(self.idle_timeout));
        let kept = &mut pool.sides.borrow_mut()[self.side].kept;
        if kept.len() < self.idle_connections && !self.sender.is_closed() && !wait.is_zero() {
            kept.push(Kept {
                sender: self.sender,
                address: self.address,
                until: Instant::now() + wait,
            });
        }
    }
}

async fn is_ready(sender: &mut http1::SendRequest<RequestBody>) -> bool {
    sender.is_ready()
        || tokio::time::timeout(READY, sender.ready()).await.is_ok_and(|ready| ready.is_ok())
}
