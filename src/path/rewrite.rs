//! Phase 4: the request in the words of its side, and what will undo that.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{InvalidUri, PathAndQuery};
use http::{HeaderMap, Method};

use super::refusal::Refusal;
use super::worker::Worker;
use super::{About, Asked, Caller, Names, Path};
use crate::counted::Slot;
use crate::identify::credentials::{Bearer, Credentials};
use crate::observe::ErrorCode;
use crate::rewrite::headers::{self as rewriting, ClientFacts, REQUEST_ID};
use crate::rewrite::keys;
use crate::rewrite::rest::{ACCEPT_PROFILE, CONTENT_PROFILE, Resource, RestRestore, translate};
use crate::rewrite::{auth, functions, storage};
use crate::route::Route;
use crate::side::Side;
use crate::snapshot::Snapshot;
use crate::tokens::Mode;
use crate::trace::{Context, Trace};

/// A request as its side says it.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) headers: HeaderMap,
    pub(super) undo: Undo,
    /// The body, where it was read before.
    pub(super) body: Option<Bytes>,
    /// The query had something that the translation does not know.
    pub(super) left_alone: bool,
    /// Where it is counted, if it is about a table or a function of REST.
    pub(super) counted: Option<Slot>,
    /// Nothing of it may change: the client has signed it.
    is_sealed: bool,
}

/// What a request gets of the connection that it came on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'a> {
    /// Whether the client speaks TLS to us.
    pub(super) is_secure: bool,
    pub(super) request_id: &'a HeaderValue,
    pub(super) trace: Trace,
}

/// What undoes the rewriting in the response.
#[derive(Debug)]
pub(super) struct Undo {
    /// There for the REST route.
    pub(super) rest: Option<RestRestore>,
    /// There for the storage route.
    pub(super) storage: Option<storage::Restore>,
}

impl Said {
    /// Adds what is of this proxy's own making: the id, and the place in the trace.
    pub(super) fn sign(&mut self, own: Own<'_>) {
        self.headers.insert(REQUEST_ID, own.request_id.clone());
        self.trace(&own.trace, own.trace.own);
    }

    /// Names a place in the trace for the side. What a client has signed stays, its `traceparent` too.
    pub(super) fn trace(&mut self, trace: &Trace, place: Context) {
        if trace.parent.is_none() || !self.is_sealed {
            trace.write(place, &mut self.headers);
        }
    }
}

impl Path {
    /// Phase 4. Takes the request's headers.
    pub(super) async fn rewrite(
        &self,
        asked: &mut Asked,
        caller: &Caller,
        side: Side,
    ) -> Result<Said, Refusal> {
        let About { reached, request_id, trace, .. } = &self.about;
        let own = Own { is_secure: reached.is_secure, request_id, trace: *trace };
        self.worker.rewrite(&self.snapshot, asked, caller, side, own).await
    }
}

impl Worker {
    /// The same for whoever has no path: what is said, and with it the user's token as the side accepts it, id and trace.
    pub(super) async fn rewrite(
        &self,
        snapshot: &Snapshot,
        asked: &mut Asked,
        caller: &Caller,
        side: Side,
        own: Own<'_>,
    ) -> Result<Said, Refusal> {
        let mut said = say(snapshot, asked, caller, side, own.is_secure)?;
        let is_exchanged = snapshot.tokens.mode == Mode::Exchange && !said.is_sealed;
        let bearer_of = || Credentials::of(&said.headers, None, &snapshot.keyring).bearer;
        let token = match is_exchanged.then(bearer_of) {
            Some(Bearer::Token(token)) => Box::pin(self.token_for(snapshot, token, side)).await,
            _ => None,
        };
        if let Some(token) = token {
            let bearer = token.bearer().map_err(|_| Refusal::of(ErrorCode::Malformed))?;
            said.headers.insert(header::AUTHORIZATION, bearer);
        }
        said.sign(own);
        Ok(said)
    }
}

