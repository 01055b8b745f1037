//! From a raw value to a typed one, by the kind of its key. A value that gets through needs no second check.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use figment::value::Value;
use http::HeaderName;
use http::uri::Authority;
use ipnet::IpNet;

use super::keys::{Key, Kind, duration_text};
use super::project::{self, Url};
use super::{names, tables};
use crate::decide::Rule;
use crate::decide::percentage::{NotAPercentage, Percentage};
use crate::identify::Source;
use crate::rewrite::schema::Entry;
use crate::rewrite::storage::Folder;
use crate::secret::Secret;
use crate::side::Side;

/// A checked value. Two settings files that mean the same have equal values, whatever their spelling.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Typed {
    /// Not given, and without a default.
    Absent,
    Bool(bool),
    Integer(u64),
    Duration(Duration),
    Percentage(Percentage),
    /// Text, a word, a path, a host.
    Text(String),
    Address(SocketAddr),
    Secrets(Vec<Secret>),
    Url(Url),
    Header(HeaderName),
    Texts(Vec<String>),
    Networks(Vec<IpNet>),
    Sources(Vec<Source>),
    Caps(BTreeMap<String, Percentage>),
    Rules(Vec<Rule>),
    Entries(Vec<Entry>),
    Folders(Vec<Folder>),
    Paths(BTreeMap<String, String>),
    Owners(BTreeMap<String, Side>),
}

/// What is wrong with a value; the caller knows where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Below the key: `.billing`, `[2].side`, or nothing.
    pub(crate) at: String,
    pub(crate) found: String,
    pub(crate) allowed: String,
}

impl Problem {
    pub(crate) fn new(found: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { at: String::new(), found: found.into(), allowed: allowed.into() }
    }

    pub(crate) fn at(mut self, at: impl Into<String>) -> Self {
        self.at = at.into();
        self
    }
}

/// Reads `value` as `key` wants it. `text` says that the source knows only text (a variable, a one-value file), so
/// that numbers and truth values are read from text; a TOML file has to write them as what they are.
pub(crate) fn parse(key: &Key, value: &Value, text: bool) -> Result<Typed, Vec<Problem>> {
    let one = |result: Result<Typed, Problem>| result.map_err(|problem| vec![problem]);
    match key.kind {
        Kind::Bool => one(boolean(value, text)),
        Kind::Integer { min, max } => one(integer(value, text, min, max)),
        Kind::Duration { min, max } => one(duration(value, text, min, max)),
        Kind::Percentage => one(percentage(value, text).map(Typed::Percentage)),
        Kind::Choice { allowed, refused } => one(choice(value, allowed, refused)),
        Kind::Text { min, max } => one(plain(value, min, max)),
        Kind::Path => one(plain(value, 0, 4096)),
        Kind::Address => one(address(value)),
        Kind::Secret { header, min } => one(secret(value, header, min)),
        Kind::Secrets => secrets(value),
        Kind::Url => one(url(value)),
        Kind::Host => one(host(value)),
        Kind::Schema { empty } => one(schema(value, empty)),
        Kind::Header => one(header(value)),
        Kind::Filter => one(filter(value)),
        Kind::Pins => tables::pins(value).map(Typed::Texts),
        Kind::Networks => tables::networks(value).map(Typed::Networks),
        Kind::IdentitySources => tables::identity_sources(value).map(Typed::Sources),
        Kind::Origins => tables::origins(value).map(Typed::Texts),
        Kind::Caps => tables::caps(value, text).map(Typed::Caps),
        Kind::Rules => tables::rules(value).map(Typed::Rules),
        Kind::Entries => tables::entries(value).map(Typed::Entries),
        Kind::Folders => names::folders(value).map(Typed::Folders),
        Kind::Paths => names::paths(value).map(Typed::Paths),
        Kind::Owners => names::owners(value).map(Typed::Owners),
    }
}

/// A value as a fault may show it: short, on one line, and never called for secrets.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::String(_, text) => quoted(text),
        Value::Char(_, c) => quoted(&c.to_string()),
        Value::Bool(_, b) => b.to_string(),
        Value::Num(_, _) => number(value).map_or_else(|| "a number".to_owned(), |n| n.to_string()),
        Value::Empty(..) => "nothing".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Array(..) => "a list".to_owned(),
    }
}

