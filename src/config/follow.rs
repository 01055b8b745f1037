//! The ConfigMap as a source: which version counts, what is wrong with the newest, and the epoch that all replicas share.
//!
//! The annotation holds the highest epoch that any replica has reached. A version that is applied lifts the own epoch to it, a
//! replica that is ahead of it raises it, and so all come to the same number. It never goes down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::configmap::{ConfigMapState, Patch, Store, Version};
use super::fault::{Fault, Faults};
use super::live::Control;
use super::load::{Attempt, Given, Overlay, load};
use super::state::{By, State};
use super::variables;

pub(super) const PERCENTAGE: &str = "rollout.percentage";
pub(super) const FORCE: &str = "rollout.force";

/// A ConfigMap to follow from the start on.
pub struct Follow {
    /// `namespace/name`.
    pub name: String,
    /// Reads and writes it.
    pub store: Arc<dyn Store>,
    /// What it says now.
    pub first: First,
}

/// The API's first word.
#[derive(Clone, Debug)]
pub enum First {
    /// The ConfigMap.
    Version(Version),
    /// There is none of that name.
    Missing,
    /// No answer in time.
    Silence,
}

/// What is known of the ConfigMap.
pub(super) struct Remote {
    /// `configmap namespace/name`.
    pub(super) name: String,
    pub(super) store: Arc<dyn Store>,
    /// The version whose settings count: the last good one.
    pub(super) good: Option<Arc<Version>>,
    /// What the API said last.
    pub(super) latest: Option<Arc<Version>>,
    /// Every key that was ever in it, see [`Given`].
    mentioned: BTreeSet<String>,
    /// What is wrong with `latest`.
    pub(super) faults: Vec<Fault>,
}

impl Remote {
    pub(super) fn new(follow: Follow) -> Self {
        let mut remote = Self {
            name: format!("configmap {}", follow.name),
            store: follow.store,
            good: None,
            latest: None,
            mentioned: BTreeSet::new(),
            faults: Vec::new(),
        };
        match follow.first {
            First::Version(version) => remote.take(Arc::new(version)),
            First::Missing => remote.lose(),
            First::Silence => {}
        }
        remote
    }

    pub(super) fn given(&self, version: &Version) -> Given {
        let mut mentioned = self.mentioned.clone();
        mentioned.extend(version.data.keys().cloned());
        Given { name: self.name.clone(), data: version.data.clone(), mentioned }
    }

    /// What is worth a word: the API is away.
    pub(super) fn warning(&self) -> Option<String> {
        let trouble = self.store.contact().trouble?;
        let stands = if self.good.is_some() {
            "its last word stands"
        } else {
            "what stands is what the other sources say, such as the mounted volume"
        };
        Some(format!("the Kubernetes API is not heard ({trouble}): {}: {stands}", self.name))
    }

    /// The ConfigMap is gone; its last word stands.
    fn lose(&mut self) {
        let allowed = "a ConfigMap: it was deleted, or never made; its last good settings stay";
        self.faults = vec![Fault::new(&self.name, "", "nothing", allowed)];
    }

    /// A key that held the number must not vanish: an older one, of a source below, would come into force.
    fn vanished(&self, version: &Version) -> Vec<Fault> {
        let of = |data: &BTreeMap<String, String>, key: &str| {
            let found = data.iter().find(|(name, _)| variables::sets(name, key));
            found.map(|(name, value)| (name.clone(), value.trim().is_empty()))
        };
        let Some(good) = &self.good else { return Vec::new() };
        let keys = [PERCENTAGE, FORCE].into_iter();
        let gone = keys.filter_map(|key| match (of(&good.data, key), of(&version.data, key)) {
            (Some((name, false)), None) => Some((key, name)),
            _ => None,
        });
        gone.map(|(key, name)| {
            let allowed =
                format!("{name} with a value: without it an older one could come into force");
            Fault::new(&self.name, key, "nothing, where a value was", allowed)
        })
        .collect()
    }

    /// How a variable of this ConfigMap is called that sets `key`.
    pub(super) fn variable(&self, key: &str) -> String {
        let names = self.latest.iter().flat_map(|version| version.data.keys());
        let own = names.into_iter().find(|name| variables::sets(name, key));
        own.cloned().unwrap_or_else(|| variables::preferred_name(key))
    }

    /// Notes a version as what counts.
    pub(super) fn take(&mut self, version: Arc<Version>) {
        self.mentioned.extend(version.data.keys().cloned());
        self.latest = Some(Arc::clone(&version));
        self.good = Some(version);
        self.faults.clear();
    }

    /// Whether `version` is older than what is known. Resource versions are opaque; where both are numbers, as with every API server
    /// there is, they grow.
    fn is_older(&self, version: &Version) -> bool {
        let number = |version: &Version| version.revision.parse::<u64>().ok();
        let known = self.latest.as_deref().and_then(number);
        known.zip(number(version)).is_some_and(|(known, new)| new < known)
    }
}

impl State {
    /// What counts of the ConfigMap, for a load.
    pub(super) fn overlay(&self) -> Overlay {
        let remote = self.remote.as_ref();
        let given = remote.and_then(|remote| remote.good.as_ref().map(|good| remote.given(good)));
        Overlay { configmap: given, ..Overlay::default() }
    }

    /// The epoch that the counting version asks for; 0 without one.
    pub(super) fn shared_epoch(&self) -> u64 {
        let good = self.remote.as_ref().and_then(|remote| remote.good.as_ref());
        good.map_or(0, |good| good.epoch)
    }
}

