//! The SQL of a comparison. Pure: text in, text out; no name and no value comes into it unquoted.
//!
//! A row's text is `ROW(…)::text` of the compared columns in the order of their names. PostgreSQL writes it with quotes where they are
//! needed, NULL as nothing and an empty text as `""`, so that no two different rows have one text. Its SHA-256 is taken on the
//! server; of a page come back one count and two sums for each bucket of keys. Sums need no order, so a page may be read in the
//! order of the side's own index, whatever its collation.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use super::tally::{BUCKETS, Key, Sample};
use crate::checks::catalogue::MANAGED;
use crate::checks::quote::{ident, literal};

/// What every session says first: a row's text must not depend on the server, the role or the database. `row_security` off turns a
/// role that would see a part of the rows into an error.
#[must_use]
pub fn session(timeout: Duration) -> String {
    format!(
        "SET extra_float_digits = 3; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'iso_8601'; SET TimeZone = 'UTC'; \
         SET bytea_output = 'hex'; SET lc_monetary = 'C'; SET xmlbinary = 'base64'; SET client_encoding = 'UTF8'; \
         SET row_security = off; SET jit = off; SET idle_in_transaction_session_timeout = 0; \
         SET statement_timeout = {}",
        timeout.as_millis().min(i32::MAX as u128)
    )
}

/// How a column's text is made the same on both sides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// As it is.
    #[default]
    Plain,
    /// `json`: its text keeps the writer's spaces and order, `jsonb` does not.
    Json,
    /// `json[]`
    JsonArray,
    /// A vector of pgvector: its empty values are counted.
    Vector,
}

/// A column of a relation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type, as PostgreSQL writes it in this session.
    pub type_name: String,
    /// How its text is made the same.
    pub kind: Kind,
}

/// A table or view as one side has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relation {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Whether it is a table, and no view.
    pub is_table: bool,
    /// Whether it is a partition: its rows are its table's, and it is compared only where the map names it.
    pub is_partition: bool,
    /// Its columns, sorted by name.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in the key's order.
    pub key: Vec<String>,
}

impl Relation {
    /// The column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// `schema.name`, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A part of a relation's rows, in the order of its key: after one key, up to another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range<'a> {
    /// Not this key, but those behind it.
    pub after: Option<&'a Key>,
    /// This key and those before it.
    pub until: Option<&'a Key>,
}

/// Which database this is: no two servers started in the same microsecond.
pub const IDENTITY: &str = "SELECT pg_catalog.current_database() || ' ' || \
    pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())";

/// The schemas of types that extensions brought, where the operators of such types are found.
pub const EXTENSION_SCHEMAS: &str = "SELECT DISTINCT n.nspname FROM pg_catalog.pg_depend d \
    JOIN pg_catalog.pg_type t ON d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid \
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace WHERE d.deptype = 'e' AND n.nspname <> 'pg_catalog' ORDER BY 1";

/// Looks for names in `pg_catalog` and these schemas only, so that no caller's schema stands before them.
#[must_use]
pub fn search_path(schemas: &[String]) -> String {
    let schemas = schemas.iter().map(|name| format!(", {}", ident(name)));
    format!("SET search_path = pg_catalog{}", schemas.collect::<String>())
}

/// Every column of every relation that is the application's: schema, relation, kind, column, type, base type, element type, the
/// column's place in the primary key, and whether the relation is a partition.
#[must_use]
pub fn catalogue() -> String {
    let machinery = MANAGED.iter().chain(&["information_schema"]).map(|name| literal(name));
    let machinery = machinery.collect::<Vec<_>>().join(", ");
    format!(
        "SELECT n.nspname, c.relname, c.relkind, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
           b.typname, e.typname, pg_catalog.array_position((i.indkey::int2[])[0:i.indnkeyatts - 1], a.attnum), c.relispartition \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
         JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
         JOIN pg_catalog.pg_type b ON b.oid = COALESCE(NULLIF(t.typbasetype, 0), t.oid) \
         LEFT JOIN pg_catalog.pg_type e ON e.oid = b.typelem AND b.typcategory = 'A' \
         LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary \
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ({machinery}) \
           AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass \
             AND d.objid = c.oid AND d.deptype = 'e') \
         ORDER BY n.nspname, c.relname, a.attnum"
    )
}

/// How many rows there are, and how many of them have no value in each vector column.
#[must_use]
pub fn count(relation: &Relation, vectors: &[String]) -> String {
    let mut sql = "SELECT count(*)".to_owned();
    for column in vectors {
        // Writing to a text can't fail.
        write!(sql, ", count(*) FILTER (WHERE {} IS NULL)", ident(column)).ok();
    }
    format!("{sql} FROM {}", from(relation))
}

