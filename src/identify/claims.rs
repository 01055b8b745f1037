//! Reading (not verifying) the claims of a JWT. Whoever needs to trust a claim verifies the token first;
//! for choosing a side the side itself is the judge of the token.

use std::hash::{Hash, Hasher};

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
    /// The claims that rules ask for, as far as the token has them.
    pub claims: Vec<Claim>,
    /// Which rules were asked for: [`Wanted::version`].
    pub version: u64,
}

/// One claim of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Where it stands, e.g. `["app_metadata", "beta"]`.
    pub path: Vec<String>,
    /// Its value.
    pub value: Value,
}

/// The claims that rules ask for. Nothing else of a token is kept: a token of a few kilobytes can unfold to many times its size, and anybody
/// can send one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    paths: Vec<Vec<String>>,
    version: u64,
}

/// A claim whose JSON is longer than this is not kept; settings refuse a rule that asks for a longer one.
pub const LONGEST_CLAIM: usize = 1024;

impl Wanted {
    /// These paths. Facts that were read for other paths are told apart by a version of them.
    #[must_use]
    pub fn new(mut paths: Vec<Vec<String>>) -> Self {
        paths.sort();
        paths.dedup();
        let mut hasher = std::hash::DefaultHasher::new();
        paths.hash(&mut hasher);
        let version = if paths.is_empty() { 0 } else { hasher.finish() };
        Self { paths, version }
    }

    /// Differs for different paths; 0 for none.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    fn of(&self, json: &[u8]) -> Vec<Claim> {
        if self.paths.is_empty() {
            return Vec::new();
        }
        serde_json::from_slice(json).map(|all| self.pick(&all)).unwrap_or_default()
    }

    fn pick(&self, all: &Value) -> Vec<Claim> {
        let claim = |path: &Vec<String>| {
            let value = path.iter().try_fold(all, |value, name| value.get(name))?;
            let fits = value.to_string().len() <= LONGEST_CLAIM;
            fits.then(|| Claim { path: path.clone(), value: value.clone() })
        };
        self.paths.iter().filter_map(claim).collect()
    }
}

impl TokenFacts {
    /// The facts of a token with these claims, of this user: what a question without a token is asked with.
    #[must_use]
    pub fn of_user(subject: &str, claims: &Value, wanted: &Wanted) -> Self {
        Self {
            subject: Some(Box::from(subject)),
            is_service_role: false,
            claims: wanted.pick(claims),
            version: wanted.version,
        }
    }

    /// The value of a claim that was wanted.
    #[must_use]
    pub fn claim(&self, path: &[String]) -> Option<&Value> {
        self.claims.iter().find(|claim| claim.path == path).map(|claim| &claim.value)
    }

    /// About how many bytes it holds.
    #[must_use]
    pub fn size(&self) -> usize {
        let claims: usize =
            self.claims.iter().map(|claim| 128 + 2 * claim.value.to_string().len()).sum();
        size_of::<Self>() + self.subject.as_ref().map_or(0, |subject| subject.len()) + claims
    }
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
pub fn read(token: &str, wanted: &Wanted) -> TokenFacts {
    let facts = payload(token).and_then(|json| facts(&json, wanted)).unwrap_or_default();
    TokenFacts { version: wanted.version, ..facts }
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

fn facts(json: &[u8], wanted: &Wanted) -> Option<TokenFacts> {
    let narrow: Narrow<'_> = serde_json::from_slice(json).ok()?;
    Some(TokenFacts {
        subject: narrow.sub.as_ref().and_then(LooseText::text).map(Box::from),
        is_service_role: narrow.role.as_ref().and_then(LooseText::text) == Some("service_role"),
        claims: wanted.of(json),
        version: wanted.version,
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
            let read = read(&unsigned_token(&claims), &Wanted::default());
            assert_eq!(
                (read.subject.as_deref(), read.is_service_role),
                (subject, service),
                "{claims}"
            );
            assert_eq!(read.claims, []);
        }
    }

    #[test]
    fn keeps_the_claims_that_are_wanted_and_no_others() {
        let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let wanted =
            Wanted::new(vec![path(&["app_metadata", "beta"]), path(&["tier"]), path(&["long"])]);
        let claims = json!({"sub": "ada", "app_metadata": {"beta": true, "x": [0, 0]}, "long": "y".repeat(LONGEST_CLAIM)});
        let facts = read(&unsigned_token(&claims), &wanted);
        assert_eq!(facts.claim(&path(&["app_metadata", "beta"])), Some(&json!(true)));
        assert_eq!(facts.claims.len(), 1, "neither what is absent nor what is too long");
        assert!(facts.size() < 1000);
        assert_eq!(
            Wanted::new(vec![path(&["b"]), path(&["a"])]),
            Wanted::new(vec![path(&["a"]), path(&["b"])])
        );
        assert_ne!(
            Wanted::new(vec![path(&["a"])]).version(),
            Wanted::new(vec![path(&["b"])]).version()
        );
    }

    #[test]
    fn what_is_no_token_has_no_facts() {
        for text in ["", "a.b", "a.b.c", "a.b.c.d", "....", "eyJ", "sb_publishable_x", "é.é.é"] {
            assert_eq!(read(text, &Wanted::default()), TokenFacts::default(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,200}") {
            let _facts = read(&text, &Wanted::default());
        }
    }
}
