//! What must hold of any request to PostgREST: what a fuzzer starts, and what a property starts. That answers are restored is a law of
//! `restore`, which has its own.

use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::percent_decode_str;

use super::{Asked, CONTENT_PROFILE, Dialect, Refusal, Translated, resolve, translate};
use crate::rewrite::schema::{Entry, SchemaMap};
use crate::rewrite::{CrossSchemaEmbeds, Settings, Unmapped, functions, storage};
use crate::side::{Pair, Side};

const METHODS: [Method; 8] = [
    Method::GET,
    Method::POST,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::PUT,
    Method::OPTIONS,
    Method::GET,
];

const PROFILES: [Option<&str>; 4] = [None, Some("public"), Some("vendors"), Some("app_crm")];

/// Tables and functions of the map, and what new calls them.
const TABLES: [(&str, &str); 9] = [
    ("vendor_organizations", "vendors.organizations"),
    ("vendor_api_keys", "vendors.api_keys"),
    ("vendor_usage_logs", "vendors.usage_logs"),
    ("memory_entries", "security_service"),
    ("api_keys", "security_service"),
    ("smart_recall_*", "intelligence"),
    ("invoices", "billing"),
    ("odd", "vendors.odd-name.x \"y\""),
    ("\u{fc}n\u{ef}code", "billing.w\u{f6}rter"),
];
const FUNCTIONS: [(&str, &str); 2] =
    [("match_memories", "security_service"), ("vendor_stats", "vendors.stats")];

/// The schema of compatibility views.
const COMPAT: &str = "compat";

/// A request, as it is read from bytes and as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The profile that its header names.
    pub profile: Option<HeaderValue>,
    /// The raw path after `/rest/v1`.
    pub tail: String,
    /// The raw query.
    pub query: Option<String>,
}

impl Request {
    /// Reads a byte for method and profile, a line for the path and one for the query; answers what follows as well.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, &str)> {
        let (first, rest) = bytes.split_first()?;
        let mut lines = std::str::from_utf8(rest).ok()?.splitn(3, '\n');
        let tail = lines.next().unwrap_or_default().to_owned();
        let query = lines.next().map(str::to_owned);
        // What comes before the first `?` is the path, and a request's target has no fragment.
        if tail.contains(['?', '#']) || query.as_ref().is_some_and(|query| query.contains('#')) {
            return None;
        }
        let request = Self {
            method: METHODS[usize::from(first & 7)].clone(),
            profile: PROFILES[usize::from(first >> 3 & 3)].map(HeaderValue::from_static),
            tail,
            query: query.filter(|query| !query.is_empty()),
        };
        Some((request, lines.next().unwrap_or_default()))
    }

    /// As a side gets it.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn to(&self, side: Side) -> Result<(Self, Translated), Refusal> {
        let headers = self.headers();
        let asked = Asked {
            method: &self.method,
            tail: &self.tail,
            query: self.query.as_deref(),
            headers: &headers,
        };
        let translated = translate(settings(), &resolve(settings(), &asked), &asked, side)?;
        let sent = Self {
            method: self.method.clone(),
            profile: Some(translated.profile.clone()),
            tail: translated.tail.clone().unwrap_or_else(|| self.tail.clone()),
            query: translated.query.clone().or_else(|| self.query.clone()),
        };
        Ok((sent, translated))
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let name = match self.method {
            Method::GET | Method::HEAD | Method::OPTIONS => super::ACCEPT_PROFILE,
            _ => CONTENT_PROFILE,
        };
        headers.extend(self.profile.clone().map(|profile| (name, profile)));
        headers
    }

    /// Whether a side has nothing to be said in other words.
    #[must_use]
    pub fn is_native(&self, side: Side) -> bool {
        let headers = self.headers();
        let asked =
            Asked { method: &self.method, tail: &self.tail, query: None, headers: &headers };
        match resolve(settings(), &asked).dialect {
            Dialect::Legacy => side == Side::Old,
            Dialect::Domain(_) => side == Side::New,
            Dialect::Foreign => true,
        }
    }

    /// Whether it means the same to PostgREST: a name may be percent-encoded in one and plain in the other.
    #[must_use]
    pub fn means(&self, other: &Self) -> bool {
        let plain = |text: &str| percent_decode_str(&text.replace('+', " ")).collect::<Vec<u8>>();
        self.method == other.method
            && self.profile == other.profile
            && plain(&self.tail) == plain(&other.tail)
            && self.query.as_deref().map(plain) == other.query.as_deref().map(plain)
    }
}