/// The key of the last row of a page of `rows`; no row when the page is the last.
#[must_use]
pub fn boundary(relation: &Relation, key: &[String], after: Option<&Key>, rows: u64) -> String {
    // A bare name would mean the output column of that name, which is text: 10 before 9, and no use of the index.
    let order = key.iter().map(|name| format!("t.{}", ident(name))).collect::<Vec<_>>().join(", ");
    let range = condition(relation, key, Range { after, until: None });
    let (columns, offset) = (key_columns(key), rows.saturating_sub(1));
    format!(
        "SELECT {columns} FROM {} t{range} ORDER BY {order} LIMIT 1 OFFSET {offset}",
        from(relation)
    )
}

/// For each bucket of keys in a range: the bucket, how many rows, and the sums of both halves of their digests.
#[must_use]
pub fn tallies(
    relation: &Relation,
    key: &[String],
    columns: &[String],
    range: Range<'_>,
    sample: &Sample,
) -> String {
    let (first, second) = (half("r", 1), half("r", 9));
    format!(
        "SELECT {bucket}, count(*), sum({first}), sum({second}) FROM (SELECT {row} AS r, k FROM ({keyed}) q{only} OFFSET 0) q GROUP BY 1",
        bucket = bucket("k"),
        row = "sha256(convert_to(row_text, 'UTF8'))",
        keyed = keyed(relation, key, columns, range, sample),
        only = sampled(sample),
    )
}

/// The key and the digest (its first half) of the rows of a range that are in these buckets.
#[must_use]
pub fn rows(
    relation: &Relation,
    key: &[String],
    columns: &[String],
    range: Range<'_>,
    sample: &Sample,
    buckets: &BTreeSet<u16>,
) -> String {
    let buckets = buckets.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let names = (0..key.len()).map(|i| format!("k{i}")).collect::<Vec<_>>().join(", ");
    // The buckets are asked before the row's text is made: of most rows only the key is looked at.
    let and = if sample.is_all() { " WHERE" } else { " AND" };
    format!(
        "SELECT encode(substr(sha256(convert_to(row_text, 'UTF8')), 1, 16), 'hex'), {names} FROM ({keyed}) q{only}{and} {bucket} = ANY ('{{{buckets}}}'::int[])",
        keyed = keyed(relation, key, columns, range, sample),
        only = sampled(sample),
        bucket = bucket("k"),
    )
}

/// The rows of these keys: the key, then the digest of each column, NULL for NULL.
#[must_use]
pub fn by_keys(relation: &Relation, key: &[String], columns: &[String], keys: &[Key]) -> String {
    let digests = columns.iter().map(|name| {
        let text = value(relation, name);
        format!(", encode(sha256(convert_to(({text})::text, 'UTF8')), 'hex')")
    });
    let tuples = keys.iter().map(|values| tuple(relation, key, values)).collect::<Vec<_>>();
    let names = key.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
    format!(
        "SELECT {}{} FROM {} WHERE ({names}) IN ({})",
        key_columns(key),
        digests.collect::<String>(),
        from(relation),
        tuples.join(", ")
    )
}

/// For a relation without a key: the digest of each different row and how often it is there, summed up as one tally for each bucket of rows.
#[must_use]
pub fn keyless(relation: &Relation, columns: &[String]) -> String {
    let (first, second) = (half("r", 1), half("r", 9));
    let row = row_text(relation, columns);
    format!(
        "SELECT {bucket}, count(*), sum({first}), sum({second}) FROM (SELECT sha256(convert_to({row}, 'UTF8')) AS r FROM {from} OFFSET 0) q GROUP BY 1",
        bucket = bucket("r"),
        from = from(relation),
    )
}

/// The rows of a range with their key, its digest and their text.
fn keyed(
    relation: &Relation,
    key: &[String],
    columns: &[String],
    range: Range<'_>,
    sample: &Sample,
) -> String {
    let mut texts = String::new();
    for (i, name) in key.iter().enumerate() {
        write!(texts, ", {}::text AS k{i}", ident(name)).ok();
    }
    let names = key.iter().map(|name| format!("{}::text", ident(name))).collect::<Vec<_>>();
    // The same text as `tally::key_text`: lengths before values, so that no two keys have one text.
    let parts = names
        .iter()
        .map(|name| format!("octet_length(convert_to({name}, 'UTF8')) || ':' || {name}"));
    let text = parts.collect::<Vec<_>>().join(" || ");
    format!(
        "SELECT sha256(convert_to({seed} || ':' || {text}, 'UTF8')) AS k, {row} AS row_text{texts} FROM {from}{range}",
        seed = literal(&sample.seed),
        row = row_text(relation, columns),
        from = from(relation),
        range = condition(relation, key, range),
    )
}

fn sampled(sample: &Sample) -> String {
    match sample.below {
        None => String::new(),
        Some(below) => {
            format!(" WHERE substr(k, 1, 4) < '\\x{below:08x}'::bytea")
        }
    }
}

fn bucket(digest: &str) -> String {
    format!("((get_byte({digest}, 4) << 8 | get_byte({digest}, 5)) & {})", BUCKETS - 1)
}

fn half(digest: &str, at: u8) -> String {
    format!("('x' || encode(substr({digest}, {at}, 8), 'hex'))::bit(64)::bigint")
}

