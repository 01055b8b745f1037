//! Text that must never be seen: keys, tokens, secrets.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use http::header::InvalidHeaderValue;

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

// Lets a map keyed by secrets be asked with a plain `&str`: the derived `Hash` and `Eq` are those of the text.
impl Borrow<str> for Secret {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
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
}
