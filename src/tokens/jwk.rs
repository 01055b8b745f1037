//! Keys as JSON: the operator's private key, and the public ones that a project publishes (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Algorithm, RsaParts, SigningKey, VerifyingKey};

/// Keys of a set beyond this many are not read: a project has a handful, and a token without kid is tried with each.
pub const MOST_KEYS: usize = 16;

/// Why a text is no key that can sign. None of it shows the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not JSON, or no object with `kty`.
    #[error("a text that is no JWK (not shown)")]
    NotAJwk,
    /// Another `kty`, `crv` or `alg`, or made to encrypt.
    #[error("a JWK of another kind than ES256 (P-256), RS256 or HS256 (not shown)")]
    OtherKind,
    /// The public half alone.
    #[error("a JWK without its private part (not shown)")]
    PublicOnly,
    /// A part is missing or wrong, or the parts do not belong together.
    #[error(
        "a JWK whose parts do not make a key (not shown); RSA needs 2048 bits and n, e, d, p, q, dp, dq, qi"
    )]
    Broken,
    /// Nothing would tell the project which of its keys to use (trap 34).
    #[error("an ES256 or RS256 JWK without kid (not shown)")]
    NoKid,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    use_: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    d: Option<String>,
    #[serde(default)]
    p: Option<String>,
    #[serde(default)]
    q: Option<String>,
    #[serde(default)]
    dp: Option<String>,
    #[serde(default)]
    dq: Option<String>,
    #[serde(default)]
    qi: Option<String>,
    #[serde(default)]
    k: Option<String>,
}

impl Jwk {
    /// The one algorithm of its kind, unless the key says that it is for something else.
    fn algorithm(&self) -> Option<Algorithm> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => Algorithm::Es256,
            ("RSA", _) => Algorithm::Rs256,
            ("oct", _) => Algorithm::Hs256,
            _ => return None,
        };
        let is_other = self.alg.as_deref().is_some_and(|alg| alg != algorithm.as_str());
        let is_for_encryption = self.use_.as_deref().is_some_and(|word| word != "sig");
        (!is_other && !is_for_encryption).then_some(algorithm)
    }

    fn kid(&self) -> Option<&str> {
        self.kid.as_deref().filter(|kid| !kid.is_empty())
    }

    /// The public half.
    fn verifying(&self) -> Option<VerifyingKey> {
        match self.algorithm()? {
            Algorithm::Es256 => {
                VerifyingKey::p256(&bytes(self.x.as_ref())?, &bytes(self.y.as_ref())?, self.kid())
            }
            Algorithm::Rs256 => {
                VerifyingKey::rsa(&bytes(self.n.as_ref())?, &bytes(self.e.as_ref())?, self.kid())
            }
            Algorithm::Hs256 => None,
        }
    }

    fn signing(&self, algorithm: Algorithm) -> Option<SigningKey> {
        match algorithm {
            Algorithm::Hs256 => {
                let secret = bytes(self.k.as_ref()).filter(|secret| !secret.is_empty())?;
                Some(SigningKey::hmac(&secret, self.kid()))
            }
            Algorithm::Es256 => {
                let (x, y) = (bytes(self.x.as_ref())?, bytes(self.y.as_ref())?);
                SigningKey::p256(&bytes(self.d.as_ref())?, &x, &y, self.kid())
            }
            Algorithm::Rs256 => {
                let parts = RsaParts {
                    n: bytes(self.n.as_ref())?,
                    e: bytes(self.e.as_ref())?,
                    d: bytes(self.d.as_ref())?,
                    p: bytes(self.p.as_ref())?,
                    q: bytes(self.q.as_ref())?,
                    dp: bytes(self.dp.as_ref())?,
                    dq: bytes(self.dq.as_ref())?,
                    qi: bytes(self.qi.as_ref())?,
                };
                SigningKey::rsa(&parts, self.kid())
            }
        }
    }
}

fn bytes(part: Option<&String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part?).ok()
}

/// The operator's key: a private JWK.
///
/// # Errors
/// [`KeyFault`]: what is wrong with it, without a word of it.
pub fn signing_key(text: &str) -> Result<SigningKey, KeyFault> {
    let jwk: Jwk = serde_json::from_str(text).map_err(|_| KeyFault::NotAJwk)?;
    let algorithm = jwk.algorithm().ok_or(KeyFault::OtherKind)?;
    if algorithm.is_asymmetric() && jwk.d.is_none() {
        return Err(KeyFault::PublicOnly);
    }
    if algorithm.is_asymmetric() && jwk.kid().is_none() {
        return Err(KeyFault::NoKid);
    }
    jwk.signing(algorithm).ok_or(KeyFault::Broken)
}

/// The keys of a published set. What is not known in it is skipped: tomorrow's key must not cost today's. A symmetric key is skipped as
/// well: published, it proves nothing about whoever signed with it.
///
/// `None` when it is no set at all.
#[must_use]
pub fn published_keys(body: &[u8]) -> Option<Vec<VerifyingKey>> {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let set: Set<'_> = serde_json::from_slice(body).ok()?;
    let read = |key: &&RawValue| serde_json::from_str::<Jwk>(key.get()).ok()?.verifying();
    Some(set.keys.iter().filter_map(read).take(MOST_KEYS).collect())
}
