//! Lists and tables: pins, networks, identity sources, origins, caps, rules, schema entries. Each reader collects
//! every problem of its value, not only the first.

use std::collections::{BTreeMap, BTreeSet};

use figment::value::{Dict, Value};
use http::HeaderName;
use ipnet::IpNet;

use super::value::{Problem, percentage, quoted, shown, text_of};
use crate::decide::Rule;
use crate::decide::percentage::Percentage;
use crate::identify::Source;
use crate::identify::claims::LONGEST_CLAIM;
use crate::rewrite::schema::Entry;
use crate::side::Side;

pub(crate) type Read<T> = Result<T, Vec<Problem>>;

/// What a name in PostgreSQL may be here.
pub(crate) const NAME: &str = "a name of 1 to 63 letters, digits, _, $ or -";

/// Whether `name` can stand in a path segment without quoting.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '-'))
}

/// The same for a schema, which also is a header's value.
pub(crate) fn is_schema(name: &str) -> bool {
    is_name(name) && name.is_ascii()
}

/// Reads each item of a list; refuses what is no list.
fn list<T>(
    value: &Value,
    allowed: &str,
    mut item: impl FnMut(&Value) -> Result<T, Problem>,
) -> Read<Vec<T>> {
    let Value::Array(_, items) = value else {
        return Err(vec![Problem::new(shown(value), format!("a list: {allowed}"))]);
    };
    collect(items.iter().enumerate().map(|(i, value)| {
        item(value).map_err(|problem| {
            let at = format!("[{i}]{}", problem.at);
            vec![problem.at(at)]
        })
    }))
}

pub(crate) fn collect<T>(results: impl Iterator<Item = Read<T>>) -> Read<Vec<T>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => good.push(value),
            Err(problems) => bad.extend(problems),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// Pins may be API keys (an identity source may be a header), so that they are never shown, only counted.
pub(crate) fn pins(value: &Value) -> Read<Vec<String>> {
    let allowed = "targeting keys, such as user ids: text, not empty";
    list(value, allowed, |item| match text_of(item) {
        Some(key) if !key.is_empty() => Ok(key.to_owned()),
        Some(_) => Err(Problem::new("an empty value", allowed)),
        None => Err(Problem::new("no text (not shown)", allowed)),
    })
}

pub(crate) fn networks(value: &Value) -> Read<Vec<IpNet>> {
    let allowed = "networks such as \"10.0.0.0/8\", or addresses";
    list(value, allowed, |item| {
        let text = text_of(item).map(str::trim).unwrap_or_default();
        let network = text.parse::<IpNet>().ok();
        let single = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
        network.or_else(single).ok_or_else(|| Problem::new(shown(item), allowed))
    })
}

pub(crate) fn identity_sources(value: &Value) -> Read<Vec<Source>> {
    let allowed = "\"jwt\", \"header:NAME\", \"cookie:NAME\" or \"query:NAME\"";
    let sources = list(value, allowed, |item| {
        text_of(item).and_then(identity_source).ok_or_else(|| Problem::new(shown(item), allowed))
    })?;
    if sources.is_empty() {
        return Err(vec![Problem::new("an empty list", format!("at least one of {allowed}"))]);
    }
    for (i, source) in sources.iter().enumerate() {
        if sources[..i].contains(source) {
            return Err(vec![
                Problem::new("a source listed twice", "each once").at(format!("[{i}]")),
            ]);
        }
    }
    Ok(sources)
}

fn identity_source(text: &str) -> Option<Source> {
    // A cookie's name is a token, exactly as a header's is; its case counts.
    let token = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
    match text.split_once(':') {
        None => (text == "jwt").then_some(Source::Jwt),
        Some(("header", name)) => token(name).map(Source::Header),
        Some(("cookie", name)) => token(name).map(|_| Source::Cookie(name.to_owned())),
        Some(("query", name)) => {
            let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'&');
            plain.then(|| Source::Query(name.to_owned()))
        }
        Some(_) => None,
    }
}

pub(crate) fn origins(value: &Value) -> Read<Vec<String>> {
    let allowed = "origins as browsers send them, such as \"https://app.example.com\"; [] = any";
    list(value, allowed, |item| {
        let origin = text_of(item).unwrap_or_default();
        let host = origin.split_once("://").map(|(_, host)| host).unwrap_or_default();
        let exact = origin.starts_with(|c: char| c.is_ascii_lowercase())
            && !host.is_empty()
            && origin.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
            && !host.contains(['/', '?', '#', '@', '*', ',']);
        exact.then(|| origin.to_owned()).ok_or_else(|| Problem::new(shown(item), allowed))
    })
}

pub(crate) fn caps(value: &Value, text: bool) -> Read<BTreeMap<String, Percentage>> {
    let caps =
        collect(table(value, "schema = percentage")?.iter().map(
            |(schema, cap)| match percentage(cap, text) {
                Ok(cap) => Ok((schema.clone(), cap)),
                Err(problem) => Err(vec![problem.at(format!(".{schema}"))]),
            },
        ))?;
    Ok(caps.into_iter().collect())
}

