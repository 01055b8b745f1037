//! Tables, columns and functions of a project, as its OpenAPI documents or its database's catalogue name them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::checks::catalogue::Catalogue;

/// What is known of one schema.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shapes {
    /// Tables and views by name.
    pub(crate) tables: BTreeMap<String, Table>,
    /// Which of them are views, where that is known: no view was ever moved, or is to be.
    pub(crate) views: BTreeSet<String>,
    /// Functions by name, each with the names of its arguments (of one of those that share the name).
    pub(crate) functions: BTreeMap<String, Vec<String>>,
}

/// A table's or view's columns, by name.
pub(crate) type Table = BTreeMap<String, Column>;

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    /// Its type as PostgreSQL writes it, without a schema before it: `uuid`, `vector(3)`, `text[]`.
    pub(crate) type_: String,
    /// Whether an insert has to name it: not null, and nothing fills it.
    pub(crate) is_needed: bool,
}

/// A project's schemas; a schema that could not be read is missing.
pub(crate) type Inventory = BTreeMap<String, Shapes>;

/// Reads PostgREST's OpenAPI 2 document of one schema; `None` if it is none.
pub(crate) fn openapi(document: &Value) -> Option<Shapes> {
    let paths = document.get("paths")?.as_object()?;
    let definitions = document.get("definitions").and_then(Value::as_object);
    let mut shapes = Shapes::default();
    for (name, definition) in definitions.into_iter().flatten() {
        shapes.tables.insert(name.clone(), table(definition));
    }
    for (path, methods) in paths {
        let Some(name) = path.strip_prefix("/rpc/") else { continue };
        shapes.functions.insert(name.to_owned(), arguments(methods));
    }
    Some(shapes)
}

fn table(definition: &Value) -> Table {
    let required: Vec<&str> = match definition.get("required").and_then(Value::as_array) {
        Some(required) => required.iter().filter_map(Value::as_str).collect(),
        None => Vec::new(),
    };
    let properties = definition.get("properties").and_then(Value::as_object);
    let columns = properties.into_iter().flatten().map(|(name, property)| {
        let text = |key: &str| property.get(key).and_then(Value::as_str);
        let type_ = without_schema(text("format").or_else(|| text("type")).unwrap_or("unknown"));
        // An identity column is required and has no default, but its primary key is not written by clients.
        let is_key = text("description").is_some_and(|text| text.contains("<pk/>"));
        let is_needed =
            required.contains(&name.as_str()) && property.get("default").is_none() && !is_key;
        (name.clone(), Column { type_, is_needed })
    });
    columns.collect()
}

/// The body's properties of `POST /rpc/name`.
fn arguments(methods: &Value) -> Vec<String> {
    let parameters = methods.pointer("/post/parameters").and_then(Value::as_array);
    let bodies = parameters.into_iter().flatten();
    let properties = bodies.filter_map(|it| it.pointer("/schema/properties")?.as_object());
    properties.flat_map(|properties| properties.keys().cloned()).collect()
}

/// Reads the same from a database's catalogue.
pub(crate) fn catalogue(catalogue: &Catalogue) -> Inventory {
    let mut inventory: Inventory =
        catalogue.schemas.iter().map(|it| (it.name.clone(), Shapes::default())).collect();
    for relation in &catalogue.relations {
        let columns = relation.columns.iter().map(|column| {
            let is_filled =
                column.default.is_some() || column.identity.is_some() || column.generated.is_some();
            let type_ = without_schema(&column.type_);
            (column.name.clone(), Column { type_, is_needed: column.not_null && !is_filled })
        });
        let shapes = inventory.entry(relation.schema.clone()).or_default();
        shapes.tables.insert(relation.name.clone(), columns.collect());
        if !relation.kind.is_table() {
            shapes.views.insert(relation.name.clone());
        }
    }
    for function in catalogue.functions.iter().filter(|it| !it.is_trigger) {
        let shapes = inventory.entry(function.schema.clone()).or_default();
        shapes.functions.insert(function.name.clone(), function.argument_names.clone());
    }
    inventory
}

/// `extensions.vector(3)` and `public.vector(3)` are one type that was installed in two places.
fn without_schema(type_: &str) -> String {
    let words = type_.split('(').next().unwrap_or(type_);
    match words.rfind('.') {
        Some(dot) => type_.get(dot + 1..).unwrap_or(type_).to_owned(),
        None => type_.to_owned(),
    }
}

/// The name that is most like the wanted one, if any is like it at all.
pub(crate) fn nearest<'n>(wanted: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const ALIKE: f64 = 0.85;
    let rated = names.map(|name| (strsim::jaro_winkler(wanted, name), name));
    let best = rated.filter(|(rate, _)| *rate >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A part of a document as PostgREST 12 writes it.
    fn document() -> Value {
        json!({
            "swagger": "2.0",
            "paths": {
                "/": {"get": {}},
                "/orders": {"get": {}},
                "/rpc/match_memories": {
                    "post": {"parameters": [
                        {"in": "body", "name": "args", "required": true, "schema": {"type": "object", "properties": {
                            "query_embedding": {"format": "extensions.vector", "type": "string"},
                            "match_count": {"format": "integer", "type": "integer"}}}},
                        {"$ref": "#/parameters/preferParams"}]}}
            },
            "definitions": {
                "orders": {
                    "required": ["id", "buyer", "status"],
                    "properties": {
                        "id": {"description": "Note:\nThis is a Primary Key.<pk/>", "format": "bigint", "type": "integer"},
                        "buyer": {"format": "uuid", "type": "string"},
                        "status": {"default": "open", "format": "text", "type": "string"},
                        "embedding": {"format": "extensions.vector(3)", "type": "string"},
                        "tags": {"format": "text[]", "type": "array", "items": {"type": "string"}}
                    },
                    "type": "object"
                }
            }
        })
    }

    #[test]
    fn a_document_names_tables_columns_and_functions() {
        let shapes = openapi(&document()).unwrap();
        let orders = &shapes.tables["orders"];
        let shown: Vec<_> = orders
            .iter()
            .map(|(name, column)| (name.as_str(), column.type_.as_str(), column.is_needed))
            .collect();
        assert_eq!(
            shown,
            [
                ("buyer", "uuid", true),
                ("embedding", "vector(3)", false),
                ("id", "bigint", false),
                ("status", "text", false),
                ("tags", "text[]", false),
            ]
        );
        assert_eq!(shapes.functions["match_memories"], ["query_embedding", "match_count"]);
        assert_eq!(openapi(&json!({"message": "no"})), None);
        assert_eq!(openapi(&Value::Null), None);
    }

    #[test]
    fn a_types_schema_is_left_out() {
        for (type_, want) in [
            ("uuid", "uuid"),
            ("timestamp with time zone", "timestamp with time zone"),
            ("extensions.vector(3)", "vector(3)"),
            ("public.mood[]", "mood[]"),
            ("numeric(10,2)", "numeric(10,2)"),
        ] {
            assert_eq!(without_schema(type_), want);
        }
    }

    #[test]
    fn a_slip_of_the_pen_is_near_and_another_word_is_not() {
        let names = ["orders", "order_items", "products"];
        assert_eq!(nearest("order", names.into_iter()), Some("orders"));
        assert_eq!(nearest("memory_entries", names.into_iter()), None);
    }
}
