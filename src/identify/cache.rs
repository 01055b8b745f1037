//! A worker's memory of the tokens it has read: a repeated token costs one look-up. Bounded in entries and in bytes, because anybody can
//! send a token.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use foldhash::fast::RandomState;
use quick_cache::Weighter;
use quick_cache::unsync::{Cache, DefaultLifecycle};

use super::claims::{self, TokenFacts, Wanted};

/// Tokens longer than this are read each time.
pub const LONGEST_CACHED_TOKEN: usize = 8 * 1024;

/// What an entry may hold; one that holds more takes the place of several. A token that Supabase issues has about 1 KB.
pub const ENTRY_BYTES: usize = 2 * 1024;

#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Weighter<Box<str>, Arc<TokenFacts>> for ByBytes {
    fn weight(&self, token: &Box<str>, facts: &Arc<TokenFacts>) -> u64 {
        (token.len() + facts.size()).div_ceil(ENTRY_BYTES) as u64
    }
}

/// A whole token is hashed each time it comes: so by a hash that takes 16 bytes at a time, with a seed that nobody outside knows.
type Entries = Cache<Box<str>, Arc<TokenFacts>, ByBytes, RandomState>;

/// A bounded map from token to its facts. Belongs to one worker; nobody waits for it.
#[derive(Debug)]
pub struct TokenCache {
    entries: RefCell<Entries>,
    capacity: Cell<usize>,
}

fn empty(entries: usize) -> Entries {
    let lifecycle = DefaultLifecycle::default();
    Cache::with(entries, entries as u64, ByBytes, RandomState::default(), lifecycle)
}

impl TokenCache {
    /// A cache of at most `entries` tokens, and at most `entries` × [`ENTRY_BYTES`] bytes.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self { entries: RefCell::new(empty(entries)), capacity: Cell::new(entries) }
    }

    /// From now on at most `entries` tokens. What was remembered is forgotten if that is a change: reading a token again is cheap.
    pub fn resize(&self, entries: usize) {
        if self.capacity.replace(entries) != entries {
            self.entries.replace(empty(entries));
        }
    }

    /// The facts of a token, with the claims that are wanted.
    #[must_use]
    pub fn read(&self, token: &str, wanted: &Wanted) -> Arc<TokenFacts> {
        let mut entries = self.entries.borrow_mut();
        if let Some(facts) = entries.get(token)
            && facts.version == wanted.version()
        {
            return Arc::clone(facts);
        }
        let facts = Arc::new(claims::read(token, wanted));
        if token.len() <= LONGEST_CACHED_TOKEN {
            entries.insert(Box::from(token), Arc::clone(&facts));
        }
        facts
    }

    /// How many tokens are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::claims::unsigned_token;
    use super::*;

    #[test]
    fn is_bounded_in_entries() {
        let (cache, wanted) = (TokenCache::new(10), Wanted::default());
        for n in 0..1000 {
            let token = unsigned_token(&json!({"sub": format!("user-{n}")}));
            assert_eq!(
                cache.read(&token, &wanted).subject.as_deref(),
                Some(format!("user-{n}").as_str())
            );
        }
        assert!((1..=10).contains(&cache.len()), "{}", cache.len());
    }

    /// A token of 6 KB can unfold to 200 KB of JSON values: neither is kept ten thousand times.
    #[test]
    fn is_bounded_in_bytes() {
        let wanted = Wanted::new(vec![vec!["x".to_owned()]]);
        let cache = TokenCache::new(10);
        for n in 0..1000 {
            let facts = cache
                .read(&unsigned_token(&json!({"sub": n.to_string(), "x": vec![0; 2000]})), &wanted);
            assert!(facts.size() < 1024, "{}", facts.size());
        }
        let bytes = cache.len() * 5 * 1024;
        assert!(bytes <= 10 * ENTRY_BYTES + 5 * 1024, "{} entries of 5 KB", cache.len());
    }

    #[test]
    fn other_rules_are_other_facts() {
        let cache = TokenCache::new(10);
        let token = unsigned_token(&json!({"sub": "ada", "tier": "gold"}));
        let path = vec!["tier".to_owned()];
        let wanted = Wanted::new(vec![path.clone()]);
        assert_eq!(cache.read(&token, &Wanted::default()).claim(&path), None);
        assert_eq!(cache.read(&token, &wanted).claim(&path), Some(&json!("gold")));
        assert!(Arc::ptr_eq(&cache.read(&token, &wanted), &cache.read(&token, &wanted)));
        assert_eq!(cache.read(&token, &Wanted::default()).claim(&path), None);
    }

    #[test]
    fn the_bound_can_change_and_be_nothing() {
        let (cache, wanted) = (TokenCache::new(10), Wanted::default());
        let token = unsigned_token(&json!({"sub": "ada"}));
        let _facts = cache.read(&token, &wanted);
        cache.resize(10);
        assert_eq!(cache.len(), 1, "the same bound keeps what is there");
        cache.resize(0);
        for _ in 0..3 {
            assert_eq!(cache.read(&token, &wanted).subject.as_deref(), Some("ada"));
        }
        assert!(cache.is_empty());
    }

    #[test]
    fn a_token_beyond_the_limit_is_read_but_not_kept() {
        let cache = TokenCache::new(10);
        let token = unsigned_token(&json!({"sub": "ada", "pad": "x".repeat(LONGEST_CACHED_TOKEN)}));
        assert_eq!(cache.read(&token, &Wanted::default()).subject.as_deref(), Some("ada"));
        assert!(cache.is_empty());
    }
}
