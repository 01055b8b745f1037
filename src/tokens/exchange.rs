//! The decision about one token on its way to one side.

use super::jwt::{Jwt, Terms};
use super::key::VerifyingKey;
use super::{Mode, Published, Settings};
use crate::secret::Secret;
use crate::side::{Pair, Side};

/// What becomes of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The side accepts it as it is.
    Accepted {
        /// Its last second, in seconds since 1970.
        until: u64,
    },
    /// Signed again for the side.
    Signed {
        /// The new token.
        token: Secret,
        /// Its last second.
        until: u64,
    },
    /// No known key is its own, but a side may have published it since it was last asked: [`needed_keys`].
    UnknownKey,
    /// Forged, expired, no user's token, no token at all, or for a side that nothing can be signed for: it goes as it is.
    Unproven,
}

/// Decides about a token on its way to `side`, at `now` (seconds since 1970).
///
/// A token is signed again only if a key of one of the projects has proved it, and says afterwards what it said before: whoever could
/// not make the first can't make the second. A service role key is none of them: what it is worth on the other side, the settings say,
/// which list it or don't (`supabase-wire.md` 1.3).
#[must_use]
pub fn exchange(
    settings: &Settings,
    published: &Published,
    token: &str,
    side: Side,
    now: u64,
) -> Verdict {
    if settings.mode == Mode::Shared {
        return Verdict::Unproven;
    }
    let Some((jwt, terms)) = standing(token, now) else { return Verdict::Unproven };
    let proof = |side| Keys::of(settings, published, side).prove(&jwt);
    let own = proof(side);
    // Its own bytes, its own name as the issuer, and a kid that only the project itself knows: nobody else's business.
    let is_own = own == Proof::ByKey && terms.is_from(&settings.projects[side].issuer);
    if own == Proof::Accepted || is_own {
        return Verdict::Accepted { until: terms.end() };
    }
    if own == Proof::None && proof(side.other()) == Proof::None {
        let needed = needed(settings, published, &jwt, &terms);
        let is_needed = needed.old || needed.new;
        return if is_needed { Verdict::UnknownKey } else { Verdict::Unproven };
    }
    if !terms.is_for_a_user() {
        return Verdict::Unproven;
    }
    let target = &settings.projects[side];
    let signed = target.signing.as_ref().and_then(|key| {
        let claims = jwt.reissued(&target.issuer, now)?;
        key.sign(&claims)
    });
    match signed {
        Some(token) => Verdict::Signed { token: Secret::new(&token), until: terms.end() },
        None => Verdict::Unproven,
    }
}

/// The sides whose published keys have to be fetched before this token can be judged.
#[must_use]
pub fn needed_keys(
    settings: &Settings,
    published: &Published,
    token: &str,
    now: u64,
) -> Pair<bool> {
    match standing(token, now) {
        Some((jwt, terms)) if settings.mode == Mode::Exchange => {
            needed(settings, published, &jwt, &terms)
        }
        _ => Pair::default(),
    }
}

/// A token that can be read and is in its time.
fn standing(token: &str, now: u64) -> Option<(Jwt<'_>, Terms)> {
    let jwt = Jwt::read(token)?;
    let terms = jwt.terms()?;
    terms.stand(now).then_some((jwt, terms))
}

fn needed(settings: &Settings, published: &Published, jwt: &Jwt<'_>, terms: &Terms) -> Pair<bool> {
    // A symmetric key is never published.
    if !jwt.algorithm.is_asymmetric() {
        return Pair::default();
    }
    let keys = Pair::from_fn(|side| Keys::of(settings, published, side));
    let is_known = jwt.kid.as_deref().is_some_and(|kid| keys.old.has(kid) || keys.new.has(kid));
    if is_known {
        return Pair::default();
    }
    let names = Pair::from_fn(|side| terms.is_from(&settings.projects[side].issuer));
    Pair::from_fn(|side| {
        let may_be_its = names[side] || !(names.old || names.new);
        // Without a kid there is nothing to find in a set that is there already.
        may_be_its && (jwt.kid.is_some() || keys[side].published.is_none())
    })
}

/// How far a side's keys vouch for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// None of them made the signature.
    None,
    /// One of them did, but the token names it by a kid that the side does not know (trap 34).
    ByKey,
    /// One of them did, and the side will find it.
    Accepted,
}

/// All keys of one side.
struct Keys<'a> {
    known: &'a [std::sync::Arc<VerifyingKey>],
    published: Option<&'a [VerifyingKey]>,
}

impl<'a> Keys<'a> {
    fn of(settings: &'a Settings, published: &'a Published, side: Side) -> Self {
        let project = &settings.projects[side];
        let fetched = published.sides[side].as_deref();
        let published = fetched.filter(|fetched| fetched.url == project.jwks_url);
        Self { known: &project.known, published: published.map(|fetched| &*fetched.keys) }
    }

    fn all(&self) -> impl Iterator<Item = &'a VerifyingKey> {
        let published = self.published.unwrap_or_default();
        self.known.iter().map(|key| &**key).chain(published)
    }

    fn has(&self, kid: &str) -> bool {
        self.all().any(|key| key.kid() == Some(kid))
    }

    /// A kid chooses the key. Where it names none of this side's keys, the secret may still have made the signature, because a secret
    /// has no name of its own: Auth verifies such tokens too, `PostgREST` does not.
    fn prove(&self, jwt: &Jwt<'_>) -> Proof {
        let is_proved = |wanted: &dyn Fn(&VerifyingKey) -> bool| {
            self.all().any(|key| wanted(key) && jwt.is_signed_by(key))
        };
        match jwt.kid.as_deref() {
            None if is_proved(&|_| true) => Proof::Accepted,
            None => Proof::None,
            Some(kid) if self.has(kid) => {
                if is_proved(&|key| key.kid() == Some(kid)) {
                    Proof::Accepted
                } else {
                    Proof::None
                }
            }
            Some(_) if is_proved(&|key| key.kid().is_none()) => Proof::ByKey,
            Some(_) => Proof::None,
        }
    }
}

impl Terms {
    /// Whether the token says that this is its issuer.
    fn is_from(&self, issuer: &str) -> bool {
        self.iss.as_ref().and_then(serde_json::Value::as_str) == Some(issuer)
    }
}
