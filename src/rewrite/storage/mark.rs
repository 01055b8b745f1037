//! Marks: what one side issued says so itself.
//!
//! A signed URL carries no user, and neither does a resumable upload after its first request; what they carry is given out by one
//! side and understood by that side alone. So the proxy appends to it which side that was, and a MAC so that only it can say so. A table in
//! memory would be lost by a restart and unknown to other replicas, and would have to hold every URL that was ever signed; a mark
//! needs nothing but a key.
//!
//! `<token>.<side><mac>`: the side is `o` or `n`, the MAC the first 96 bits of an HMAC-SHA256, as base64url: 18 characters that no
//! client encodes, split at the last dot, so that the value may be a JWT itself.

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::secret::Secret;
use crate::side::Side;

/// What a mark is on: one for the other is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The token of a signed URL, for reading or for writing.
    Token,
    /// The id of a resumable upload.
    Upload,
}

/// 96 bits, which base64 writes without a rest. What can be won by guessing is a request to the side that refuses it.
const MAC_BYTES: usize = 12;
/// Side and MAC.
const MARK_CHARS: usize = 1 + MAC_BYTES / 3 * 4;
/// Projects' secrets may serve as keys: what is made with them here can be nothing else.
const DOMAIN: &[u8] = b"cutover/mark/1";

/// Appends a mark; the text itself when there is no key.
#[must_use]
pub fn sign(keys: &[Secret], purpose: Purpose, side: Side, text: &str) -> String {
    match keys.first() {
        None => text.to_owned(),
        Some(key) => {
            let mac = URL_SAFE_NO_PAD.encode(mac(key, purpose, side, text));
            format!("{text}.{}{mac}", letter(side))
        }
    }
}

/// Who issued this, and what without its mark; `None` when there is no mark that one of the keys made.
#[must_use]
pub fn verify<'t>(keys: &[Secret], purpose: Purpose, text: &'t str) -> Option<(Side, &'t str)> {
    let (text, mark) = text.rsplit_once('.')?;
    if mark.len() != MARK_CHARS {
        return None;
    }
    let (side, shown) = mark.split_at_checked(1)?;
    let side = Side::ALL.into_iter().find(|one| side.starts_with(letter(*one)))?;
    let shown = URL_SAFE_NO_PAD.decode(shown).ok()?;
    // Every key is tried, so that the time tells nothing of which one it was.
    let is_ours = keys.iter().fold(false, |found, key| {
        let wanted = mac(key, purpose, side, text);
        bool::from(wanted.as_slice().ct_eq(shown.as_slice())) | found
    });
    is_ours.then_some((side, text))
}

const fn letter(side: Side) -> char {
    match side {
        Side::Old => 'o',
        Side::New => 'n',
    }
}

fn mac(key: &Secret, purpose: Purpose, side: Side, text: &str) -> Vec<u8> {
    let own = hmac::sign(&hmac::Key::new(HMAC_SHA256, key.expose().as_bytes()), DOMAIN);
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, own.as_ref()));
    context.update(match purpose {
        Purpose::Token => b"token\0",
        Purpose::Upload => b"upload\0",
    });
    context.update(side.as_str().as_bytes());
    context.update(b"\0");
    context.update(text.as_bytes());
    context.sign().as_ref().iter().copied().take(MAC_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(texts: &[&str]) -> Vec<Secret> {
        texts.iter().map(|text| Secret::new(text)).collect()
    }

    #[test]
    fn a_mark_says_who_issued_and_is_short_and_safe_in_a_url() {
        let keys = keys(&["k1"]);
        for purpose in [Purpose::Token, Purpose::Upload] {
            for side in Side::ALL {
                let marked = sign(&keys, purpose, side, "aaa.bbb.ccc");
                let mark = marked.strip_prefix("aaa.bbb.ccc.").unwrap();
                assert_eq!(mark.len(), MARK_CHARS);
                assert!(mark.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
                assert_eq!(verify(&keys, purpose, &marked), Some((side, "aaa.bbb.ccc")));
            }
        }
    }

    #[test]
    fn the_first_key_signs_and_all_verify() {
        let marked = sign(&keys(&["new", "old"]), Purpose::Token, Side::New, "t");
        assert_eq!(marked, sign(&keys(&["new"]), Purpose::Token, Side::New, "t"));
        assert!(verify(&keys(&["next", "new"]), Purpose::Token, &marked).is_some());
        assert_eq!(verify(&keys(&["next"]), Purpose::Token, &marked), None);
        assert_eq!(verify(&[], Purpose::Token, &marked), None);
        assert_eq!(sign(&[], Purpose::Token, Side::New, "t"), "t", "no key, no mark");
    }

    #[test]
    fn one_purpose_is_not_another() {
        let marked = sign(&keys(&["k"]), Purpose::Token, Side::New, "t");
        assert_eq!(verify(&keys(&["k"]), Purpose::Upload, &marked), None);
    }

    proptest! {
        #[test]
        fn any_change_makes_it_unmarked(text in "[a-zA-Z0-9._-]{0,40}", at: prop::sample::Index, with in "[a-zA-Z0-9._-]") {
            let keys = keys(&["k1", "k2"]);
            let marked = sign(&keys, Purpose::Token, Side::Old, &text);
            prop_assert_eq!(verify(&keys, Purpose::Token, &marked), Some((Side::Old, text.as_str())));
            let at = at.index(marked.len());
            let changed = format!("{}{with}{}", &marked[..at], &marked[at + 1..]);
            prop_assume!(changed != marked);
            prop_assert_eq!(verify(&keys, Purpose::Token, &changed), None);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text: String) {
            prop_assert_eq!(verify(&keys(&["k"]), Purpose::Token, &text), None);
        }
    }
}
