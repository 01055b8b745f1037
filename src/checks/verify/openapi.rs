//! PostgREST's own description of a schema, its requests in keyset pages, and the rows of its answers. Pure.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::compare;
use super::sql::{Column, Kind, Relation};
use super::tally::{self, Key};

/// What stays as it is in a query: letters, digits, and what PostgREST's own words are made of.
const QUERY: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.').remove(b'(').remove(b')').remove(b',');

/// The tables and views of a schema's OpenAPI document (2.0), sorted by name; `None`: it is no such document.
#[must_use]
pub fn relations(schema: &str, document: &Value) -> Option<Vec<Relation>> {
    let definitions = document.get("definitions")?.as_object()?;
    let mut relations: Vec<Relation> = definitions
        .iter()
        .map(|(name, definition)| relation(schema, name, definition.get("properties")))
        .collect();
    relations.sort_by(|a, b| a.name.cmp(&b.name));
    Some(relations)
}

fn relation(schema: &str, name: &str, properties: Option<&Value>) -> Relation {
    let mut relation = Relation {
        schema: schema.to_owned(),
        name: name.to_owned(),
        is_table: true,
        ..Relation::default()
    };
    for (name, property) in properties.and_then(Value::as_object).into_iter().flatten() {
        let text = |key: &str| property.get(key).and_then(Value::as_str).unwrap_or_default();
        let type_name = text("format").to_owned();
        let bare = type_name.rsplit('.').next().unwrap_or_default();
        let bare = bare.split('(').next().unwrap_or_default();
        let is_vector = matches!(bare, "vector" | "halfvec" | "sparsevec");
        let kind = if is_vector { Kind::Vector } else { Kind::Plain };
        if text("description").contains("<pk/>") {
            relation.key.push(name.clone());
        }
        relation.columns.push(Column { name: name.clone(), type_name, kind });
    }
    relation.columns.sort_by(|a, b| a.name.cmp(&b.name));
    relation
}

/// The number of all rows in a `Content-Range`: `0-24/3573`, `*/0`.
#[must_use]
pub fn total(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

/// The page behind a key: path and query below the project's URL.
#[must_use]
pub fn page(
    relation: &Relation,
    key: &[String],
    columns: &[String],
    after: Option<&Key>,
    rows: u64,
) -> String {
    let order: Vec<String> = key.iter().map(|column| format!("{}.asc", name(column))).collect();
    let mut target =
        format!("{}&order={}&limit={rows}", select(relation, columns), order.join(","));
    if let Some(after) = after {
        target.push_str(&behind(key, after));
    }
    target
}

/// The rows of these keys, as many of them as one request can name; and how many those are.
#[must_use]
pub fn by_keys(
    relation: &Relation,
    key: &[String],
    columns: &[String],
    keys: &[Key],
    longest: usize,
) -> (String, usize) {
    let start = select(relation, columns);
    let mut parts: Vec<String> = Vec::new();
    let mut length = start.len();
    for values in keys {
        let part = match values.as_slice() {
            [value] => quoted(value),
            values => {
                let equal = key.iter().zip(values);
                let equal =
                    equal.map(|(column, value)| format!("{}.eq.{}", name(column), quoted(value)));
                format!("and({})", equal.collect::<Vec<_>>().join(","))
            }
        };
        length += part.len() + 1;
        if length > longest && !parts.is_empty() {
            break;
        }
        parts.push(part);
    }
    let (count, list) = (parts.len(), parts.join(","));
    match key {
        [column] => (format!("{start}&{}=in.({list})", name(column)), count),
        _ => (format!("{start}&or=({list})"), count),
    }
}

/// How many rows there are is asked of this, with or without a filter for an empty column.
#[must_use]
pub fn count(relation: &Relation, null: Option<&str>) -> String {
    let filter = null.map_or_else(String::new, |column| format!("&{}=is.null", name(column)));
    format!("/rest/v1/{}?limit=1{filter}", utf8_percent_encode(&relation.name, QUERY))
}

fn select(relation: &Relation, columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| name(column)).collect();
    format!("/rest/v1/{}?select={}", utf8_percent_encode(&relation.name, QUERY), columns.join(","))
}

/// Greater than a key of several columns, column by column: PostgREST knows no comparison of rows.
fn behind(key: &[String], after: &Key) -> String {
    if let ([column], [value]) = (key, after.as_slice()) {
        return format!("&{}=gt.{}", name(column), utf8_percent_encode(value, QUERY));
    }
    let mut equal = String::new();
    let mut branches = Vec::new();
    for (column, value) in key.iter().zip(after) {
        let (column, value) = (name(column), quoted(value));
        branches.push(match equal.is_empty() {
            true => format!("{column}.gt.{value}"),
            false => format!("and({equal}{column}.gt.{value})"),
        });
        equal.push_str(&format!("{column}.eq.{value},"));
    }
    format!("&or=({})", branches.join(","))
}

/// A column's name in a query: quoted unless it is a plain word.
fn name(column: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    match !column.is_empty() && column.chars().all(is_plain) {
        true => column.to_owned(),
        false => quoted(column),
    }
}

fn quoted(value: &str) -> String {
    let value = format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
    utf8_percent_encode(&value, QUERY).to_string()
}

/// A row of an answer.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Row<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

