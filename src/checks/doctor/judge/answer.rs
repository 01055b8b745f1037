//! What an answer of PostgREST means (`supabase-wire.md` 2.3). Codes are matched, never texts: these differ between versions.

use http::StatusCode;
use http::header::LOCATION;

use crate::checks::http::{Answer, NoAnswer};

/// What a probe of the Data API met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It may be read.
    Fine,
    /// PGRST106: the schema is not exposed.
    NotExposed,
    /// PGRST205, or 42P01 where the schema cache is older than the table's end.
    NoTable {
        /// What the server suggests.
        hint: Option<String>,
    },
    /// PGRST202 or 42883.
    NoFunction {
        /// What the server suggests.
        hint: Option<String>,
    },
    /// PGRST204 or 42703: names the column in its message.
    NoColumn {
        /// The server's message.
        message: String,
    },
    /// 42501: a grant is missing.
    Denied {
        /// The server's message: it says whether the schema or the table is meant.
        message: String,
    },
    /// PGRST300, 301: the token's signature is not believed.
    BadToken {
        /// Code and message.
        said: String,
    },
    /// PGRST303: the signature is, the claims are not.
    BadClaims {
        /// Code and message.
        said: String,
    },
    /// 401 without a code of PostgREST's: the gateway refused the key.
    NoKey {
        /// Status and message.
        said: String,
    },
    /// PGRST000 to 003, or 503: the database is away, or the schema cache is being loaded.
    NotReady {
        /// Code and message.
        said: String,
    },
    /// A redirection.
    Redirect {
        /// Where to.
        to: String,
    },
    /// Anything else.
    Other {
        /// Status, code, message.
        said: String,
    },
    /// No answer at all.
    Nothing {
        /// Why.
        why: String,
    },
}

/// Reads an answer.
pub(crate) fn rest(answer: &Result<Answer, NoAnswer>) -> Rest {
    let answer = match answer {
        Ok(answer) => answer,
        Err(none) => return Rest::Nothing { why: none.to_string() },
    };
    let status = answer.status;
    if status.is_success() {
        return Rest::Fine;
    }
    if status.is_redirection() && status != StatusCode::MULTIPLE_CHOICES {
        return Rest::Redirect { to: location(answer) };
    }
    let body = answer.json();
    let text = |name: &str| body.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    // A HEAD, or a gateway that eats bodies, leaves the code in Proxy-Status (PostgREST 13).
    let code = text("code").or_else(|| proxy_status(answer));
    let message = text("message").or_else(|| text("msg")).or_else(|| text("error"));
    let message = message.unwrap_or_default();
    let said = said(status, code.as_deref(), &message);
    match code.as_deref() {
        Some("PGRST106") => Rest::NotExposed,
        Some("PGRST205" | "42P01") => Rest::NoTable { hint: text("hint") },
        Some("PGRST202" | "42883") => Rest::NoFunction { hint: text("hint") },
        Some("PGRST204" | "42703") => Rest::NoColumn { message },
        Some("42501") => Rest::Denied { message },
        Some("PGRST300" | "PGRST301") => Rest::BadToken { said },
        Some("PGRST303") => Rest::BadClaims { said },
        Some("PGRST000" | "PGRST001" | "PGRST002" | "PGRST003") => Rest::NotReady { said },
        Some(code) if code.starts_with("PGRST") => Rest::Other { said },
        _ if status == StatusCode::UNAUTHORIZED => Rest::NoKey { said },
        _ if status == StatusCode::SERVICE_UNAVAILABLE => Rest::NotReady { said },
        _ => Rest::Other { said },
    }
}

/// Status, code and message in one line.
pub(crate) fn said(status: StatusCode, code: Option<&str>, message: &str) -> String {
    let code = code.map_or_else(String::new, |code| format!(" {code}"));
    let message: String = message.chars().take(LONGEST_MESSAGE).collect();
    format!("{}{code} {message}", status.as_u16()).trim_end().to_owned()
}

