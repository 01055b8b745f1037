//! A worker's memory of the tokens it has judged. Bounded in entries and in bytes, because anybody can send a token; what is not proved
//! is remembered apart and for a short time, so that a flood of forged tokens pushes nobody's out.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use quick_cache::unsync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};

use super::{Published, Settings, Verdict, exchange};
use crate::identify::cache::LONGEST_CACHED_TOKEN;
use crate::secret::Secret;
use crate::side::Side;

/// What an entry may hold: a token and the one made of it, of about 1 KB each. One that holds more takes the place of several.
pub const ENTRY_BYTES: usize = 2 * 1024;

/// How many tokens that were not proved are remembered: one for this many others.
const UNPROVEN_SHARE: usize = 8;

/// How long, in seconds. A clock may pass `nbf` meanwhile; keys that are fetched meanwhile end it at once.
const UNPROVEN_SECONDS: u64 = 10;

/// What the path needs to know of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It goes as it is.
    Untouched,
    /// It goes as it is, and its side will most likely refuse it.
    Unproven,
    /// This one goes in its place.
    Instead(Secret),
    /// Not before published keys were fetched: [`super::needed_keys`] says whose.
    Needed,
}

#[derive(Debug)]
struct Key {
    side: Side,
    token: Box<str>,
}

/// The same, borrowed.
#[derive(Clone, Copy)]
struct Asked<'a>(Side, &'a str);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Asked(self.side, &self.token).hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.side == other.side && self.token == other.token
    }
}

impl Eq for Key {}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0, self.1).hash(state);
    }
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.0 == key.side && self.1 == &*key.token
    }
}

#[derive(Clone, Debug)]
struct Entry {
    answer: Answer,
    /// The last second that it holds for.
    until: u64,
}

#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<Key, Entry> for ByBytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let made = match &entry.answer {
            Answer::Instead(token) => token.expose().len(),
            _ => 0,
        };
        (key.token.len() + made).div_ceil(ENTRY_BYTES).max(1) as u64
    }
}

type Entries = Cache<Key, Entry, ByBytes, RandomState>;

/// A bounded map from token and side to what becomes of it. Belongs to one worker; nobody waits for it.
#[derive(Debug)]
pub struct ExchangeCache(RefCell<Inner>);

#[derive(Debug)]
struct Inner {
    proven: Entries,
    unproven: Entries,
    /// Of which settings and published keys the answers are.
    made_of: (u64, u64),
    capacity: usize,
}

fn empty(entries: usize) -> Entries {
    let lifecycle = DefaultLifecycle::default();
    Cache::with(entries, entries as u64, ByBytes, RandomState::default(), lifecycle)
}

impl Inner {
    fn new(capacity: usize, made_of: (u64, u64)) -> Self {
        let unproven = empty(capacity.div_ceil(UNPROVEN_SHARE));
        Self { proven: empty(capacity), unproven, made_of, capacity }
    }
}

impl Default for ExchangeCache {
    /// A cache that remembers nothing until it is told how much it may.
    fn default() -> Self {
        Self(RefCell::new(Inner::new(0, (0, 0))))
    }
}

impl ExchangeCache {
    /// What becomes of a token on its way to `side`, at `now` (seconds since 1970). Everything is forgotten when other settings or keys
    /// come than the last time.
    #[must_use]
    pub fn answer(
        &self,
        settings: &Settings,
        published: &Published,
        token: &str,
        side: Side,
        now: u64,
    ) -> Answer {
        let mut inner = self.0.borrow_mut();
        let made_of = (settings.version(), published.version);
        if inner.made_of != made_of || inner.capacity != settings.cache_entries {
            *inner = Inner::new(settings.cache_entries, made_of);
        }
        let asked = Asked(side, token);
        let proven = inner.proven.get(&asked).filter(|entry| now <= entry.until);
        let known = proven.or_else(|| {
            // One that was made while the clock ran ahead would be believed until the clock is there again.
            let is_fresh = |until: u64| now <= until && until - now <= UNPROVEN_SECONDS;
            inner.unproven.get(&asked).filter(|entry| is_fresh(entry.until))
        });
        if let Some(entry) = known {
            return entry.answer.clone();
        }
        let soon = now.saturating_add(UNPROVEN_SECONDS);
        let (answer, until) = match exchange(settings, published, token, side, now) {
            Verdict::Accepted { until } => (Answer::Untouched, until),
            Verdict::Signed { token, until } => (Answer::Instead(token), until),
            Verdict::Unproven => (Answer::Unproven, soon),
            // Asked for again and again, until its keys are there or it is known that they are not.
            Verdict::UnknownKey => return Answer::Needed,
        };
        if token.len() <= LONGEST_CACHED_TOKEN && now <= until {
            let entries = match answer {
                Answer::Unproven => &mut inner.unproven,
                _ => &mut inner.proven,
            };
            let entry = Entry { answer: answer.clone(), until };
            entries.insert(Key { side, token: Box::from(token) }, entry);
        }
        answer
    }

    /// How many tokens are remembered, proven and not.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        let inner = self.0.borrow();
        (inner.proven.len(), inner.unproven.len())
    }
}
