//! Users' tokens: verified with the keys of the project that issued them, and signed again for the other
//! (`design.md` 5, `supabase-wire.md` 3.6). Pure: keys and the time are arguments.

use crate::secret::Secret;
use crate::side::Pair;

/// What happens to a user's token on its way to a side (`tokens.mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
    /// What each project's keys are.
    pub projects: Pair<Project>,
}

/// One project's keys and name as an issuer.
#[derive(Clone, Debug, Default)]
pub struct Project {
    /// HS256.
    pub jwt_secret: Option<Secret>,
    /// The JWK that signs for this project.
    pub signing_key: Option<Secret>,
    /// `iss` of its tokens.
    pub issuer: String,
}
