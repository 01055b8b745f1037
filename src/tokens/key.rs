//! Keys, ready to use: each knows the one algorithm that it is for, so that a token can't choose another one for it.

use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    RsaPublicKeyComponents,
};
// The traits ask for a source of randomness that aws-lc ignores: it has its own.
use aws_lc_rs::{hmac, rand as random};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The algorithms that Supabase's projects sign with (`supabase-wire.md` 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: the legacy secret.
    Hs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSA PKCS #1 v1.5 with SHA-256, 2048 bits and more.
    Rs256,
}

impl Algorithm {
    /// What `alg` says (RFC 7518 3.1).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// Reads `alg`. Everything else, `none` first of all, is `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "HS256" => Some(Self::Hs256),
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }

    /// Whether its keys have a public half that a project can publish.
    #[must_use]
    pub const fn is_asymmetric(self) -> bool {
        !matches!(self, Self::Hs256)
    }
}

/// A key that verifies. Its `Debug` shows algorithm and kid alone.
pub struct VerifyingKey {
    kid: Option<Box<str>>,
    material: Verifies,
}

enum Verifies {
    Hmac(Box<hmac::Key>),
    Public(Algorithm, ParsedPublicKey),
}

impl VerifyingKey {
    /// The legacy secret: HS256, no kid.
    #[must_use]
    pub fn legacy(secret: &str) -> Self {
        Self { kid: None, material: Verifies::Hmac(hmac_key(secret.as_bytes())) }
    }

    /// A symmetric key with the kid that its tokens name.
    #[must_use]
    pub fn hmac(bytes: &[u8], kid: Option<&str>) -> Self {
        Self { kid: kid.map(Box::from), material: Verifies::Hmac(hmac_key(bytes)) }
    }

