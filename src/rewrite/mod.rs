//! Phase 4: says a request the way the chosen side says it.

pub mod auth;
pub mod functions;
pub mod headers;
pub mod keys;
mod operand;
pub(crate) mod query;
pub mod rest;
pub mod schema;
pub(crate) mod scope;
mod select;
pub mod storage;

use serde::{Deserialize, Serialize};

use crate::side::Pair;
use schema::SchemaMap;

/// What to do with a table that neither dialect maps (`schema.unmapped`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmapped {
    /// Keep its profile and forward it.
    #[default]
    Pass,
    /// Answer 404.
    Refuse,
}

/// What to do with an embed that spans two domains on new (`schema.cross_schema_embeds`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CrossSchemaEmbeds {
    /// Send the request to the schema of compatibility views.
    #[default]
    Compat,
    /// Answer 422.
    Refuse,
    /// Forward it; PostgREST answers PGRST200.
    Pass,
}

/// The schema map and what to do at its edges (`[schema]`).
#[derive(Clone, Debug)]
pub struct Settings {
    /// Old table ↔ new schema.table, old function ↔ new schema.function.
    pub map: SchemaMap,
    /// What to do with unmapped tables.
    pub unmapped: Unmapped,
    /// The schema of compatibility views on new; `None` if there is none.
    pub compat: Option<String>,
    /// What to do with embeds across domains.
    pub cross_schema_embeds: CrossSchemaEmbeds,
    /// What vouches for a client's address at the auth service; `None`: nothing is asked for.
    pub auth: Pair<Option<auth::Vouching>>,
    /// Names and owners of edge functions.
    pub functions: functions::Settings,
    /// Names and owners of buckets, and what follows from two storages.
    pub storage: storage::Settings,
}
