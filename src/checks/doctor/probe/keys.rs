//! The keys of both projects, each at its own and at the other one.

use super::{Accepted, Probe, now};
use crate::checks::doctor::finding::{Finding, Status};
use crate::checks::doctor::judge::keys::{self, Heard, is_refused};
use crate::checks::http::{Answer, As, Ask, NoAnswer};
use crate::identify::keyring::{Role, SentKey};
use crate::side::{Pair, Side};

/// Any key opens it.
const OPEN: &str = "/auth/v1/settings";
/// Only a service key does.
const CLOSED: &str = "/auth/v1/admin/users?page=1&per_page=1";

/// The lines about both sides' keys, and which are accepted.
pub(super) async fn both(probe: &Probe<'_>, up: Pair<bool>) -> (Vec<Finding>, Accepted) {
    let (old, new) = futures_util::join!(one(probe, Side::Old, up), one(probe, Side::New, up));
    let accepted = Pair { old: old.1, new: new.1 };
    (old.0.into_iter().chain(new.0).collect(), accepted)
}

async fn one(probe: &Probe<'_>, side: Side, up: Pair<bool>) -> (Vec<Finding>, Vec<Role>) {
    let (mut findings, mut accepted) = (Vec::new(), Vec::new());
    for role in [Role::Anon, Role::Service] {
        let Some(key) = probe.snapshot.keyring.key_for(side, role) else {
            findings.extend(unset(side, role));
            continue;
        };
        let host = probe.snapshot.forward.projects[side].authority.host();
        let at = now().cast_signed();
        findings.extend(keys::legacy(side, role, key.text.expose(), host, at));
        if !up[side] {
            continue;
        }
        let (open, closed) =
            futures_util::join!(with(probe, side, key, OPEN), with(probe, side, key, CLOSED));
        let mut other_takes_it = false;
        if open.as_ref().is_ok_and(is_refused) && up[side.other()] {
            let other = with(probe, side.other(), key, OPEN).await;
            other_takes_it = other.is_ok_and(|other| other.status.is_success());
        }
        let heard = Heard { open: &open, closed: &closed, other_takes_it };
        let found = keys::key(side, role, &heard);
        if found.status == Status::Pass {
            accepted.push(role);
        }
        findings.push(found);
        if up[side.other()] && is_only_of(probe, side, role, key) {
            let other = with(probe, side.other(), key, OPEN).await;
            findings.push(keys::other(side.other(), role, &other));
        }
    }
    (findings, accepted)
}

/// Whether the other side is configured with another key of that role.
fn is_only_of(probe: &Probe<'_>, side: Side, role: Role, key: &SentKey) -> bool {
    let other = probe.snapshot.keyring.key_for(side.other(), role);
    other.is_none_or(|other| other.text != key.text)
}

/// `anon_key` is required; without the other one less can be seen.
fn unset(side: Side, role: Role) -> Option<Finding> {
    let subject = keys::setting(side, role);
    (role == Role::Service).then(|| {
        let fix = format!("set {subject} to see tables, columns and buckets");
        Finding::skip("keys.service", side, &subject, "not set", fix)
    })
}

async fn with(
    probe: &Probe<'_>,
    side: Side,
    key: &SentKey,
    target: &str,
) -> Result<Answer, NoAnswer> {
    let mut ask = Ask::get(target);
    ask.headers.insert("apikey", key.header.clone());
    ask.headers.insert(http::header::AUTHORIZATION, key.bearer.clone());
    probe.ask(side, As::Nobody, ask).await
}
