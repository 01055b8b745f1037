//! The layers of settings, and where each value came from. figment merges them; a later layer wins.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};
use toml_edit::{ImDocument, Item};

use super::fault::Fault;
use super::keys::{KEYS, Key};
use super::value::{self, Problem, quoted, shown};
use super::variables::{self, Meaning};

/// The kinds of layer, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Defaults,
    File,
    EnvFile,
    WatchDir,
    ConfigMap,
    Environment,
}

/// Where one value was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) variable: Option<String>,
    pub(crate) file: Option<PathBuf>,
    pub(crate) line: Option<usize>,
}

/// One layer. Not `Debug`: it holds secrets as plain text.
pub(crate) struct Layer {
    pub(crate) place: Place,
    /// How messages call it.
    pub(crate) name: String,
    /// Its file or directory.
    pub(crate) path: Option<PathBuf>,
    dict: Dict,
    origins: BTreeMap<String, Origin>,
}

/// A variable as a layer gets it.
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) origin: Origin,
}

impl Layer {
    /// The built-in defaults.
    pub(crate) fn defaults() -> Self {
        static DICT: LazyLock<Dict> = LazyLock::new(|| {
            let mut dict = Dict::new();
            for key in KEYS {
                if let Some(value) = key.default.and_then(toml_value) {
                    insert(&mut dict, key.name, value);
                }
            }
            dict
        });
        Self { dict: DICT.clone(), ..Self::empty(Place::Defaults, "default") }
    }

    fn empty(place: Place, name: &str) -> Self {
        Self {
            place,
            name: name.to_owned(),
            path: None,
            dict: Dict::new(),
            origins: BTreeMap::new(),
        }
    }

