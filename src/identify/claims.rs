//! Reading (not verifying) the claims of a JWT. Whoever needs to trust a claim verifies the token first;
//! for choosing a side the side itself is the judge of the token.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;

/// RFC 7515 says "no padding"; tokens made by hand often have it, and reading them costs nothing.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What is read of a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenFacts {
    /// `sub`, when it is a text that is not empty.
    pub subject: Option<Box<str>>,
    /// Whether `role` is `service_role`.
    pub is_service_role: bool,
    /// All claims, kept only when a rule may ask for them.
    pub claims: Option<Value>,
}

#[derive(Deserialize)]
struct Narrow<'a> {
    #[serde(default, borrow)]
    sub: Option<LooseText<'a>>,
    #[serde(default, borrow)]
    role: Option<LooseText<'a>>,
}

/// A claim that should be a text; anything else is read as if it were not there, so that one odd claim does not
/// hide the others.
#[derive(Deserialize)]
#[serde(untagged)]
enum LooseText<'a> {
    #[serde(borrow)]
    Text(std::borrow::Cow<'a, str>),
    Other(serde::de::IgnoredAny),
}

impl LooseText<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text),
            Self::Text(_) | Self::Other(_) => None,
        }
    }
}

/// Reads the payload of a token in compact form (three parts, RFC 7519). A text that is no such token
/// has no facts.
#[must_use]
pub fn read(token: &str, keep_claims: bool) -> TokenFacts {
    payload(token).and_then(|json| facts(&json, keep_claims)).unwrap_or_default()
}

/// The decoded payload of a token of three parts.
fn payload(token: &str) -> Option<Vec<u8>> {
    let mut parts = token.split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    BASE64URL.decode(payload).ok()
}

fn facts(json: &[u8], keep_claims: bool) -> Option<TokenFacts> {
    let narrow: Narrow<'_> = serde_json::from_slice(json).ok()?;
    Some(TokenFacts {
        subject: narrow.sub.as_ref().and_then(LooseText::text).map(Box::from),
        is_service_role: narrow.role.as_ref().and_then(LooseText::text) == Some("service_role"),
        claims: if keep_claims { serde_json::from_slice(json).ok() } else { None },
    })
}

#[cfg(test)]
pub(crate) fn unsigned_token(claims: &Value) -> String {
    let part = |value: &Value| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap())
    };
    format!("{}.{}.c2ln", part(&serde_json::json!({"alg": "HS256", "typ": "JWT"})), part(claims))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_subject_and_role() {
        for (claims, subject, service) in [
            (json!({"sub": "ada", "role": "authenticated"}), Some("ada"), false),
            (json!({"sub": "a\"b\u{e9}"}), Some("a\"b\u{e9}"), false),
            (json!({"role": "service_role"}), None, true),
            (json!({"sub": ""}), None, false),
            (json!({"sub": 7, "role": "service_role"}), None, true),
            (json!({"sub": null}), None, false),
            (json!([1, 2]), None, false),
        ] {
            let read = read(&unsigned_token(&claims), false);
            assert_eq!(
                (read.subject.as_deref(), read.is_service_role),
                (subject, service),
                "{claims}"
            );
            assert_eq!(read.claims, None);
        }
        let claims = json!({"sub": "ada", "app_metadata": {"beta": true}});
        assert_eq!(read(&unsigned_token(&claims), true).claims, Some(claims));
    }

    #[test]
    fn what_is_no_token_has_no_facts() {
        for text in ["", "a.b", "a.b.c", "a.b.c.d", "....", "eyJ", "sb_publishable_x", "é.é.é"] {
            assert_eq!(read(text, true), TokenFacts::default(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _facts = read(&text, true);
        }
    }
}
