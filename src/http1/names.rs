//! Names of headers that are nearly always the same. A name that is not one of HTTP's own costs an allocation wherever it is read; one that
//! is known here costs a comparison. Pure.

use std::sync::LazyLock;

use http::header::{HeaderName, InvalidHeaderName};

/// What SDKs, browsers, gateways and PostgREST send.
const KNOWN: &[&str] = &[
    "accept",
    "accept-encoding",
    "accept-language",
    "accept-profile",
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "age",
    "alt-svc",
    "apikey",
    "authorization",
    "cache-control",
    "cf-cache-status",
    "cf-connecting-ip",
    "cf-ipcountry",
    "cf-ray",
    "cf-visitor",
    "connection",
    "content-encoding",
    "content-length",
    "content-location",
    "content-profile",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "host",
    "if-none-match",
    "keep-alive",
    "location",
    "origin",
    "prefer",
    "preference-applied",
    "priority",
    "proxy-status",
    "range",
    "range-unit",
    "referer",
    "sb-gateway-version",
    "sb-project-ref",
    "sb-request-id",
    "sec-ch-ua",
    "sec-ch-ua-mobile",
    "sec-ch-ua-platform",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "server",
    "set-cookie",
    "strict-transport-security",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "x-client-info",
    "x-content-type-options",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
    "x-supabase-api-version",
    "x-upsert",
    "x-user-id",
];

/// The longest of them, in words of eight bytes.
const WORDS: usize = 4;

/// Room for several times as many, so that few stand behind one another.
const PLACES: usize = 512;

/// The bytes of a name in lower case, with zeros behind them.
type Key = [u64; WORDS];

static TABLE: LazyLock<Vec<Option<(Key, HeaderName)>>> = LazyLock::new(|| {
    let mut table = vec![None; PLACES];
    for name in KNOWN {
        let Some(key) = key(name.as_bytes()) else { continue };
        let mut at = place(&key);
        while matches!(table.get(at), Some(Some(_))) {
            at = (at + 1) % PLACES;
        }
        if let Some(free) = table.get_mut(at) {
            *free = Some((key, HeaderName::from_static(name)));
        }
    }
    table
});

fn key(name: &[u8]) -> Option<Key> {
    let mut bytes = [[0; 8]; WORDS];
    bytes.as_flattened_mut().get_mut(..name.len())?.copy_from_slice(name);
    Some(bytes.map(|word| lower(u64::from_le_bytes(word))))
}

/// Eight bytes in lower case: what is a letter between `A` and `Z` gets its sixth bit, and nothing else changes.
const fn lower(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7f * EACH);
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let behind_z = low + (0x7f - b'Z' as u64) * EACH;
    let is_upper = (from_a ^ behind_z) & !bytes & (0x80 * EACH);
    bytes | (is_upper >> 2)
}

fn place(key: &Key) -> usize {
    let mixed = key.iter().fold(0_u64, |mixed, word| {
        (mixed.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    });
    (mixed >> 32) as usize % PLACES
}

/// The name that these bytes are.
///
/// # Errors
/// They are none (RFC 9110 5.1).
pub fn name(bytes: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    if let Some(key) = key(bytes) {
        let mut at = place(&key);
        while let Some(Some((known, name))) = TABLE.get(at) {
            if *known == key && name.as_str().len() == bytes.len() {
                return Ok(name.clone());
            }
            at = (at + 1) % PLACES;
        }
    }
    HeaderName::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_names_are_themselves_in_any_case() {
        for known in KNOWN {
            assert_eq!(name(known.as_bytes()).unwrap(), *known);
            assert_eq!(name(known.to_ascii_uppercase().as_bytes()).unwrap(), *known);
        }
    }

    #[test]
    fn few_stand_behind_one_another() {
        let behind = |known: &&&str| {
            let key = key(known.as_bytes()).unwrap();
            TABLE[place(&key)].as_ref().unwrap().0 != key
        };
        assert!(KNOWN.iter().filter(behind).count() < KNOWN.len() / 5);
    }

    proptest! {
        #[test]
        fn every_name_is_what_http_makes_of_it(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(name(&bytes).ok(), HeaderName::from_bytes(&bytes).ok());
        }

        #[test]
        fn so_is_what_is_nearly_a_known_one(at in 0..KNOWN.len(), change in 0_usize..30, to in any::<u8>()) {
            let mut bytes = KNOWN[at].as_bytes().to_vec();
            let length = bytes.len();
            bytes[change % length] = to;
            prop_assert_eq!(name(&bytes).ok(), HeaderName::from_bytes(&bytes).ok());
        }
    }
}