impl Row<'_> {
    /// The names of its columns.
    #[must_use]
    pub fn columns(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The values of its key; `None`: a column is missing or NULL.
    #[must_use]
    pub fn key(&self, key: &[String]) -> Option<Key> {
        let values = key.iter().map(|name| {
            let value = self.0.get(name)?.get();
            match value.as_bytes().first()? {
                b'"' => serde_json::from_str::<String>(value).ok(),
                b'n' => None,
                _ => Some(value.to_owned()),
            }
        });
        values.collect()
    }

    /// The digest of these columns.
    #[must_use]
    pub fn digest(&self, columns: &[String]) -> u128 {
        let values = columns.iter().map(|name| {
            self.0.get(name).map_or_else(String::new, |value| compare::canonical(value.get()))
        });
        tally::digest(&values.collect::<Vec<_>>().join(","))
    }

    /// One digest for each of these columns.
    #[must_use]
    pub fn cells(&self, columns: &[String]) -> compare::Cells {
        columns.iter().map(|name| compare::cell(self.0.get(name)?.get())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(ToString::to_string).collect()
    }

    fn orders() -> Relation {
        let properties = json!({
            "number": { "format": "bigint", "type": "integer", "description": "Note:\nThis is a Primary Key.<pk/>" },
            "Owner id": { "format": "uuid", "type": "string", "description": "whose\n\nNote:\nThis is a Primary Key.<pk/>" },
            "embedding": { "format": "extensions.vector(3)", "type": "string" },
            "body": { "format": "text", "type": "string" },
        });
        let document = json!({
            "swagger": "2.0",
            "definitions": { "orders": { "required": ["number"], "properties": properties }, "empty": {} },
        });
        let found = relations("shop", &document).unwrap();
        assert_eq!(
            found.iter().map(Relation::shown).collect::<Vec<_>>(),
            ["shop.empty", "shop.orders"]
        );
        found[1].clone()
    }

    #[test]
    fn the_document_says_columns_keys_and_vectors() {
        let orders = orders();
        assert_eq!(orders.key, ["number", "Owner id"]);
        let columns: Vec<_> = orders.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(columns, ["Owner id", "body", "embedding", "number"]);
        assert_eq!(orders.column("embedding").unwrap().kind, Kind::Vector);
        assert_eq!(relations("x", &json!([{ "name": "another server" }])), None);
    }

    #[test]
    fn pages_go_on_behind_a_key() {
        let (orders, columns) = (orders(), strings(&["body", "number"]));
        assert_eq!(
            page(&orders, &strings(&["number"]), &columns, None, 10),
            "/rest/v1/orders?select=body,number&order=number.asc&limit=10"
        );
        assert_eq!(
            page(&orders, &strings(&["number"]), &columns, Some(&strings(&["a,b\"&c"])), 10),
            "/rest/v1/orders?select=body,number&order=number.asc&limit=10&number=gt.a,b%22%26c"
        );
        let page = page(&orders, &orders.key, &columns, Some(&strings(&["7", "u\"1"])), 10);
        let filter =
            "&or=(number.gt.%227%22,and(number.eq.%227%22,%22Owner%20id%22.gt.%22u%5C%221%22))";
        assert!(page.ends_with(filter), "{page}");
    }

    #[test]
    fn rows_are_asked_for_by_key_within_a_length() {
        let orders = orders();
        let keys: Vec<Key> = ["a", "b,c", "d"].iter().map(|value| strings(&[value])).collect();
        let (target, count) =
            by_keys(&orders, &strings(&["body"]), &strings(&["body"]), &keys, 2000);
        assert_eq!(
            (target.as_str(), count),
            ("/rest/v1/orders?select=body&body=in.(%22a%22,%22b,c%22,%22d%22)", 3)
        );
        let (_, count) = by_keys(&orders, &strings(&["body"]), &strings(&["body"]), &keys, 1);
        assert_eq!(count, 1, "one at least, or it would never end");
        let keys = [strings(&["1", "x"])];
        let (target, _) = by_keys(&orders, &orders.key, &[], &keys, 2000);
        assert!(
            target.ends_with("&or=(and(number.eq.%221%22,%22Owner%20id%22.eq.%22x%22))"),
            "{target}"
        );
    }

    #[test]
    fn rows_are_read_without_losing_digits() {
        let rows = |text: &'static str| serde_json::from_str::<Vec<Row<'_>>>(text).unwrap();
        let columns = strings(&["a", "j"]);
        let digest = |text| rows(text)[0].digest(&columns);
        let one = digest(r#"[{"a":12345678901234567890.10,"j":{"x":1,"y":2},"z":1}]"#);
        assert_eq!(one, digest(r#"[{"j":{"y": 2, "x":1},"a":12345678901234567890.10}]"#));
        for other in [
            r#"[{"a":12345678901234567891.10,"j":{"x":1,"y":2}}]"#,
            r#"[{"a":12345678901234567890.10,"j":"{\"x\":1,\"y\":2}"}]"#,
            r#"[{"a":null,"j":{"x":1,"y":2}}]"#,
        ] {
            assert_ne!(one, digest(other), "{other}");
        }
        let rows = rows(r#"[{"id":7,"name":"ä\"","none":null}]"#);
        assert_eq!(rows[0].key(&strings(&["id", "name"])), Some(strings(&["7", "ä\""])));
        assert_eq!(rows[0].key(&strings(&["none"])), None);
        assert_eq!(rows[0].cells(&strings(&["none", "absent"])), [None, None]);
        assert_eq!(
            (total("0-24/3573"), total("*/0"), total("0-24/*")),
            (Some(3573), Some(0), None)
        );
    }
}
