//! Who may be connected to the admin listener: so many at a time. When all places are taken, one that has asked for nothing makes room for who
//! comes: with no more than connections, heads and bodies that never end, nobody keeps an operator or a probe out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    count: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// By all connections but those that were told to make room.
    places: usize,
    /// Connections without a complete request: first the one that has been so for longest. Each is known by what it is told.
    quiet: VecDeque<Arc<Notify>>,
}

/// One connection, as it is seen from here.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    gives_way: Arc<Notify>,
    /// A request is complete, and its answer is not.
    is_asking: AtomicBool,
}

impl Places {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { count, held: Mutex::default() })
    }

    /// Lets one more in, and tells another one to go if there has to be room for it. `None` when everybody who is here has asked for something.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut held = self.lock();
        if held.places < self.count {
            held.places += 1;
        } else {
            held.quiet.pop_front()?.notify_one();
        }
        let gives_way = Arc::new(Notify::new());
        held.quiet.push_back(Arc::clone(&gives_way));
        let places = Arc::clone(self);
        Some(Arc::new(Place { places, gives_way, is_asking: AtomicBool::new(false) }))
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes one out of those who are quiet; answers whether it was among them.
    fn leaves_the_quiet(&mut self, who: &Arc<Notify>) -> bool {
        let at = self.quiet.iter().position(|other| Arc::ptr_eq(other, who));
        at.is_some_and(|at| self.quiet.remove(at).is_some())
    }
}

impl Place {
    /// Told when the connection has to make room.
    pub(super) fn gives_way(&self) -> Arc<Notify> {
        Arc::clone(&self.gives_way)
    }

    /// Its request is complete: until it is answered it does not make room. `false` when it was told to already; then nothing may be done for it,
    /// because nobody will hear of it.
    #[must_use]
    pub(super) fn asks(&self) -> bool {
        if self.is_asking.load(Ordering::Relaxed) {
            return true;
        }
        let is_asking = self.places.lock().leaves_the_quiet(&self.gives_way);
        self.is_asking.store(is_asking, Ordering::Relaxed);
        is_asking
    }

    /// It was answered.
    pub(super) fn rests(&self) {
        if self.is_asking.swap(false, Ordering::Relaxed) {
            self.places.lock().quiet.push_back(Arc::clone(&self.gives_way));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        if *self.is_asking.get_mut() || held.leaves_the_quiet(&self.gives_way) {
            held.places -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn told(who: &[&Arc<Place>]) -> Vec<bool> {
        who.iter().map(|place| place.gives_way.notified().now_or_never().is_some()).collect()
    }

    #[test]
    fn who_has_been_quiet_for_longest_makes_room_and_who_asks_does_not() {
        let places = Places::new(3);
        let [first, second, third] = [(); 3].map(|()| places.enter().unwrap());
        assert!(first.asks() && first.asks());
        let fourth = places.enter().unwrap();
        assert_eq!(told(&[&first, &second, &third, &fourth]), [false, true, false, false]);
        assert!(!second.asks(), "too late");
        second.rests();
        drop(second);
        // Answered: from now on it is the one that was quiet for the shortest time.
        first.rests();
        first.rests();
        let _fifth = places.enter().unwrap();
        assert_eq!(told(&[&first, &third, &fourth]), [false, true, false]);
        let _sixth = places.enter().unwrap();
        assert_eq!(told(&[&first, &third, &fourth]), [false, false, true]);
    }

    #[test]
    fn when_everybody_asks_nobody_comes_in() {
        let places = Places::new(2);
        let both = [(); 2].map(|()| places.enter().unwrap());
        assert!(both.iter().all(|place| place.asks()));
        assert!(places.enter().is_none());
        let [first, second] = both;
        drop(second);
        let third = places.enter().expect("a free place");
        assert!(third.asks() && places.enter().is_none());
        first.rests();
        let fourth = places.enter().expect("the first one's");
        drop((first, third, fourth));
        let held = places.lock();
        assert_eq!((held.places, held.quiet.len()), (0, 0), "who is gone is forgotten");
    }
}