/// Says a request to both sides: what holds of any bytes.
///
/// # Errors
/// The law that does not hold.
pub fn laws(bytes: &[u8]) -> Result<(), String> {
    let Some((request, _)) = Request::read(bytes) else { return Ok(()) };
    Side::ALL.into_iter().try_for_each(|side| said(&request, side))
}

/// Says a request to both sides, and back: what holds of requests that PostgREST could understand. Of garbage it does not: an alias that is
/// declared in half a `select` and a filter on it may be read in two ways, and a name that no map has may be one on the other side.
///
/// # Errors
/// The law that does not hold.
pub fn laws_of_sense(bytes: &[u8]) -> Result<(), String> {
    let Some((request, _)) = Request::read(bytes) else { return Ok(()) };
    Side::ALL.into_iter().try_for_each(|side| said_back(&request, side))
}

fn said(request: &Request, side: Side) -> Result<(), String> {
    // A refusal says nothing to anybody.
    let Ok((sent, translated)) = request.to(side) else { return Ok(()) };
    if request.is_native(side) && (translated.tail.is_some() || translated.query.is_some()) {
        return Err(format!("{request:?} is {side}'s own, and became {sent:?}"));
    }
    kept(request, &sent)?;
    let again = request.to(side).map(|(again, _)| again).ok();
    if again.as_ref() != Some(&sent) {
        return Err(format!("{request:?} is {sent:?}, and then {again:?}"));
    }
    Ok(())
}

fn said_back(request: &Request, side: Side) -> Result<(), String> {
    let Ok((sent, _)) = request.to(side) else { return Ok(()) };
    let Ok((twice, _)) = sent.to(side) else {
        return Err(format!("{side} gets {sent:?}, which is refused on its way there"));
    };
    if twice != sent {
        return Err(format!("{side} gets {sent:?}, which says of itself {twice:?}"));
    }
    // Two names of old may be one on new, and an alias may say what the name says: it comes back under one of them, and means the same.
    let Ok((back, _)) = sent.to(side.other()) else { return Ok(()) };
    // What is said to the views of compatibility is in a schema of its own, which leads nowhere else.
    if back.profile.as_ref().is_some_and(|profile| profile == COMPAT) {
        return Ok(());
    }
    match back.to(side) {
        Ok((there, _)) if there.means(&sent) => Ok(()),
        // A name that the map does not have passes as it is, and may be a word of the other dialect there.
        _ if speaks_otherwise(&sent, side) || speaks_otherwise(&back, side.other()) => Ok(()),
        other => {
            let other = other.map(|(there, _)| there);
            Err(format!("{sent:?} came back as {back:?}, and is now {other:?}"))
        }
    }
}

