//! The API keys: accepted, of the role that the settings say, of this project.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;

use super::answer::said_by;
use crate::checks::doctor::finding::Finding;
use crate::checks::http::{Answer, NoAnswer};
use crate::identify::keyring::Role;
use crate::side::Side;

/// What the project says to one key.
pub(crate) struct Heard<'a> {
    /// At a place that any key opens.
    pub(crate) open: &'a Result<Answer, NoAnswer>,
    /// At a place that only a service key opens.
    pub(crate) closed: &'a Result<Answer, NoAnswer>,
    /// Whether the other project takes this key at a place that any of its keys opens.
    pub(crate) other_takes_it: bool,
}

/// The setting of a side's key.
pub(crate) fn setting(side: Side, role: Role) -> String {
    let name = match role {
        Role::Anon => "anon_key",
        Role::Service => "service_role_key",
    };
    format!("projects.{side}.{name}")
}

/// Whether the side's key is accepted, and what it opens.
pub(crate) fn key(side: Side, role: Role, heard: &Heard<'_>) -> Finding {
    let id = match role {
        Role::Anon => "keys.anon",
        Role::Service => "keys.service",
    };
    let subject = setting(side, role);
    let place = "copy it anew from the project's dashboard: Settings, API Keys";
    let open = match heard.open {
        Err(none) => return Finding::fail(id, side, &subject, none.to_string(), "see reach.url"),
        Ok(open) => open,
    };
    if is_refused(open) {
        let seen = format!("the project refuses it: {}", said_by(open));
        let fix = match heard.other_takes_it {
            true => format!("it is a key of the {} project: {place}", side.other()),
            false => place.to_owned(),
        };
        return Finding::fail(id, side, &subject, seen, fix);
    }
    let opens_all = match heard.closed {
        Ok(closed) if closed.status.is_success() => Some(true),
        // Auth knows whose the token is, and that it is no admin's (`not_admin`).
        Ok(closed) if closed.status == StatusCode::FORBIDDEN => Some(false),
        // A gateway that wants something else, or no admin API: nothing can be said about the role.
        _ => None,
    };
    match (role, opens_all) {
        (Role::Anon, Some(true)) => Finding::fail(
            id,
            side,
            &subject,
            "it opens what only a service key may: whoever has the app has every row",
            format!(
                "replace it by the anon or publishable key, and revoke this one if it was ever in an app: {place}"
            ),
        ),
        (Role::Service, Some(false)) => Finding::fail(
            id,
            side,
            &subject,
            "it is accepted, but opens no more than an anon key",
            format!("set it to the service_role or secret key: {place}"),
        ),
        (_, Some(_)) => Finding::pass(id, side, &subject, "accepted, in its role"),
        (_, None) => Finding::pass(id, side, &subject, "accepted; its role can't be seen here"),
    }
}

/// Whether the gateway or the service said no to the key itself.
pub(crate) fn is_refused(answer: &Answer) -> bool {
    matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
}

/// Whether the project refuses a key that is none of its own.
pub(crate) fn other(side: Side, role: Role, heard: &Result<Answer, NoAnswer>) -> Finding {
    const ID: &str = "keys.other";
    let subject = setting(side.other(), role);
    match heard {
        Ok(answer) if is_refused(answer) => {
            Finding::pass(ID, side, &subject, "refused, as it should be")
        }
        Ok(answer) if answer.status.is_success() => Finding::warn(
            ID,
            side,
            &subject,
            "the project accepts the other project's key",
            "are both settings the same project, or does nothing check keys there? Then a request that bypasses the proxy is not told from one that came through it",
        ),
        Ok(answer) => {
            Finding::skip(ID, side, &subject, format!("answered {}", said_by(answer)), "")
        }
        Err(none) => Finding::skip(ID, side, &subject, none.to_string(), "see reach.url"),
    }
}

