//! Which schemas are the platform's own.

/// Schemas that the platform itself fills and looks after. PostgreSQL's own begin with `pg_`, and the catalogue leaves them out.
pub const MANAGED: [&str; 22] = [
    "_analytics",
    "_realtime",
    "_supavisor",
    "auth",
    "cron",
    "dbdev",
    "extensions",
    "graphql",
    "graphql_public",
    "net",
    "pgbouncer",
    "pgmq",
    "pgsodium",
    "pgsodium_masks",
    "pgtle",
    "realtime",
    "storage",
    "supabase_functions",
    "supabase_migrations",
    "tiger",
    "topology",
    "vault",
];

/// Whether the platform itself fills and looks after a schema.
#[must_use]
pub fn is_managed(schema: &str) -> bool {
    MANAGED.contains(&schema)
}
