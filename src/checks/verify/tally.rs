//! Digests and what is summed up of them. Pure.
//!
//! A row is two halves of a SHA-256 of its text; a bucket holds the rows whose keys' digest falls into it, as a count and two sums. Two
//! sides whose buckets agree hold the same rows: neither the order of the rows nor where a page ends has a say in it, so a row that
//! one side lacks shifts nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// How many buckets a table's keys fall into; a power of two.
pub const BUCKETS: u16 = 4096;

/// The values of a key's columns, as text.
pub type Key = Vec<String>;

/// Which rows are looked at: all, or those whose key's digest is small. Both sides choose the same keys, and so does the next run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Stands before the key in its digest.
    pub seed: String,
    /// The digest's first four bytes have to be below this; `None`: every row.
    pub below: Option<u32>,
}

impl Sample {
    /// About `wanted` of `rows` rows; all of them if that is not fewer.
    #[must_use]
    pub fn of(seed: &str, wanted: Option<u64>, rows: u64) -> Self {
        let below = wanted.filter(|wanted| *wanted < rows).map(|wanted| {
            let share = (u128::from(wanted) << 32) / u128::from(rows.max(1));
            u32::try_from(share).unwrap_or(u32::MAX)
        });
        Self { seed: seed.to_owned(), below }
    }

    /// Whether every row is in it.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.below.is_none()
    }

    /// The bucket of a key; `None`: not in the sample. Says the same as the SQL of `sql::tallies`.
    #[must_use]
    pub fn bucket(&self, key: &Key) -> Option<u16> {
        let digest = Sha256::digest(format!("{}:{}", self.seed, key_text(key)));
        let [a, b, c, d, e, f, ..] = digest[..] else { return None };
        let is_in = self.below.is_none_or(|below| u32::from_be_bytes([a, b, c, d]) < below);
        is_in.then(|| u16::from_be_bytes([e, f]) & (BUCKETS - 1))
    }
}

/// A key as one text: each value behind its length in bytes.
fn key_text(key: &Key) -> String {
    key.iter().map(|value| format!("{}:{value}", value.len())).collect()
}

/// The first half of a row's digest.
#[must_use]
pub fn digest(text: &str) -> u128 {
    let digest = Sha256::digest(text);
    let mut first = [0; 16];
    first.copy_from_slice(digest.get(..16).unwrap_or(&[0; 16]));
    u128::from_be_bytes(first)
}

/// How many rows, and the sums of both halves of their digests, each half read as a signed number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Rows.
    pub count: u64,
    /// Sum of the first eight bytes.
    pub first: i128,
    /// Sum of the next eight.
    pub second: i128,
}

impl Tally {
    /// One row.
    #[must_use]
    pub fn of(digest: u128) -> Self {
        let [first, second] = [digest >> 64, digest & u128::from(u64::MAX)].map(|half| {
            let bytes = u64::try_from(half).unwrap_or_default().to_be_bytes();
            i128::from(i64::from_be_bytes(bytes))
        });
        Self { count: 1, first, second }
    }

    fn add(&mut self, other: Self) {
        // A sum of 2^63 rows would not fill it; a state file by another hand may.
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.wrapping_add(other.first);
        self.second = self.second.wrapping_add(other.second);
    }
}

/// The tallies of one side, by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tallies(BTreeMap<u16, Tally>);

impl Tallies {
    /// Adds what a page has.
    pub fn add(&mut self, page: impl IntoIterator<Item = (u16, Tally)>) {
        for (bucket, tally) in page {
            self.0.entry(bucket).or_default().add(tally);
        }
    }