fn row_text(relation: &Relation, columns: &[String]) -> String {
    let values = columns.iter().map(|name| value(relation, name)).collect::<Vec<_>>();
    // More values than a function takes arguments are no fault of a ROW, but a table has 1,600 columns at most anyway.
    format!("ROW({})::text", values.join(", "))
}

fn value(relation: &Relation, name: &str) -> String {
    let quoted = ident(name);
    match relation.column(name).map(|column| column.kind).unwrap_or_default() {
        Kind::Plain | Kind::Vector => quoted,
        Kind::Json => format!("{quoted}::jsonb"),
        Kind::JsonArray => format!("{quoted}::jsonb[]"),
    }
}

fn from(relation: &Relation) -> String {
    format!("{}.{}", ident(&relation.schema), ident(&relation.name))
}

fn key_columns(key: &[String]) -> String {
    key.iter().map(|name| format!("{}::text", ident(name))).collect::<Vec<_>>().join(", ")
}

fn condition(relation: &Relation, key: &[String], range: Range<'_>) -> String {
    let names = key.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
    let bound =
        |sign: &str, values: &Key| format!("({names}) {sign} {}", tuple(relation, key, values));
    match (range.after, range.until) {
        (None, None) => String::new(),
        (Some(after), None) => format!(" WHERE {}", bound(">", after)),
        (None, Some(until)) => format!(" WHERE {}", bound("<=", until)),
        (Some(after), Some(until)) => {
            format!(" WHERE {} AND {}", bound(">", after), bound("<=", until))
        }
    }
}

fn tuple(relation: &Relation, key: &[String], values: &Key) -> String {
    let values = key.iter().zip(values).map(|(name, value)| {
        let type_name = relation.column(name).map_or("text", |column| &column.type_name);
        format!("{}::{type_name}", literal(value))
    });
    format!("({})", values.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relation() -> Relation {
        let column = |name: &str, type_name: &str, kind| Column {
            name: name.into(),
            type_name: type_name.into(),
            kind,
        };
        Relation {
            schema: "pu\"blic".into(),
            name: "Orders".into(),
            is_table: true,
            is_partition: false,
            columns: vec![
                column("at", "timestamp with time zone", Kind::Plain),
                column("id", "uuid", Kind::Plain),
                column("meta", "json", Kind::Json),
            ],
            key: vec!["id".into(), "at".into()],
        }
    }

    #[test]
    fn names_and_values_can_not_leave_their_quotes() {
        for (name, quoted) in
            [("a", "\"a\""), ("a\"; drop", "\"a\"\"; drop\""), ("Größe", "\"Größe\"")]
        {
            assert_eq!(ident(name), quoted);
        }
        for (value, quoted) in [
            ("", "''"),
            ("it's", "'it''s'"),
            ("\\", "E'\\\\'"),
            ("\\'; drop table x; --", "E'\\\\''; drop table x; --'"),
        ] {
            assert_eq!(literal(value), quoted);
        }
        assert_eq!(search_path(&["a\"b".into()]), "SET search_path = pg_catalog, \"a\"\"b\"");
    }

    #[test]
    fn a_page_is_a_range_of_the_whole_key() {
        let relation = relation();
        let (after, until) =
            (vec!["u1".to_owned(), "2026".to_owned()], vec!["u'2".into(), "2027".into()]);
        let found =
            condition(&relation, &relation.key, Range { after: Some(&after), until: Some(&until) });
        assert_eq!(
            found,
            " WHERE (\"id\", \"at\") > ('u1'::uuid, '2026'::timestamp with time zone) \
             AND (\"id\", \"at\") <= ('u''2'::uuid, '2027'::timestamp with time zone)"
        );
        let boundary = boundary(&relation, &relation.key, Some(&after), 50);
        assert!(
            boundary.ends_with(" ORDER BY t.\"id\", t.\"at\" LIMIT 1 OFFSET 49")
                && boundary.contains("\"pu\"\"blic\".\"Orders\" t WHERE (\"id\", \"at\") > "),
            "{boundary}"
        );
    }

    #[test]
    fn a_row_is_its_columns_by_name_and_json_is_read() {
        let columns = ["at".to_owned(), "meta".to_owned()];
        assert_eq!(row_text(&relation(), &columns), "ROW(\"at\", \"meta\"::jsonb)::text");
    }

    #[test]
    fn a_sample_asks_the_first_bytes_of_the_keys_digest() {
        let sample = Sample { seed: "s'".into(), below: Some(0x0102) };
        let relation = relation();
        let sql = tallies(&relation, &relation.key, &["at".into()], Range::default(), &sample);
        assert!(sql.contains("substr(k, 1, 4) < '\\x00000102'::bytea"), "{sql}");
        assert!(sql.contains("'s''' || ':' || octet_length("), "{sql}");
        let buckets = BTreeSet::from([3, 77]);
        let sql = rows(&relation, &relation.key, &[], Range::default(), &sample, &buckets);
        assert!(sql.contains(" AND (("), "{sql}");
        assert!(sql.ends_with("= ANY ('{3,77}'::int[])"), "{sql}");
    }
}
