//! What threads tell each other by, as loom can try it: each as weak as the real one, and not a bit stronger. arc-swap's pointer is the
//! index in a list that only grows (a pointer that is held can't come back as another's), with the orders of its own loads and stores;
//! tokio's `watch` and `Notify` do what theirs do, in the same order.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::{Arc, PoisonError};
use std::task::{Poll, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};

/// `arc_swap::ArcSwap`.
#[derive(Debug)]
pub(crate) struct ArcSwap<T> {
    at: AtomicUsize,
    /// Not loom's: no thread is told anything by it.
    all: std::sync::Mutex<Vec<Arc<T>>>,
}

impl<T> ArcSwap<T> {
    pub(crate) fn from_pointee(first: T) -> Self {
        Self { at: AtomicUsize::new(0), all: std::sync::Mutex::new(vec![Arc::new(first)]) }
    }

    fn add(&self, next: Arc<T>) -> usize {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(next);
        all.len() - 1
    }

    fn get(&self, at: usize) -> Arc<T> {
        Arc::clone(&self.all.lock().unwrap_or_else(PoisonError::into_inner)[at])
    }

    pub(crate) fn store(&self, next: Arc<T>) {
        self.at.swap(self.add(next), Ordering::AcqRel);
    }

    pub(crate) fn load(&self) -> Guard<Arc<T>> {
        Guard(self.get(self.at.load(Ordering::Acquire)))
    }

    pub(crate) fn rcu(&self, mut change: impl FnMut(&Arc<T>) -> T) {
        let mut at = self.at.load(Ordering::Acquire);
        loop {
            let next = self.add(Arc::new(change(&self.get(at))));
            match self.at.compare_exchange(at, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(now) => at = now,
            }
        }
    }
}

impl<T: Default> Default for ArcSwap<T> {
    fn default() -> Self {
        Self::from_pointee(T::default())
    }
}

/// `arc_swap::Guard`.
#[derive(Debug)]
pub(crate) struct Guard<T>(T);

impl<T> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// `arc_swap::cache::Cache`: a relaxed look at the pointer, and a real one when it is another.
#[derive(Debug)]
pub(crate) struct Cache<A, T> {
    swap: A,
    at: usize,
    cached: T,
}

impl<T> Cache<Arc<ArcSwap<T>>, Arc<T>> {
    pub(crate) fn new(swap: Arc<ArcSwap<T>>) -> Self {
        let at = swap.at.load(Ordering::Acquire);
        Self { at, cached: swap.get(at), swap }
    }

    pub(crate) fn load(&mut self) -> &Arc<T> {
        if self.swap.at.load(Ordering::Relaxed) != self.at {
            self.at = self.swap.at.load(Ordering::Acquire);
            self.cached = self.swap.get(self.at);
        }
        &self.cached
    }
}

/// `tokio::sync::Notify`, for `notify_one`.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<(bool, VecDeque<Waker>)>);

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notify_one(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        if let Some(waker) = state.1.pop_front() {
            drop(state);
            waker.wake();
        }
    }

    pub(crate) async fn notified(&self) {
        poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            if std::mem::take(&mut state.0) {
                return Poll::Ready(());
            }
            state.1.push_back(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// `tokio::sync::watch`.
pub(crate) mod watch {
    use super::{Arc, AtomicUsize, Mutex, Ordering, Poll, Waker, poll_fn};

    #[derive(Debug)]
    struct Shared<T> {
        value: Mutex<T>,
        version: AtomicUsize,
        waiting: Mutex<Vec<Waker>>,
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T>(Arc<Shared<T>>);

    #[derive(Debug)]
    pub(crate) struct Receiver<T> {
        shared: Arc<Shared<T>>,
        seen: usize,
    }

    impl<T> Sender<T> {
        pub(crate) fn new(first: T) -> Self {
            let value = Mutex::new(first);
            let (version, waiting) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
            Self(Arc::new(Shared { value, version, waiting }))
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            let seen = self.0.version.load(Ordering::Acquire);
            Receiver { shared: Arc::clone(&self.0), seen }
        }

        pub(crate) fn send_replace(&self, next: T) {
            let mut value = self.0.value.lock().unwrap();
            *value = next;
            self.0.version.fetch_add(1, Ordering::Release);
            drop(value);
            let waiting = std::mem::take(&mut *self.0.waiting.lock().unwrap());
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    impl<T: Copy> Receiver<T> {
        /// The newest value, which is seen by that.
        pub(crate) fn heard(&mut self) -> T {
            let value = self.shared.value.lock().unwrap();
            self.seen = self.shared.version.load(Ordering::Acquire);
            *value
        }

        pub(crate) async fn changed(&mut self) -> Result<(), ()> {
            poll_fn(|cx| {
                // Registered before the look, as there.
                self.shared.waiting.lock().unwrap().push(cx.waker().clone());
                let version = self.shared.version.load(Ordering::Acquire);
                if version == self.seen {
                    return Poll::Pending;
                }
                self.seen = version;
                Poll::Ready(Ok(()))
            })
            .await
        }
    }
}
