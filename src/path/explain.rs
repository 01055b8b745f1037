//! Which side a user is on, why, and from which percentage on: the question that an operator asks most. Pure, and
//! asked of the same [`decide()`] that serves requests, so the answer can't differ from what happens.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::decide::bucket::Bucket;
use crate::decide::percentage::Percentage;
use crate::decide::{self, Reason, decide};
use crate::identify::claims::TokenFacts;
use crate::identify::{Identity, User};
use crate::route::Route;
use crate::side::Side;
use crate::snapshot::Snapshot;

/// Who asks, and for what.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The targeting key.
    pub user: String,
    /// The request's method; `None` asks about the user alone, as for `GET`.
    pub method: Option<String>,
    /// The request's path and query; `None` asks about a REST request to no table in particular.
    pub path: Option<String>,
    /// The profile header that the client sends.
    pub profile: Option<String>,
    /// The token's claims, for `rollout.rules`.
    pub claims: Option<Value>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The side that serves this.
    pub side: Side,
    /// The user's bucket, 0 to 9999, whether or not the decision asked for it.
    pub bucket: Bucket,
    /// The rule that chose the side.
    pub reason: Reason,
    /// The lowest percentage at which the percentage rule puts this user on new.
    pub moves_at: Percentage,
    /// What the side receives; only with a path that is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<Rewritten>,
}

/// The request as its side receives it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rewritten {
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The value of the profile header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Headers that were set or changed; never a key.
    pub headers: BTreeMap<String, String>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// The path belongs to no service.
    #[error(
        "no service has the path {0}; paths begin with /rest/v1, /auth/v1, /storage/v1, /functions/v1, /realtime/v1 or /graphql/v1"
    )]
    UnknownPath(String),
}

/// Says where a user's request goes.
///
/// # Errors
/// [`NoAnswer`] when the request would be answered by the proxy itself.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Explained, NoAnswer> {
    let route = match &question.path {
        None => Route::Rest,
        Some(path) => {
            let raw = path.split('?').next().unwrap_or_default();
            Route::of(raw).ok_or_else(|| NoAnswer::UnknownPath(raw.to_owned()))?
        }
    };
    let settings = &snapshot.decide;
    let identity = Identity::User(user(question));
    let decision = decide(
        &decide::Question {
            identity: &identity,
            route,
            issued: false,
            domain: None,
            override_ask: None,
            // Neither is asked of a user.
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            random: 0,
        },
        settings,
    );
    let bucket = Bucket::of(settings.hash, &settings.salt, &question.user);
    Ok(Explained {
        side: decision.side,
        bucket,
        reason: decision.reason,
        moves_at: bucket.moves_at(settings.hash),
        rewritten: None,
    })
}

fn user(question: &Question) -> User {
    let of_token = question.claims.as_ref().and_then(|claims| {
        User::of_token(Arc::new(TokenFacts {
            subject: Some(question.user.clone().into_boxed_str()),
            is_service_role: false,
            claims: Some(claims.clone()),
        }))
    });
    of_token.unwrap_or_else(|| User::plain(&question.user))
}