/// A text in quotes, cut to a length that a log line can bear.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    if text.is_empty() {
        return "an empty value".to_owned();
    }
    let mut cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

fn number(value: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "only shown, or refused by its range")]
    value.to_f64().or_else(|| value.to_i128().map(|n| n as f64))
}

/// The text of a string value.
pub(crate) fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::String(_, text) => Some(text),
        _ => None,
    }
}

fn boolean(value: &Value, text: bool) -> Result<Typed, Problem> {
    match (value, text_of(value).map(str::trim)) {
        (Value::Bool(_, truth), _) => Ok(Typed::Bool(*truth)),
        (_, Some("true")) if text => Ok(Typed::Bool(true)),
        (_, Some("false")) if text => Ok(Typed::Bool(false)),
        _ => Err(Problem::new(shown(value), "true or false")),
    }
}

fn integer(value: &Value, text: bool, min: u64, max: u64) -> Result<Typed, Problem> {
    let read = match value {
        Value::String(_, digits) if text => digits.trim().parse().ok(),
        Value::Num(..) => value
            .to_i128()
            .and_then(|n| u64::try_from(n).ok())
            .or_else(|| value.to_u128().and_then(|n| u64::try_from(n).ok())),
        _ => None,
    };
    read.filter(|n| (min..=max).contains(n))
        .map(Typed::Integer)
        .ok_or_else(|| Problem::new(shown(value), format!("a whole number from {min} to {max}")))
}

fn duration(value: &Value, text: bool, min: u64, max: u64) -> Result<Typed, Problem> {
    let whole = |digits: &str, unit: u64| {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        digits.parse::<u64>().ok().filter(|_| plain).and_then(|n| n.checked_mul(unit))
    };
    let ms = match value {
        Value::String(_, written) => {
            let written = written.trim();
            [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
                .into_iter()
                .find_map(|(unit, ms)| whole(written.strip_suffix(unit)?, ms))
                .or_else(|| whole(written, 1_000).filter(|_| text))
        }
        Value::Num(..) => {
            value.to_i128().and_then(|n| u64::try_from(n).ok()).and_then(|n| n.checked_mul(1_000))
        }
        _ => None,
    };
    ms.filter(|ms| (min..=max).contains(ms))
        .map(|ms| Typed::Duration(Duration::from_millis(ms)))
        .ok_or_else(|| {
            let (min, max) = (duration_text(min), duration_text(max));
            Problem::new(
                shown(value),
                format!("a duration from {min} to {max}: a whole number with ms, s, m or h, such as \"30s\""),
            )
        })
}

/// A percentage; the same rule for the rollout and for caps.
pub(crate) fn percentage(value: &Value, text: bool) -> Result<Percentage, Problem> {
    let read = match value {
        Value::String(_, written) if text => written.parse(),
        Value::Num(_, figment::value::Num::F64(n)) => Percentage::from_f64(*n),
        Value::Num(_, figment::value::Num::F32(n)) => Percentage::from_f64(f64::from(*n)),
        Value::Num(..) => value
            .to_i128()
            .and_then(|n| u8::try_from(n).ok())
            .and_then(Percentage::from_whole)
            .ok_or(NotAPercentage),
        _ => Err(NotAPercentage),
    };
    read.map_err(|allowed| Problem::new(shown(value), allowed.to_string()))
}

fn choice(
    value: &Value,
    allowed: &'static [&'static str],
    refused: &'static [(&'static str, &'static str)],
) -> Result<Typed, Problem> {
    let written = text_of(value).map(str::trim);
    if let Some(word) = allowed.iter().find(|word| written == Some(**word)) {
        return Ok(Typed::Text((*word).to_owned()));
    }
    if let Some((_, why)) = refused.iter().find(|(word, _)| written == Some(*word)) {
        return Err(Problem::new(shown(value), *why));
    }
    let words: Vec<_> = allowed.iter().map(|word| format!("{word:?}")).collect();
    Err(Problem::new(shown(value), words.join(" or ")))
}

