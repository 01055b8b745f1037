//! Tokens for a user who does not exist, signed here, living a minute, and what each side thinks of them.

use std::sync::Arc;

use super::{Known, NOBODYS_NAME, Probe, now};
use crate::checks::doctor::finding::Finding;
use crate::checks::doctor::judge::answer::{Rest, said_by};
use crate::checks::doctor::judge::tokens::{self as judge, Passage};
use crate::checks::http::As;
use crate::identify::keyring::Role;
use crate::secret::Secret;
use crate::side::{Pair, Side};
use crate::tokens::key::SigningKey;
use crate::tokens::{Fetched, Mode, Published, Verdict, exchange, jwk};

/// A token that the side's own key signed; `None` where the settings have no key for it.
fn minted(probe: &Probe<'_>, side: Side) -> Option<Secret> {
    let project = &probe.keys[side];
    let claims = judge::claims(&project.issuer, &somebody(), now());
    let token = project.signing.as_ref()?.sign(claims.to_string().as_bytes())?;
    Some(Secret::new(&token))
}

/// A random user id, of version 4.
fn somebody() -> String {
    let id = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let text = format!("{id:032x}");
    let parts =
        [text.get(..8), text.get(8..12), text.get(12..16), text.get(16..20), text.get(20..)];
    parts.map(Option::unwrap_or_default).join("-")
}

/// A token for each side that it should accept: its own, or in shared mode the other's.
pub(super) fn users(probe: &Probe<'_>) -> Option<Pair<Secret>> {
    let own = Pair::from_fn(|side| minted(probe, side));
    let is_shared = probe.snapshot.tokens.mode == Mode::Shared;
    match own {
        Pair { old: Some(old), new: Some(new) } => Some(Pair { old, new }),
        Pair { old: Some(one), new: None } | Pair { old: None, new: Some(one) } if is_shared => {
            Some(Pair { old: one.clone(), new: one })
        }
        _ => None,
    }
}

/// Every line about tokens.
pub(super) async fn all(probe: &Probe<'_>, known: &Known) -> Vec<Finding> {
    if !probe.options.wants_any("tokens.") {
        return Vec::new();
    }
    let is_up = Pair::from_fn(|side| known.accepted[side].contains(&Role::Anon));
    let (old, new) = futures_util::join!(
        published(probe, is_up.old, Side::Old),
        published(probe, is_up.new, Side::New)
    );
    let mut findings: Vec<Finding> = old.0.into_iter().chain(new.0).collect();
    let published = Published { version: 1, sides: Pair { old: old.1, new: new.1 } };
    for side in Side::ALL.into_iter().filter(|side| is_up[*side]) {
        let (own, passage) =
            futures_util::join!(own(probe, side), round_trip(probe, side, &published));
        findings.extend([own, passage]);
    }
    findings
}

async fn published(
    probe: &Probe<'_>,
    is_up: bool,
    side: Side,
) -> (Option<Finding>, Option<Arc<Fetched>>) {
    if !is_up {
        return (None, None);
    }
    let project = &probe.keys[side];
    let url = &project.jwks_url;
    let keys = match probe.http.get_url(side, url).await {
        Err(none) => Err(none.to_string()),
        Ok(answer) if !answer.status.is_success() => Err(said_by(&answer)),
        Ok(answer) => jwk::published_keys(&answer.body)
            .ok_or_else(|| "the answer is no set of keys".to_owned()),
    };
    let signing = project.signing.as_deref();
    let found = judge::jwks(side, url, keys.as_deref().map_err(String::as_str), signing);
    let fetched = keys.ok().map(|keys| Arc::new(Fetched { url: url.clone(), keys }));
    (Some(found), fetched)
}

fn no_key(id: &'static str, side: Side, of: Side) -> Finding {
    let subject = format!("projects.{of}.jwt_secret");
    let fix = format!(
        "set projects.{of}.jwt_secret or signing_key to try it, or sign in as a test user through the proxy on both sides"
    );
    Finding::skip(id, side, &subject, "not set: nothing can be signed to ask with", fix)
}

async fn own(probe: &Probe<'_>, side: Side) -> Finding {
    let signing: Option<&SigningKey> = probe.keys[side].signing.as_deref();
    match (signing, minted(probe, side)) {
        (Some(key), Some(token)) => judge::own(side, key, &ask(probe, side, &token).await),
        _ => no_key("tokens.own", side, side),
    }
}

/// A user of the other side on this one, by the proxy's own code.
async fn round_trip(probe: &Probe<'_>, side: Side, published: &Published) -> Finding {
    let Some(token) = minted(probe, side.other()) else {
        return no_key("tokens.round_trip", side, side.other());
    };
    let settings = &probe.snapshot.tokens;
    let (passage, token) = match settings.mode {
        Mode::Shared => (Passage::Untouched, token),
        Mode::Exchange => match exchange(settings, published, token.expose(), side, now()) {
            Verdict::Accepted { .. } => (Passage::Untouched, token),
            Verdict::Signed { token, .. } => (Passage::Exchanged, token),
            Verdict::UnknownKey | Verdict::Unproven => {
                return judge::round_trip(side, Passage::NotExchanged, &Rest::Fine);
            }
        },
    };
    judge::round_trip(side, passage, &ask(probe, side, &token).await)
}

/// A table that nobody has: the token is judged before it is looked for.
async fn ask(probe: &Probe<'_>, side: Side, token: &Secret) -> Rest {
    let map = &probe.snapshot.rewrite.map;
    let domain = map.domains().first().map(|it| (*it).to_owned());
    let schema = match side {
        Side::Old => map.legacy().to_owned(),
        Side::New => domain.unwrap_or_else(|| map.legacy().to_owned()),
    };
    probe.read(side, As::User(token.expose()), &schema, NOBODYS_NAME).await
}
