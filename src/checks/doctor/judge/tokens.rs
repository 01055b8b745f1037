//! Users' tokens: whether each side believes what is signed for it, and what becomes of a user of the other side.

use serde_json::Value;

use super::answer::Rest;
use crate::checks::doctor::finding::Finding;
use crate::side::Side;
use crate::tokens::key::{SigningKey, VerifyingKey};

/// Where a project's secret is found.
const SECRET: &str = "dashboard, Project Settings, JWT Keys";

/// Whether a token signed with a side's own key or secret is accepted there.
pub(crate) fn own(side: Side, key: &SigningKey, rest: &Rest) -> Finding {
    const ID: &str = "tokens.own";
    let alg = key.algorithm().as_str();
    let setting = match key.algorithm().is_asymmetric() || key.kid().is_some() {
        true => format!("projects.{side}.signing_key"),
        false => format!("projects.{side}.jwt_secret"),
    };
    match rest {
        Rest::BadToken { said } => {
            let seen = format!("the project does not believe what {setting} ({alg}) signs: {said}");
            let fix = match key.kid() {
                Some(kid) => format!(
                    "the project has to know the key {kid}: {SECRET}, import it as standby key; a service that was not restarted may still have the old set"
                ),
                None => format!(
                    "copy the secret anew: {SECRET}, Legacy JWT Secret. If the project has left HS256, set signing_key"
                ),
            };
            Finding::fail(ID, side, &setting, seen, fix)
        }
        other => judged(ID, side, &setting, "the project accepts what it signs", other),
    }
}

/// What `tokens.round_trip` sends to a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passage {
    /// The token as the other side signed it: `tokens.mode = "shared"`.
    Untouched,
    /// Signed again for the side.
    Exchanged,
    /// `tokens.mode = "exchange"`, and the proxy's own code would not exchange it.
    NotExchanged,
}

/// Whether a user of the other side is believed on this one.
pub(crate) fn round_trip(side: Side, passage: Passage, rest: &Rest) -> Finding {
    const ID: &str = "tokens.round_trip";
    let other = side.other();
    let subject = format!("a user of {other} on {side}");
    match (passage, rest) {
        (Passage::NotExchanged, _) => Finding::fail(
            ID,
            side,
            &subject,
            format!("a token of {other} can't be signed again for {side}"),
            format!(
                "set projects.{side}.signing_key or jwt_secret, and projects.{other}.jwt_secret or jwks_url to verify with"
            ),
        ),
        (Passage::Untouched, Rest::BadToken { said }) => Finding::fail(
            ID,
            side,
            &subject,
            format!("{side} does not believe tokens of {other}, and tokens.mode is shared: {said}"),
            format!(
                "give both projects one key ({SECRET}), or set tokens.mode = \"exchange\" with both projects' keys"
            ),
        ),
        (Passage::Exchanged, Rest::BadToken { said }) => Finding::fail(
            ID,
            side,
            &subject,
            format!("{side} does not believe an exchanged token: {said}"),
            format!(
                "projects.{side}.signing_key or jwt_secret is not that project's: see tokens.own"
            ),
        ),
        (_, rest) => judged(ID, side, &subject, "accepted", rest),
    }
}

fn judged(id: &'static str, side: Side, subject: &str, good: &str, rest: &Rest) -> Finding {
    match rest {
        // The signature was believed before the role was looked at.
        Rest::Fine | Rest::Denied { .. } | Rest::NoTable { .. } | Rest::NoColumn { .. } => {
            Finding::pass(id, side, subject, good)
        }
        Rest::BadClaims { said } => {
            let fix = "the signature is right, the times are not: see reach.clock";
            Finding::fail(id, side, subject, said.clone(), fix)
        }
        other => super::rest::unclear(id, side, subject, other),
    }
}