pub(crate) fn table<'a>(value: &'a Value, allowed: &str) -> Read<&'a Dict> {
    match value {
        Value::Dict(_, dict) => Ok(dict),
        _ => Err(vec![Problem::new(shown(value), format!("a table: {allowed}"))]),
    }
}

pub(crate) fn rules(value: &Value) -> Read<Vec<Rule>> {
    let allowed = "{ claim = \"app_metadata.beta\", equals = true, side = \"new\" }";
    let Value::Array(_, items) = value else {
        return Err(vec![Problem::new(shown(value), format!("a list of {allowed}"))]);
    };
    collect(items.iter().enumerate().map(|(i, item)| {
        rule(item, allowed).map_err(|problems| {
            problems
                .into_iter()
                .map(|problem| {
                    let at = format!("[{i}]{}", problem.at);
                    problem.at(at)
                })
                .collect()
        })
    }))
}

fn rule(value: &Value, allowed: &str) -> Read<Rule> {
    let dict = table(value, allowed)?;
    let mut problems = unknown(dict, &["claim", "equals", "side"]);
    let path = match dict.get("claim") {
        Some(Value::String(_, path)) => path.split('.').map(str::to_owned).collect(),
        // A list spells claims whose own names hold a dot.
        Some(Value::Array(_, path)) => {
            path.iter().map(|part| text_of(part).unwrap_or_default().to_owned()).collect()
        }
        _ => Vec::new(),
    };
    if path.is_empty() || path.iter().any(String::is_empty) {
        let found = dict.get("claim").map_or_else(|| "nothing".to_owned(), shown);
        problems.push(
            Problem::new(found, "a claim's path, such as \"app_metadata.beta\"").at(".claim"),
        );
    }
    let side = dict.get("side").and_then(text_of).and_then(Side::parse);
    if side.is_none() {
        let found = dict.get("side").map_or_else(|| "nothing".to_owned(), shown);
        problems.push(Problem::new(found, "\"old\" or \"new\"").at(".side"));
    }
    let equals = dict.get("equals").and_then(|value| serde_json::to_value(value).ok());
    if equals.is_none() {
        problems.push(Problem::new("nothing", "the value that the claim must have").at(".equals"));
    } else if equals.as_ref().is_some_and(|value| value.to_string().len() > LONGEST_CLAIM) {
        let allowed = format!("a value of at most {LONGEST_CLAIM} bytes as JSON");
        problems.push(Problem::new("a longer value", allowed).at(".equals"));
    }
    match (side, equals) {
        (Some(side), Some(equals)) if problems.is_empty() => Ok(Rule { claim: path, equals, side }),
        _ => Err(problems),
    }
}

fn unknown(dict: &Dict, known: &[&str]) -> Vec<Problem> {
    let names: BTreeSet<_> = dict.keys().map(String::as_str).collect();
    let strangers = names.into_iter().filter(|name| !known.contains(name));
    strangers
        .map(|name| Problem::new("an unknown key", known.join(", ")).at(format!(".{name}")))
        .collect()
}

pub(crate) fn entries(value: &Value) -> Read<Vec<Entry>> {
    let allowed =
        "old name = \"schema\", \"schema.name\" or { to = \"schema.name\", canonical = true }";
    collect(table(value, allowed)?.iter().map(|(old, to)| {
        entry(old, to, allowed).map_err(|problem| {
            let at = format!(".{old}{}", problem.at);
            vec![problem.at(at)]
        })
    }))
}

fn entry(old: &str, value: &Value, allowed: &str) -> Result<Entry, Problem> {
    if !is_name(old.strip_suffix('*').unwrap_or(old)) {
        return Err(Problem::new(quoted(old), format!("{NAME}; a * at its end makes it a prefix")));
    }
    let (to, canonical) = match value {
        Value::String(_, to) => (to, false),
        Value::Dict(_, dict) => {
            if let Some(problem) = unknown(dict, &["to", "canonical"]).into_iter().next() {
                return Err(problem);
            }
            let canonical = match dict.get("canonical") {
                None => false,
                Some(Value::Bool(_, canonical)) => *canonical,
                Some(other) => {
                    return Err(Problem::new(shown(other), "true or false").at(".canonical"));
                }
            };
            match dict.get("to") {
                Some(Value::String(_, to)) => (to, canonical),
                _ => return Err(Problem::new("nothing", "\"schema\" or \"schema.name\"").at(".to")),
            }
        }
        other => return Err(Problem::new(shown(other), allowed)),
    };
    let (schema, name) = match to.split_once('.') {
        Some((schema, name)) => (schema, Some(name)),
        None => (to.as_str(), None),
    };
    if !is_schema(schema) || !name.is_none_or(is_name) {
        return Err(Problem::new(
            quoted(to),
            format!("\"schema\" or \"schema.name\", each {NAME}"),
        ));
    }
    Ok(Entry {
        old: old.to_owned(),
        schema: schema.to_owned(),
        name: name.filter(|name| *name != old).map(str::to_owned),
        canonical,
    })
}
