//! PostgREST responses, said in the client's dialect again: the profile, the locations, and the names in the
//! texts of errors. The list of exposed schemas never leaks, whether or not anything was translated.

use http::header::{CONTENT_LOCATION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::words::{Place, Speech};
use crate::rewrite::query::encode_segment;
use crate::rewrite::rest::{CONTENT_PROFILE, RestRestore, Words};
use crate::rewrite::scope::{Scope, Way};
use crate::side::Side;

impl RestRestore {
    /// Restores Content-Profile, Location and Content-Location where they are present.
    pub fn headers(&self, headers: &mut HeaderMap) {
        if self.sent != self.client && headers.get(CONTENT_PROFILE) == Some(&self.sent) {
            headers.insert(CONTENT_PROFILE, self.client.clone());
        }
        let Some(words) = &self.words else { return };
        for header in [LOCATION, CONTENT_LOCATION] {
            let restored = headers
                .get(&header)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| self.location(words, value))
                .and_then(|value| HeaderValue::try_from(value).ok());
            if let Some(value) = restored {
                headers.insert(header, value);
            }
        }
    }

    /// Whether a response's body is to be read and given to [`Self::body`]: every error that can be JSON.
    #[must_use]
    pub fn wants_body(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let is_error = status.as_u16() >= 400 || status == StatusCode::MULTIPLE_CHOICES;
        let may_be_json = headers.get(CONTENT_TYPE).is_none_or(|kind| {
            let kind = kind.as_bytes().to_ascii_lowercase();
            kind.starts_with(b"text/plain") || kind.windows(4).any(|w| w == b"json")
        });
        is_error && may_be_json
    }

    /// Restores the body of an error, already decoded; `None` when nothing is to be changed.
    #[must_use]
    pub fn body(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut error: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let code = error.get("code")?.as_str()?.to_owned();
        let changed = if code == "PGRST106" {
            self.blank_schemas(&mut error)
        } else {
            error.get("message")?.as_str()?;
            self.words.as_ref().is_some_and(|words| self.restore_error(words, &code, &mut error))
        };
        if changed { serde_json::to_vec(&error).ok() } else { None }
    }

    /// PGRST106 lists every exposed schema, by version in the message or in the hint: by code, never by text.
    fn blank_schemas(&self, error: &mut Map<String, Value>) -> bool {
        let client = String::from_utf8_lossy(self.client.as_bytes());
        let mut changed = false;
        let mut set = |key: &str, value: Value| {
            if let Some(found) = error.get_mut(key)
                && *found != value
            {
                *found = value;
                changed = true;
            }
        };
        set("message", Value::String(format!("Invalid schema: {client}")));
        set("details", Value::Null);
        set("hint", Value::Null);
        changed
    }

    fn restore_error(&self, words: &Words, code: &str, error: &mut Map<String, Value>) -> bool {
        let (Ok(sent), Ok(client)) = (self.sent.to_str(), self.client.to_str()) else {
            return false;
        };
        let speech = Speech { words, sent, client, code };
        let mut changed = false;
        for (key, place) in
            [("message", Place::Text), ("details", Place::Text), ("hint", Place::Hint)]
        {
            if let Some(value) = error.get_mut(key) {
                changed |= speech.restore(value, place);
            }
        }
        changed
    }

    /// `/table?query`, also below `/rest/v1` or in an absolute URL; `None` when nothing changes.
    fn location(&self, words: &Words, value: &str) -> Option<String> {
        if words.own.is_none() && words.embeds.is_empty() {
            return None;
        }
        let path_at = match value.find("://") {
            Some(at) => at + 3 + value.get(at + 3..)?.find('/')?,
            None => 0,
        };
        let (host, rest) = value.split_at_checked(path_at)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let (base, path) = match path.strip_prefix("/rest/v1/") {
            Some(path) => ("/rest/v1/", path),
            None => ("/", path.strip_prefix('/')?),
        };
        let (rpc, name) = match path.strip_prefix("rpc/") {
            Some(name) => ("rpc/", name),
            None => ("", path),
        };
        let restored_name = words.own.as_ref().and_then(|(sent, client)| {
            let decoded = percent_decode_str(name).decode_utf8().ok()?;
            (decoded == *sent).then(|| encode_segment(client))
        });
        let restored_query = query.and_then(|query| self.query(words, query));
        if restored_name.is_none() && restored_query.is_none() {
            return None;
        }
        let name = restored_name.as_deref().unwrap_or(name);
        let query = restored_query.as_deref().or(query);
        let (mark, query) = query.map_or(("", ""), |query| ("?", query));
        Some(format!("{host}{base}{rpc}{name}{mark}{query}"))
    }

    /// Content-Location repeats the request's query: said the other way, it is the client's again.
    fn query(&self, words: &Words, query: &str) -> Option<String> {
        let way = match words.side {
            Side::New => Way::ToOld(self.sent.to_str().ok()?),
            Side::Old => Way::ToNew(self.client.to_str().ok()?),
        };
        Scope::read(query).rewrite(&words.map, way).splices.apply(query)
    }
}

#[cfg(test)]
mod tests;
