//! Storage: buckets and folders in the words of either side, and which side a thing belongs to (`supabase-wire.md` 5).
//!
//! [`Endpoint::belongs`] says whose a request is, [`Endpoint::translate`] says it the way its side does, and the [`Restore`] that comes with that says the
//! answer back. Bodies are looked at only where they name what is renamed or owned ([`Endpoint::needs_body`]).

mod body;
pub mod buckets;
mod endpoint;
pub mod fuzz;
pub(crate) mod json;
pub mod mark;
mod translate;
mod tus;

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method};
use percent_encoding::percent_decode_str;

use crate::decide::Belongs;
use crate::identify::query;
use crate::secret::Secret;
use crate::side::Side;
use body::Meant;
pub(crate) use body::say_cursor;
use buckets::{BucketMap, Reading};
pub use endpoint::Endpoint;
use endpoint::Kind;
use mark::Purpose;

pub(crate) use translate::say_raw;
pub use translate::{Answer, Refused, Restore, Translated};

/// The token of a signed upload, where a resumable one has it.
const X_SIGNATURE: HeaderName = HeaderName::from_static("x-signature");
/// The query parameter that makes a URL a signed one.
const TOKEN: &str = "token";

/// One line of `[storage.buckets]`: where an old bucket is on new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder {
    /// The bucket's name on old.
    pub old: String,
    /// The bucket's name on new.
    pub bucket: String,
    /// The folder in it, without a slash at either end; empty for the whole bucket.
    pub prefix: String,
}

/// Names and owners of buckets, and what follows from two storages (`[storage]`).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The map of buckets.
    pub map: BucketMap,
    /// Bucket, in either dialect → the side that serves it for everybody.
    pub owners: BTreeMap<String, Side>,
    /// Who serves all of storage (`routes.storage`); `None`: it is split by user.
    pub owner: Option<Side>,
    /// Whether a read that one side doesn't find is asked of the other.
    pub fallback: bool,
    /// Who serves `/storage/v1/s3`; `None`: nobody.
    pub s3: Option<Side>,
    /// The first signs marks, all verify them. Without any there are no marks.
    pub mark_keys: Vec<Secret>,
    /// Bodies up to this size are read to be said in the side's words.
    pub body_bytes: usize,
    /// All of these that a worker holds at a time.
    pub bodies_bytes: usize,
}

/// A request to storage.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The raw path below `/storage/v1`.
    pub tail: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body, if it names buckets and was read.
    pub body: Option<&'a Bytes>,
}

/// A read that may be asked of the other side when its own side doesn't have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// When it is not found.
    Missing,
    /// Also when its token is another project's: the URL was signed before there was a Cutover to mark it.
    MissingOrForeign,
}

/// What is asked at an endpoint: method and path are those that it was read from.
impl Endpoint {
    /// Whether the body has to be read before the request can be decided and said.
    #[must_use]
    pub fn needs_body(&self, settings: &Settings, method: &Method, tail: &str) -> bool {
        let map = &settings.map;
        if map.is_empty() && settings.owners.is_empty() {
            return false;
        }
        match self.kind {
            Kind::List | Kind::ListV2 | Kind::SignMany | Kind::RemoveMany => {
                map.has_folders(&self.bucket(tail).unwrap_or_default())
            }
            Kind::ChangeBucket => {
                method == Method::PUT && map.knows(&self.bucket(tail).unwrap_or_default())
            }
            Kind::Copy | Kind::Move | Kind::CreateBucket => true,
            _ => false,
        }
    }

    /// The side of what is asked for: the issuer of a signed URL or an upload, the owner of a bucket.
    #[must_use]
    pub fn belongs(&self, settings: &Settings, asked: &Asked<'_>) -> Belongs {
        match (self.kind, settings.s3) {
            // Access keys are one project's.
            (Kind::S3, Some(side)) => return Belongs::ToIssuer(side),
            (
                Kind::UploadGoesOn | Kind::SignedRead | Kind::SignedUpload | Kind::UploadBegins,
                _,
            ) => {}
            _ if settings.owners.is_empty() => return Belongs::ToRoute,
            _ => {}
        }
        if let Some(side) = asked.issuer(settings, self) {
            return Belongs::ToIssuer(side);
        }
        let meant = Meant::of(settings, self, asked).ok();
        let owner = meant.and_then(|meant| meant.owner(settings));
        match (owner, asked.is_issued(self)) {
            (Some(side), _) => Belongs::ToOwner(side),
            // What bears no mark was issued before there was a Cutover to mark it.
            (None, true) => Belongs::ToIssuer(settings.owner.unwrap_or(Side::Old)),
            (None, false) => Belongs::ToRoute,
        }
    }

