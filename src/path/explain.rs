//! Which side a user is on, why, and from which percentage on: the question that an operator asks most. Pure, and
//! asked of the same [`decide()`] that serves requests, so the answer can't differ from what happens.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::rewrite::say;
use super::{Asked, Caller};
use crate::accept::request::{self as accept, NotServed};
use crate::decide::bucket::Bucket;
use crate::decide::percentage::Percentage;
use crate::decide::{self, Belongs, Reason, decide};
use crate::identify::claims::TokenFacts;
use crate::identify::credentials::Credentials;
use crate::identify::{Identity, User};
use crate::observe::redact::without_secrets;
use crate::rewrite::keys::KeyPlaces;
use crate::rewrite::rest::{ACCEPT_PROFILE, CONTENT_PROFILE};
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
    /// Path and query, without the keys and tokens that were asked about.
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
    /// The method is not served.
    #[error("the method {0} is not served")]
    Method(String),
    /// The side's dialect has no words for it.
    #[error("the proxy answers {code}: {message}")]
    Refused {
        /// `CUT…`
        code: &'static str,
        /// What the client is told.
        message: String,
    },
}

/// Says where a user's request goes, and what the side receives.
///
/// # Errors
/// [`NoAnswer`] when the request would be answered by the proxy itself.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Result<Explained, NoAnswer> {
    let mut asked = match &question.path {
        None => None,
        Some(path) => Some(request(question, path)?),
    };
    let settings = &snapshot.decide;
    let caller = Caller {
        identity: Identity::User(user(snapshot, question)),
        keys: KeyPlaces::of(&Credentials::of(&HeaderMap::new(), None, &snapshot.keyring)),
        // Asked only for those without an identity.
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let decision = decide(
        &decide::Question {
            identity: &caller.identity,
            route: asked.as_ref().map_or(Route::Rest, |asked| asked.route),
            belongs: asked.as_ref().map_or(Belongs::ToRoute, |asked| asked.belongs(snapshot)),
            domain: asked.as_ref().and_then(|asked| asked.resource(snapshot)?.domain()),
            override_ask: None,
            client: caller.address,
            random: 0,
        },
        settings,
    );
    let bucket = Bucket::of(settings.hash, &settings.salt, &question.user);
    let rewritten = match &mut asked {
        None => None,
        Some(asked) => Some(rewritten(snapshot, asked, &caller, decision.side)?),
    };
    Ok(Explained {
        side: decision.side,
        bucket,
        reason: decision.reason,
        moves_at: bucket.moves_at(settings.hash),
        rewritten,
    })
}

/// The request that is asked about, as the path would have accepted it.
fn request(question: &Question, path: &str) -> Result<Asked, NoAnswer> {
    let method = question.method.as_deref().unwrap_or("GET").to_uppercase();
    let method = Method::try_from(method.as_str()).map_err(|_| NoAnswer::Method(method.clone()))?;
    let unknown = || NoAnswer::UnknownPath(without_secrets(path).into_owned());
    let target: PathAndQuery = path.parse().map_err(|_| unknown())?;
    let route = accept::route(&method, target.path()).map_err(|why| match why {
        NotServed::Method => NoAnswer::Method(method.to_string()),
        NotServed::UnknownPath | NotServed::DotSegments => unknown(),
    })?;
    let mut headers = HeaderMap::new();
    if let Some(profile) =
        question.profile.as_deref().and_then(|profile| HeaderValue::from_str(profile).ok())
    {
        headers.insert(ACCEPT_PROFILE, profile.clone());
        headers.insert(CONTENT_PROFILE, profile);
    }
    Ok(Asked::bare(route, method, target, headers))
}

fn rewritten(
    snapshot: &Snapshot,
    asked: &mut Asked,
    caller: &Caller,
    side: Side,
) -> Result<Rewritten, NoAnswer> {
    let said = say(snapshot, asked, caller, side, false).map_err(|refusal| {
        let (code, message) = refusal.in_short();
        NoAnswer::Refused { code, message }
    })?;
    let text = |name: HeaderName| said.headers.get(name).and_then(|value| value.to_str().ok());
    let host = snapshot.forward.projects[side].authority.to_string();
    let mut headers = BTreeMap::from([("host".to_owned(), host)]);
    for name in [ACCEPT_PROFILE, CONTENT_PROFILE] {
        if let Some(value) = text(name.clone()) {
            headers.insert(name.to_string(), value.to_owned());
        }
    }
    Ok(Rewritten {
        method: said.method.to_string(),
        path: without_secrets(said.target.as_str()).into_owned(),
        profile: text(ACCEPT_PROFILE).or_else(|| text(CONTENT_PROFILE)).map(str::to_owned),
        headers,
    })
}

fn user(snapshot: &Snapshot, question: &Question) -> User {
    let of_token = question.claims.as_ref().and_then(|claims| {
        User::of_token(Arc::new(TokenFacts::of_user(
            &question.user,
            claims,
            &snapshot.decide.wanted,
        )))
    });
    of_token.unwrap_or_else(|| User::plain(&question.user))
}
