//! Users' tokens: verified with the keys of the project that issued them, and signed again for the other
//! (`design.md` 5, `supabase-wire.md` 3.6). Pure: keys and the time are arguments.
//!
//! Nothing here refuses a request. A token that can't be verified goes on as it is, and the side that it goes to answers 401 in its own
//! words; a token that can be is worth on the other side exactly what it was worth on its own.

pub mod cache;
mod exchange;
pub mod fuzz;
pub mod jwk;
mod jwt;
pub mod key;

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use crate::secret::Secret;
use crate::side::Pair;
use key::{SigningKey, VerifyingKey};

pub use exchange::{Verdict, exchange, needed_keys};
pub use jwt::{LEEWAY, LONGEST_TOKEN};

/// What happens to a user's token on its way to a side (`tokens.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Both projects trust the same key: it passes untouched.
    #[default]
    Shared,
    /// It is verified, and signed again for the chosen side.
    Exchange,
}

/// How tokens are verified and signed again (`[tokens]`, `projects.*`).
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Whether tokens are exchanged at all.
    pub mode: Mode,
    /// How many exchanged tokens a worker remembers.
    pub cache_entries: usize,
    /// How often published keys are fetched.
    pub jwks_refresh: Duration,
    /// Sooner for an unknown kid, but at most this often for each project.
    pub jwks_cooldown: Duration,
    /// How long a request may wait for that.
    pub jwks_wait: Duration,
    /// What each project's keys are.
    pub projects: Pair<Project>,
}

/// One project's keys and name as an issuer.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// The keys that it is known to trust without asking it: its secret, and the one that signs for it.
    pub known: Vec<Arc<VerifyingKey>>,
    /// What signs for it; `None`: tokens can't be exchanged for this side.
    pub signing: Option<Arc<SigningKey>>,
    /// `iss` of its tokens.
    pub issuer: String,
    /// Where it publishes its keys.
    pub jwks_url: String,
    /// Differs when keys or issuer do.
    version: u64,
}

impl Project {
    /// A project with a secret (HS256), a key that signs for it, or both: then the key signs, and both verify.
    ///
    /// # Errors
    /// [`jwk::KeyFault`]: the signing key is none.
    pub fn new(
        jwt_secret: Option<&Secret>,
        signing_key: Option<&Secret>,
        issuer: &str,
        jwks_url: &str,
    ) -> Result<Self, jwk::KeyFault> {
        let key = signing_key.map(|key| jwk::signing_key(key.expose())).transpose()?;
        let verifying = key.as_ref().and_then(SigningKey::verifying);
        let secret = jwt_secret.map(Secret::expose);
        let known = secret.map(VerifyingKey::legacy).into_iter().chain(verifying);
        let mut hasher = std::hash::DefaultHasher::new();
        (jwt_secret, signing_key, issuer, jwks_url).hash(&mut hasher);
        Ok(Self {
            known: known.map(Arc::new).collect(),
            signing: key.or_else(|| secret.map(SigningKey::legacy)).map(Arc::new),
            issuer: issuer.to_owned(),
            jwks_url: jwks_url.to_owned(),
            version: hasher.finish(),
        })
    }
}

impl Settings {
    /// Differs when an exchanged token would: other keys, another issuer, another mode. A changed percentage does not count.
    #[must_use]
    pub fn version(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        (self.mode, self.projects.old.version, self.projects.new.version).hash(&mut hasher);
        hasher.finish()
    }
}

/// What the projects have published, as far as it is known. One immutable version.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// Grows with every change.
    pub version: u64,
    /// What each project published last; `None` before its first good answer.
    pub sides: Pair<Option<Arc<Fetched>>>,
}

/// One project's published keys.
#[derive(Debug, PartialEq)]
pub struct Fetched {
    /// Where they come from: they count only as long as the settings say the same.
    pub url: String,
    /// The keys.
    pub keys: Vec<VerifyingKey>,
}

#[cfg(test)]
mod tests;