    /// Whether a read may be asked of the other side when its own doesn't have it: not where a setting or a mark says whose it is.
    #[must_use]
    pub fn elsewhere(&self, settings: &Settings, asked: &Asked<'_>) -> Option<Elsewhere> {
        if !settings.fallback || settings.owner.is_some() {
            return None;
        }
        if !matches!(*asked.method, Method::GET | Method::HEAD) {
            return None;
        }
        let found = match self.kind {
            Kind::Read | Kind::Info => Elsewhere::Missing,
            Kind::SignedRead => Elsewhere::MissingOrForeign,
            _ => return None,
        };
        if asked.issuer(settings, self).is_some() {
            return None;
        }
        // Without owners nobody has it, and its names need not be read. None of these has a body that could be no JSON.
        if settings.owners.is_empty() && asked.body.is_none() {
            return Some(found);
        }
        let meant = Meant::of(settings, self, asked).ok()?;
        meant.owner(settings).is_none().then_some(found)
    }

    /// Says a request the way `side` does.
    ///
    /// # Errors
    /// [`Refused`] when that side has no words for it, or it would hit what it does not mean.
    pub fn translate(
        &self,
        settings: &Settings,
        asked: &Asked<'_>,
        side: Side,
    ) -> Result<Translated, Refused> {
        translate::translate(settings, self, asked, side)
    }
}

impl Settings {
    /// The owner of a bucket, by any of its names.
    fn owner_of(&self, bucket: &str, reading: Reading<'_>) -> Option<Side> {
        if self.owners.is_empty() {
            return None;
        }
        let own = || self.owners.get(bucket).copied();
        match reading {
            Reading::Line(line, _) => [&line.old, &line.bucket]
                .into_iter()
                .find_map(|name| self.owners.get(name).copied()),
            Reading::Same | Reading::Several => None,
        }
        .or_else(own)
    }
}

impl Asked<'_> {
    /// Where this leads. The path reads that once and keeps it; here it is read anew.
    fn endpoint(&self) -> Endpoint {
        Endpoint::of(self.method, self.tail)
    }

    /// Whether this can be served by nobody but the side that issued it.
    fn is_issued(&self, endpoint: &Endpoint) -> bool {
        match endpoint.kind {
            Kind::UploadGoesOn | Kind::SignedRead | Kind::SignedUpload => true,
            Kind::UploadBegins => self.headers.contains_key(X_SIGNATURE),
            _ => false,
        }
    }

    /// The side that a mark names.
    fn issuer(&self, settings: &Settings, endpoint: &Endpoint) -> Option<Side> {
        let keys = &settings.mark_keys;
        let by_signature = || {
            let signature = self.headers.get(X_SIGNATURE)?.to_str().ok()?;
            mark::verify(keys, Purpose::Token, signature).map(|(side, _)| side)
        };
        match endpoint.kind {
            Kind::UploadGoesOn => {
                let id = endpoint.rest(self.tail);
                id.and_then(|id| mark::verify(keys, Purpose::Upload, &id).map(|(side, _)| side))
                    .or_else(by_signature)
            }
            Kind::UploadBegins => by_signature(),
            Kind::SignedRead | Kind::SignedUpload => {
                let token = query::value(self.query?, TOKEN)?;
                mark::verify(keys, Purpose::Token, &token).map(|(side, _)| side)
            }
            _ => None,
        }
    }
}

impl Endpoint {
    /// The bucket in the path, decoded.
    fn bucket<'a>(&self, tail: &'a str) -> Option<Cow<'a, str>> {
        tail.get(self.bucket.clone()?).map(decoded)
    }

    /// What follows the bucket, decoded.
    fn rest<'a>(&self, tail: &'a str) -> Option<Cow<'a, str>> {
        tail.get(self.rest.clone()?).map(decoded)
    }
}

/// What is no UTF-8 equals no name, and is still there.
fn decoded(raw: &str) -> Cow<'_, str> {
    percent_decode_str(raw).decode_utf8_lossy()
}

#[cfg(test)]
mod tests;
