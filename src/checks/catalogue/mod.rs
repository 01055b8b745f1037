//! What a project's database says of itself: relations, functions, sequences, publications and who may use them.
//!
//! Plain data, filled by `read` from PostgreSQL's catalogue in one read-only transaction. Names in expressions and definitions are
//! qualified with their schema, whatever the connection's `search_path` is, so that two databases can be compared. Objects that
//! belong to an extension are left out.

mod managed;
mod read;
mod search_path;

use std::collections::BTreeSet;

use serde::Deserialize;

pub use managed::{MANAGED, is_managed};
pub use read::{ReadError, read};

/// Everything that was read, each list in the order of schema and name.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    /// The server and the connection's role.
    pub server: Server,
    /// Schemas but PostgreSQL's own.
    pub schemas: Vec<Schema>,
    /// Tables, views, materialised views, foreign tables.
    pub relations: Vec<Relation>,
    /// Functions, procedures, aggregates.
    pub functions: Vec<Function>,
    /// Sequences, also those of identity columns.
    pub sequences: Vec<Sequence>,
    /// Publications with the tables in them.
    pub publications: Vec<Publication>,
    /// `ALTER DEFAULT PRIVILEGES` in force.
    pub default_grants: Vec<DefaultGrants>,
    /// Installed extensions.
    pub extensions: Vec<Extension>,
}

impl Catalogue {
    /// The relation of that schema and name.
    #[must_use]
    pub fn relation(&self, schema: &str, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|it| it.schema == schema && it.name == name)
    }

    /// All functions of that schema and name: one per list of arguments.
    pub fn functions<'c>(
        &'c self,
        schema: &'c str,
        name: &'c str,
    ) -> impl Iterator<Item = &'c Function> {
        self.functions.iter().filter(move |it| it.schema == schema && it.name == name)
    }

    /// The schema of that name.
    #[must_use]
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.schemas.iter().find(|it| it.name == name)
    }

    /// The publication of that name.
    #[must_use]
    pub fn publication(&self, name: &str) -> Option<&Publication> {
        self.publications.iter().find(|it| it.name == name)
    }
}

/// The server, as the connection's role sees it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Server {
    /// `server_version_num`, e.g. 150008.
    pub version: u32,
    /// The database's name.
    pub database: String,
    /// The connection's role.
    pub role: String,
    /// Whether that role sees every row whatever the policies say.
    pub bypasses_row_security: bool,
    /// The server's clock, in seconds since 1970.
    pub now: f64,
    /// `wal_level`: realtime needs `logical`.
    pub wal_level: String,
    /// `ALTER ROLE authenticator SET …`, each as `name=value`: `pgrst.db_schemas` may be among them.
    pub authenticator: Vec<String>,
}

/// One right that one role has on an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Grant {
    /// The role; `public` is everybody.
    pub grantee: String,
    /// `SELECT`, `INSERT`, `USAGE`, `EXECUTE`, …
    pub privilege: String,
    /// `WITH GRANT OPTION`
    pub grantable: bool,
}

/// What `role` may do by `grants`, directly or as everybody.
#[must_use]
pub fn privileges<'g>(grants: &'g [Grant], role: &str) -> BTreeSet<&'g str> {
    let meant = grants.iter().filter(|grant| grant.grantee == role || grant.grantee == "public");
    meant.map(|grant| grant.privilege.as_str()).collect()
}

/// A schema.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// `COMMENT ON SCHEMA`
    pub comment: Option<String>,
    /// `USAGE`, `CREATE`
    pub grants: Vec<Grant>,
}

/// What a relation is (`pg_class.relkind`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Kind {
    /// An ordinary table, or a partition.
    #[serde(rename = "r")]
    Table,
    /// The parent of partitions.
    #[serde(rename = "p")]
    Partitioned,
    /// A view.
    #[serde(rename = "v")]
    View,
    /// A materialised view.
    #[serde(rename = "m")]
    Materialised,
    /// A foreign table.
    #[serde(rename = "f")]
    Foreign,
}

impl Kind {
    /// Whether rows are kept in it or below it: tables and parents of partitions.
    #[must_use]
    pub const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Partitioned)
    }
}

/// A table or view.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Its owner.
    pub owner: String,
    /// `COMMENT ON TABLE`
    pub comment: Option<String>,
    /// The table whose partition it is.
    pub partition_of: Option<Named>,
    /// The planner's estimate of its rows; -1: never analysed.
    pub estimated_rows: i64,
    /// `ENABLE ROW LEVEL SECURITY`
    pub row_security: bool,
    /// `FORCE ROW LEVEL SECURITY`: its owner is judged too.
    pub row_security_forced: bool,
    /// `d` default (primary key), `i` index, `f` full, `n` nothing.
    pub replica_identity: char,
    /// Storage options, e.g. `security_invoker=true` of a view.
    pub options: Vec<String>,
    /// A view's query.
    pub definition: Option<String>,
    /// Its columns, in their order.
    pub columns: Vec<Column>,
    /// The primary key's columns, in its order; empty: none.
    pub primary_key: Vec<String>,
    /// Its policies, by name.
    pub policies: Vec<Policy>,
    /// Who may do what, besides grants on single columns.
    pub grants: Vec<Grant>,
    /// Its indexes, by name.
    pub indexes: Vec<Index>,
    /// Its foreign keys, by name.
    pub foreign_keys: Vec<ForeignKey>,
    /// Its triggers but those of foreign keys, by name.
    pub triggers: Vec<Trigger>,
}

