//! A worker's memory of the tokens it has read: a repeated token costs one look-up.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use quick_cache::unsync::Cache;

use super::claims::{self, TokenFacts};

/// Tokens longer than this are read each time: a cache of entries is only bounded in bytes if each entry is.
pub const LONGEST_CACHED_TOKEN: usize = 8 * 1024;

/// A bounded map from token to its facts. Belongs to one worker; nobody waits for it.
#[derive(Debug)]
pub struct TokenCache {
    entries: RefCell<Cache<Box<str>, Arc<TokenFacts>>>,
    capacity: Cell<usize>,
}

impl TokenCache {
    /// A cache of at most `entries` tokens.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self { entries: RefCell::new(Cache::new(entries)), capacity: Cell::new(entries) }
    }

    /// From now on at most `entries` tokens. What was remembered is forgotten if that is a change: reading a token again is cheap.
    pub fn resize(&self, entries: usize) {
        if self.capacity.replace(entries) != entries {
            self.entries.replace(Cache::new(entries));
        }
    }

    /// The facts of a token. With `keep_claims` they hold all claims.
    #[must_use]
    pub fn read(&self, token: &str, keep_claims: bool) -> Arc<TokenFacts> {
        let mut entries = self.entries.borrow_mut();
        if let Some(facts) = entries.get(token)
            && (!keep_claims || facts.claims.is_some())
        {
            return Arc::clone(facts);
        }
        let facts = Arc::new(claims::read(token, keep_claims));
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
    fn is_bounded_and_reads_claims_only_when_asked() {
        let cache = TokenCache::new(10);
        for n in 0..1000 {
            let token = unsigned_token(&json!({"sub": format!("user-{n}")}));
            let facts = cache.read(&token, false);
            assert_eq!(facts.subject.as_deref(), Some(format!("user-{n}").as_str()));
            assert!(facts.claims.is_none());
        }
        assert!(cache.len() <= 10, "{}", cache.len());
        let token = unsigned_token(&json!({"sub": "ada"}));
        let before = cache.read(&token, false);
        assert!(cache.read(&token, true).claims.is_some());
        assert!(Arc::ptr_eq(&cache.read(&token, true), &cache.read(&token, false)));
        assert!(before.claims.is_none());
    }

    #[test]
    fn the_bound_can_change_and_be_nothing() {
        let cache = TokenCache::new(10);
        let token = unsigned_token(&json!({"sub": "ada"}));
        let _facts = cache.read(&token, false);
        cache.resize(10);
        assert_eq!(cache.len(), 1, "the same bound keeps what is there");
        cache.resize(0);
        for _ in 0..3 {
            assert_eq!(cache.read(&token, false).subject.as_deref(), Some("ada"));
        }
        assert!(cache.is_empty());
    }

    #[test]
    fn a_token_beyond_the_limit_is_read_but_not_kept() {
        let cache = TokenCache::new(10);
        let token = unsigned_token(&json!({"sub": "ada", "pad": "x".repeat(LONGEST_CACHED_TOKEN)}));
        assert_eq!(cache.read(&token, false).subject.as_deref(), Some("ada"));
        assert!(cache.is_empty());
    }
}
