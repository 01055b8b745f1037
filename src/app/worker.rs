//! One worker thread: its own runtime, listeners, connections and caches.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::Request;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};
use tower::{ServiceBuilder, service_fn};

use crate::accept::Settings;
use crate::accept::addresses::{Addresses, Entered, FarTooMany};
use crate::accept::connection::{Answers, Terms, serve_plain, serve_tls};
use crate::accept::listener::{Place, accept_all};
use crate::accept::tls::Certificate;
use crate::accept::wire::{Refused, Stage, Watchdog, Wire};
use crate::http1::incoming::Incoming;
use crate::http1::stream::Stream;
use crate::observe::{Counter, Ending, ErrorCode, Gauge, Shard};
use crate::path::layers::CatchPanic;
use crate::path::worker::{Shared, Worker};
use crate::path::{Client, handle};

/// Connections beyond `limits.connections` that still get an answer (503); any more are closed without one.
const ANSWERED_BEYOND_LIMIT: usize = 64;

/// How often idle upstream connections are looked through.
const SWEEP: Duration = Duration::from_secs(10);

/// A worker's sockets of one address.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) sockets: Vec<TcpListener>,
    /// Until when connections are accepted here.
    pub(super) until: Stage,
}

/// Everything that a worker thread starts with.
pub(super) struct Seat {
    pub(super) shared: Shared,
    pub(super) shard: Arc<Shard>,
    pub(super) plain: Sockets,
    pub(super) tls: Option<(Sockets, Arc<Certificate>)>,
    /// Open client connections over all workers. Touched once per connection, not per request.
    pub(super) open: Arc<AtomicUsize>,
    pub(super) end: watch::Receiver<Stage>,
    pub(super) drain_timeout: Duration,
}

impl Seat {
    /// Serves until the drain has ended. Runs on its own thread.
    pub(super) fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        match runtime {
            Ok(runtime) => LocalSet::new().block_on(&runtime, self.serve()),
            Err(error) => tracing::error!(%error, "a worker can't start"),
        }
    }

    async fn serve(self) {
        let Self { shared, shard, plain, tls, open, end, drain_timeout } = self;
        let ending = end.clone();
        let doors = |door: &dyn Fn(Option<Arc<Certificate>>) -> Door| {
            let mut accepting = accept(plain, door(None), &ending);
            if let Some((sockets, certificate)) = tls {
                accepting.extend(accept(sockets, door(Some(certificate)), &ending));
            }
            accepting
        };
        House { shared, shard, open, end, drain_timeout }.serve(doors).await;
    }
}

/// What a worker serves in, whatever its doors are.
pub(super) struct House {
    pub(super) shared: Shared,
    pub(super) shard: Arc<Shard>,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) end: watch::Receiver<Stage>,
    pub(super) drain_timeout: Duration,
}

impl House {
    /// Serves who comes in by the doors, until the drain has ended. `doors` begins to accept; what it begins ends with the last stage.
    pub(super) async fn serve(
        self,
        doors: impl FnOnce(&dyn Fn(Option<Arc<Certificate>>) -> Door) -> Vec<JoinHandle<()>>,
    ) {
        let Self { shared, shard, open, mut end, drain_timeout } = self;
        let (worker, mut ended) = Worker::new(shared, shard);
        let watchdog = Rc::new(Watchdog::default());
        let accepting = doors(&|certificate| Door {
            worker: Rc::clone(&worker),
            open: Arc::clone(&open),
            watchdog: Rc::clone(&watchdog),
            certificate,
        });
        // It outlives the doors: who is in is told of the stop by it.
        let (dog, told) = (Rc::clone(&watchdog), end.clone());
        let _watching = tokio::task::spawn_local(async move { dog.run(told).await });
        let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        // An error means that the proxy itself is gone, which is a stop as well.
        let _stop = end.wait_for(|stage| *stage == Stage::Stopping).await;
        sweeping.abort();
        for task in accepting.into_iter().chain([sweeping]) {
            let _ended = task.await;
        }
        drop(worker);
        if tokio::time::timeout(drain_timeout, ended.recv()).await.is_err() {
            tracing::warn!("drain_timeout is over; what is still in flight is cut");
        }
    }
}