/// A legacy key is a JWT, and says itself whose it is. `host` is the project's; `now` in seconds since 1970. `None` for an opaque key.
pub(crate) fn legacy(side: Side, role: Role, key: &str, host: &str, now: i64) -> Option<Finding> {
    const ID: &str = "keys.legacy";
    const MONTH: i64 = 30 * 24 * 3600;
    let claims = claims(key)?;
    let subject = setting(side, role);
    let wanted = match role {
        Role::Anon => "anon",
        Role::Service => "service_role",
    };
    let place = "copy the right one from the project's dashboard: Settings, API Keys";
    let text = |name: &str| claims.get(name).and_then(|value| value.as_str());
    let has = text("role").unwrap_or("none");
    if has != wanted {
        let seen = format!("its role is {has}, not {wanted}");
        return Some(Finding::fail(ID, side, &subject, seen, place));
    }
    let hosted = host.strip_suffix(".supabase.co");
    if let (Some(of), Some(project)) = (text("ref"), hosted)
        && of != project
    {
        let seen = format!("it is of the project {of}, and the URL leads to {project}");
        return Some(Finding::fail(ID, side, &subject, seen, place));
    }
    let left = claims.get("exp").and_then(serde_json::Value::as_i64).map(|end| end - now);
    Some(match left {
        Some(left) if left <= 0 => Finding::fail(ID, side, &subject, "it has expired", place),
        Some(left) if left < MONTH => {
            let seen = format!("it ends in {} days", left / (24 * 3600));
            Finding::warn(
                ID,
                side,
                &subject,
                seen,
                "change to a publishable or secret key, which does not end",
            )
        }
        _ => {
            Finding::pass(ID, side, &subject, format!("a JWT of this project with the role {has}"))
        }
    })
}

fn claims(token: &str) -> Option<serde_json::Value> {
    let mut parts = token.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::answered;
    use super::*;
    use crate::checks::doctor::finding::Status;

    #[test]
    fn a_key_is_judged_by_what_it_opens() {
        let refused = r#"{"message":"Invalid API key","hint":"Double check"}"#;
        for (role, open, closed, want, word) in [
            (Role::Anon, 200, 401, Status::Pass, "can't be seen"),
            (Role::Anon, 200, 403, Status::Pass, "in its role"),
            (Role::Anon, 200, 404, Status::Pass, "can't be seen"),
            (Role::Anon, 200, 200, Status::Fail, "only a service key"),
            (Role::Anon, 401, 401, Status::Fail, "Invalid API key"),
            (Role::Service, 200, 200, Status::Pass, "in its role"),
            (Role::Service, 200, 401, Status::Pass, "can't be seen"),
            (Role::Service, 200, 403, Status::Fail, "no more than an anon"),
            (Role::Service, 401, 401, Status::Fail, "refuses it"),
        ] {
            let open = Ok(answered(open, refused));
            let closed = Ok(answered(closed, refused));
            let heard = Heard { open: &open, closed: &closed, other_takes_it: true };
            let found = key(Side::New, role, &heard);
            assert_eq!(found.status, want, "{role:?}: {}", found.seen);
            assert!(found.seen.contains(word), "{}", found.seen);
            if word == "Invalid API key" {
                assert!(found.fix.contains("a key of the old project"), "{}", found.fix);
            }
        }
    }

    #[test]
    fn the_others_key_is_to_be_refused() {
        for (status, want) in [(401, Status::Pass), (200, Status::Warn), (502, Status::Skip)] {
            assert_eq!(other(Side::Old, Role::Anon, &Ok(answered(status, ""))).status, want);
        }
    }

    #[test]
    fn a_legacy_key_says_whose_it_is() {
        const NOW: i64 = 1_800_000_000;
        let key = |claims: serde_json::Value| {
            format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
        };
        let good =
            serde_json::json!({"iss":"supabase","ref":"abc","role":"anon","exp":NOW + 40_000_000});
        let with = |name: &str, value: serde_json::Value| {
            let mut claims = good.clone();
            claims[name] = value;
            claims
        };
        for (claims, host, want, word) in [
            (good.clone(), "abc.supabase.co", Status::Pass, "of this project"),
            (good.clone(), "api.example.com", Status::Pass, "of this project"),
            (good.clone(), "xyz.supabase.co", Status::Fail, "leads to xyz"),
            (with("role", "service_role".into()), "abc.supabase.co", Status::Fail, "service_role"),
            (with("exp", (NOW - 1).into()), "abc.supabase.co", Status::Fail, "expired"),
            (with("exp", (NOW + 86_400 * 3).into()), "abc.supabase.co", Status::Warn, "3 days"),
        ] {
            let found = legacy(Side::Old, Role::Anon, &key(claims), host, NOW).unwrap();
            assert_eq!(found.status, want, "{}", found.seen);
            assert!(found.seen.contains(word), "{}", found.seen);
        }
        assert_eq!(legacy(Side::Old, Role::Anon, "sb_publishable_x", "abc.supabase.co", NOW), None);
    }
}