/// The same for any answer: Auth, Storage and gateways each have words of their own.
pub(crate) fn said_by(answer: &Answer) -> String {
    let body = answer.json();
    let text = |name: &str| body.get(name).and_then(|value| value.as_str());
    let code = text("code").or_else(|| text("error_code"));
    let message = text("message").or_else(|| text("msg")).or_else(|| text("error"));
    said(answer.status, code, message.unwrap_or_default())
}

/// Where a redirection leads.
pub(crate) fn location(answer: &Answer) -> String {
    let to = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    to.unwrap_or("nowhere").to_owned()
}

/// A server's message is its own affair; an HTML page of a gateway is none that an operator wants to read.
const LONGEST_MESSAGE: usize = 200;

fn proxy_status(answer: &Answer) -> Option<String> {
    let value = answer.headers.get("proxy-status")?.to_str().ok()?;
    let (_, code) = value.split_once("error=")?;
    Some(code.split([';', ',']).next()?.trim().to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use http::HeaderMap;

    use super::*;

    pub(crate) fn answered(status: u16, body: &str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: HeaderMap::new(), body: body.to_owned().into() }
    }

    // Bodies as PostgREST 12 to 14, GoTrue and the gateways write them.
    #[test]
    fn an_answer_is_read_by_its_code() {
        let not_exposed = r#"{"code":"PGRST106","details":null,"hint":"Only the following schemas are exposed: public","message":"Invalid schema: billing"}"#;
        let no_table = r#"{"code":"PGRST205","details":null,"hint":"Perhaps you meant the table 'public.orders'","message":"Could not find the table 'public.order' in the schema cache"}"#;
        let hint = Some("Perhaps you meant the table 'public.orders'".to_owned());
        let denied = r#"{"code":"42501","details":null,"hint":null,"message":"permission denied for schema billing"}"#;
        let bad_token = r#"{"code":"PGRST301","details":null,"hint":null,"message":"No suitable key was found to decode the JWT"}"#;
        let expired = r#"{"code":"PGRST303","details":null,"hint":null,"message":"JWT expired"}"#;
        for (status, body, want) in [
            (200, "[]", Rest::Fine),
            (206, "[]", Rest::Fine),
            (406, not_exposed, Rest::NotExposed),
            (404, no_table, Rest::NoTable { hint }),
            (404, r#"{"code":"42P01","message":"gone"}"#, Rest::NoTable { hint: None }),
            (404, r#"{"code":"PGRST202"}"#, Rest::NoFunction { hint: None }),
            (
                400,
                r#"{"code":"42703","message":"column x"}"#,
                Rest::NoColumn { message: "column x".into() },
            ),
            (401, denied, Rest::Denied { message: "permission denied for schema billing".into() }),
            (
                401,
                bad_token,
                Rest::BadToken {
                    said: "401 PGRST301 No suitable key was found to decode the JWT".into(),
                },
            ),
            (401, expired, Rest::BadClaims { said: "401 PGRST303 JWT expired".into() }),
            (
                401,
                r#"{"message":"Invalid API key","hint":"x"}"#,
                Rest::NoKey { said: "401 Invalid API key".into() },
            ),
            (401, "Unauthorized", Rest::NoKey { said: "401".into() }),
            (
                503,
                r#"{"code":"PGRST002","message":"m"}"#,
                Rest::NotReady { said: "503 PGRST002 m".into() },
            ),
            (502, "<html>", Rest::Other { said: "502".into() }),
        ] {
            assert_eq!(rest(&Ok(answered(status, body))), want, "{status} {body}");
        }
    }

    #[test]
    fn a_code_may_be_in_a_header_and_a_redirection_leads_somewhere() {
        let mut head = answered(406, "");
        head.headers.insert("proxy-status", "PostgREST; error=PGRST106".parse().unwrap());
        assert_eq!(rest(&Ok(head)), Rest::NotExposed);
        let mut moved = answered(308, "");
        moved.headers.insert(LOCATION, "https://x.example/".parse().unwrap());
        assert_eq!(rest(&Ok(moved)), Rest::Redirect { to: "https://x.example/".into() });
        let other = rest(&Ok(answered(300, r#"{"code":"PGRST203"}"#)));
        assert_eq!(other, Rest::Other { said: "300 PGRST203".into() });
    }
}