/// Where connections come in.
pub(super) struct Door {
    worker: Rc<Worker>,
    open: Arc<AtomicUsize>,
    watchdog: Rc<Watchdog>,
    /// There where TLS is spoken.
    certificate: Option<Arc<Certificate>>,
}

/// Accepts connections in the background, as long as the sockets say.
fn accept(from: Sockets, door: Door, end: &watch::Receiver<Stage>) -> Vec<JoinHandle<()>> {
    let (Sockets { sockets, until }, door) = (from, Rc::new(door));
    let accept = |socket| {
        let (door, mut end) = (Rc::clone(&door), end.clone());
        tokio::task::spawn_local(async move {
            let socket = match tokio::net::TcpListener::from_std(socket) {
                Ok(socket) => socket,
                Err(error) => return tracing::error!(%error, "a worker can't listen"),
            };
            tokio::select! {
                // In this order: what waits when the end comes is accepted, because closing the socket would reset it.
                biased;
                () = accept_all(socket, |stream, peer| door.connect(stream, peer)) => {}
                _ends = end.wait_for(|stage| *stage >= until) => {}
            }
        })
    };
    sockets.into_iter().map(accept).collect()
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.pool.sweep();
    }
}

impl Door {
    /// Begins to serve a connection.
    fn connect(&self, stream: TcpStream, peer: SocketAddr) {
        let Some((wire, terms, service)) = self.admit(peer) else { return };
        let server = self.certificate.as_ref().map(|certificate| certificate.server_config());
        let (worker, told) = (Rc::clone(&self.worker), Rc::clone(&wire));
        tokio::task::spawn_local(async move {
            match server {
                None => serve_plain(Stream::Plain(stream), wire, terms, service).await,
                Some(server) => {
                    if let Err(error) = serve_tls(stream, server, wire, terms, service).await {
                        tracing::debug!(%error, "no TLS handshake");
                    }
                }
            }
            if told.was_too_slow_unseen() {
                worker.shard.ended(Ending::TooSlow, None);
            }
            if told.has_flooded() {
                tracing::debug!(%peer, "closed: a flood");
                worker.shard.ended(Ending::Flood, None);
            }
        });
    }

    /// What a connection is served with; `None` for one that gets no answer.
    pub(super) fn admit(
        &self,
        peer: SocketAddr,
    ) -> Option<(Rc<Wire>, Terms, impl Answers + use<>)> {
        let Self { worker, open, certificate, .. } = self;
        let place = Place::take(open);
        let snapshot = worker.snapshot();
        let limits = snapshot.accept.limits;
        if place.before() >= limits.connections + ANSWERED_BEYOND_LIMIT {
            worker.shard.error(ErrorCode::TooManyConnections, None);
            return None;
        }
        let Ok(entered) = enter(&worker.shared.addresses, &snapshot.accept, peer.ip()) else {
            worker.shard.error(ErrorCode::TooManyOfAddress, None);
            return None;
        };
        let refused = match &entered {
            _ if place.before() >= limits.connections => Some(Refused::TooManyConnections),
            Some(entered) if entered.is_beyond => Some(Refused::TooManyOfAddress),
            _ => None,
        };
        let terms = Terms { limits, refused };
        worker.shard.count(Counter::ClientConnected);
        let held = worker.shard.hold(Gauge::ClientConnections);
        let wire = Rc::new(Wire::new(&limits));
        self.watchdog.watch(&wire);
        let client = Rc::new(Client {
            wire: Rc::clone(&wire),
            peer: peer.ip(),
            is_secure: certificate.is_some(),
            place: (place, held, entered),
        });
        let serving = Rc::clone(worker);
        let service = ServiceBuilder::new().layer(CatchPanic).service(service_fn(
            move |request: Request<Incoming>| {
                handle(Rc::clone(&serving), Rc::clone(&client), request)
            },
        ));
        Some((wire, terms, service))
    }
}

/// Counts a connection of its address, where these are limited. A trusted proxy's connections are those of many clients.
fn enter(
    addresses: &Arc<Addresses>,
    settings: &Settings,
    peer: IpAddr,
) -> Result<Option<Entered>, FarTooMany> {
    let most = settings.limits.connections_per_address;
    let peer = peer.to_canonical();
    if most == 0 || settings.trusted_proxies.iter().any(|network| network.contains(&peer)) {
        return Ok(None);
    }
    addresses.enters(peer, most)
}
