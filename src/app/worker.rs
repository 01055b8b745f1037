//! One worker thread: its own runtime, listeners, connections and caches.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use http::Request;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, LocalSet};
use tower::{ServiceBuilder, service_fn};

use crate::accept::Settings;
use crate::accept::addresses::{Addresses, Entered, FarTooMany};
use crate::accept::connection::{Answers, Terms, serve_plain, serve_tls};
use crate::accept::listener::{Place, accept_all};
use crate::accept::tls::Certificate;
use crate::accept::wire::{Refused, Watchdog, Wire};
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

/// Everything that a worker thread starts with.
pub(super) struct Seat {
    pub(super) shared: Shared,
    pub(super) shard: Arc<Shard>,
    pub(super) socket: TcpListener,
    pub(super) tls: Option<(TcpListener, Arc<Certificate>)>,
    /// Open client connections over all workers. Touched once per connection, not per request.
    pub(super) open: Arc<AtomicUsize>,
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
        let Self { shared, shard, socket, tls, open, drain_timeout } = self;
        let doors = |door: &dyn Fn(Option<Arc<Certificate>>) -> Door| {
            let mut accepting = vec![accept(socket, door(None))];
            if let Some((socket, certificate)) = tls {
                accepting.push(accept(socket, door(Some(certificate))));
            }
            accepting
        };
        House { shared, shard, open, drain_timeout }.serve(doors).await;
    }
}

/// What a worker serves in, whatever its doors are.
pub(super) struct House {
    pub(super) shared: Shared,
    pub(super) shard: Arc<Shard>,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) drain_timeout: Duration,
}

impl House {
    /// Serves who comes in by the doors, until the drain has ended. `doors` begins to accept.
    pub(super) async fn serve(
        self,
        doors: impl FnOnce(&dyn Fn(Option<Arc<Certificate>>) -> Door) -> Vec<JoinHandle<()>>,
    ) {
        let Self { shared, shard, open, drain_timeout } = self;
        let mut drain = shared.drain.clone();
        let (worker, mut ended) = Worker::new(shared, shard);
        let watchdog = Rc::new(Watchdog::default());
        let accepting = doors(&|certificate| Door {
            worker: Rc::clone(&worker),
            open: Arc::clone(&open),
            watchdog: Rc::clone(&watchdog),
            certificate,
        });
        // It outlives the doors: who is in is told of the stop by it.
        let drained = drain.clone();
        let _watching = tokio::task::spawn_local(async move { watchdog.run(drained).await });
        let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        // An error means that the proxy itself is gone, which is a stop as well.
        let _stop = drain.wait_for(|stop| *stop).await;
        for task in accepting.into_iter().chain([sweeping]) {
            task.abort();
            let _aborted = task.await;
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

/// Accepts connections in the background until aborted.
fn accept(socket: TcpListener, door: Door) -> JoinHandle<()> {
    tokio::task::spawn_local(async move {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => {
                accept_all(socket, |stream, peer| door.connect(stream, peer)).await;
            }
            Err(error) => tracing::error!(%error, "a worker can't listen"),
        }
    })
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
        let (told, shard) = (Rc::clone(&wire), Arc::clone(&self.worker.shard));
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
                shard.ended(Ending::TooSlow, None);
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
