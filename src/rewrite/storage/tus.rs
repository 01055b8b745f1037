//! `Upload-Metadata` of a resumable upload (TUS 1.0.0, creation): pairs of a name and a value in base64, with commas between them.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD};

use super::buckets::Words;

const BUCKET: &str = "bucketName";
const OBJECT: &str = "objectName";

/// As Node reads it: with or without padding.
const READER: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bucket and the object that are named, where they can be read.
pub(super) fn names(metadata: &str) -> (Option<String>, Option<String>) {
    // The last one counts.
    let find = |wanted| {
        let mut found = metadata.split(',').rev().filter_map(pair);
        found.find(|(key, _)| *key == wanted).map(|(_, value)| value)
    };
    (find(BUCKET), find(OBJECT))
}

/// The same in other words; pairs of other names keep their bytes, and all their order.
pub(super) fn say(metadata: &str, words: &Words) -> String {
    let said = metadata.split(',').map(|raw| {
        let new = pair(raw).and_then(|(key, value)| match key {
            BUCKET => Some((key, words.bucket(&value)?.to_owned())),
            OBJECT => Some((key, words.name(&value)?)),
            _ => None,
        });
        match new {
            Some((key, value)) => format!("{key} {}", STANDARD.encode(value)),
            None => raw.to_owned(),
        }
    });
    said.collect::<Vec<_>>().join(",")
}

fn pair(raw: &str) -> Option<(&str, String)> {
    let (key, value) = raw.trim().split_once(' ')?;
    Some((key, String::from_utf8(READER.decode(value.trim()).ok()?).ok()?))
}
