//! The credentials of a request, each classified once: identify and rewrite both work with the result.

use http::HeaderMap;
use http::header::{self, HeaderName};

use super::keyring::{Keyring, Role};
use super::query;

/// The name of the API key, as header and as query parameter.
pub const APIKEY: &str = "apikey";
/// The same as a header's name, made once.
pub const APIKEY_HEADER: HeaderName = HeaderName::from_static(APIKEY);

/// An API key as it was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKey {
    /// There is none.
    Absent,
    /// A key of one of the two projects.
    Known(Role),
    /// Anything else: a stranger's key, a user token, bytes that are no text.
    Unknown,
}

/// What `Authorization` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// No such header.
    Absent,
    /// A key of one of the two projects.
    Key(Role),
    /// An opaque `sb_…` key of neither project.
    UnknownKey,
    /// Anything else behind `Bearer`: by rule a user's token, never to be replaced by a key (trap 2).
    Token(&'a str),
    /// Another scheme (Basic, SigV4) or not readable: left alone.
    Other,
}

/// Every credential of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The `apikey` header.
    pub header: ApiKey,
    /// The `apikey` query parameter.
    pub query: ApiKey,
    /// The `Authorization` header.
    pub bearer: Bearer<'a>,
}

impl<'a> Credentials<'a> {
    /// Classifies what a request presents.
    #[must_use]
    pub fn of(headers: &'a HeaderMap, query: Option<&str>, keyring: &Keyring) -> Self {
        let classify = |key: Option<&str>| match key.and_then(|key| keyring.role(key)) {
            Some(role) => ApiKey::Known(role),
            None => ApiKey::Unknown,
        };
        let header = headers
            .get(APIKEY_HEADER)
            .map_or(ApiKey::Absent, |value| classify(value.to_str().ok()));
        let query = query
            .and_then(|query| query::value(query, APIKEY))
            .map_or(ApiKey::Absent, |value| classify(Some(&value)));
        Self { header, query, bearer: bearer(headers, keyring) }
    }

    /// The role that the keys give: `Authorization` speaks before `apikey`, the header before the query.
    /// `None` when no known key is there.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        let of = |key| match key {
            ApiKey::Known(role) => Some(role),
            ApiKey::Absent | ApiKey::Unknown => None,
        };
        match self.bearer {
            Bearer::Key(role) => Some(role),
            _ => of(self.header).or_else(|| of(self.query)),
        }
    }

    /// Whether any key is a stranger's.
    #[must_use]
    pub fn has_unknown_key(&self) -> bool {
        self.header == ApiKey::Unknown
            || self.query == ApiKey::Unknown
            || self.bearer == Bearer::UnknownKey
    }
}

fn bearer<'a>(headers: &'a HeaderMap, keyring: &Keyring) -> Bearer<'a> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Bearer::Absent };
    let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else {
        return Bearer::Other;
    };
    // The scheme is case-insensitive (RFC 9110 11.1).
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Bearer::Other;
    }
    let token = token.trim();
    match keyring.role(token) {
        Some(role) => Bearer::Key(role),
        None if token.starts_with("sb_") => Bearer::UnknownKey,
        None => Bearer::Token(token),
    }
}
