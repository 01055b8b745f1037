//! PostgREST requests, from either dialect to either side.
//!
//! A request names one schema (its profile) and one table or function in it. [`resolve`] finds out which;
//! [`translate`] says it the way a side does. Both are pure: the same request, settings and side give the
//! same answer, and a request body is never looked at (the names in an RPC body are arguments).

use std::borrow::Cow;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::percent_decode_str;

use super::query::{Span, Splices, encode_segment};
use super::schema::SchemaMap;
use super::scope::{Rewritten, Scope, Way};
use super::{CrossSchemaEmbeds, Settings, Unmapped};
use crate::counted;
use crate::side::Side;

pub mod fuzz;
mod refusal;

pub use refusal::Refusal;

/// The profile of GET, HEAD and OPTIONS.
pub const ACCEPT_PROFILE: HeaderName = HeaderName::from_static("accept-profile");
/// The profile of POST, PATCH, PUT and DELETE.
pub const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");

/// A request to PostgREST, as the client sent it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method; it decides which profile header counts.
    pub method: &'a Method,
    /// The raw path after `/rest/v1`.
    pub tail: &'a str,
    /// The raw query.
    pub query: Option<&'a str>,
    /// The headers; only the two profiles are read.
    pub headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    fn profile_header(&self) -> HeaderName {
        match *self.method {
            Method::POST | Method::PATCH | Method::PUT | Method::DELETE => CONTENT_PROFILE,
            _ => ACCEPT_PROFILE,
        }
    }

    fn profile(&self) -> Option<&'a HeaderValue> {
        self.headers.get(self.profile_header())
    }
}

/// Which way a request names tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect<'m> {
    /// The old way: everything in the legacy schema.
    Legacy,
    /// The new way: in this schema.
    Domain(&'m str),
    /// A schema that the map does not know: it is the same on both sides, and passes.
    Foreign,
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The OpenAPI document of a schema.
    Root,
    /// A table or view.
    Table,
    /// A function.
    Function,
}

/// What a request names, and in which dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'m> {
    /// The dialect of the request.
    pub dialect: Dialect<'m>,
    /// What is named.
    pub kind: Kind,
    domain: Option<&'m str>,
    label: &'m str,
    line: Option<u32>,
    /// Where the name stands in the path.
    segment: Span,
}

impl<'m> Resource<'m> {
    /// The schema on new, for the domains' caps; `None` when the map does not know the name.
    #[must_use]
    pub const fn domain(&self) -> Option<&'m str> {
        self.domain
    }

    /// What is counted: a table or a function, and the number of its entry in the map if it has one.
    #[must_use]
    pub const fn counted(&self) -> Option<(counted::Kind, Option<u32>)> {
        match self.kind {
            Kind::Root => None,
            Kind::Table => Some((counted::Kind::Table, self.line)),
            Kind::Function => Some((counted::Kind::Function, self.line)),
        }
    }

    /// A name of bounded variety for logs and metrics: the map's own entry, never the client's text.
    #[must_use]
    pub const fn label(&self) -> &'m str {
        self.label
    }
}

/// Finds what a request names. Allocates only when the path is percent-encoded.
#[must_use]
pub fn resolve<'m>(settings: &'m Settings, asked: &Asked<'_>) -> Resource<'m> {
    let map = &settings.map;
    let dialect = dialect(map, asked);
    let (kind, segment) = segment(asked.tail);
    let unnamed = |domain, label| Resource { dialect, kind, domain, label, line: None, segment };
    let name = segment.decode(asked.tail);
    let names = if kind == Kind::Function { map.functions() } else { map.tables() };
    let old = match dialect {
        Dialect::Foreign => return unnamed(None, "foreign"),
        Dialect::Legacy | Dialect::Domain(_) if kind == Kind::Root => {
            let domain = if let Dialect::Domain(schema) = dialect { Some(schema) } else { None };
            return unnamed(domain, "root");
        }
        Dialect::Legacy => name.as_deref(),
        Dialect::Domain(schema) => name.as_deref().and_then(|name| names.to_old(schema, name)),
    };
    match (old.and_then(|old| names.to_new(old)), dialect) {
        (Some(place), _) => {
            Resource { line: Some(place.line), ..unnamed(map.domain(place.schema), place.label) }
        }
        (None, Dialect::Domain(schema)) => unnamed(Some(schema), "unmapped"),
        (None, _) => unnamed(None, "unmapped"),
    }
}

