//! All layers as one: the value of every key, and the layer that holds it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use figment::value::Value;
use figment::{Figment, Profile, Provider as _};

use super::keys::{KEYS, Key};
use super::layers::{Layer, Place, toml_value};
use super::value::{self, Typed};
use crate::decide::percentage::Percentage;
use crate::rewrite::schema::Entry;
use crate::secret::Secret;
use crate::side::Side;

/// All layers as one: the typed value of every key, and the layer that holds it.
pub(crate) struct Merged {
    pub(crate) values: BTreeMap<&'static str, Typed>,
    pub(crate) layers: Vec<Layer>,
    holders: BTreeMap<&'static str, usize>,
}

impl Merged {
    /// Merges layers, lowest first. Values that can't be parsed were reported by [`Layer::check`]; they become the
    /// default here, so that the rest can be checked too.
    pub(crate) fn new(layers: Vec<Layer>) -> Self {
        let figment = layers.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        // Asked for once: figment merges anew for every question.
        let merged = figment.data().ok().and_then(|mut data| data.remove(&Profile::Default));
        let merged = Value::from(merged.unwrap_or_default());
        let (mut values, mut holders) = (BTreeMap::new(), BTreeMap::new());
        for key in KEYS {
            let found = merged.find_ref(key.name);
            let fallback = || key.default.and_then(toml_value);
            let typed = found
                .and_then(|value| value::parse(key, value, true).ok())
                .or_else(|| fallback().and_then(|value| value::parse(key, &value, true).ok()));
            values.insert(key.name, typed.unwrap_or(Typed::Absent));
            let metadata = found.and_then(|value| figment.get_metadata(value.tag()));
            let layer =
                metadata.and_then(|metadata| layers.iter().position(|l| l.name == metadata.name));
            holders.insert(key.name, layer.unwrap_or_default());
        }
        Self { values, layers, holders }
    }

    /// The layer that holds `key`.
    pub(crate) fn holder(&self, key: &str) -> &Layer {
        &self.layers[self.holders.get(key).copied().unwrap_or_default()]
    }

    /// Which source holds `key`, without a line, which would be wrong after the next edit.
    pub(crate) fn holder_name(&self, key: &str) -> String {
        let layer = self.holder(key);
        match (layer.place, layer.origin(key).and_then(|origin| origin.variable.as_ref())) {
            (Place::WatchDir, Some(variable)) => format!("{}/{variable}", layer.name),
            (Place::Environment, Some(variable)) => format!("{variable} ({})", layer.name),
            _ => layer.name.clone(),
        }
    }

    /// Where the value of `key` was written.
    pub(crate) fn source(&self, key: &str) -> String {
        let own = KEYS
            .iter()
            .find(|known| known.name == key)
            .map_or_else(|| Key::owning(key).map_or(key, |table| table.name), |known| known.name);
        self.holder(own).source(key)
    }
}

// === reading typed values ===
// `keys::KEYS` gives each key its kind and a default of that kind, and a test asks for all of them, so that the
// fallbacks below are never seen.

impl Merged {
    /// The typed value of a known key.
    pub(crate) fn value(&self, key: &str) -> &Typed {
        self.values.get(key).unwrap_or(&Typed::Absent)
    }

    /// A text, word or path; empty when absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        match self.value(key) {
            Typed::Text(text) => text,
            _ => "",
        }
    }

    pub(crate) fn truth(&self, key: &str) -> bool {
        matches!(self.value(key), Typed::Bool(true))
    }

    pub(crate) fn texts(&self, key: &str) -> &[String] {
        match self.value(key) {
            Typed::Texts(texts) => texts,
            _ => &[],
        }
    }

    pub(crate) fn secrets(&self, key: &str) -> &[Secret] {
        match self.value(key) {
            Typed::Secrets(secrets) => secrets,
            _ => &[],
        }
    }

    pub(crate) fn entries(&self, key: &str) -> &[Entry] {
        match self.value(key) {
            Typed::Entries(entries) => entries,
            _ => &[],
        }
    }

    /// The sides that names belong to.
    pub(crate) fn owners(&self, key: &str) -> BTreeMap<String, Side> {
        match self.value(key) {
            Typed::Owners(owners) => owners.clone(),
            _ => BTreeMap::new(),
        }
    }

    pub(crate) fn address(&self, key: &str) -> Option<SocketAddr> {
        match self.value(key) {
            Typed::Address(address) => Some(*address),
            _ => None,
        }
    }

    pub(crate) fn percentage(&self) -> Percentage {
        self.share("rollout.percentage")
    }

    pub(crate) fn share(&self, key: &str) -> Percentage {
        match self.value(key) {
            Typed::Percentage(percentage) => *percentage,
            _ => Percentage::ZERO,
        }
    }

    pub(crate) fn force(&self) -> Option<Side> {
        Side::parse(self.text("rollout.force"))
    }

    /// The side where users sign in, and whose tokens therefore have to be good for both.
    pub(crate) fn auth_owner(&self) -> Side {
        Side::parse(self.text("routes.auth")).unwrap_or(Side::Old)
    }

    pub(crate) fn integer(&self, key: &str) -> u64 {
        match self.value(key) {
            Typed::Integer(number) => *number,
            _ => 0,
        }
    }

    pub(crate) fn size(&self, key: &str) -> usize {
        usize::try_from(self.integer(key)).unwrap_or(usize::MAX)
    }

    pub(crate) fn duration(&self, key: &str) -> Duration {
        match self.value(key) {
            Typed::Duration(duration) => *duration,
            _ => Duration::ZERO,
        }
    }
}
