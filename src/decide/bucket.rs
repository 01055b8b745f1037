//! From a targeting key to its bucket.
//!
//! `sha256(salt ‖ ":" ‖ key)`, the first 4 bytes big-endian as a u32 `n`, bucket = `(n × 10000) >> 32`: each bucket
//! holds 1/10000 of all keys to within 2⁻³², and a user who is in at 10 % is in at 50 %. `md5` is
//! bit-compatible with the TypeScript helper that some clients embed: the first 8 hex digits of `md5(key)`
//! modulo 100, no salt.

use std::fmt;

use md5::Md5;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::percentage::Percentage;

/// How a key is hashed (`rollout.hash`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// Salted, 10,000 buckets.
    #[default]
    Sha256,
    /// Unsalted, 100 buckets, shown as 0, 100, … 9900.
    Md5,
}

/// A user's number within all users, 0 to 9999; fixed while the salt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bucket(u16);

impl Bucket {
    /// Hashes a targeting key.
    #[must_use]
    pub fn of(hash: Hash, salt: &str, key: &str) -> Self {
        match hash {
            Hash::Sha256 => {
                let digest = Sha256::new()
                    .chain_update(salt)
                    .chain_update(b":")
                    .chain_update(key)
                    .finalize();
                let n = u64::from(u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]));
                Self::from_number((n * 10_000) >> 32)
            }
            Hash::Md5 => {
                let digest = Md5::digest(key);
                let n = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
                Self::from_number(u64::from(n % 100) * 100)
            }
        }
    }

    /// A bucket of 32 random bits, for `rollout.anonymous = "random"`.
    #[must_use]
    pub fn of_random(bits: u32) -> Self {
        Self::from_number((u64::from(bits) * 10_000) >> 32)
    }

    /// Whether this bucket is on the new side at `percentage`.
    #[must_use]
    pub const fn is_new_at(self, percentage: Percentage) -> bool {
        self.0 < percentage.hundredths()
    }

    /// The lowest percentage at which this bucket is on the new side.
    #[must_use]
    pub fn moves_at(self, hash: Hash) -> Percentage {
        let hundredths = match hash {
            Hash::Sha256 => self.0 + 1,
            // Only whole percentages are accepted with md5.
            Hash::Md5 => self.0 + 100,
        };
        Percentage::from_hundredths(hundredths).unwrap_or(Percentage::HUNDRED)
    }

    /// The number, 0 to 9999.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    fn from_number(number: u64) -> Self {
        Self(u16::try_from(number.min(9_999)).unwrap_or(9_999))
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the design, section 3.
    #[test]
    fn vectors() {
        for (key, cutover, onasis, md5) in [
            ("5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11", 8885, 711, 59),
            ("00000000-0000-0000-0000-000000000000", 719, 3265, 50),
            ("8f14e45f-ceea-467f-a9b4-1d2f3c4b5a69", 1686, 5739, 9),
            ("ada", 3375, 5300, 7),
            ("Ünïcødé-Ω", 8894, 429, 5),
        ] {
            assert_eq!(Bucket::of(Hash::Sha256, "cutover", key).number(), cutover, "{key}");
            assert_eq!(Bucket::of(Hash::Sha256, "onasis-core-v2", key).number(), onasis, "{key}");
            assert_eq!(Bucket::of(Hash::Md5, "ignored", key).number(), md5 * 100, "{key}");
        }
    }

    #[test]
    fn moves_at_is_the_first_percentage_that_takes_the_bucket() {
        for hash in [Hash::Sha256, Hash::Md5] {
            for key in ["a", "b", "c", "ada"] {
                let bucket = Bucket::of(hash, "s", key);
                let at = bucket.moves_at(hash);
                let before = Percentage::from_hundredths(at.hundredths() - 1).unwrap();
                assert!(bucket.is_new_at(at), "{key}");
                assert!(hash == Hash::Md5 || !bucket.is_new_at(before), "{key}");
            }
        }
        assert_eq!(Bucket::of_random(u32::MAX).number(), 9_999);
        assert_eq!(Bucket::of_random(0).number(), 0);
    }
}
