//! A worker's connections to both sides: kept alive, reused newest first, never shared with another worker.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::dial::{Dialer, Offer, Stream};
use super::error::ConnectError;
use super::request_body::RequestBody;
use super::{Project, Settings};
use crate::local::LocalExecutor;
use crate::observe::{Counter, Gauge, Shard};
use crate::side::{Pair, Side};

/// How often an idle HTTP/2 connection is asked whether it still stands, and how long the answer may take.
const HTTP2_PING: Duration = Duration::from_secs(20);

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

/// An HTTP/2 connection: one for all requests.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    address: Rc<Address>,
}

#[derive(Debug, Default)]
struct Connections {
    kept: Vec<Kept>,
    shared: Option<Shared>,
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

/// A connection to send one request on.
#[derive(Debug)]
pub(super) enum Connection {
    Http1(Lease),
    Http2(http2::SendRequest<RequestBody>),
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(shard: Arc<Shard>) -> Rc<Self> {
        Rc::new(Self { dialer: Dialer::default(), sides: RefCell::default(), shard })
    }

    /// A kept connection that still stands, newest first; connections past their time are dropped on the way.
    pub(super) async fn reuse(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
    ) -> Option<Connection> {
        let project = &settings.projects[side];
        if let Some(shared) = &self.sides.borrow()[side].shared
            && shared.address.leads_to(project)
            && !shared.sender.is_closed()
        {
            return Some(Connection::Http2(shared.sender.clone()));
        }
        loop {
            let mut kept = self.sides.borrow_mut()[side].kept.pop()?;
            let is_fresh = kept.until > Instant::now() && kept.address.leads_to(project);
            // Ready at once, unless the connection's own task has not yet run since its last response.
            if is_fresh && kept.sender.ready().await.is_ok() {
                return Some(Connection::Http1(self.lease(
                    kept.sender,
                    kept.address,
                    side,
                    settings,
                )));
            }
        }
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

    /// A new connection.
    pub(super) async fn connect(
        self: &Rc<Self>,
        side: Side,
        settings: &Settings,
    ) -> Result<Connection, ConnectError> {
        let dialing = self.dial(side, settings, Offer::Any);
        tokio::time::timeout(settings.connect_timeout, dialing)
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
        if stream.is_http2() {
            let sender = self.http2(stream, side).await?;
            self.sides.borrow_mut()[side].shared = Some(Shared { sender: sender.clone(), address });
            return Ok(Connection::Http2(sender));
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
        stream: Stream,
        side: Side,
    ) -> Result<http2::SendRequest<RequestBody>, ConnectError> {
        let (sender, connection) = http2::Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
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

    /// Forgets an HTTP/2 connection that failed.
    pub(super) fn forget_shared(&self, side: Side) {
        self.sides.borrow_mut()[side].shared = None;
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
