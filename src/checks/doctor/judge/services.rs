//! Auth, edge functions and GraphQL: whether they answer, and alike.

use http::StatusCode;
use serde_json::Value;

use super::answer::said_by;
use crate::checks::doctor::finding::Finding;
use crate::checks::http::{Answer, NoAnswer};
use crate::side::Side;

/// Whether auth answers. `owner`: the side that serves it for everybody.
pub(crate) fn auth(side: Side, owner: Side, answer: &Result<Answer, NoAnswer>) -> Finding {
    const ID: &str = "auth.health";
    let seen = match answer {
        Ok(answer) if answer.status.is_success() => {
            return Finding::pass(ID, side, "auth", "answers");
        }
        Ok(answer) => said_by(answer),
        Err(none) => none.to_string(),
    };
    let fix = "look at the project's logs: Auth";
    match side == owner {
        true => Finding::fail(ID, side, "auth", seen, fix),
        false => {
            let fix = format!("{fix}; routes.auth is {owner}, so nobody signs in here yet");
            Finding::warn(ID, side, "auth", seen, fix)
        }
    }
}

/// Compares what both auth services say of their settings (`GET /auth/v1/settings`): each difference is one line.
pub(crate) fn auth_settings(old: &Value, new: &Value) -> Vec<Finding> {
    const ID: &str = "auth.settings";
    let mut found = Vec::new();
    differences("", old, new, &mut found);
    let fix = "make new as old is before routes.auth changes: dashboard, Authentication, Sign In / Providers";
    let lines = found.into_iter().map(|(path, old, new)| {
        let seen = format!("{old} on old, {new} on new");
        Finding::warn(ID, None, &path, seen, fix)
    });
    let lines: Vec<Finding> = lines.collect();
    match lines.is_empty() {
        true => vec![Finding::pass(ID, None, "settings", "the same on both sides")],
        false => lines,
    }
}

fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<(String, Value, Value)>) {
    if let (Value::Object(old), Value::Object(new)) = (old, new) {
        for (name, value) in old {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            // A newer Auth knows more settings: what only one of them knows says nothing.
            if let Some(other) = new.get(name) {
                differences(&path, value, other, found);
            }
        }
    } else if old != new {
        found.push((path.to_owned(), old.clone(), new.clone()));
    }
}

/// Whether a function is there, from the answer to `OPTIONS`: it is not called, for nobody knows what it does.
pub(crate) fn function(side: Side, name: &str, answer: &Result<Answer, NoAnswer>) -> Finding {
    const ID: &str = "functions.route";
    match answer {
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => {
            let seen = format!("no such function: {}", said_by(answer));
            let fix = format!(
                "deploy it there (supabase functions deploy {name}), or correct [functions.names]"
            );
            Finding::fail(ID, side, name, seen, fix)
        }
        Ok(answer) if answer.status.is_server_error() => {
            let fix = "look at the project's logs: Edge Functions";
            Finding::warn(ID, side, name, said_by(answer), fix)
        }
        Ok(answer) => {
            let seen = format!("answers OPTIONS with {}; it is not called", answer.status.as_u16());
            Finding::pass(ID, side, name, seen)
        }
        Err(none) => Finding::fail(ID, side, name, none.to_string(), "see reach.url"),
    }
}

/// Whether GraphQL is there: both answers are good, as long as an operator knows.
pub(crate) fn graphql(side: Side, answer: &Result<Answer, NoAnswer>) -> Finding {
    const ID: &str = "graphql.present";
    let seen = match answer {
        Ok(answer) if answer.status.is_success() => "answers",
        // pg_graphql is not installed: PGRST202, or no route at all.
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => "not there",
        Ok(answer) => return Finding::pass(ID, side, "graphql", said_by(answer)),
        Err(none) => return Finding::skip(ID, side, "graphql", none.to_string(), "see reach.url"),
    };
    Finding::pass(ID, side, "graphql", seen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::answer::tests::answered;
    use super::*;
    use crate::checks::doctor::finding::Status;

    #[test]
    fn auth_has_to_answer_where_people_sign_in() {
        let down = || Ok(answered(503, r#"{"code":503,"msg":"down"}"#));
        assert_eq!(auth(Side::Old, Side::Old, &down()).status, Status::Fail);
        assert_eq!(auth(Side::New, Side::Old, &down()).status, Status::Warn);
        assert_eq!(auth(Side::New, Side::Old, &Ok(answered(200, "{}"))).status, Status::Pass);
    }

    #[test]
    fn settings_that_both_know_are_compared() {
        let old = json!({"external": {"google": true, "email": true}, "disable_signup": false, "saml_enabled": false});
        let new = json!({"external": {"google": false, "email": true}, "disable_signup": false, "newer": 1});
        let found = auth_settings(&old, &new);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].subject, "external.google");
        assert_eq!(found[0].seen, "true on old, false on new");
        assert_eq!(auth_settings(&old, &old)[0].status, Status::Pass);
    }

    #[test]
    fn a_function_that_is_not_there_is_told_from_one_that_fails() {
        let missing = r#"{"code":"NOT_FOUND","message":"Requested function was not found"}"#;
        for (status, want) in [
            (200, Status::Pass),
            (401, Status::Pass),
            (405, Status::Pass),
            (404, Status::Fail),
            (503, Status::Warn),
        ] {
            let found = function(Side::New, "memory/create", &Ok(answered(status, missing)));
            assert_eq!(found.status, want, "{status}");
        }
    }

    #[test]
    fn graphql_may_be_absent() {
        for status in [200, 404, 401] {
            assert_eq!(graphql(Side::New, &Ok(answered(status, "{}"))).status, Status::Pass);
        }
    }
}