/// Whether the keys that a project publishes can be read, and have the one that we sign with.
pub(crate) fn jwks(
    side: Side,
    url: &str,
    keys: Result<&[VerifyingKey], &str>,
    signing: Option<&SigningKey>,
) -> Finding {
    const ID: &str = "tokens.jwks";
    let asymmetric = signing.filter(|key| key.algorithm().is_asymmetric());
    let keys = match keys {
        Ok(keys) => keys,
        Err(why) => {
            let fix = format!(
                "check projects.{side}.jwks_url; clients ask for the same document to verify tokens themselves"
            );
            return match asymmetric {
                Some(_) => Finding::fail(ID, side, url, why, fix),
                None => Finding::warn(ID, side, url, why, fix),
            };
        }
    };
    let kids: Vec<&str> = keys.iter().filter_map(VerifyingKey::kid).collect();
    let listed = match kids.is_empty() {
        true => "no keys: the project signs with its secret (HS256)".to_owned(),
        false => format!("keys {}", kids.join(", ")),
    };
    match asymmetric.map(SigningKey::kid) {
        Some(Some(kid)) if !kids.contains(&kid) => {
            let seen =
                format!("projects.{side}.signing_key is {kid}, and the project publishes {listed}");
            let fix = format!(
                "import the key into the project ({SECRET}), or set the kid that the project gave it"
            );
            Finding::fail(ID, side, url, seen, fix)
        }
        Some(None) => {
            let seen =
                "projects.*.signing_key has no kid: the project can't find the key of its tokens";
            Finding::fail(ID, side, url, seen, "add the kid that the project shows for the key")
        }
        _ => Finding::pass(ID, side, url, listed),
    }
}

/// The claims of a token that lives a minute, for a user that does not exist.
pub(crate) fn claims(issuer: &str, user: &str, now: u64) -> Value {
    const LIFE: u64 = 60;
    serde_json::json!({
        "iss": issuer, "sub": user, "aud": "authenticated", "role": "authenticated",
        "iat": now, "exp": now + LIFE, "aal": "aal1", "is_anonymous": false,
        "app_metadata": {}, "user_metadata": {}
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::doctor::finding::Status;

    fn bad() -> Rest {
        Rest::BadToken { said: "401 PGRST301 JWSError".to_owned() }
    }

    #[test]
    fn a_secret_that_is_not_the_projects_is_named() {
        let secret = SigningKey::legacy("s");
        let found = own(Side::New, &secret, &bad());
        assert_eq!(
            (found.status, found.subject.as_str()),
            (Status::Fail, "projects.new.jwt_secret")
        );
        let named = SigningKey::hmac(b"s", Some("k1"));
        let found = own(Side::Old, &named, &bad());
        assert_eq!(found.subject, "projects.old.signing_key");
        assert!(found.fix.contains("k1"), "{found:?}");
        let denied = Rest::Denied { message: "permission denied".to_owned() };
        for rest in [Rest::Fine, denied] {
            assert_eq!(own(Side::New, &secret, &rest).status, Status::Pass);
        }
        let late = Rest::BadClaims { said: "401 PGRST303 JWT expired".to_owned() };
        assert!(own(Side::New, &secret, &late).fix.contains("reach.clock"));
        let away = Rest::Nothing { why: "late".to_owned() };
        assert_eq!(own(Side::New, &secret, &away).status, Status::Fail);
    }

    #[test]
    fn a_user_of_the_other_side_is_believed_or_it_is_said_why_not() {
        for (passage, rest, want, word) in [
            (Passage::Untouched, Rest::Fine, Status::Pass, "accepted"),
            (Passage::Untouched, bad(), Status::Fail, "tokens.mode is shared"),
            (Passage::Exchanged, Rest::Fine, Status::Pass, "accepted"),
            (Passage::Exchanged, bad(), Status::Fail, "exchanged token"),
            (Passage::NotExchanged, Rest::Fine, Status::Fail, "can't be signed again"),
        ] {
            let found = round_trip(Side::New, passage, &rest);
            assert_eq!(found.status, want, "{passage:?}");
            assert!(found.seen.contains(word), "{found:?}");
        }
    }

    #[test]
    fn the_kid_that_we_sign_with_has_to_be_published() {
        let hs = SigningKey::legacy("s");
        let none: [VerifyingKey; 0] = [];
        let url = "https://x/jwks.json";
        assert_eq!(jwks(Side::New, url, Ok(&none), Some(&hs)).status, Status::Pass);
        assert_eq!(jwks(Side::New, url, Ok(&none), None).status, Status::Pass);
        assert_eq!(jwks(Side::New, url, Err("status 404"), None).status, Status::Warn);
        let es = crate::tokens::jwk::signing_key(ES256).unwrap();
        let found = jwks(Side::New, url, Ok(&none), Some(&es));
        assert_eq!(found.status, Status::Fail);
        assert!(found.seen.contains("k-es"), "{found:?}");
        let own = [es.verifying().unwrap()];
        assert_eq!(jwks(Side::New, url, Ok(&own), Some(&es)).status, Status::Pass);
        assert_eq!(jwks(Side::New, url, Err("late"), Some(&es)).status, Status::Fail);
    }

    /// RFC 7515 A.3, with a kid.
    const ES256: &str = r#"{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k-es","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#;
}
