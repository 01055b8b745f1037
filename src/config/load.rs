//! From the sources on disk and in the environment to checked settings. Reads, and never writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::build::{self, Built};
use super::envfile;
use super::fault::{Fault, Faults};
use super::files;
use super::follow::FORCE;
use super::kubernetes::read as read_kubernetes;
use super::layers::{Layer, Origin, Place, Variable};
use super::live::Sources;
use super::merged::Merged;
use super::startup::Kubernetes;
use super::value::quoted;
use super::variables::{self, Meaning};

/// What a reload works with.
pub(crate) struct Loaded {
    pub(crate) built: Built,
    pub(crate) merged: Merged,
    /// The configuration file, when there is one.
    pub(crate) file: Option<PathBuf>,
}

/// The outcome, and every path that it depends on: those are watched, whether or not the settings are good.
pub(crate) struct Attempt {
    pub(crate) watched: BTreeSet<PathBuf>,
    pub(crate) outcome: Result<Loaded, Faults>,
}

/// What is given instead of being read: a change is checked this way before it is written.
#[derive(Clone, Default)]
pub(crate) struct Overlay {
    /// Texts that stand for files.
    pub(crate) files: BTreeMap<PathBuf, String>,
    /// The ConfigMap, which comes through the API.
    pub(crate) configmap: Option<Given>,
}

/// A ConfigMap's data.
#[derive(Clone)]
pub(crate) struct Given {
    /// How messages call it.
    pub(crate) name: String,
    pub(crate) data: BTreeMap<String, String>,
    /// Every key that the API has told of, also in versions that were refused.
    pub(crate) mentioned: BTreeSet<String>,
}

/// Reads and checks everything. `required`: the configuration file was there before, so that it must be there now;
/// a file that vanishes must not put the defaults (and with them 0 %) into force.
pub(crate) fn load(sources: &Sources, required: bool, overlay: &Overlay) -> Attempt {
    let mut reader = Reader::new(sources, overlay);
    let mut faults = Vec::new();
    let (file, layers) = reader.layers(sources, required, &mut faults);
    for layer in &layers {
        layer.check(&mut faults);
    }
    let merged = Merged::new(layers);
    let mut ca = |path: &Path| reader.read(path);
    let built = build::build(&merged, &sources.directory(), &mut ca, &mut faults);
    let outcome = match built {
        Some(built) if faults.is_empty() => Ok(Loaded { built, merged, file }),
        _ => Err(Faults(faults)),
    };
    Attempt { watched: reader.seen, outcome }
}

/// What the sources say of the ConfigMap and its API; `None` where they name none. Faults are left to the start, which reports all.
pub(crate) fn kubernetes(sources: &Sources) -> Option<Kubernetes> {
    let none = Overlay::default();
    let (_, layers) = Reader::new(sources, &none).layers(sources, false, &mut Vec::new());
    read_kubernetes(&Merged::new(layers), &sources.directory(), &mut Vec::new()).0
}

impl Sources {
    /// The configuration file, whether or not it is there.
    pub(crate) fn path(&self) -> PathBuf {
        let path = self.file.clone().unwrap_or_else(|| PathBuf::from("config.toml"));
        std::path::absolute(&path).unwrap_or(path)
    }

    /// Where relative paths start.
    pub(crate) fn directory(&self) -> PathBuf {
        self.path().parent().map(Path::to_owned).unwrap_or_default()
    }

    /// The configuration file as messages call it: as the operator wrote it.
    pub(crate) fn shown(&self) -> String {
        self.file
            .as_ref()
            .map_or_else(|| "config.toml".to_owned(), |file| file.display().to_string())
    }
}

struct Reader<'a> {
    directory: PathBuf,
    overlay: &'a Overlay,
    seen: BTreeSet<PathBuf>,
}

impl<'a> Reader<'a> {
    fn new(sources: &Sources, overlay: &'a Overlay) -> Self {
        Self { directory: sources.directory(), overlay, seen: BTreeSet::new() }
    }

    fn read(&mut self, path: &Path) -> io::Result<String> {
        let path = self.directory.join(path);
        let text = self.overlay.files.get(&path).cloned().map_or_else(|| files::read(&path), Ok);
        self.seen.insert(path);
        text
    }