/// Schema and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Named {
    /// The schema.
    pub schema: String,
    /// The name.
    pub name: String,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, with schema (but `pg_catalog`) and modifiers, e.g. `extensions.vector(3)`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `NOT NULL`
    pub not_null: bool,
    /// `DEFAULT`
    pub default: Option<String>,
    /// `a` always, `d` by default; `None`: no identity column.
    pub identity: Option<char>,
    /// `GENERATED ALWAYS AS`
    pub generated: Option<String>,
    /// `COMMENT ON COLUMN`
    pub comment: Option<String>,
    /// Grants on this column alone.
    pub grants: Vec<Grant>,
}

/// A row level security policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// `all`, `select`, `insert`, `update` or `delete`.
    pub command: String,
    /// `PERMISSIVE`, else `RESTRICTIVE`.
    pub permissive: bool,
    /// Whom it is for; `public` is everybody.
    pub roles: Vec<String>,
    /// `USING`
    pub using: Option<String>,
    /// `WITH CHECK`
    pub check: Option<String>,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Index {
    /// Its name.
    pub name: String,
    /// Its access method: `btree`, `gin`, `hnsw`, `ivfflat`, …
    pub method: String,
    /// `CREATE INDEX …`
    pub definition: String,
    /// Its columns; "" for an expression.
    pub columns: Vec<String>,
    /// `UNIQUE`
    pub unique: bool,
    /// Whether it is the primary key's.
    pub primary: bool,
    /// Whether queries may use it.
    pub valid: bool,
}

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ForeignKey {
    /// The constraint's name.
    pub name: String,
    /// The columns that refer.
    pub columns: Vec<String>,
    /// The schema of the table that is referred to.
    pub to_schema: String,
    /// The table that is referred to.
    pub to_table: String,
    /// Its columns, in the order of `columns`.
    pub to_columns: Vec<String>,
    /// `FOREIGN KEY (…) REFERENCES …`
    pub definition: String,
}

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// `CREATE TRIGGER …`
    pub definition: String,
    /// The schema of the function that it calls.
    pub function_schema: String,
    /// The function that it calls.
    pub function: String,
    /// Whether it fires.
    pub enabled: bool,
}

/// A function, procedure or aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Function {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `f` function, `p` procedure, `a` aggregate, `w` window function.
    pub kind: char,
    /// Its owner.
    pub owner: String,
    /// `COMMENT ON FUNCTION`
    pub comment: Option<String>,
    /// What tells it from others of its name, as `ALTER FUNCTION` wants it.
    pub identity_arguments: String,
    /// Names of the arguments that a caller gives; "" for one without a name.
    pub argument_names: Vec<String>,
    /// How many of the last arguments may be left out.
    pub arguments_with_default: u32,
    /// What it returns; `None` for a procedure.
    pub result: Option<String>,
    /// Whether only a trigger can call it.
    pub is_trigger: bool,
    /// `sql`, `plpgsql`, …
    pub language: String,
    /// `i` immutable, `s` stable, `v` volatile.
    pub volatility: char,
    /// `SECURITY DEFINER`
    pub security_definer: bool,
    /// `SET name=value`, e.g. its `search_path`.
    pub settings: Vec<String>,
    /// The text between the quotes; of a `BEGIN ATOMIC` function, which has none, the whole definition.
    pub body: String,
    /// `CREATE OR REPLACE FUNCTION …`; `None` for an aggregate or window function.
    pub definition: Option<String>,
    /// Who may call it.
    pub grants: Vec<Grant>,
}

/// A sequence.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Sequence {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// `bigint`, `integer`, `smallint`
    #[serde(rename = "type")]
    pub type_: String,
    /// The first value.
    pub start: i64,
    /// The step between values.
    pub increment: i64,
    /// The greatest value.
    pub greatest: i64,
    /// Whether it begins anew after the greatest value.
    pub cycles: bool,
    /// The last value that was given out; `None`: none yet, or [`Sequence::is_readable`] is false.
    pub last_value: Option<i64>,
    /// Whether the connection's role may see the last value.
    pub is_readable: bool,
    /// The column that it fills.
    pub owned_by: Option<SequenceOwner>,
    /// Who may use it.
    pub grants: Vec<Grant>,
}

/// The column that a sequence fills.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SequenceOwner {
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The column.
    pub column: String,
    /// Whether it is an identity column, else `serial` or `OWNED BY`.
    pub is_identity: bool,
}

/// A publication of logical replication.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Publication {
    /// Its name: realtime follows `supabase_realtime`.
    pub name: String,
    /// `FOR ALL TABLES`
    pub all_tables: bool,
    /// Whether insertions are published.
    pub insert: bool,
    /// Whether updates are published.
    pub update: bool,
    /// Whether deletions are published.
    pub delete: bool,
    /// The tables in it, also by schema or by `FOR ALL TABLES`.
    pub tables: Vec<Named>,
}

impl Publication {
    /// Whether it has that table.
    #[must_use]
    pub fn has(&self, schema: &str, name: &str) -> bool {
        self.tables.iter().any(|it| it.schema == schema && it.name == name)
    }
}

/// `ALTER DEFAULT PRIVILEGES`: what is granted on objects that a role will make.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct DefaultGrants {
    /// The role that makes the objects.
    pub role: String,
    /// Where; `None`: in every schema.
    pub schema: Option<String>,
    /// `tables`, `sequences`, `functions`, `types` or `schemas`.
    pub objects: String,
    /// What is granted.
    pub grants: Vec<Grant>,
}

/// An installed extension.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Where its objects are.
    pub schema: String,
    /// Its version.
    pub version: String,
}
