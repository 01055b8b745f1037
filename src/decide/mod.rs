//! Phase 3: which side, and why. Pure: the same question and settings always give the same answer.
//!
//! The rules are asked in the order of [`Reason`]; the first that answers wins.

pub mod bucket;
pub mod percentage;

use std::net::IpAddr;

use foldhash::HashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::identify::claims::Wanted;
use crate::identify::{Identity, User};
use crate::route::Route;
use crate::secret::Secret;
use crate::side::Side;
use bucket::{Bucket, Hash};
use percentage::Percentage;

/// The rule that made a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// `rollout.force`: the switch above all others.
    Forced,
    /// The signed override header.
    Override,
    /// The route belongs to one side.
    Owner,
    /// A service key without a user.
    Service,
    /// The targeting key is pinned.
    Pin,
    /// A claim matched a rule.
    Rule,
    /// The table's domain has a cap.
    DomainCap,
    /// The bucket against the percentage.
    Percentage,
    /// Nobody asked: `rollout.anonymous`.
    Anonymous,
}

impl Reason {
    /// Every reason, in the order in which the rules are asked.
    pub const ALL: [Self; 9] = [
        Self::Forced,
        Self::Override,
        Self::Owner,
        Self::Service,
        Self::Pin,
        Self::Rule,
        Self::DomainCap,
        Self::Percentage,
        Self::Anonymous,
    ];

    /// The word used in headers, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forced => "forced",
            Self::Override => "override",
            Self::Owner => "owner",
            Self::Service => "service",
            Self::Pin => "pin",
            Self::Rule => "rule",
            Self::DomainCap => "domain_cap",
            Self::Percentage => "percentage",
            Self::Anonymous => "anonymous",
        }
    }
}

/// A decision: where a request goes, which rule said so, and the bucket if one was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The chosen side.
    pub side: Side,
    /// The rule that chose it.
    pub reason: Reason,
    /// The bucket of the identity (or, for `sticky` and `random`, of the request); `None` when nothing was hashed.
    pub bucket: Option<Bucket>,
}

/// What happens to requests without an identity (`rollout.anonymous`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Hash of the client address, against the percentage.
    #[default]
    Sticky,
    /// A new bucket for each request, against the percentage.
    Random,
    /// Always old, whatever the percentage.
    Old,
    /// Always new, whatever the percentage.
    New,
}

/// Who serves a route (`[routes]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// One side, for everybody.
    Side(Side),
    /// Split by user.
    Rollout,
}

/// The owner of each route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners([Owner; Route::ALL.len()]);

impl Owners {
    /// Makes the table by asking `f` for each route.
    pub fn from_fn(f: impl FnMut(Route) -> Owner) -> Self {
        Self(Route::ALL.map(f))
    }

    /// Who serves this route.
    #[must_use]
    pub fn of(&self, route: Route) -> Owner {
        self.0[route as usize]
    }
}

/// The claims that these rules ask for.
#[must_use]
pub fn wanted_claims(rules: &[Rule]) -> Wanted {
    Wanted::new(rules.iter().map(|rule| rule.claim.clone()).collect())
}

/// One entry of `rollout.rules`: a JWT claim that equals a value sends its users to a side.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The path into the claims, e.g. `["app_metadata", "beta"]`; never empty.
    pub claim: Vec<String>,
    /// Compared as JSON: `true` is not `"true"`.
    pub equals: Value,
    /// Where the users go.
    pub side: Side,
}

/// The live rollout.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Share of users on new.
    pub percentage: Percentage,
    /// Everybody on one side, at once.
    pub force: Option<Side>,
    /// Mixed into the hash (sha256 only).
    pub salt: String,
    /// How keys are hashed.
    pub hash: Hash,
    /// Where a service key without a user goes.
    pub service_role: Side,
    /// What happens to requests without an identity.
    pub anonymous: Anonymous,
    /// Targeting keys with a fixed side.
    pub pins: HashMap<String, Side>,
    /// Asked in order; the first match wins.
    pub rules: Vec<Rule>,
    /// The claims that the rules ask for ([`wanted_claims`]).
    pub wanted: Wanted,
    /// Highest percentage per domain (a schema of the new project).
    pub domains: HashMap<String, Percentage>,
    /// The token that makes `x-cutover-side` count; `None`: the header never counts.
    pub override_token: Option<Secret>,
    /// Who serves each route.
    pub owners: Owners,
}

