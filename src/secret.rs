//! Text that must never be seen: keys, tokens, secrets.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use subtle::ConstantTimeEq as _;

/// A secret. It has no `Display` and no `Serialize`, and its `Debug` is redacted, so that it can't
/// reach a log, an error or a page by accident: [`Secret::expose`] is the only way out, and easy to find.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The text itself. Use it only to compare, or to write it where the secret belongs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret as the value of a header, marked sensitive, so that its `Debug` is redacted too.
    ///
    /// # Errors
    /// For a text that no header can carry.
    pub fn header(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        sensitive(self.expose())
    }

    /// The same as the value of `Authorization`: `Bearer …`.
    ///
    /// # Errors
    /// For a text that no header can carry.
    pub fn bearer(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        sensitive(&format!("Bearer {}", self.expose()))
    }

    /// Whether this is what somebody presented. The time that it takes depends on the lengths alone, so that no secret can be guessed
    /// piece by piece. Everything that a caller presents is compared here; `==` is for settings with settings.
    #[must_use]
    pub fn is(&self, presented: &str) -> bool {
        let (own, theirs) = (self.0.as_bytes(), presented.as_bytes());
        if own.len() != theirs.len() {
            return false;
        }
        // Eight bytes at a time: it is asked of every request, for every key.
        let ((own, own_rest), (theirs, rest)) = (own.as_chunks::<8>(), theirs.as_chunks::<8>());
        let words = own.iter().zip(theirs).fold(0, |differs, (own, theirs)| {
            differs | (u64::from_ne_bytes(*own) ^ u64::from_ne_bytes(*theirs))
        });
        let bytes = own_rest.iter().zip(rest).fold(0, |differs, (own, one)| differs | (own ^ one));
        bool::from((words | u64::from(bytes)).ct_eq(&0))
    }

    /// Whether there is no text at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn sensitive(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(text)?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_text() {
        let shown = format!("{:?}", Secret::new("sb_secret_abcdef"));
        assert_eq!(shown, "Secret(…)");
        let secret = Secret::new("sb_secret_abcdef");
        for value in [secret.header().unwrap(), secret.bearer().unwrap()] {
            assert!(!format!("{value:?}").contains("abcdef"));
        }
    }

    proptest! {
        #[test]
        fn it_is_what_was_presented_to_the_last_bit(
            text in "[ -~]{0,40}",
            at: prop::sample::Index,
            bit in 0..7_u8,
        ) {
            let secret = Secret::new(&text);
            prop_assert!(secret.is(&text));
            let longer = format!("{text}x");
            prop_assert!(!secret.is(&longer));
            prop_assert!(!Secret::new(&longer).is(&text));
            if !text.is_empty() {
                let mut other = text.clone().into_bytes();
                other[at.index(text.len())] ^= 1 << bit;
                let other = String::from_utf8(other).unwrap();
                prop_assert!(!secret.is(&other), "{other}");
            }
        }
    }
}