    /// A TOML file. One that can't be read as TOML is one fault.
    pub(crate) fn toml(name: &str, path: &Path, text: &str, faults: &mut Vec<Fault>) -> Self {
        let mut layer = Self { path: Some(path.to_owned()), ..Self::empty(Place::File, name) };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            faults.push(Fault::new(name, "", "an empty file", EMPTY));
            return layer;
        }
        match ImDocument::parse(text) {
            Err(error) => {
                // Only the message: the error's own text shows the line, and with it maybe a key.
                let line = error.span().map(|span| Lines::of(text).at(span.start));
                let source = place(name, line);
                let found = error.message().lines().collect::<Vec<_>>().join("; ");
                faults.push(Fault::new(source, "", found, "valid TOML"));
            }
            Ok(document) => {
                note_lines(document.as_item(), "", &Lines::of(text), &mut layer.origins);
                match Toml::from_str::<Dict>(text) {
                    Ok(dict) => layer.dict = dict,
                    Err(_) => faults.push(Fault::new(name, "", "unreadable TOML", "valid TOML")),
                }
            }
        }
        layer
    }

    /// A layer of variables. `read` gets the text of the file that a `…_FILE` variable names.
    pub(crate) fn variables(
        place: Place,
        (name, path): (&str, Option<PathBuf>),
        variables: Vec<Variable>,
        read: &mut dyn FnMut(&str) -> Result<String, String>,
        faults: &mut Vec<Fault>,
    ) -> Self {
        let mut layer = Self { path, ..Self::empty(place, name) };
        for variable in variables {
            let source = layer.source_of(&variable);
            match variables::meaning(&variable.name) {
                Meaning::Ignored => {}
                Meaning::Unknown { nearest } => {
                    faults.push(Fault::new(
                        source,
                        &variable.name,
                        "an unknown variable",
                        suggest(nearest),
                    ));
                }
                Meaning::Sets { key, path } => {
                    if let Err(fault) = layer.set(key, &path, variable, &source) {
                        faults.push(fault);
                    }
                }
                Meaning::SetsFromFile { key, path } => match read(&variable.value) {
                    Ok(text) => {
                        let value = text.trim_end_matches(['\r', '\n']).to_owned();
                        let variable = Variable { value, ..variable };
                        if let Err(fault) = layer.set(key, &path, variable, &source) {
                            faults.push(fault);
                        }
                    }
                    Err(cause) => faults.push(Fault::new(source, &path, cause, "a readable file")),
                },
            }
        }
        layer
    }

    fn set(
        &mut self,
        key: &Key,
        path: &str,
        variable: Variable,
        source: &str,
    ) -> Result<(), Fault> {
        let Variable { name, value: text, origin } = variable;
        if let Some(first) = self.origins.get(path).and_then(|first| first.variable.as_ref())
            && *first != name
        {
            let found = format!("{first} and {name}");
            return Err(Fault::new(source, path, found, "one variable for one key"));
        }
        if self.place < Place::Environment
            && matches!(path, "rollout.env_file" | "rollout.watch_dir")
        {
            let allowed = "the configuration file, or the process environment: it says where variables are read";
            return Err(Fault::new(source, path, name, allowed));
        }
        if self.place == Place::ConfigMap && path.starts_with("kubernetes.") {
            let allowed = "another source: it says where this ConfigMap is read";
            return Err(Fault::new(source, path, name, allowed));
        }
        let value = if name == variables::FORCE {
            let force = variables::force_of_word(&text).ok_or_else(|| {
                let allowed = "\"production\" (old), \"v2\" (new), or empty";
                Fault::new(source, path, quoted(&text), allowed)
            })?;
            Value::from(force)
        } else if key.is_structured() && text.trim_start().starts_with(['[', '{']) {
            structured(&text).ok_or_else(|| {
                let found = if key.is_secret() {
                    "a broken list (not shown)".into()
                } else {
                    quoted(&text)
                };
                Fault::new(source, path, found, "a value in TOML or JSON")
            })?
        } else {
            Value::from(text)
        };
        // An empty force in the ConfigMap says nothing, so that a force in a file still counts: the abort that works while the API
        // is away.
        let says_nothing = self.place == Place::ConfigMap
            && path == "rollout.force"
            && value.as_str().is_some_and(|text| text.trim().is_empty());
        if !says_nothing {
            insert(&mut self.dict, path, value);
        }
        self.origins.insert(path.to_owned(), Origin { variable: Some(name), ..origin });
        Ok(())
    }

    /// Where `key` was written in this layer, or in which table that holds it.
    pub(crate) fn origin(&self, key: &str) -> Option<&Origin> {
        // `rollout.rules[2].side` stands where its list begins.
        let mut name = key.split('[').next().unwrap_or(key);
        loop {
            if let Some(origin) = self.origins.get(name) {
                return Some(origin);
            }
            name = name.rsplit_once('.')?.0;
        }
    }

    /// The same as text: `config.toml:12`, `SUPABASE_ENV (process environment)`.
    pub(crate) fn source(&self, key: &str) -> String {
        match self.origin(key) {
            None => self.name.clone(),
            Some(origin) => match &origin.variable {
                Some(variable) => self.named(variable, origin),
                None => place(&self.name, origin.line),
            },
        }
    }

    fn source_of(&self, variable: &Variable) -> String {
        self.named(&variable.name, &variable.origin)
    }

    fn named(&self, variable: &str, origin: &Origin) -> String {
        match self.place {
            Place::WatchDir => format!("{}/{variable}", self.name),
            Place::Environment => format!("{variable} ({})", self.name),
            _ => format!("{} ({variable})", place(&self.name, origin.line)),
        }
    }

    /// Checks every value of this layer against its key, also those that a later layer hides.
    pub(crate) fn check(&self, faults: &mut Vec<Fault>) {
        self.check_table("", &self.dict, faults);
    }

    fn check_table(&self, prefix: &str, dict: &Dict, faults: &mut Vec<Fault>) {
        for (name, value) in dict {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if let Some(key) = Key::find(&path) {
                let problems = value::parse(key, value, self.is_text()).err().unwrap_or_default();
                faults.extend(problems.into_iter().map(|problem| self.fault(key, problem)));
            } else if Key::is_section(&path) {
                match value {
                    Value::Dict(_, inner) => self.check_table(&path, inner, faults),
                    other => {
                        let allowed = format!("a table: [{path}]");
                        faults.push(Fault::new(self.source(&path), &path, shown(other), allowed));
                    }
                }
            } else {
                let allowed = suggest(Key::nearest(&path));
                faults.push(Fault::new(self.source(&path), &path, "an unknown key", allowed));
            }
        }
    }

    fn fault(&self, key: &Key, problem: Problem) -> Fault {
        let path = format!("{}{}", key.name, problem.at);
        Fault::new(self.source(&path), &path, problem.found, problem.allowed)
    }

    fn is_text(&self) -> bool {
        self.place >= Place::EnvFile
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.dict.clone())]))
    }
}

const EMPTY: &str =
    "settings, or at least a comment: an empty file is taken for one that is being written";

fn suggest(nearest: Option<&str>) -> String {
    nearest.map_or_else(
        || "a key listed in docs/configuration.md".to_owned(),
        |key| format!("a known key; did you mean {key}?"),
    )
}

fn place(name: &str, line: Option<usize>) -> String {
    line.map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
}

/// A value written as TOML.
pub(crate) fn toml_value(text: &str) -> Option<Value> {
    Toml::from_str::<Dict>(&format!("x = {text}")).ok()?.remove("x")
}

/// A list or table inside a variable: TOML or JSON.
fn structured(text: &str) -> Option<Value> {
    toml_value(text).or_else(|| {
        let json: serde_json::Value = serde_json::from_str(text).ok()?;
        Value::serialize(json).ok()
    })
}

fn insert(dict: &mut Dict, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            dict.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = dict.entry(head.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if !matches!(inner, Value::Dict(..)) {
                *inner = Value::from(Dict::new());
            }
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// The line of an offset, counted from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset)
    }
}

/// Notes the line of every key of a document.
fn note_lines(item: &Item, prefix: &str, lines: &Lines, origins: &mut BTreeMap<String, Origin>) {
    let Some(table) = item.as_table_like() else { return };
    for (name, value) in table.iter() {
        let dotted = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
        let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| value.span());
        let line = span.map(|span| lines.at(span.start));
        let origin = Origin { line, ..Origin::default() };
        origins.insert(dotted.clone(), origin);
        note_lines(value, &dotted, lines, origins);
    }
}
