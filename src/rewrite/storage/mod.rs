//! Storage: buckets and folders in the words of either side, and which side a thing belongs to (`supabase-wire.md` 5).

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::decide::Belongs;
use crate::secret::Secret;
use crate::side::Side;

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
    pub folders: Vec<Folder>,
    /// Bucket, in either dialect → the side that serves it for everybody.
    pub owners: BTreeMap<String, Side>,
    /// Whether a read that one side doesn't find is asked of the other.
    pub fallback: bool,
    /// Who serves `/storage/v1/s3`; `None`: nobody.
    pub s3: Option<Side>,
    /// The first signs marks, all verify them. Never empty.
    pub mark_keys: Vec<Secret>,
    /// Bodies up to this size are read to be said in the side's words.
    pub body_bytes: usize,
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

/// The side of what is asked for: the owner of a bucket, the issuer of a signed URL or an upload.
#[must_use]
pub fn belongs(_settings: &Settings, asked: &Asked<'_>) -> Belongs {
    // What bears no mark was issued before there was a Cutover to mark it.
    if is_issued(asked.method, asked.tail) {
        Belongs::ToIssuer(Side::Old)
    } else {
        Belongs::ToRoute
    }
}

/// Signed URLs and resumable uploads carry no user: only the side that issued them can serve them.
fn is_issued(method: &Method, tail: &str) -> bool {
    let is_below = |prefix: &str| {
        tail.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_below("/upload/resumable")
        || (method == Method::PUT && is_below("/object/upload/sign"))
        || (matches!(*method, Method::GET | Method::HEAD)
            && (is_below("/object/sign") || is_below("/render/image/sign")))
}
