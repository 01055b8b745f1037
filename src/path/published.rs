//! The keys that both projects publish, between the one who fetches them and the workers who read them: reading takes no lock, and
//! only a request that begins or joins a fetch ever waits. `models` tries every order in which
//! they may run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::sync::{ArcSwap, AtomicU64, Guard, Notify, Ordering, watch};
use crate::observe::published::{KeyFacts, KeyFetch};
use crate::side::{Pair, Side};
use crate::tokens::{Fetched, Published};

/// In place of a time: a fetch is under way, or asked for.
const RUNNING: u64 = u64::MAX;

/// Never, as a time of the last good answer.
const NEVER: u64 = u64::MAX;

/// The published keys, and who is fetching them.
#[derive(Debug)]
pub struct PublishedKeys {
    now: ArcSwap<Published>,
    sides: Pair<Fetching>,
    /// What all times here count from.
    since: Instant,
}

#[derive(Debug)]
struct Fetching {
    /// [`RUNNING`], or from when on a request may ask for a fetch, in milliseconds. One cell, so that of all who find a fetch to be due
    /// one alone begins it, and everybody else sees it under way.
    state: AtomicU64,
    asked: Notify,
    ended: watch::Sender<()>,
    fetches: [AtomicU64; KeyFetch::ALL.len()],
    good_at: AtomicU64,
}

impl Default for Fetching {
    fn default() -> Self {
        Self {
            state: AtomicU64::new(0),
            asked: Notify::new(),
            ended: watch::Sender::new(()),
            fetches: Default::default(),
            good_at: AtomicU64::new(NEVER),
        }
    }
}

impl Default for PublishedKeys {
    fn default() -> Self {
        Self { now: ArcSwap::default(), sides: Pair::default(), since: Instant::now() }
    }
}

impl PublishedKeys {
    /// What is known now.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Published>> {
        self.now.load()
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(RUNNING - 1).min(RUNNING - 1)
    }

    // === impl for a request

    /// Waits until the keys of these sides have been fetched, `longest` at most. Who comes in the pause after a fetch goes on at once:
    /// a flood of made-up kids shall not make anybody wait, nor ask more often than that.
    pub async fn wait(&self, sides: Pair<bool>, longest: Duration) {
        let joined = Side::ALL.map(|side| if sides[side] { self.join(side) } else { None });
        let waiting = async {
            for mut ended in joined.into_iter().flatten() {
                // An error means that the proxy itself is gone.
                let _over = ended.changed().await;
            }
        };
        // Nobody is told whether it was in time: who waited looks at what is known then.
        let _late = tokio::time::timeout(longest, waiting).await;
    }

    /// The end of a fetch that is under way, or is begun by this.
    pub(super) fn join(&self, side: Side) -> Option<watch::Receiver<()>> {
        let fetching = &self.sides[side];
        // Before the look: an end after it is not missed.
        let ended = fetching.ended.subscribe();
        let state = fetching.state.load(Ordering::Acquire);
        if state == RUNNING {
            return Some(ended);
        }
        if self.millis() < state {
            return None;
        }
        let (acquire, release) = (Ordering::Acquire, Ordering::AcqRel);
        match fetching.state.compare_exchange(state, RUNNING, release, acquire) {
            Ok(_) => {
                fetching.asked.notify_one();
                Some(ended)
            }
            Err(now) => (now == RUNNING).then_some(ended),
        }
    }

    // === impl for the fetcher

    /// Resolves when a request asks for a fetch that nobody has made since.
    pub async fn asked(&self, side: Side) {
        let fetching = &self.sides[side];
        loop {
            fetching.asked.notified().await;
            if fetching.state.load(Ordering::Acquire) == RUNNING {
                return;
            }
        }
    }

    /// A fetch begins: from now on requests join it.
    pub fn begin(&self, side: Side) {
        self.sides[side].state.store(RUNNING, Ordering::Release);
    }

    /// A fetch that began at `began` has ended. Keys take the place of those before; without any these stay. Requests may ask for the
    /// next one `cooldown` after this one began. `true` when something is known now that was not before.
    pub fn end(
        &self,
        side: Side,
        fetched: Result<Fetched, KeyFetch>,
        began: Instant,
        cooldown: Duration,
    ) -> bool {
        let fetching = &self.sides[side];
        let outcome = fetched.as_ref().err().copied().unwrap_or(KeyFetch::Success);
        fetching.fetches[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let is_new = match fetched {
            Ok(fetched) => {
                fetching.good_at.store(self.millis(), Ordering::Relaxed);
                self.publish(side, fetched)
            }
            Err(_) => false,
        };
        self.release(side, (began + cooldown).saturating_duration_since(self.since));
        is_new
    }

    /// Nothing is fetched after all.
    pub fn give_up(&self, side: Side) {
        self.release(side, Duration::ZERO);
    }

    fn release(&self, side: Side, from: Duration) {
        let from = u64::try_from(from.as_millis()).unwrap_or(RUNNING - 1).min(RUNNING - 1);
        self.sides[side].state.store(from, Ordering::Release);
        self.sides[side].ended.send_replace(());
    }

    /// Swaps keys in, unless they are the ones that are there: what workers remember stays good then.
    fn publish(&self, side: Side, fetched: Fetched) -> bool {
        let is_known = self.now.load().sides[side].as_deref() == Some(&fetched);
        if !is_known {
            let fetched = Arc::new(fetched);
            // Two sides may end at once.
            self.now.rcu(|now| {
                let mut next = Published::clone(now);
                next.version += 1;
                next.sides[side] = Some(Arc::clone(&fetched));
                next
            });
        }
        !is_known
    }

    /// For the metrics page.
    #[must_use]
    pub fn facts(&self, side: Side) -> KeyFacts {
        let fetching = &self.sides[side];
        let good_at = fetching.good_at.load(Ordering::Relaxed);
        let age = Duration::from_millis(self.millis().saturating_sub(good_at));
        KeyFacts {
            fetches: std::array::from_fn(|i| fetching.fetches[i].load(Ordering::Relaxed)),
            age: (good_at != NEVER).then_some(age),
        }
    }
}
