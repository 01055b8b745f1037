//! What is shipped and written down is what the parser knows.

use std::collections::BTreeSet;

use super::*;
use crate::config::keys::{KEYS, Key, Kind, duration_text};
use crate::config::variables;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

fn at(name: &str) -> Sources {
    Sources { file: Some(Path::new(ROOT).join(name)), ..Sources::default() }
}

/// Tables whose own keys the operator chooses.
const FREE_TABLES: [&str; 6] = [
    "schema.tables",
    "schema.functions",
    "storage.buckets",
    "storage.owners",
    "functions.names",
    "functions.owners",
];

/// Every key that a text in TOML writes down, also in comments such as `# token = ""`.
fn mentioned(text: &str) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start_matches(['#', ' ']);
        if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = format!("{name}.");
        } else if let Some((name, value)) = line.split_once(" = ") {
            let key = format!("{section}{name}");
            if value.starts_with("{ ") {
                let inner = value.split(['{', ',']).filter_map(|part| part.split_once(" = "));
                keys.extend(inner.map(|(name, _)| format!("{key}.{}", name.trim())));
            }
            keys.insert(key);
        } else if FREE_TABLES.contains(&section.trim_end_matches('.')) {
            keys.insert(section.trim_end_matches('.').to_owned());
        }
    }
    keys.extend(
        FREE_TABLES
            .map(str::to_owned)
            .into_iter()
            .filter(|table| text.contains(&format!("[{table}]"))),
    );
    keys
}

#[test]
fn the_shipped_file_is_good_and_holds_every_key_with_its_default() {
    let report = check(&at("config.toml")).unwrap();
    let text = shipped("config.toml");
    let mentioned = mentioned(&text);
    for key in KEYS {
        assert!(mentioned.contains(key.name), "config.toml does not mention {}", key.name);
    }
    // Warnings of absent keys and placeholders, and no other.
    for warning in &report.warnings {
        assert!(
            warning.contains("anon_key is not set") || warning.contains("placeholder"),
            "{warning}"
        );
    }
    let loaded = crate::config::load::load(&at("config.toml"), false, &Default::default());
    let merged = loaded.outcome.unwrap().merged;
    let defaults =
        crate::config::merged::Merged::new(vec![crate::config::layers::Layer::defaults()]);
    for key in
        KEYS.iter().filter(|key| !key.name.starts_with("schema.") && !key.name.ends_with(".url"))
    {
        assert_eq!(merged.value(key.name), defaults.value(key.name), "{}", key.name);
    }
}

/// The reorganisation's map, domain by domain.
#[test]
fn the_shipped_file_holds_the_whole_map() {
    let map = check(&at("config.toml")).unwrap().snapshot.rewrite.map;
    let domains = [
        "ai_chat",
        "analytics",
        "auth_gateway",
        "billing",
        "client_services",
        "control_room",
        "intelligence",
        "marketplace",
        "security_service",
        "shared_services",
        "vendors",
    ];
    assert_eq!(map.domains(), domains);
    let text = shipped("config.toml");
    let tables =
        text.split("[schema.tables]").nth(1).unwrap().split("[schema.functions]").next().unwrap();
    assert_eq!(tables.lines().filter(|line| line.contains(" = ")).count(), 79);
    for line in [
        "user_settings = \"shared_services.settings\"",
        "vendor_api_keys = { to = \"vendors.api_keys\", canonical = true }",
        "vendor_api_keys_v2 = \"vendors.api_keys\"",
        "\"smart_recall_*\" = \"intelligence\"",
        "ai_messages = \"ai_chat.messages\"",
        "intelligence_cache = \"intelligence.cache\"",
        "match_memories = \"security_service\"",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn the_examples_are_good() {
    for entry in fs::read_dir(Path::new(ROOT).join("examples")).unwrap() {
        let name = format!("examples/{}", entry.unwrap().file_name().to_str().unwrap());
        check(&at(&name)).unwrap_or_else(|faults| panic!("{name}: {faults}"));
    }
    let map = check(&at("examples/modes.toml")).unwrap().snapshot.rewrite.map;
    assert_eq!(map.domains(), ["growth", "shared"]);
}

/// The first columns of a key's row: name, type and range, default, when a change takes effect.
fn row(key: &Key) -> String {
    let kind = match key.kind {
        Kind::Bool => "true, false".to_owned(),
        Kind::Integer { min, max } => format!("{min} to {max}"),
        Kind::Duration { min, max } => {
            format!("duration, {} to {}", duration_text(min), duration_text(max))
        }
        Kind::Percentage => "0 to 100, two decimals".to_owned(),
        Kind::Choice { allowed, .. } => {
            allowed.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(", ")
        }
        Kind::Text { min, max } => format!("text, {min} to {max} characters"),
        Kind::Path => "path".to_owned(),
        Kind::Address => "address:port".to_owned(),
        Kind::Secret { min: 1, .. } => "secret".to_owned(),
        Kind::Secret { min, .. } => format!("secret, at least {min} characters"),
        Kind::Secrets => "secret, or a list".to_owned(),
        Kind::Url => "URL".to_owned(),
        Kind::Host => "host or host:port".to_owned(),
        Kind::Schema { empty: true } => "schema, or `\"\"`".to_owned(),
        Kind::Schema { empty: false } => "schema".to_owned(),
        Kind::Header => "header name".to_owned(),
        Kind::Filter => "level or filter".to_owned(),
        Kind::Pins => "list of targeting keys".to_owned(),
        Kind::Networks => "list of networks".to_owned(),
        Kind::IdentitySources => "list of sources".to_owned(),
        Kind::Origins => "list of origins".to_owned(),
        Kind::Caps => "schema = percentage".to_owned(),
        Kind::Rules => "list of rules".to_owned(),
        Kind::Entries | Kind::Folders | Kind::Paths => "old = new".to_owned(),
        Kind::Owners => "name = side".to_owned(),
    };
    let default = key.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
    let when = if key.restart { "restart" } else { "live" };
    format!("| `{}` | {kind} | {default} | {when} | ", key.name)
}

#[test]
fn the_documentation_has_a_row_for_every_key() {
    let docs = shipped("docs/configuration.md");
    let missing: Vec<_> = KEYS
        .iter()
        .map(row)
        .filter(|row| !docs.lines().any(|line| line.starts_with(row)))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/configuration.md lacks or contradicts:\n{}",
        missing.join("\n")
    );
    let rows =
        docs.lines().filter(|line| line.starts_with("| `") && line.matches('|').count() == 6);
    assert_eq!(rows.count(), KEYS.len(), "rows without a key");
    for variable in variables::documented() {
        assert!(docs.contains(variable), "{variable}");
    }
}