fn plain(value: &Value, min: usize, max: usize) -> Result<Typed, Problem> {
    text_of(value)
        .filter(|text| (min..=max).contains(&text.chars().count()))
        .filter(|text| !text.chars().any(char::is_control))
        .map(|text| Typed::Text(text.to_owned()))
        .ok_or_else(|| {
            let allowed = format!("text of {min} to {max} characters, no control characters");
            Problem::new(shown(value), allowed)
        })
}

fn address(value: &Value) -> Result<Typed, Problem> {
    text_of(value)
        .and_then(|text| text.trim().parse().ok())
        .map(Typed::Address)
        .ok_or_else(|| Problem::new(shown(value), "an address and port, such as \"0.0.0.0:8000\""))
}

/// One secret; an empty text is none. Nothing of it is shown.
fn secret(value: &Value, header: bool, min: usize) -> Result<Typed, Problem> {
    let Some(text) = text_of(value) else {
        return Err(Problem::new("no text (not shown)", "a text"));
    };
    if text.is_empty() {
        return Ok(Typed::Secrets(Vec::new()));
    }
    if header && !is_header_text(text) {
        return Err(Problem::new(
            "white space or unusual characters (not shown)",
            "visible ASCII characters, nothing around them",
        ));
    }
    if text.len() < min {
        return Err(Problem::new(
            "a shorter text (not shown)",
            format!("at least {min} characters"),
        ));
    }
    Ok(Typed::Secrets(vec![Secret::new(text)]))
}

fn secrets(value: &Value) -> Result<Typed, Vec<Problem>> {
    let Value::Array(_, list) = value else {
        return secret(value, true, 1).map_err(|problem| vec![problem]);
    };
    let mut keys = Vec::new();
    let mut problems = Vec::new();
    for (i, item) in list.iter().enumerate() {
        match secret(item, true, 1) {
            Ok(Typed::Secrets(one)) => keys.extend(one),
            Ok(_) => {}
            Err(problem) => problems.push(problem.at(format!("[{i}]"))),
        }
    }
    if problems.is_empty() { Ok(Typed::Secrets(keys)) } else { Err(problems) }
}

fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn url(value: &Value) -> Result<Typed, Problem> {
    match text_of(value).map(str::trim) {
        Some("") => Ok(Typed::Absent),
        Some(text) => {
            Url::parse(text).map(Typed::Url).map_err(|found| Problem::new(found, project::ALLOWED))
        }
        None => Err(Problem::new(shown(value), project::ALLOWED)),
    }
}

fn host(value: &Value) -> Result<Typed, Problem> {
    match text_of(value) {
        Some("") => Ok(Typed::Absent),
        Some(text) if !text.contains('@') && text.parse::<Authority>().is_ok() => {
            Ok(Typed::Text(text.to_owned()))
        }
        _ => Err(Problem::new(shown(value), "a host, or host:port")),
    }
}

fn schema(value: &Value, empty: bool) -> Result<Typed, Problem> {
    text_of(value)
        .filter(|name| tables::is_schema(name) || (empty && name.is_empty()))
        .map(|name| Typed::Text(name.to_owned()))
        .ok_or_else(|| {
            let or_none = if empty { ", or \"\" for none" } else { "" };
            Problem::new(shown(value), format!("{}{or_none}", tables::NAME))
        })
}

fn header(value: &Value) -> Result<Typed, Problem> {
    text_of(value)
        .and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok())
        .map(Typed::Header)
        .ok_or_else(|| Problem::new(shown(value), "the name of a header"))
}

fn filter(value: &Value) -> Result<Typed, Problem> {
    text_of(value)
        .filter(|text| !text.is_empty())
        .filter(|text| tracing_subscriber::EnvFilter::try_new(text).is_ok())
        .map(|text| Typed::Text(text.to_owned()))
        .ok_or_else(|| {
            let allowed =
                "error, warn, info, debug, trace, or a filter such as \"info,cutover=debug\"";
            Problem::new(shown(value), allowed)
        })
}