impl Control {
    /// How many writes of our own have gone to the ConfigMap, or met somebody else's: a list that began before one of them may not
    /// know of it.
    #[must_use]
    pub fn configmap_writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// Takes a version that the API told of. `listed`: the number of [`Control::configmap_writes`] when the list was asked for that
    /// it comes from; `None`: the watch told it. A version with faults changes nothing, and is shown.
    ///
    /// Answers whether it was of use; a list that was not has to be asked for again.
    pub fn configmap_seen(&self, version: Version, listed: Option<u64>) -> bool {
        let mut state = self.lock();
        let Some(remote) = &state.remote else { return true };
        // The word of a list outranks numbers, so that a cluster restored from a backup is believed; not one that began before we wrote.
        let is_late = listed.is_none_or(|before| before != self.configmap_writes());
        if is_late && remote.is_older(&version) {
            return listed.is_none();
        }
        self.take_version(&mut state, version);
        true
    }

    /// Notes that the ConfigMap does not exist (any more). Nothing changes; the fault is shown.
    pub fn configmap_gone(&self) {
        let mut state = self.lock();
        let Some(remote) = &mut state.remote else { return };
        let known = std::mem::take(&mut remote.faults);
        remote.lose();
        if remote.faults != known {
            let faults = Faults(remote.faults.clone());
            state.note_refusal(&faults);
        }
    }

    /// The patch that raises the annotation to the epoch of this process; `None` when it stands there already.
    #[must_use]
    pub fn configmap_behind(&self) -> Option<Patch> {
        let state = self.lock();
        let latest = state.remote.as_ref()?.latest.as_ref()?;
        let epoch = self.live().load().epoch;
        (epoch > latest.epoch).then(|| Patch {
            revision: latest.revision.clone(),
            data: BTreeMap::new(),
            epoch,
            said: None,
        })
    }

    /// How it stands with the ConfigMap; `None` when there is none to follow.
    #[must_use]
    pub fn configmap(&self) -> Option<ConfigMapState> {
        let (name, store, revision) = {
            let state = self.lock();
            let remote = state.remote.as_ref()?;
            let good = remote.good.as_ref().map(|good| good.revision.clone());
            (remote.name.clone(), Arc::clone(&remote.store), good)
        };
        let contact = store.contact();
        Some(ConfigMapState {
            configmap: name.trim_start_matches("configmap ").to_owned(),
            revision,
            connected: contact.connected,
            last_heard_seconds: contact
                .heard
                .map(|heard| (heard.as_secs_f64() * 1_000.0).round() / 1_000.0),
            trouble: contact.trouble.clone(),
            contact,
        })
    }

    /// Applies a version, or notes what is wrong with it.
    pub(super) fn take_version(&self, state: &mut State, version: Version) {
        let Some(remote) = &mut state.remote else { return };
        let version = Arc::new(version);
        let known = remote.latest.replace(Arc::clone(&version));
        remote.mentioned.extend(version.data.keys().cloned());
        if remote.good.as_ref().is_some_and(|good| good.data == version.data) {
            remote.take(version);
            self.lift(state);
            return;
        }
        // Its words are the version's own only if they came with it: a change by hand leaves the older ones standing.
        let is_ours = known.is_none_or(|known| known.epoch < version.epoch);
        let said = version.said.clone().filter(|_| is_ours);
        if let Err(faults) = self.try_version(state, version, said.as_ref()) {
            let Some(remote) = &mut state.remote else { return };
            if remote.faults != faults.0 {
                remote.faults.clone_from(&faults.0);
                state.note_refusal(&faults);
            }
        }
    }

    /// Loads everything with this version, and adopts it if it is good.
    fn try_version(
        &self,
        state: &mut State,
        version: Arc<Version>,
        said: Option<&super::configmap::Said>,
    ) -> Result<(), Faults> {
        let Some(remote) = &state.remote else { return Ok(()) };
        let gone = remote.vanished(&version);
        if !gone.is_empty() {
            return Err(Faults(gone));
        }
        let overlay = Overlay { configmap: Some(remote.given(&version)), ..Overlay::default() };
        let Attempt { watched, outcome } = load(&self.sources, state.file.is_some(), &overlay);
        state.watched = watched;
        let loaded = outcome?;
        state.refuse_reshuffle(&loaded.merged)?;
        if let Some(remote) = &mut state.remote {
            remote.take(version);
        }
        let by = By {
            actor: said.map_or("configmap", |said| &said.actor),
            reason: said.map_or("", |said| &said.reason),
        };
        self.adopt(state, loaded, &by);
        // A version that changes nothing here, because another source hides what it says, has an epoch all the same.
        self.lift(state);
        Ok(())
    }

    /// A version that was refused may be good together with what stands in the files now.
    pub(super) fn retry_version(&self, state: &mut State) {
        let Some(remote) = &state.remote else { return };
        let (Some(latest), good) = (remote.latest.clone(), &remote.good) else { return };
        if good.as_ref().is_none_or(|good| good.data != latest.data) {
            let tried = self.try_version(state, latest, None);
            if let (Err(faults), Some(remote)) = (tried, &mut state.remote) {
                remote.faults = faults.0;
            }
        }
    }

    /// Adopts the shared epoch without a change of settings: the same snapshot under a higher number.
    pub(super) fn lift(&self, state: &State) {
        let running = self.live().load_full();
        if running.epoch < state.shared_epoch() {
            let mut snapshot = (*running).clone();
            snapshot.epoch = state.shared_epoch();
            self.swap(Arc::new(snapshot));
        }
    }
}
