//! Phase 2: who asks. Reads the credentials of a request and answers with an [`Identity`].
//!
//! It never fails a request and never verifies more than it must: a token whose signature or expiry is
//! wrong still hashes by its `sub`, because the 401 must come from that user's own side.

pub mod claims;
pub mod keyring;

/// Where a targeting key may come from. Asked in the order of the settings; the first that is there wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Bearer token's `sub`.
    Jwt,
    /// A request header, lower-case name.
    Header(http::HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
}

/// How identities are found.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Asked in this order (`identity.sources`).
    pub sources: Vec<Source>,
    /// The header that names a user, believed only together with a service key (`identity.user_header`).
    pub user_header: http::HeaderName,
    /// How many tokens a worker remembers (`identity.cache_entries`).
    pub cache_entries: usize,
}
