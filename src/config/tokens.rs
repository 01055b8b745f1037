//! Keys that verify and sign tokens, read when the settings are: a mistake shows before a token needs them.

use super::fault::Fault;
use super::merged::Merged;
use super::project::Url;
use super::value::Typed;
use crate::secret::Secret;
use crate::side::{Pair, Side};
use crate::tokens::jwk::KeyFault;
use crate::tokens::{Mode, Project, Settings};

/// HS256 wants as many bytes as its hash has (RFC 7518 3.2); fewer can be guessed from one token.
const SHORTEST_SECRET: usize = 32;

/// Keys and terms of the exchange, or faults.
pub(super) fn settings(
    merged: &Merged,
    urls: &Pair<Url>,
    faults: &mut Vec<Fault>,
) -> Option<Settings> {
    let mode = mode(merged);
    let mut project = |side| match project(merged, &urls[side], side, mode) {
        Ok(project) => Some(project),
        Err(fault) => {
            let key = format!("projects.{side}.signing_key");
            let allowed = "a private JWK of kind ES256 (P-256), RS256 or HS256, with its kid";
            let found = fault.to_string();
            faults.push(Fault::new(merged.source(&key), key, found, allowed));
            None
        }
    };
    let (old, new) = (project(Side::Old), project(Side::New));
    Some(Settings {
        mode,
        cache_entries: merged.size("tokens.cache_entries"),
        jwks_refresh: merged.duration("tokens.jwks_refresh"),
        jwks_cooldown: merged.duration("tokens.jwks_cooldown"),
        jwks_wait: merged.duration("tokens.jwks_wait"),
        projects: Pair { old: old?, new: new? },
    })
}

fn mode(merged: &Merged) -> Mode {
    match merged.text("tokens.mode") {
        "exchange" => Mode::Exchange,
        _ => Mode::Shared,
    }
}

fn project(merged: &Merged, url: &Url, side: Side, mode: Mode) -> Result<Project, KeyFault> {
    let secret = |name: &str| {
        let secrets = merged.secrets(&format!("projects.{side}.{name}"));
        // What has no effect is not read either.
        secrets.first().filter(|_| mode == Mode::Exchange)
    };
    let issuer = match merged.text(&format!("projects.{side}.issuer")) {
        "" => url.below("/auth/v1"),
        issuer => issuer.to_owned(),
    };
    let jwks_url = match merged.value(&format!("projects.{side}.jwks_url")) {
        Typed::Url(url) => url.below(""),
        _ => url.below("/auth/v1/.well-known/jwks.json"),
    };
    Project::new(secret("jwt_secret"), secret("signing_key"), &issuer, &jwks_url)
}

/// One project's keys whatever the mode: for whoever tries tokens at the projects themselves. `None` where they are no keys.
pub(super) fn keys(merged: &Merged, side: Side) -> Option<Project> {
    match merged.value(&format!("projects.{side}.url")) {
        Typed::Url(url) => project(merged, url, side, Mode::Exchange).ok(),
        _ => None,
    }
}

fn secrets<'a>(merged: &'a Merged, side: Side, name: &str) -> &'a [Secret] {
    merged.secrets(&format!("projects.{side}.{name}"))
}

fn can_sign(merged: &Merged, side: Side) -> bool {
    ["signing_key", "jwt_secret"].iter().any(|name| !secrets(merged, side, name).is_empty())
}

/// Without a key for the side where users do not sign in, each of them would be a stranger there.
pub(super) fn check(merged: &Merged, faults: &mut Vec<Fault>) {
    let issuer = merged.auth_owner();
    let target = issuer.other();
    if mode(merged) == Mode::Exchange && !can_sign(merged, target) {
        let allowed = format!(
            "projects.{target}.signing_key or projects.{target}.jwt_secret: users sign in at {issuer} (routes.auth), and with tokens.mode = \"exchange\" their tokens are signed again for {target}"
        );
        let key = format!("projects.{target}.signing_key");
        faults.push(Fault::new(merged.source("tokens.mode"), key, "nothing", allowed));
    }
}

/// What is allowed and yet worth a word.
pub(super) fn warnings(merged: &Merged, warnings: &mut Vec<String>) {
    if mode(merged) == Mode::Shared {
        for side in Side::ALL {
            for name in ["jwt_secret", "jwks_url", "signing_key"] {
                let key = format!("projects.{side}.{name}");
                if !merged.secrets(&key).is_empty() || matches!(merged.value(&key), Typed::Url(_)) {
                    let but = if name == "jwks_url" { "" } else { ", but for `cutover doctor`" };
                    warnings
                        .push(format!("{key} has no effect with tokens.mode = \"shared\"{but}"));
                }
            }
        }
        return;
    }
    for side in Side::ALL {
        if secrets(merged, side, "jwt_secret").iter().any(|s| s.expose().len() < SHORTEST_SECRET) {
            warnings.push(format!(
                "projects.{side}.jwt_secret has fewer than {SHORTEST_SECRET} bytes: who has one token can guess it"
            ));
        }
    }
    let issuer = merged.auth_owner();
    let target = issuer.other();
    if !can_sign(merged, issuer) {
        warnings.push(format!(
            "projects.{issuer} has neither signing_key nor jwt_secret: tokens that {target} issued can't be signed for {issuer}, which answers 401 to them"
        ));
    }
}
