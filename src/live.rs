//! What is live, and the word that it has changed. One publishes, every thread has a view of its own, and nobody waits.
//! `models` tries every order in which they may run.

use std::rc::Rc;
use std::sync::Arc;

use super::sync::{ArcSwap, Cache, watch};

/// Where it is published. There is one who does.
#[derive(Debug)]
pub struct Publisher<T> {
    live: Arc<ArcSwap<T>>,
    epochs: watch::Sender<u64>,
}

impl<T> Publisher<T> {
    /// The first, and its epoch.
    pub fn new(first: T, epoch: u64) -> Self {
        Self { live: Arc::new(ArcSwap::from_pointee(first)), epochs: watch::Sender::new(epoch) }
    }

    /// The pointer that views look through.
    pub const fn live(&self) -> &Arc<ArcSwap<T>> {
        &self.live
    }

    /// Tells of each that was published, by its epoch.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.epochs.subscribe()
    }

    /// Makes it live. The pointer first and then the word: whoever hears of an epoch finds what it tells of, and can't take the one before
    /// for it and go to sleep over that.
    pub fn publish(&self, next: Arc<T>, epoch: u64) {
        self.live.store(next);
        self.epochs.send_replace(epoch);
    }
}

/// What is live, as one holds it for as long as he needs it unchanged. The outer count is the thread's own, so that taking and dropping it
/// touches no memory that another thread touches.
pub type Taken<T> = Rc<Arc<T>>;

/// One thread's view. A look costs the reading of one shared pointer.
#[derive(Debug)]
pub struct View<T> {
    cache: Cache<Arc<ArcSwap<T>>, Arc<T>>,
    current: Taken<T>,
}

impl<T> View<T> {
    /// A view of what is live now.
    pub fn new(live: &Arc<ArcSwap<T>>) -> Self {
        let mut cache = Cache::new(Arc::clone(live));
        let current = Rc::new(Arc::clone(cache.load()));
        Self { cache, current }
    }

    /// What is live now, and whether it is another one than at the last look.
    pub fn look(&mut self) -> (&Taken<T>, bool) {
        let live = self.cache.load();
        let is_new = !Arc::ptr_eq(live, &self.current);
        if is_new {
            self.current = Rc::new(Arc::clone(live));
        }
        (&self.current, is_new)
    }
}
