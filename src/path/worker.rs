//! What one worker owns: its view of the live snapshot, its caches, its connections. Nothing here is shared with another
//! worker, so nothing here waits.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};

use super::published::PublishedKeys;
use crate::accept::addresses::Addresses;
use crate::forward::names::Resolver;
use crate::forward::pool::Pool;
use crate::identify::cache::TokenCache;
use crate::live::{self, View};
use crate::observe::Shard;
use crate::observe::span::Spans;
use crate::snapshot::Snapshot;
use crate::tokens::cache::ExchangeCache;

/// A snapshot as a request holds it.
pub type Taken = live::Taken<Snapshot>;

/// What the composition root gives to every worker.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The pointer that `config` swaps.
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Changes after each swap.
    pub epochs: watch::Receiver<u64>,
    /// Turns true when the proxy stops.
    pub drain: watch::Receiver<bool>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// Where requests go that are traced; `None`: none is.
    pub spans: Option<Spans>,
    /// Over how long the sockets whose user changed side are spread.
    pub socket_drain: Duration,
    /// Over how long all sockets are spread when the proxy stops.
    pub stop_drain: Duration,
    /// What both projects publish as their keys.
    pub published: Arc<PublishedKeys>,
    /// What client addresses take.
    pub addresses: Arc<Addresses>,
    /// Whom to ask for the addresses of the projects' names.
    pub resolver: Resolver,
}

/// One worker's own.
#[derive(Debug)]
pub struct Worker {
    /// What all workers have.
    pub shared: Shared,
    /// Tokens it has read.
    pub tokens: TokenCache,
    /// Tokens it has exchanged.
    pub exchanged: ExchangeCache,
    /// Its connections to both sides.
    pub pool: Rc<Pool>,
    /// Bytes of the bodies that it has read to say them in other words, and not sent yet.
    pub bodies: Rc<Cell<usize>>,
    /// Its counters.
    pub shard: Arc<Shard>,
    /// Held by everything that a stop waits for.
    pub alive: mpsc::Sender<()>,
    view: RefCell<View<Snapshot>>,
}

impl Worker {
    /// A worker that begins with the snapshot of this moment. The second value resolves (to `None`) when everything that
    /// holds [`Worker::alive`] is gone, the worker itself included.
    #[must_use]
    pub fn new(shared: Shared, shard: Arc<Shard>) -> (Rc<Self>, mpsc::Receiver<()>) {
        let mut view = View::new(&shared.live);
        let cache_entries = view.look().0.identify.cache_entries;
        let (alive, ended) = mpsc::channel(1);
        let worker = Self {
            tokens: TokenCache::new(cache_entries),
            exchanged: ExchangeCache::default(),
            pool: Pool::new(Arc::clone(&shard), shared.resolver.clone()),
            bodies: Rc::default(),
            shared,
            shard,
            alive,
            view: RefCell::new(view),
        };
        (Rc::new(worker), ended)
    }

    /// The live snapshot, at the cost of reading one shared pointer.
    #[must_use]
    pub fn snapshot(&self) -> Taken {
        let mut view = self.view.borrow_mut();
        let (live, is_new) = view.look();
        if is_new {
            self.tokens.resize(live.identify.cache_entries);
        }
        Rc::clone(live)
    }
}