fn dialect<'m>(map: &'m SchemaMap, asked: &Asked<'_>) -> Dialect<'m> {
    let Some(profile) = asked.profile() else { return Dialect::Legacy };
    match profile.to_str() {
        Ok(profile) if profile == map.legacy() => Dialect::Legacy,
        Ok(profile) => map.domain(profile).map_or(Dialect::Foreign, Dialect::Domain),
        Err(_) => Dialect::Foreign,
    }
}

/// Where the name of the table or function stands in the path.
fn segment(tail: &str) -> (Kind, Span) {
    let start = usize::from(tail.starts_with('/'));
    let end_of = |start: usize| {
        let rest = tail.as_bytes().get(start..);
        rest.and_then(|rest| rest.iter().position(|byte| *byte == b'/'))
            .map_or(tail.len(), |at| start + at)
    };
    let end = end_of(start);
    if start == end {
        return (Kind::Root, Span { start, end });
    }
    let is_rpc = Span { start, end }.decode(tail).is_some_and(|first| first == "rpc");
    if is_rpc && end < tail.len() {
        return (Kind::Function, Span { start: end + 1, end: end_of(end + 1) });
    }
    (Kind::Table, Span { start, end })
}

impl Span {
    fn decode(self, path: &str) -> Option<Cow<'_, str>> {
        let raw = path.get(self.start..self.end)?;
        match raw.as_bytes().contains(&b'%') {
            false => Some(Cow::Borrowed(raw)),
            true => percent_decode_str(raw).decode_utf8().ok(),
        }
    }
}

/// A request as a side says it.
#[derive(Debug)]
pub struct Translated {
    /// The raw path after `/rest/v1`, if it changed.
    pub tail: Option<String>,
    /// The raw query, if it changed.
    pub query: Option<String>,
    /// The header to set the profile with; the other one of the two is to be dropped.
    pub profile_header: HeaderName,
    /// The profile to set, always.
    pub profile: HeaderValue,
    /// What restores the response.
    pub restore: RestRestore,
    /// Something in the query was not understood: its bytes were left alone.
    pub unknown_syntax: bool,
}

/// What is needed to say a response in the client's dialect again; `restore::rest` does it.
#[derive(Clone, Debug)]
pub struct RestRestore {
    /// The profile that the client asked for, or the legacy schema if it named none.
    pub(crate) client: HeaderValue,
    /// The profile that was sent.
    pub(crate) sent: HeaderValue,
    /// `None`: the request was sent in the client's own dialect.
    pub(crate) words: Option<Words>,
}

/// How the names in a response are said back.
#[derive(Clone, Debug)]
pub(crate) struct Words {
    pub(crate) map: SchemaMap,
    /// The side that answers: [`Side::New`] means that the client speaks legacy.
    pub(crate) side: Side,
    /// The request's own table or function on the side, and the client's name for it, when they differ.
    pub(crate) own: Option<(String, String)>,
    /// Renamed embeds: the name on the side, the client's name.
    pub(crate) embeds: Vec<(String, String)>,
}

/// Says a request the way `side` does.
///
/// # Errors
/// [`Refusal`], when the settings say that what can't be said is refused.
pub fn translate(
    settings: &Settings,
    resource: &Resource<'_>,
    asked: &Asked<'_>,
    side: Side,
) -> Result<Translated, Refusal> {
    let Resource { kind, segment, .. } = *resource;
    let to = Translation { settings, asked, kind, segment };
    match (resource.dialect, side) {
        _ if resource.kind == Kind::Root => Ok(to.untouched()),
        (Dialect::Foreign, _) | (Dialect::Legacy, Side::Old) | (Dialect::Domain(_), Side::New) => {
            Ok(to.untouched())
        }
        (Dialect::Legacy, Side::New) => to.for_new(),
        (Dialect::Domain(schema), Side::Old) => to.for_old(schema),
    }
}

/// One translation at work.
struct Translation<'a> {
    settings: &'a Settings,
    asked: &'a Asked<'a>,
    kind: Kind,
    segment: Span,
}

