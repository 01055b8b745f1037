//! What must hold of any request to storage: what a fuzzer starts, and what a property starts.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};

use super::body::UPLOAD_METADATA;
use super::buckets::BucketMap;
use super::mark::{self, Purpose};
use super::{Asked, Folder, Settings, X_SIGNATURE, decoded};
use crate::secret::Secret;
use crate::side::Side;

const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// Reads bytes as a request: a byte for the method, then lines for path, query, metadata and body. It is decided and said on both sides;
/// a path in old words that new says is said back by old; and a mark is read by whoever made it.
///
/// # Errors
/// The law that does not hold.
pub fn laws(bytes: &[u8]) -> Result<(), &'static str> {
    let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
    let Ok(text) = std::str::from_utf8(rest) else { return Ok(()) };
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (tail, query, metadata, body) = (line(), line(), line(), line());
    let settings = settings();
    let mut headers = HeaderMap::new();
    for name in [UPLOAD_METADATA, X_SIGNATURE] {
        if let Ok(value) = HeaderValue::from_str(metadata) {
            headers.insert(name, value);
        }
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    let method = METHODS.get(usize::from(*first) % METHODS.len()).unwrap_or(&Method::GET);
    for body in [None, Some(&body)] {
        let asked = Asked { method, tail, query: Some(query), headers: &headers, body };
        let _seen = (
            asked.endpoint().belongs(&settings, &asked),
            asked.endpoint().elsewhere(&settings, &asked),
        );
        there_and_back(&settings, &asked)?;
    }
    marks(&settings, tail)
}

/// A path in old words, said on new and back.
fn there_and_back(settings: &Settings, asked: &Asked<'_>) -> Result<(), &'static str> {
    let (old, new) = (
        asked.endpoint().translate(settings, asked, Side::Old),
        asked.endpoint().translate(settings, asked, Side::New),
    );
    let (Ok(old), Ok(new)) = (old, new) else { return Ok(()) };
    // Without a name behind the bucket, nothing shows that the folder was meant.
    let names = asked.endpoint().rest.is_some();
    let (None, Some(tail), true) = (old.tail, new.tail, names) else { return Ok(()) };
    let body = new.body.as_ref().or(asked.body);
    let back = Asked { tail: &tail, body, ..*asked };
    match back.endpoint().translate(settings, &back, Side::Old) {
        Err(_) => Err("what new was told, old has no words for"),
        Ok(back) if back.tail.as_deref().map(decoded) == Some(decoded(asked.tail)) => Ok(()),
        Ok(_) => Err("a path said on new, and said back, is another one"),
    }
}

fn marks(settings: &Settings, text: &str) -> Result<(), &'static str> {
    for side in Side::ALL {
        for (purpose, other) in
            [(Purpose::Token, Purpose::Upload), (Purpose::Upload, Purpose::Token)]
        {
            let marked = mark::sign(&settings.mark_keys, purpose, side, text);
            if mark::verify(&settings.mark_keys, purpose, &marked) != Some((side, text)) {
                return Err("a mark is not read by whoever made it");
            }
            if mark::verify(&settings.mark_keys, other, &marked).is_some() {
                return Err("a mark counts for another purpose");
            }
        }
    }
    Ok(())
}

fn settings() -> Settings {
    let line = |(old, bucket, prefix): (&str, &str, &str)| Folder {
        old: old.to_owned(),
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
    };
    let lines =
        [("a", "m", "a"), ("b", "m", "a/b"), ("c", "d", ""), ("é", "m", "é x"), ("w", "v", "")];
    Settings {
        map: BucketMap::build(lines.map(line).to_vec()).unwrap_or_default(),
        owners: BTreeMap::from([("w".to_owned(), Side::New)]),
        fallback: true,
        s3: Some(Side::Old),
        mark_keys: vec![Secret::new("first"), Secret::new("second")],
        body_bytes: 1 << 20,
        ..Settings::default()
    }
}