/// Rewrites path, query and headers. Pure; also what `explain` shows.
pub(super) fn say(
    snapshot: &Snapshot,
    asked: &mut Asked,
    caller: &Caller,
    side: Side,
    is_secure: bool,
) -> Result<Said, Refusal> {
    let resource = asked.resource(snapshot);
    let counted = resource.as_ref().and_then(Resource::counted);
    let counted = counted.map(|(kind, line)| snapshot.counted.of(kind, line));
    let translated = match resource {
        Some(resource) => Some(translate(&snapshot.rewrite, &resource, &asked.rest(), side)?),
        None => None,
    };
    let stored = match asked.route {
        Route::Storage => Some(Stored::of(snapshot, asked, side)?),
        _ => None,
    };
    let mut headers = std::mem::take(&mut asked.headers);
    let client = ClientFacts { address: caller.address, is_secure };
    rewriting::prepare(&mut headers, asked.route, client, asked.upgrade.is_some());
    let said = translated.as_ref().and_then(|translated| translated.query.as_deref());
    let said = said.or_else(|| stored.as_ref()?.said.query.as_deref());
    let query = said.or_else(|| asked.target.query());
    // What S3 has signed must not change, and it has no keys of ours.
    let is_sealed = stored.as_ref().is_some_and(|stored| stored.said.is_sealed);
    let swapped = match is_sealed {
        true => None,
        false => keys::swap(&mut headers, query, caller.keys, &snapshot.keyring, side)?,
    };
    if let (Route::Auth, Some(vouching)) = (asked.route, &snapshot.rewrite.auth[side]) {
        let tail = asked.route.tail(asked.target.path());
        auth::vouch(&mut headers, &asked.method, tail, caller.keys, vouching, caller.address);
    }
    let function = match asked.route {
        Route::Functions => functions::translate(
            &snapshot.rewrite.functions,
            asked.route.tail(asked.target.path()),
            side,
        ),
        _ => None,
    };
    let tail = function.as_deref().or_else(|| translated.as_ref()?.tail.as_deref());
    let tail = tail.or_else(|| stored.as_ref()?.said.tail.as_deref());
    let query = swapped.as_deref().or(said);
    let target = target(snapshot, asked, side, tail, query)
        .map_err(|_| Refusal::of(ErrorCode::Malformed))?;
    let (rest, left_alone) = match translated {
        None => (None, false),
        Some(translated) => {
            let is_read = translated.profile_header == ACCEPT_PROFILE;
            headers.remove(if is_read { CONTENT_PROFILE } else { ACCEPT_PROFILE });
            headers.insert(translated.profile_header, translated.profile);
            only_readable_encodings(&mut headers);
            (Some(translated.restore), translated.unknown_syntax)
        }
    };
    let (storage, body) = match stored {
        None => (None, None),
        Some(stored) => stored.finish(&mut headers, asked.names.as_ref()),
    };
    let undo = Undo { rest, storage };
    let method = asked.method.clone();
    Ok(Said { method, target, headers, body, undo, left_alone, counted, is_sealed })
}

/// A request to storage, said.
struct Stored {
    said: storage::Translated,
    /// Whether its answer may have to be read.
    is_read: bool,
}

impl Stored {
    fn of(snapshot: &Snapshot, asked: &Asked, side: Side) -> Result<Self, storage::Refused> {
        let settings = &snapshot.rewrite.storage;
        let said = asked.endpoint().translate(settings, &asked.storage(), side)?;
        let is_read = said.restore.reads_bodies(settings) || asked.elsewhere(snapshot).is_some();
        Ok(Self { said, is_read })
    }

    /// The headers that change, and what is sent as the body if it was read before.
    fn finish(
        self,
        headers: &mut HeaderMap,
        names: Option<&Names>,
    ) -> (Option<storage::Restore>, Option<Bytes>) {
        let Self { said, is_read } = self;
        for (name, value) in said.headers {
            headers.insert(name, value);
        }
        if is_read {
            only_readable_encodings(headers);
        }
        let body = said.body.or_else(|| names.map(|names| names.bytes.clone()));
        if let Some(body) = &body {
            headers.remove(header::EXPECT);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        (Some(said.restore), body)
    }
}

/// Path and query for the side: below the route's prefix, what was translated, or else the client's own bytes.
fn target(
    snapshot: &Snapshot,
    asked: &Asked,
    side: Side,
    tail: Option<&str>,
    new_query: Option<&str>,
) -> Result<PathAndQuery, InvalidUri> {
    let prefix = &snapshot.forward.projects[side].path_prefix;
    if prefix.is_empty() && tail.is_none() && new_query.is_none() {
        return Ok(asked.target.clone());
    }
    let tail = tail.unwrap_or_else(|| asked.route.tail(asked.target.path()));
    let mut text = String::with_capacity(asked.target.as_str().len() + prefix.len() + 64);
    text.push_str(prefix);
    text.push_str(asked.route.prefix());
    text.push_str(tail);
    if let Some(query) = new_query.or_else(|| asked.target.query()) {
        text.push('?');
        text.push_str(query);
    }
    PathAndQuery::try_from(text)
}

/// An error body has to be read to be restored, so the side is asked only for encodings that can be read. What is left of the
/// client's list keeps its order and weights.
fn only_readable_encodings(headers: &mut HeaderMap) {
    const READABLE: [&str; 4] = ["gzip", "br", "deflate", "identity"];
    let Some(listed) = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok())
    else {
        return;
    };
    let is_readable = |entry: &&str| {
        let name = entry.split(';').next().unwrap_or_default().trim();
        READABLE.iter().any(|readable| name.eq_ignore_ascii_case(readable))
    };
    if listed.split(',').all(|entry| is_readable(&entry)) {
        return;
    }
    let kept: Vec<&str> = listed.split(',').filter(is_readable).map(str::trim).collect();
    let kept = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    if let Ok(value) = HeaderValue::from_str(&kept) {
        headers.insert(header::ACCEPT_ENCODING, value);
    }
}

/// Whether a request may be served by old when new can't be reached: reads, and only where the user decides.
pub(super) fn may_fall_back(method: &Method, route: Route) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && matches!(route, Route::Rest | Route::Storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encodings_that_can_be_read_are_asked_for() {
        for (listed, want) in [
            ("gzip, deflate", "gzip, deflate"),
            ("gzip, deflate, br, zstd", "gzip, deflate, br"),
            ("zstd;q=1.0, gzip;q=0.5", "gzip;q=0.5"),
            ("zstd", "identity"),
            ("*", "identity"),
            ("GZIP", "GZIP"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, listed.parse().unwrap());
            only_readable_encodings(&mut headers);
            assert_eq!(headers[header::ACCEPT_ENCODING], want, "{listed}");
        }
    }
}