impl Translation<'_> {
    /// The request as it stands, with its profile made explicit.
    fn untouched(&self) -> Translated {
        let client = self.client();
        Translated {
            tail: None,
            query: None,
            profile_header: self.asked.profile_header(),
            profile: client.clone(),
            restore: RestRestore { sent: client.clone(), client, words: None },
            unknown_syntax: false,
        }
    }

    /// A legacy request for new.
    fn for_new(&self) -> Result<Translated, Refusal> {
        let map = &self.settings.map;
        let name = self.segment.decode(self.asked.tail);
        let names = if self.kind == Kind::Function { map.functions() } else { map.tables() };
        let place = name.as_deref().and_then(|name| names.to_new(name));
        if place.is_none() && self.settings.unmapped == Unmapped::Refuse {
            return Err(self.unmapped());
        }
        let schema = place.map_or_else(|| map.legacy(), |place| place.schema);
        let scope = Scope::read(self.asked.query.unwrap_or_default());
        let foreign = scope
            .targets()
            .find(|target| map.tables().to_new(target).is_some_and(|place| place.schema != schema));
        if let Some(embed) = foreign {
            match (self.settings.cross_schema_embeds, &self.settings.compat) {
                (CrossSchemaEmbeds::Pass, _) => {}
                (CrossSchemaEmbeds::Compat, Some(compat)) => return Ok(self.compat(compat)),
                (CrossSchemaEmbeds::Compat, None) | (CrossSchemaEmbeds::Refuse, _) => {
                    return Err(Refusal::CrossSchemaEmbed {
                        resource: name.unwrap_or_default().into_owned(),
                        embed: embed.to_owned(),
                    });
                }
            }
        }
        let query = scope.rewrite(map, Way::ToNew(schema));
        let own = name.as_deref().zip(place.map(|place| place.name));
        Ok(self.changed(Side::New, schema, own, query))
    }

    /// A request in the new dialect, for old.
    fn for_old(&self, schema: &str) -> Result<Translated, Refusal> {
        let map = &self.settings.map;
        let name = self.segment.decode(self.asked.tail);
        let names = if self.kind == Kind::Function { map.functions() } else { map.tables() };
        let own = name.as_deref().and_then(|name| Some((name, names.to_old(schema, name)?)));
        match (own, self.settings.unmapped) {
            (None, Unmapped::Refuse) => Err(self.unmapped()),
            (None, Unmapped::Pass) => Ok(self.untouched()),
            (Some(_), _) => {
                let scope = Scope::read(self.asked.query.unwrap_or_default());
                let query = scope.rewrite(map, Way::ToOld(schema));
                Ok(self.changed(Side::Old, map.legacy(), own, query))
            }
        }
    }

    /// Legacy names in the schema of compatibility views.
    fn compat(&self, compat: &str) -> Translated {
        self.changed(Side::New, compat, None, Rewritten::default())
    }

    fn changed(
        &self,
        side: Side,
        schema: &str,
        own: Option<(&str, &str)>,
        query: Rewritten,
    ) -> Translated {
        let mut tail = Splices::default();
        let own = own.filter(|(client, sent)| client != sent);
        if let Some((_, sent)) = own {
            tail.replace(self.segment, encode_segment(sent));
        }
        let client = self.client();
        let map = &self.settings.map;
        let sent = map.profile(schema).unwrap_or_else(|| client.clone());
        let words = Words {
            map: map.clone(),
            side,
            own: own.map(|(client, sent)| (sent.to_owned(), client.to_owned())),
            embeds: query.renamed,
        };
        Translated {
            tail: tail.apply(self.asked.tail),
            query: self.asked.query.and_then(|raw| query.splices.apply(raw)),
            profile_header: self.asked.profile_header(),
            profile: sent.clone(),
            restore: RestRestore { client, sent, words: Some(words) },
            unknown_syntax: query.unknown,
        }
    }

    /// The client's effective profile.
    fn client(&self) -> HeaderValue {
        let legacy = || self.settings.map.profile(self.settings.map.legacy());
        self.asked
            .profile()
            .cloned()
            .or_else(legacy)
            .unwrap_or_else(|| HeaderValue::from_static("public"))
    }

    fn unmapped(&self) -> Refusal {
        Refusal::Unmapped {
            schema: String::from_utf8_lossy(self.client().as_bytes()).into_owned(),
            name: self.segment.decode(self.asked.tail).unwrap_or_default().into_owned(),
            is_function: self.kind == Kind::Function,
        }
    }
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