    /// A public key on P-256, from its coordinates of 32 bytes each. `None` for a point that is not on the curve.
    #[must_use]
    pub fn p256(x: &[u8], y: &[u8], kid: Option<&str>) -> Option<Self> {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, uncompressed(x, y)?).ok()?;
        Some(Self::public(Algorithm::Es256, key, kid))
    }

    /// A public RSA key of 2048 to 8192 bits, from modulus and exponent, big-endian without zeros in front.
    #[must_use]
    pub fn rsa(n: &[u8], e: &[u8], kid: Option<&str>) -> Option<Self> {
        // The library looks at the size when a signature is verified; a key that can never verify one is none.
        if !(2048 / 8..=8192 / 8).contains(&n.len()) || n.first().is_none_or(|top| *top < 0x80) {
            return None;
        }
        let key = RsaPublicKeyComponents { n, e };
        let key = key.to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256).ok()?;
        Some(Self::public(Algorithm::Rs256, key, kid))
    }

    fn public(algorithm: Algorithm, key: ParsedPublicKey, kid: Option<&str>) -> Self {
        Self { kid: kid.map(Box::from), material: Verifies::Public(algorithm, key) }
    }

    /// The name under which tokens choose it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The one algorithm that it is for.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match &self.material {
            Verifies::Hmac(_) => Algorithm::Hs256,
            Verifies::Public(algorithm, _) => *algorithm,
        }
    }

    /// Whether `signature` is this key's under `message`.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            // In constant time.
            Verifies::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Verifies::Public(_, key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

/// A key that signs. Its `Debug` shows algorithm and kid alone.
pub struct SigningKey {
    kid: Option<Box<str>>,
    material: Signs,
    /// The JOSE header of everything that it signs, encoded.
    header: Box<str>,
}

enum Signs {
    Hmac(Box<hmac::Key>),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// The parts of a private RSA key, as a JWK has them (RFC 7518 6.3.2).
pub(super) struct RsaParts {
    pub(super) n: Vec<u8>,
    pub(super) e: Vec<u8>,
    pub(super) d: Vec<u8>,
    pub(super) p: Vec<u8>,
    pub(super) q: Vec<u8>,
    pub(super) dp: Vec<u8>,
    pub(super) dq: Vec<u8>,
    pub(super) qi: Vec<u8>,
}

impl SigningKey {
    /// The legacy secret: HS256, no kid.
    #[must_use]
    pub fn legacy(secret: &str) -> Self {
        Self::hmac(secret.as_bytes(), None)
    }

    /// A symmetric key.
    #[must_use]
    pub fn hmac(bytes: &[u8], kid: Option<&str>) -> Self {
        Self::of(Signs::Hmac(hmac_key(bytes)), kid)
    }

    /// A private key on P-256. `None` when its halves do not belong together.
    #[must_use]
    pub fn p256(d: &[u8], x: &[u8], y: &[u8], kid: Option<&str>) -> Option<Self> {
        let public = uncompressed(x, y)?;
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_private_key_and_public_key(curve, d, &public).ok()?;
        Some(Self::of(Signs::P256(key), kid))
    }

    /// A private RSA key. `None` when its parts do not belong together, or it has fewer than 2048 bits.
    pub(super) fn rsa(parts: &RsaParts, kid: Option<&str>) -> Option<Self> {
        let RsaParts { n, e, d, p, q, dp, dq, qi } = parts;
        let components = aws_lc_rs::rsa::KeyPairComponents {
            public_key: RsaPublicKeyComponents { n, e },
            d,
            p,
            q,
            dP: dp,
            dQ: dq,
            qInv: qi,
        };
        let key = RsaKeyPair::from_components(&components).ok()?;
        Some(Self::of(Signs::Rsa(Box::new(key)), kid))
    }

    fn of(material: Signs, kid: Option<&str>) -> Self {
        let mut key = Self { kid: kid.map(Box::from), material, header: Box::default() };
        let alg = key.algorithm().as_str();
        let header = match kid {
            // In the order in which Auth writes it.
            Some(kid) => {
                format!(r#"{{"alg":"{alg}","kid":{},"typ":"JWT"}}"#, serde_json::Value::from(kid))
            }
            None => format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#),
        };
        key.header = URL_SAFE_NO_PAD.encode(header).into_boxed_str();
        key
    }

    /// The name under which its side knows it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// What it signs with.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        match &self.material {
            Signs::Hmac(_) => Algorithm::Hs256,
            Signs::P256(_) => Algorithm::Es256,
            Signs::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// What verifies that which it signs.
    #[must_use]
    pub fn verifying(&self) -> Option<VerifyingKey> {
        let kid = self.kid();
        match &self.material {
            Signs::Hmac(key) => Some(VerifyingKey {
                kid: kid.map(Box::from),
                material: Verifies::Hmac(key.clone()),
            }),
            Signs::P256(key) => {
                let public = key.public_key().as_ref();
                let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public).ok()?;
                Some(VerifyingKey::public(Algorithm::Es256, key, kid))
            }
            Signs::Rsa(key) => {
                let public = key.public_key().as_ref();
                let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public).ok()?;
                Some(VerifyingKey::public(Algorithm::Rs256, key, kid))
            }
        }
    }

    /// A token in compact form with these claims. `None` if the library fails, which it does only without memory.
    #[must_use]
    pub fn sign(&self, claims: &[u8]) -> Option<String> {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 400);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let random = random::SystemRandom::new();
        let message = token.as_bytes();
        let signature = match &self.material {
            Signs::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Signs::P256(key) => key.sign(&random, message).ok()?.as_ref().to_vec(),
            Signs::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).ok()?;
                signature
            }
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Some(token)
    }
}

/// Whether they verify the same. Never for two secrets: nobody needs to compare these.
impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        match (&self.material, &other.material) {
            (Verifies::Public(a, mine), Verifies::Public(b, theirs)) => {
                a == b && self.kid == other.kid && mine.as_ref() == theirs.as_ref()
            }
            _ => false,
        }
    }
}

fn hmac_key(bytes: &[u8]) -> Box<hmac::Key> {
    Box::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))
}

/// A point as SEC 1 2.3.3 writes it: a JWK's coordinates have exactly the curve's length (RFC 7518 6.2.1.2).
fn uncompressed(x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
    (x.len() == 32 && y.len() == 32).then(|| [&[4], x, y].concat())
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({}, {:?})", self.algorithm().as_str(), self.kid)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({}, {:?})", self.algorithm().as_str(), self.kid)
    }
}