    fn layers(
        &mut self,
        sources: &Sources,
        required: bool,
        faults: &mut Vec<Fault>,
    ) -> (Option<PathBuf>, Vec<Layer>) {
        let mut layers = vec![Layer::defaults()];
        let path = sources.path();
        let file = match self.read(&path) {
            Ok(text) => {
                layers.push(Layer::toml(&sources.shown(), &path, &text, faults));
                Some(path)
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && !required
                    && sources.file.is_none() =>
            {
                None
            }
            Err(error) => {
                faults.push(Fault::new(
                    sources.shown(),
                    "",
                    error.to_string(),
                    "a readable TOML file",
                ));
                Some(path)
            }
        };
        let environment = self.environment(sources, faults);
        // Where the two layers between are is said by the layers around them.
        layers.push(environment);
        let around = Merged::new(layers);
        let (env_file, watch_dir) = (
            around.text("rollout.env_file").to_owned(),
            around.text("rollout.watch_dir").to_owned(),
        );
        let named_by = (around.source("rollout.env_file"), around.source("rollout.watch_dir"));
        let mut layers = around.layers;
        let last = layers.len() - 1;
        if let Some(given) = &self.overlay.configmap {
            layers.insert(last, self.configmap(given, faults));
        }
        if !watch_dir.is_empty() {
            layers.insert(last, self.watch_dir(Path::new(&watch_dir), &named_by.1, faults));
        }
        if !env_file.is_empty() {
            layers.insert(last, self.env_file(Path::new(&env_file), &named_by.0, faults));
        }
        (file, layers)
    }

    fn environment(&mut self, sources: &Sources, faults: &mut Vec<Fault>) -> Layer {
        let variables = sources.environment.iter().map(|(name, value)| Variable {
            name: name.clone(),
            value: value.clone(),
            origin: Origin::default(),
        });
        let name = ("process environment", None);
        self.variables(Place::Environment, name, variables.collect(), faults)
    }

    fn variables(
        &mut self,
        place: Place,
        (name, path): (&str, Option<PathBuf>),
        variables: Vec<Variable>,
        faults: &mut Vec<Fault>,
    ) -> Layer {
        let mut read = |path: &str| {
            self.read(Path::new(path)).map_err(|error| format!("{}: {error}", quoted(path)))
        };
        Layer::variables(place, (name, path), variables, &mut read, faults)
    }

    fn env_file(&mut self, path: &Path, named_by: &str, faults: &mut Vec<Fault>) -> Layer {
        let full = self.directory.join(path);
        let name = format!("env file {}", path.display());
        let text = match self.read(path) {
            Ok(text) if text.is_empty() => {
                let allowed =
                    "at least a comment: an empty file is taken for one that is being written";
                faults.push(Fault::new(&name, "", "an empty file", allowed));
                text
            }
            Ok(text) => text,
            Err(error) => {
                let allowed = "a readable file: without it an older number could come into force";
                let found = format!("{}: {error}", quoted(&path.to_string_lossy()));
                faults.push(Fault::new(named_by, "rollout.env_file", found, allowed));
                String::new()
            }
        };
        let (lines, bad) = envfile::parse(&text);
        for number in bad {
            let source = format!("{name}:{number}");
            faults.push(Fault::new(
                source,
                "",
                "a line that sets no variable (not shown)",
                "NAME=value",
            ));
        }
        // Of several lines for one variable the last counts, as in a shell.
        let variables: BTreeMap<_, _> =
            lines.into_iter().map(|line| (line.name.clone(), (line.value, line.number))).collect();
        let variables = variables.into_iter().map(|(name, (value, line))| Variable {
            name,
            value,
            origin: Origin { variable: None, file: Some(full.clone()), line: Some(line) },
        });
        self.variables(Place::EnvFile, (&name, Some(full.clone())), variables.collect(), faults)
    }

    /// Keys that are no variables are somebody else's.
    fn configmap(&mut self, given: &Given, faults: &mut Vec<Fault>) -> Layer {
        let variables = given.data.iter().map(|(name, value)| Variable {
            name: name.clone(),
            value: value.trim_end_matches(['\r', '\n']).to_owned(),
            origin: Origin::default(),
        });
        self.variables(Place::ConfigMap, (&given.name, None), variables.collect(), faults)
    }

    /// Whether a variable in a mounted volume is to be overlooked, because it is an older copy of what the API tells: what the ConfigMap
    /// itself says, be it nothing, is newer, and a fault that was mended there must not live on in the copy.
    fn is_stale(&self, directory: &Path, name: &str) -> bool {
        let Some(given) = &self.overlay.configmap else { return false };
        let told = |other: &String| {
            other == name || (variables::sets(name, FORCE) && variables::sets(other, FORCE))
        };
        given.mentioned.iter().any(told) && directory.join("..data").exists()
    }

    fn watch_dir(&mut self, path: &Path, named_by: &str, faults: &mut Vec<Fault>) -> Layer {
        let full = self.directory.join(path);
        let name = path.display().to_string();
        let mut variables = Vec::new();
        match fs::read_dir(&full) {
            Ok(entries) => {
                let there = entries.flatten().map(|entry| entry.file_name());
                let added = self.overlay.files.keys().filter(|path| path.parent() == Some(&*full));
                let added =
                    added.filter_map(|path| path.file_name().map(std::ffi::OsStr::to_owned));
                let names: BTreeSet<_> = there.chain(added).collect();
                for file in names.iter().filter_map(|file| file.to_str()) {
                    if file.starts_with("..")
                        || matches!(variables::meaning(file), Meaning::Ignored)
                        || self.is_stale(&full, file)
                    {
                        continue;
                    }
                    let path = full.join(file);
                    match self.read(&path) {
                        // The newline at the end of a mounted value is not part of it.
                        Ok(text) => variables.push(Variable {
                            name: file.to_owned(),
                            value: text.trim_end_matches(['\r', '\n']).to_owned(),
                            origin: Origin { variable: None, file: Some(path), line: None },
                        }),
                        Err(error) => {
                            let source = format!("{name}/{file}");
                            faults.push(Fault::new(
                                source,
                                file,
                                error.to_string(),
                                "a readable file",
                            ));
                        }
                    }
                }
            }
            Err(error) => {
                let allowed =
                    "a readable directory: without it an older number could come into force";
                let found = format!("{}: {error}", quoted(&path.to_string_lossy()));
                faults.push(Fault::new(named_by, "rollout.watch_dir", found, allowed));
            }
        }
        self.seen.insert(full.clone());
        self.variables(Place::WatchDir, (&name, Some(full)), variables, faults)
    }
}
