//! Phase 3: which side, and why. Pure: the same question and settings always give the same answer.
//!
//! The rules are asked in the order of [`Reason`]; the first that answers wins.

pub mod bucket;
pub mod percentage;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Highest percentage per domain (a schema of the new project).
    pub domains: HashMap<String, Percentage>,
    /// The token that makes `x-cutover-side` count; `None`: the header never counts.
    pub override_token: Option<Secret>,
    /// Who serves each route.
    pub owners: Owners,
}
