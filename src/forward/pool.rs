//! A worker's connections to both sides: kept alive, reused newest first, never shared with another worker.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::dial::{self, Dialer, Offer};
use super::error::ConnectError;
use super::lease::{Kept, Lease};
use super::names::Resolver;
use super::request_body::RequestBody;
use super::{Project, Settings};
use crate::http1;
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

/// From how long ago a request that can't be repeated does not trust what the runtime knows of a kept connection. What came before that
/// is known; a look at the socket is a system call.
const TRUSTED: Duration = Duration::from_millis(2);

/// Where a connection leads: a kept one is used only for a project that is still reached the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Address {
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

/// An HTTP/2 connection, shared by up to [`STREAMS`] requests.
#[derive(Debug)]
struct Shared {
    sender: http2::SendRequest<RequestBody>,
    address: Rc<Address>,
    streams: Rc<Cell<usize>>,
    made: Instant,
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

impl Connections {
    /// A stream of an HTTP/2 connection that has room.
    fn stream(&mut self, project: &Project, now: Instant, lifetime: Duration) -> Option<Stream> {
        self.shared.retain(|shared| {
            !shared.sender.is_closed()
                && shared.address.leads_to(project)
                && now < shared.made + lifetime
        });
        self.shared.iter().find(|shared| shared.streams.get() < STREAMS).map(Stream::of)
    }
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    dialer: Dialer,
    sides: RefCell<Pair<Connections>>,
    shard: Arc<Shard>,
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
    Http1(Box<Lease>),
    Http2(Stream),
}

impl Pool {
    /// An empty pool; whom to ask for names.
    #[must_use]
    pub fn new(shard: Arc<Shard>, resolver: Resolver) -> Rc<Self> {
        Rc::new(Self { dialer: Dialer::new(resolver), sides: RefCell::default(), shard })
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
        let dialing =
            self.dialer.dial(&settings.projects[side], Offer::Http1, settings.connect_timeout);
        let dialed = tokio::time::timeout(settings.connect_timeout, dialing)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        Ok(dial::certificate(&dialed))
    }

    /// A kept connection that still stands, newest first; connections past their time are dropped on the way. `is_repeatable`: a request
    /// that finds it closed all the same is not lost.
    pub(super) fn reuse(
        &self,
        side: Side,
        settings: &Settings,
        now: Instant,
        is_repeatable: bool,
    ) -> Option<Connection> {
        let project = &settings.projects[side];
        let connections = &mut self.sides.borrow_mut()[side];
        let lifetime = settings.connection_lifetime;
        if let Some(stream) = connections.stream(project, now, lifetime) {
            return Some(Connection::Http2(stream));
        }
        loop {
            let mut kept = connections.kept.pop()?;
            let is_fresh = kept.until > now
                && now < kept.lease.made + lifetime
                && kept.lease.address.leads_to(project);
            let is_trusted = || is_repeatable || now < kept.since + TRUSTED || kept.really_stands();
            if is_fresh && is_trusted() && kept.stands() {
                return Some(Connection::Http1(kept.lease.under(settings)));
            }
        }
    }

    /// Keeps a connection, if fewer than `most` are kept.
    pub(super) fn keep(&self, side: Side, most: usize, kept: Kept) {
        let connections = &mut self.sides.borrow_mut()[side];
        if connections.kept.len() < most {
            connections.kept.push(kept);
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
            let (now, lifetime) = (Instant::now(), settings.connection_lifetime);
            if let Some(stream) = self.sides.borrow_mut()[side].stream(project, now, lifetime) {
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
        let stream = self.dialer.dial(project, offer, settings.connect_timeout).await?;
        self.shard.count(Counter::UpstreamConnected(side));
        let address = Rc::new(Address::of(project));
        let is_http2 = stream.is_http2();
        self.sides.borrow_mut()[side].speaks_http2 = Some(is_http2);
        if is_http2 {
            let sender = self.http2(stream, side).await?;
            let made = Instant::now();
            let shared = Shared { sender, address, streams: Rc::default(), made };
            let stream = Stream::of(&shared);
            self.sides.borrow_mut()[side].shared.push(shared);
            return Ok(Connection::Http2(stream));
        }
        let open = self.shard.hold(Gauge::UpstreamConnections(side));
        let lease = Lease::new(stream, address, side, Rc::downgrade(self), open);
        Ok(Connection::Http1(lease.under(settings)))
    }

    async fn http2(
        &self,
        stream: http1::stream::Stream,
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
        &self,
        side: Side,
        settings: &Settings,
    ) -> Result<Box<Lease>, ConnectError> {
        let project = &settings.projects[side];
        let dialing = self.dialer.dial(project, Offer::Http1, settings.connect_timeout);
        let stream = tokio::time::timeout(settings.connect_timeout, dialing)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        self.shard.count(Counter::UpstreamConnected(side));
        let open = self.shard.hold(Gauge::UpstreamConnections(side));
        Ok(Lease::new(stream, Rc::new(Address::of(project)), side, Weak::new(), open))
    }

    /// Drops every kept connection that is past its time or was closed. Called now and then; without it the connections of a side that
    /// nobody asks any more would stay.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut sides = self.sides.borrow_mut();
        for side in Side::ALL {
            sides[side].kept.retain_mut(|kept| kept.until > now && kept.stands());
        }
    }
}
