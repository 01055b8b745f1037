//! What must hold for any bytes at all: for the fuzzer, and for the properties beside the code.

use std::sync::OnceLock;

use super::key::SigningKey;
use super::{Mode, Project, Published, Settings, Verdict, exchange, jwk};
use crate::secret::Secret;
use crate::side::{Pair, Side};

const NOW: u64 = 1_800_000_000;
const SECRETS: Pair<&str> = Pair {
    old: "the old project's secret, which is a public one",
    new: "the new project's secret, which is a public one",
};

fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| Settings {
        mode: Mode::Exchange,
        projects: Pair::from_fn(|side| {
            let secret = Secret::new(SECRETS[side]);
            Project::new(Some(&secret), None, side.as_str(), "").unwrap_or_default()
        }),
        ..Settings::default()
    })
}

/// Takes any bytes as a token, as a set of published keys, as a private key, and as the claims of a good token.
///
/// # Errors
/// The law that was broken.
pub fn laws(bytes: &[u8]) -> Result<(), &'static str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _key = jwk::signing_key(text);
        let judged = |side| exchange(settings(), &Published::default(), text, side, NOW);
        if Side::ALL.into_iter().any(|side| matches!(judged(side), Verdict::Signed { .. })) {
            return Err("a token that nobody here signed was signed again");
        }
    }
    let _keys = jwk::published_keys(bytes);
    claims_are_kept(bytes)
}

fn claims_are_kept(claims: &[u8]) -> Result<(), &'static str> {
    let key = SigningKey::legacy(SECRETS.old);
    let Some(token) = key.sign(claims) else { return Err("HS256 could not sign") };
    let to = |token: &str, side| exchange(settings(), &Published::default(), token, side, NOW);
    let Verdict::Signed { token: there, .. } = to(&token, Side::New) else { return Ok(()) };
    if !matches!(to(there.expose(), Side::New), Verdict::Accepted { .. }) {
        return Err("the new side does not accept what was signed for it");
    }
    let (before, after) = (read(&token), read(there.expose()));
    let same = |(name, value): &(String, serde_json::Value)| {
        after.get(name) == Some(value) || matches!(name.as_str(), "iss" | "iat")
    };
    let kept = before.clone().into_iter().all(|claim| same(&claim));
    let added = after.keys().filter(|name| !before.contains_key(*name)).any(|name| name != "iss");
    if kept && !added { Ok(()) } else { Err("a claim was changed") }
}

/// The claims of a token that was made here.
fn read(token: &str) -> serde_json::Map<String, serde_json::Value> {
    use base64::Engine as _;
    let claims = token.split('.').nth(1).unwrap_or_default();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims);
    serde_json::from_slice(&claims.unwrap_or_default()).unwrap_or_default()
}