/// Whether the thing that is asked for has a side of its own, whatever its route's owner is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Belongs {
    /// No: its route decides.
    #[default]
    ToRoute,
    /// A setting gives it an owner: a function, a bucket, the rooms of realtime. Force moves it, as it moves the owners of routes.
    ToOwner(Side),
    /// One side issued it, and only that side can serve it: a signed URL, an upload that was begun. Force doesn't move it.
    ToIssuer(Side),
}

/// Everything that a decision may depend on besides the settings.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub identity: &'a Identity,
    /// Which service is asked.
    pub route: Route,
    /// The side of the thing itself, if it has one.
    pub belongs: Belongs,
    /// The domain (schema on new) of the table or function, if it is mapped.
    pub domain: Option<&'a str>,
    /// What `x-cutover-side` and `x-cutover-override-token` say, unchecked.
    pub override_ask: Option<(Side, &'a str)>,
    /// The client's address, hashed for `anonymous = "sticky"`.
    pub client: IpAddr,
    /// Fresh random bits, used for `anonymous = "random"`.
    pub random: u32,
}

/// Chooses the side. Never fails: every question has an answer.
#[must_use]
pub fn decide(question: &Question<'_>, settings: &Settings) -> Decision {
    let plain = |side, reason| Decision { side, reason, bucket: None };
    let owner = settings.owners.of(question.route);
    // Auth's owner changes only by `routes.auth`, and what one side issued the other can't serve: these
    // two stand even when everybody is forced.
    let is_issued = matches!(question.belongs, Belongs::ToIssuer(_));
    let stays = is_issued || (question.route == Route::Auth && owner != Owner::Rollout);
    if let (Some(side), false) = (settings.force, stays) {
        return plain(side, Reason::Forced);
    }
    if let Some(side) = overridden(question, settings) {
        return plain(side, Reason::Override);
    }
    match (question.belongs, owner) {
        (Belongs::ToIssuer(side) | Belongs::ToOwner(side), _) | (_, Owner::Side(side)) => {
            return plain(side, Reason::Owner);
        }
        (Belongs::ToRoute, Owner::Rollout) => {}
    }
    match question.identity {
        Identity::Service => plain(settings.service_role, Reason::Service),
        Identity::User(user) => decide_user(user, question.domain, settings),
        Identity::Anonymous => decide_anonymous(question, settings),
    }
}

fn overridden(question: &Question<'_>, settings: &Settings) -> Option<Side> {
    let (side, presented) = question.override_ask?;
    settings.override_token.as_ref()?.is(presented).then_some(side)
}

fn decide_user(user: &User, domain: Option<&str>, settings: &Settings) -> Decision {
    let bucket = Bucket::of(settings.hash, &settings.salt, user.key());
    let (side, reason) = if let Some(side) = settings.pins.get(user.key()) {
        (*side, Reason::Pin)
    } else if let Some(rule) = settings.rules.iter().find(|rule| rule.matches(user)) {
        (rule.side, Reason::Rule)
    } else {
        by_bucket(bucket, domain, Reason::Percentage, settings)
    };
    Decision { side, reason, bucket: Some(bucket) }
}

fn decide_anonymous(question: &Question<'_>, settings: &Settings) -> Decision {
    let bucket = match settings.anonymous {
        Anonymous::Sticky => {
            Bucket::of(settings.hash, &settings.salt, &question.client.to_canonical().to_string())
        }
        Anonymous::Random => Bucket::of_random(question.random),
        Anonymous::Old => {
            return Decision { side: Side::Old, reason: Reason::Anonymous, bucket: None };
        }
        Anonymous::New => {
            return Decision { side: Side::New, reason: Reason::Anonymous, bucket: None };
        }
    };
    let (side, reason) = by_bucket(bucket, question.domain, Reason::Anonymous, settings);
    Decision { side, reason, bucket: Some(bucket) }
}

/// The bucket against the domain's cap, then against the percentage. A cap can only hold users back.
fn by_bucket(
    bucket: Bucket,
    domain: Option<&str>,
    reason: Reason,
    settings: &Settings,
) -> (Side, Reason) {
    let cap = domain.and_then(|domain| settings.domains.get(domain));
    if cap.is_some_and(|cap| *cap < settings.percentage && !bucket.is_new_at(*cap)) {
        return (Side::Old, Reason::DomainCap);
    }
    let side = if bucket.is_new_at(settings.percentage) { Side::New } else { Side::Old };
    (side, reason)
}

impl Rule {
    fn matches(&self, user: &User) -> bool {
        user.claim(&self.claim) == Some(&self.equals)
    }
}

#[cfg(test)]
mod tests;
