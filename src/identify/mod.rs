//! Phase 2: who asks. Reads the credentials of a request and answers with an [`Identity`].
//!
//! It never fails a request and never verifies more than it must: a token whose signature or expiry is
//! wrong still hashes by its `sub`, because the 401 must come from that user's own side.

pub mod cache;
pub mod claims;
pub mod client_address;
pub mod credentials;
pub mod keyring;
pub mod query;

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, header};
use serde_json::Value;

use claims::TokenFacts;
use credentials::{Bearer, Credentials};
use keyring::{Keyring, Role};

/// Where a targeting key may come from. Asked in the order of the settings; the first that is there wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The Bearer token's `sub`.
    Jwt,
    /// A request header, lower-case name.
    Header(HeaderName),
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
    pub user_header: HeaderName,
    /// How many tokens a worker remembers (`identity.cache_entries`).
    pub cache_entries: usize,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Identity {
    /// Somebody with a targeting key.
    User(User),
    /// A service key without a user.
    Service,
    /// Nobody that we know.
    Anonymous,
}

/// Somebody with a targeting key.
#[derive(Clone, Debug, PartialEq)]
pub struct User(UserKey);

#[derive(Clone, Debug, PartialEq)]
enum UserKey {
    /// A token with a subject: shared with the worker's cache, so a repeated token costs no copy.
    Token(Arc<TokenFacts>),
    Plain(Box<str>),
}

impl User {
    /// A user known by a plain key, without claims.
    #[must_use]
    pub fn plain(key: &str) -> Self {
        Self(UserKey::Plain(Box::from(key)))
    }

    /// A user known by a token; `None` when the token names nobody.
    #[must_use]
    pub fn of_token(facts: Arc<TokenFacts>) -> Option<Self> {
        facts.subject.is_some().then_some(Self(UserKey::Token(facts)))
    }

    /// The targeting key. Never log it.
    #[must_use]
    pub fn key(&self) -> &str {
        match &self.0 {
            UserKey::Token(facts) => facts.subject.as_deref().unwrap_or_default(),
            UserKey::Plain(key) => key,
        }
    }

    /// A claim of the token, if a rule asks for it.
    #[must_use]
    pub fn claim(&self, path: &[String]) -> Option<&Value> {
        match &self.0 {
            UserKey::Token(facts) => facts.claim(path),
            UserKey::Plain(_) => None,
        }
    }
}

/// Says who asks.
///
/// `read_token` reads a token's facts; the worker answers it from its cache.
#[must_use]
pub fn identify(
    headers: &HeaderMap,
    query: Option<&str>,
    credentials: &Credentials<'_>,
    settings: &Settings,
    keyring: &Keyring,
    read_token: &mut dyn FnMut(&str) -> Arc<TokenFacts>,
) -> Identity {
    let token = match credentials.bearer {
        Bearer::Token(token) => Some(read_token(token)),
        _ => None,
    };
    // A role that a token claims has been verified by nobody: it names no user. The key itself is known.
    let has_service_key = token.is_none() && credentials.role() == Some(Role::Service);
    let is_service = match &token {
        Some(facts) => facts.is_service_role && facts.subject.is_none(),
        None => has_service_key,
    };
    if has_service_key && let Some(user) = text(headers, &settings.user_header) {
        return Identity::User(User::plain(user));
    }
    let user = settings.sources.iter().find_map(|source| match source {
        Source::Jwt => token.clone().and_then(User::of_token),
        Source::Header(name) => {
            text(headers, name).and_then(|value| plain_unless_key(value, keyring))
        }
        Source::Cookie(name) => {
            cookie(headers, name).and_then(|value| plain_unless_key(value, keyring))
        }
        Source::Query(name) => query
            .and_then(|query| query::value(query, name))
            .and_then(|value: Cow<'_, str>| plain_unless_key(&value, keyring)),
    });
    match user {
        Some(user) => Identity::User(user),
        None if is_service => Identity::Service,
        None => Identity::Anonymous,
    }
}

/// A project's own API key in such a place names no user: everybody has it.
fn plain_unless_key(value: &str, keyring: &Keyring) -> Option<User> {
    (!value.is_empty() && keyring.role(value).is_none()).then(|| User::plain(value))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.as_bytes();
    std::str::from_utf8(value).ok().map(str::trim).filter(|value| !value.is_empty())
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let found = cookies(headers).find(|(key, _)| *key == name);
    found.map(|(_, value)| value.trim_matches('"'))
}

/// Every cookie of a request, by name and value.
pub fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
}

#[cfg(test)]
mod tests;