    /// How many rows are in it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.values().map(|tally| tally.count).fold(0, u64::saturating_add)
    }

    /// The buckets in which the two sides are not the same, in groups of at most `rows` rows on the larger side (or one bucket).
    #[must_use]
    pub fn differing(&self, other: &Self, rows: u64) -> Vec<BTreeSet<u16>> {
        let buckets: BTreeSet<u16> = self.0.keys().chain(other.0.keys()).copied().collect();
        let mut groups: Vec<BTreeSet<u16>> = Vec::new();
        let mut filled = 0_u64;
        for bucket in buckets {
            let of = |side: &Self| side.0.get(&bucket).copied().unwrap_or_default();
            let (here, there) = (of(self), of(other));
            if here == there {
                continue;
            }
            let size = here.count.max(there.count);
            match groups.last_mut() {
                Some(group) if filled.saturating_add(size) <= rows => {
                    group.insert(bucket);
                    filled = filled.saturating_add(size);
                }
                _ => {
                    groups.push(BTreeSet::from([bucket]));
                    filled = size;
                }
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> Key {
        vec![text.to_owned()]
    }

    fn all() -> Sample {
        Sample::of("s", None, 0)
    }

    #[test]
    fn no_two_keys_have_one_text() {
        let keys = [vec!["a", "bc"], vec!["ab", "c"], vec!["abc"], vec!["abc", ""], vec!["1:a"]];
        let texts: BTreeSet<_> = keys
            .iter()
            .map(|key| key_text(&key.iter().map(ToString::to_string).collect()))
            .collect();
        assert_eq!(texts.len(), keys.len());
        assert_eq!(key_text(&vec!["ä".into(), String::new()]), "2:ä0:");
    }

    #[test]
    fn a_sample_is_about_what_was_wanted_and_the_same_each_time() {
        let sample = Sample::of("seed", Some(1000), 20_000);
        let chosen = |seed: &str| {
            let sample = Sample { seed: seed.to_owned(), ..sample.clone() };
            (0..20_000)
                .filter(|n| sample.bucket(&key(&n.to_string())).is_some())
                .collect::<Vec<_>>()
        };
        let first = chosen("seed");
        assert!((900..1100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, chosen("seed"));
        assert_ne!(first, chosen("other"));
        for (wanted, rows) in [(Some(10), 10), (Some(11), 10), (None, 10), (Some(1), 0)] {
            assert!(Sample::of("s", wanted, rows).is_all(), "{wanted:?} of {rows}");
        }
        assert_eq!(Sample::of("s", Some(0), 10).below, Some(0), "none at all");
    }

    #[test]
    fn groups_are_bounded_by_rows() {
        let side = |digest: u128| {
            let mut tallies = Tallies::default();
            tallies.add((0..5).map(|bucket| (bucket, Tally { count: 4, ..Tally::of(digest) })));
            tallies
        };
        let sizes =
            |rows| side(1).differing(&side(2), rows).iter().map(BTreeSet::len).collect::<Vec<_>>();
        assert_eq!(sizes(20), [5]);
        assert_eq!(sizes(19), [4, 1]);
        assert_eq!(sizes(8), [2, 2, 1]);
        assert_eq!(sizes(1), [1, 1, 1, 1, 1], "a bucket is never cut");
        assert!(side(1).differing(&side(1), 1).is_empty());
    }

    proptest! {
        /// Pages may be cut anywhere and rows come in any order: what is summed up is the same.
        #[test]
        fn order_and_pages_have_no_say(
            mut rows in prop::collection::vec((0_u16..50, any::<u128>()), 0..60),
            cut in 0_usize..60,
        ) {
            let sum = |rows: &[(u16, u128)]| {
                let mut tallies = Tallies::default();
                tallies.add(rows.iter().map(|(bucket, digest)| (*bucket, Tally::of(*digest))));
                tallies
            };
            let whole = sum(&rows);
            rows.reverse();
            let (a, b) = rows.split_at(cut.min(rows.len()));
            let mut parts = sum(a);
            parts.add(sum(b).0);
            prop_assert_eq!(&parts, &whole);
            prop_assert_eq!(whole.rows(), rows.len() as u64);
            let read: Tallies = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
            prop_assert_eq!(read, whole);
        }

        /// Exactly the buckets of rows that differ are looked into.
        #[test]
        fn one_row_spoils_its_own_bucket_alone(keys in prop::collection::btree_set(0_u32..9999, 1..40), at in any::<prop::sample::Index>()) {
            let keys: Vec<Key> = keys.iter().map(|n| key(&n.to_string())).collect();
            let side = |changed: Option<&Key>| {
                let mut tallies = Tallies::default();
                tallies.add(keys.iter().map(|key| {
                    let text = format!("{key:?}{}", u8::from(changed == Some(key)));
                    (all().bucket(key).unwrap(), Tally::of(digest(&text)))
                }));
                tallies
            };
            let changed = at.get(&keys);
            let found = side(None).differing(&side(Some(changed)), 1000);
            prop_assert_eq!(found, vec![BTreeSet::from([all().bucket(changed).unwrap()])]);
        }
    }
}