/// What has no name of the map in it goes as the same bytes.
fn kept(before: &Request, after: &Request) -> Result<(), String> {
    let parts = |request: &Request, mark| {
        let text = if mark == '/' { Some(&request.tail) } else { request.query.as_ref() };
        text.map(|text| text.split(mark).map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default()
    };
    for mark in ['/', '&'] {
        let (was, is) = (parts(before, mark), parts(after, mark));
        if was.len() != is.len() {
            return Err(format!("{was:?} has other parts than {is:?}"));
        }
        for (was, is) in was.iter().zip(&is) {
            if was != is && !names_something(was) {
                return Err(format!("{was} became {is}"));
            }
        }
    }
    Ok(())
}

/// Whether it has a word in it that only the other side has for something.
fn speaks_otherwise(request: &Request, side: Side) -> bool {
    let text = format!("{} {}", request.tail, request.query.as_deref().unwrap_or_default());
    let plain = percent_decode_str(&text).decode_utf8_lossy();
    let names = || TABLES.iter().chain(&FUNCTIONS);
    plain.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| {
        names().any(|(old, new)| {
            let new = new.split_once('.').map_or(*old, |(_, name)| name);
            *old != new && word == if side == Side::Old { new } else { *old }
        })
    })
}

/// Whether a name of the map could be in it, in either dialect.
fn names_something(text: &str) -> bool {
    let plain = percent_decode_str(text).decode_utf8_lossy();
    let tables = TABLES
        .iter()
        .chain(&FUNCTIONS)
        .flat_map(|(old, new)| [*old, new.split_once('.').map_or(*old, |(_, name)| name)]);
    // In a query a space may be written as a plus, and a quote is doubled or escaped.
    let plain = plain.replace('+', " ").replace('\\', "");
    tables.into_iter().any(|name| plain.contains(name.trim_end_matches('*')))
}

/// A map with every kind of entry.
#[must_use]
pub fn settings() -> &'static Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let entry = |(old, to): &(&str, &str)| {
            let (schema, name) = to.split_once('.').map_or((*to, None), |(s, n)| (s, Some(n)));
            Entry {
                old: (*old).to_owned(),
                schema: schema.to_owned(),
                name: name.map(str::to_owned),
                canonical: false,
            }
        };
        let tables: Vec<Entry> = TABLES.iter().map(entry).collect();
        let functions: Vec<Entry> = FUNCTIONS.iter().map(entry).collect();
        Settings {
            map: SchemaMap::build("public", &tables, &functions).unwrap_or_default(),
            unmapped: Unmapped::Pass,
            compat: Some(COMPAT.to_owned()),
            cross_schema_embeds: CrossSchemaEmbeds::Compat,
            auth: Pair::default(),
            functions: functions::Settings::default(),
            storage: storage::Settings::default(),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const PIECES: [&str; 46] = [
        "vendor_organizations",
        "vendor_api_keys",
        "organizations",
        "api_keys",
        "smart_recall_x",
        "odd",
        "%22odd-name.x+%5C%22y%5C%22%22",
        "\u{fc}n\u{ef}code",
        "%C3%BCn%C3%AFcode",
        "invoices",
        "rpc/",
        "vendor_stats",
        "id",
        "(",
        ")",
        "(*)",
        ",",
        ".",
        "...",
        ":",
        "::",
        "!",
        "!inner",
        "->",
        "->>",
        "*",
        "\"",
        "%22",
        "%",
        "%FF",
        "+",
        " ",
        "=",
        "&",
        "select=",
        "order=",
        "or=(",
        "not.",
        "is.null",
        "eq.1",
        "in.(",
        "columns=",
        "limit=1",
        "\u{e9}",
        "\\",
        "/",
    ];

    #[test]
    fn the_map_of_the_fuzzer_has_all_its_entries() {
        assert_eq!(settings().map.entries().count(), TABLES.len() + FUNCTIONS.len());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

        #[test]
        fn the_laws_hold(
            first in any::<u8>(),
            tail in vec(select(PIECES.to_vec()), 0..3),
            query in vec(select(PIECES.to_vec()), 0..24),
        ) {
            let bytes = [&[first], format!("/{}\n{}", tail.concat(), query.concat()).as_bytes()].concat();
            prop_assert_eq!(laws(&bytes), Ok(()));
            prop_assert_eq!(laws_of_sense(&bytes), Ok(()));
        }

        #[test]
        fn the_laws_hold_for_garbage(bytes in vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(laws(&bytes), Ok(()));
        }
    }
}
