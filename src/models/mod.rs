//! Every order in which threads may run, tried by loom on the real code: the files of what is published between threads are compiled here a
//! second time, with loom's primitives in the place of `crate::sync`. And what is remembered by one thread alone, across changes.

mod caches;
mod sync;

#[path = "../live.rs"]
#[allow(dead_code, unreachable_pub, reason = "compiled for its models alone")]
mod live;
#[path = "../path/published.rs"]
#[allow(dead_code, unreachable_pub, reason = "compiled for its models alone")]
mod published;

use std::sync::Arc;
use std::time::{Duration, Instant};

use loom::future::block_on;
use loom::thread;

use crate::observe::published::KeyFetch;
use crate::side::Side;
use crate::tokens::Fetched;
use live::{Publisher, View};
use published::PublishedKeys;
use sync::{AtomicU64, Ordering};

/// Longer than any model runs.
const COOLDOWN: Duration = Duration::from_secs(3600);

/// Something that is published, made of two parts. They are written with no order at all: it is the publishing that has to order them.
struct Made([AtomicU64; 2]);

impl Made {
    fn of(epoch: u64) -> Self {
        let made = Self([AtomicU64::new(0), AtomicU64::new(0)]);
        made.0.iter().for_each(|part| part.store(epoch, Ordering::Relaxed));
        made
    }

    fn epoch(&self) -> u64 {
        let [first, second] = &self.0;
        let epoch = first.load(Ordering::Relaxed);
        assert_eq!(epoch, second.load(Ordering::Relaxed), "a mix of two");
        epoch
    }
}

/// Tries the orders in which a thread is interrupted at most twice, by which nearly all that goes wrong shows; with
/// `LOOM_MAX_PREEMPTIONS` more of them.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(run);
}

#[test]
fn who_hears_of_an_epoch_finds_it_and_never_an_older_one() {
    model(|| {
        let publisher = Publisher::new(Made::of(1), 1);
        let (live, mut epochs) = (Arc::clone(publisher.live()), publisher.subscribe());
        let reader = thread::spawn(move || {
            let mut view = View::new(&live);
            let before = view.look().0.epoch();
            block_on(epochs.changed()).unwrap();
            let heard = epochs.heard();
            let (taken, is_new) = view.look();
            let found = taken.epoch();
            assert!(found >= heard, "heard of {heard}, found {found}");
            assert_eq!(is_new, found != before, "told whether it is new");
            // Whoever took one keeps it, whatever comes.
            let held = taken.clone();
            let next = view.look().0.epoch();
            assert!(next >= found, "{next} after {found}");
            assert_eq!(held.epoch(), found);
        });
        for epoch in 2..4 {
            publisher.publish(Arc::new(Made::of(epoch)), epoch);
        }
        reader.join().unwrap();
    });
}

fn fetched() -> Fetched {
    Fetched { url: "a".to_owned(), keys: Vec::new() }
}

#[test]
fn of_all_who_ask_for_keys_one_begins_a_fetch_and_all_see_its_keys() {
    model(|| {
        let keys = Arc::new(PublishedKeys::default());
        let ask = || {
            let keys = Arc::clone(&keys);
            thread::spawn(move || {
                if let Some(mut ended) = keys.join(Side::Old) {
                    block_on(ended.changed()).unwrap();
                }
                assert_eq!(keys.load().version, 1, "went on without the keys");
            })
        };
        let asking = [ask(), ask()];
        block_on(keys.asked(Side::Old));
        keys.begin(Side::Old);
        assert!(keys.end(Side::Old, Ok(fetched()), Instant::now(), COOLDOWN));
        for one in asking {
            one.join().unwrap();
        }
        assert_eq!(keys.facts(Side::Old).fetches[KeyFetch::Success as usize], 1);
    });
}

#[test]
fn who_asks_while_a_regular_fetch_runs_hears_of_its_end() {
    model(|| {
        let keys = Arc::new(PublishedKeys::default());
        let asking = {
            let keys = Arc::clone(&keys);
            thread::spawn(move || {
                if let Some(mut ended) = keys.join(Side::New) {
                    block_on(ended.changed()).unwrap();
                }
                assert_eq!(keys.load().version, 1, "went on without the keys");
            })
        };
        keys.begin(Side::New);
        keys.end(Side::New, Ok(fetched()), Instant::now(), COOLDOWN);
        asking.join().unwrap();
    });
}

#[test]
fn keys_of_both_sides_that_end_at_once_are_both_known() {
    model(|| {
        let keys = Arc::new(PublishedKeys::default());
        let old = {
            let keys = Arc::clone(&keys);
            thread::spawn(move || keys.end(Side::Old, Ok(fetched()), Instant::now(), COOLDOWN))
        };
        keys.end(Side::New, Ok(fetched()), Instant::now(), COOLDOWN);
        old.join().unwrap();
        let known = keys.load();
        assert_eq!(
            (known.version, known.sides.old.is_some(), known.sides.new.is_some()),
            (2, true, true)
        );
    });
}
