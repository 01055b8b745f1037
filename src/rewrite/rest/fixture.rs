//! A small map with every kind of entry, and a short way to say a request.

use http::{HeaderMap, HeaderValue, Method};

use super::{Asked, Refusal, Translated, resolve, translate};
use crate::rewrite::schema::{Entry, SchemaMap};
use crate::rewrite::{CrossSchemaEmbeds, Settings, Unmapped, functions, storage};
use crate::side::{Pair, Side};

pub(crate) fn entry(old: &str, to: &str) -> Entry {
    let (schema, name) = match to.split_once('.') {
        Some((schema, name)) => (schema.to_owned(), Some(name.to_owned())),
        None => (to.to_owned(), None),
    };
    Entry { old: old.to_owned(), schema, name, canonical: old == "vendor_api_keys" }
}

/// The tables of the domain `vendors`, old and new names. `vendor_plain` keeps its name.
pub(crate) const VENDORS: [(&str, &str); 6] = [
    ("vendor_organizations", "organizations"),
    ("vendor_api_keys", "api_keys"),
    ("vendor_platform_sessions", "platform_sessions"),
    ("vendor_usage_logs", "usage_logs"),
    ("vendor_odd", "odd-name.x \"y\""),
    ("vendor_plain", "vendor_plain"),
];

pub(crate) fn settings() -> Settings {
    let mut tables: Vec<Entry> = [
        ("memory_entries", "security_service"),
        ("memory_chunks", "security_service"),
        ("api_keys", "security_service"),
        ("organizations", "security_service"),
        ("vendor_api_keys_v2", "vendors.api_keys"),
        ("user_settings", "shared_services.settings"),
        ("profiles", "shared_services"),
        ("smart_recall_*", "intelligence"),
        ("intelligence_cache", "intelligence.cache"),
        ("card_chunks", "intelligence.chunks"),
        ("ünïcode", "ai_chat.wörter"),
    ]
    .map(|(old, to)| entry(old, to))
    .into();
    tables.extend(
        VENDORS.map(|(old, new)| Entry { name: Some(new.to_owned()), ..entry(old, "vendors") }),
    );
    let functions = [
        entry("match_memories", "security_service"),
        entry("vendor_stats", "vendors.stats"),
        entry("memory_chunks", "intelligence.chunks"),
    ];
    Settings {
        map: SchemaMap::build("public", &tables, &functions).unwrap(),
        unmapped: Unmapped::Pass,
        compat: Some("compat".to_owned()),
        cross_schema_embeds: CrossSchemaEmbeds::Compat,
        auth: Pair::default(),
        functions: functions::Settings::default(),
        storage: storage::Settings::default(),
    }
}

/// A request: method, profile header of that method, path and query.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    pub(crate) tail: String,
    pub(crate) query: Option<String>,
}

impl Request {
    pub(crate) fn new(method: Method, profile: Option<&str>, path: &str) -> Self {
        let mut headers = HeaderMap::new();
        let writes = [Method::POST, Method::PATCH, Method::PUT, Method::DELETE];
        let header = if writes.contains(&method) { "content-profile" } else { "accept-profile" };
        if let Some(profile) = profile {
            headers.insert(header, HeaderValue::from_bytes(profile.as_bytes()).unwrap());
        }
        let (tail, query) = match path.split_once('?') {
            Some((tail, query)) => (tail, Some(query.to_owned())),
            None => (path, None),
        };
        Self { method, headers, tail: tail.to_owned(), query }
    }

    pub(crate) fn asked(&self) -> Asked<'_> {
        Asked {
            method: &self.method,
            tail: &self.tail,
            query: self.query.as_deref(),
            headers: &self.headers,
        }
    }

    pub(crate) fn to(&self, settings: &Settings, side: Side) -> Result<Translated, Refusal> {
        let resource = resolve(settings, &self.asked());
        translate(settings, &resource, &self.asked(), side)
    }

    /// The request as the side gets it.
    pub(crate) fn sent(&self, translated: &Translated) -> Self {
        let tail = translated.tail.as_deref().unwrap_or(&self.tail);
        let query = translated.query.as_ref().or(self.query.as_ref());
        let path = query.map_or_else(|| tail.to_owned(), |query| format!("{tail}?{query}"));
        Self::new(self.method.clone(), translated.profile.to_str().ok(), &path)
    }

    pub(crate) fn path(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.tail),
            None => self.tail.clone(),
        }
    }
}

pub(crate) fn get(profile: Option<&str>, path: &str) -> Request {
    Request::new(Method::GET, profile, path)
}

/// Profile and path as the side gets a GET.
pub(crate) fn sent(profile: Option<&str>, path: &str, side: Side) -> (String, String) {
    let request = get(profile, path);
    let translated = request.to(&settings(), side).unwrap();
    let profile = translated.profile.to_str().unwrap().to_owned();
    (profile, request.sent(&translated).path())
}
