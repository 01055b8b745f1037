//! List, watch, back off, list again.
//!
//! A watch ends by itself after `watch_timeout`, because the API was asked to end it, and goes on from the last revision. One that is
//! silent beyond that is on a dead connection. 410 means that the revision is forgotten: everything is listed again. What
//! fails is tried again with growing pauses that no two replicas share.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc as waiting;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use rand::Rng as _;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::api::{Failed, Kind, Listed, Place, Word};
use super::link::{Command, Facts};
use crate::config::configmap::{NotWritten, Patch, Version};
use crate::config::live::{Control, First};
use crate::config::startup::Kubernetes;
use crate::observe::watching::WatchFailure;

/// The first pause after a failure; each further one is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Chores that failed are done again after so many times the limit of a write, or half of that: the writer is locked while it waits
/// for the API, and must be free for most of the time.
const CHORES_AGAIN: u32 = 4;
/// How long a watch may be late with its end, at least.
const LEAST_GRACE: Duration = Duration::from_secs(1);

/// The one who follows.
pub(super) struct Follower {
    settings: Kubernetes,
    facts: Arc<Facts>,
    place: RefCell<Option<Place>>,
    /// Told after every version: held aborts are written then, and epochs raised.
    chores: Notify,
    /// Told when a write went well: then the API is there, and a pause is over.
    awake: Notify,
}

/// Why a watch ended, when nothing was wrong with it.
enum Ended {
    /// Go on from the same revision.
    Resume,
    /// List everything again.
    List,
}

impl Follower {
    pub(super) fn new(settings: Kubernetes, facts: Arc<Facts>) -> Self {
        let place = RefCell::default();
        Self { settings, facts, place, chores: Notify::new(), awake: Notify::new() }
    }

    /// Until the other end of `commands` is gone.
    pub(super) async fn run(
        self,
        mut commands: mpsc::UnboundedReceiver<Command>,
        first: waiting::SyncSender<First>,
    ) {
        let this = Rc::new(self);
        let (say, mut control) = watch::channel(None::<Weak<Control>>);
        let serving = async {
            while let Some(command) = commands.recv().await {
                match command {
                    Command::Follow(control) => _ = say.send_replace(Some(control)),
                    other => _ = tokio::task::spawn_local(Rc::clone(&this).serve(other)),
                }
            }
        };
        let following = async {
            // An answer that nobody waits for any more is no loss: the ConfigMap is listed again below.
            tokio::select! {
                word = this.first_word() => { _ = first.send(word); }
                _ = control.wait_for(Option::is_some) => {}
            }
            let control = match control.wait_for(Option::is_some).await {
                Ok(control) => control.clone().unwrap_or_default(),
                Err(_) => return,
            };
            tokio::join!(this.follow(&control), this.do_chores(&control));
        };
        tokio::select! {
            () = serving => {}
            () = following => {}
        }
    }

    /// The client, made when it is first needed: a service account's files may come late.
    fn place(&self) -> Result<Place, Failed> {
        if let Some(place) = &*self.place.borrow() {
            return Ok(place.clone());
        }
        let place = Place::new(&self.settings)?;
        Ok(self.place.borrow_mut().insert(place).clone())
    }

    async fn serve(self: Rc<Self>, command: Command) {
        let (answer, done) = match command {
            Command::Follow(_) => return,
            Command::Read(answer) => (answer, self.read().await),
            Command::Write(patch, answer) => (answer, self.write(&patch).await),
        };
        let done = done.map_err(|failed| {
            self.count(&failed);
            failed.for_writer()
        });
        if matches!(done, Ok(_) | Err(NotWritten::Conflict)) {
            self.awake.notify_one();
        }
        // Whoever asked may have given up.
        _ = answer.send(done);
    }

    async fn read(&self) -> Result<Version, Failed> {
        self.place()?.get(self.settings.write_timeout).await
    }

    async fn write(&self, patch: &Patch) -> Result<Version, Failed> {
        self.place()?.patch(patch, self.settings.write_timeout).await
    }

    async fn first_word(&self) -> First {
        let mut pause = Pause::default();
        loop {
            match self.list().await {
                Ok(Listed { version: Some(version), .. }) => return First::Version(version),
                Ok(_) => return First::Missing,
                Err(failed) => self.suffer(&failed),
            }
            sleep(pause.next()).await;
        }
    }

    async fn list(&self) -> Result<Listed, Failed> {
        let listed = self.place()?.list(self.settings.write_timeout).await?;
        self.facts.count_list();
        self.hear();
        Ok(listed)
    }

    /// Follows the ConfigMap as long as `control` lives.
    async fn follow(&self, control: &Weak<Control>) {
        let mut pause = Pause::default();
        while control.strong_count() > 0 {
            match self.list_and_watch(control, &mut pause).await {
                Ok(()) => {}
                Err(Failed { kind: Kind::Watch(WatchFailure::Gone), why }) => {
                    self.facts.count(WatchFailure::Gone);
                    tracing::debug!(why, "the ConfigMap is listed again");
                }
                Err(failed) => self.suffer(&failed),
            }
            tokio::select! {
                () = sleep(pause.next()) => {}
                () = self.awake.notified() => pause = Pause::default(),
            }
        }
    }

    /// One list, and watches behind it until something fails or it is time to list again.
    async fn list_and_watch(
        &self,
        control: &Weak<Control>,
        pause: &mut Pause,
    ) -> Result<(), Failed> {
        let writes = control.upgrade().map(|control| control.configmap_writes());
        let Listed { version, revision: mut at } = self.list().await?;
        let is_known = match version {
            Some(version) => self.tell(control, version, writes).await,
            None => {
                self.facts.count(WatchFailure::Missing);
                blocking(control, Control::configmap_gone).await;
                true
            }
        };
        if !is_known {
            return Ok(());
        }
        let listed_until = Instant::now() + self.settings.resync;
        while Instant::now() < listed_until && control.strong_count() > 0 {
            let begun = Instant::now();
            let before = at.clone();
            match self.watch(control, &mut at).await? {
                Ended::List => return Ok(()),
                Ended::Resume => {}
            }
            if begun.elapsed() + LEAST_GRACE >= self.settings.watch_timeout || at != before {
                *pause = Pause::default();
            } else {
                // It was cut, and nothing was heard: the API may be on its way down.
                self.facts.count(WatchFailure::Unreachable);
                sleep(pause.next()).await;
            }
        }
        *pause = Pause::default();
        Ok(())
    }

    /// One watch, to its end.
    async fn watch(&self, control: &Weak<Control>, at: &mut String) -> Result<Ended, Failed> {
        let settings = &self.settings;
        let grace = (settings.watch_timeout / 5).max(LEAST_GRACE);
        let words = self.place()?.watch(at, settings.write_timeout).await?;
        let dead = Instant::now() + settings.watch_timeout + grace;
        let mut words = pin!(words);
        self.hear();
        loop {
            let Ok(word) = timeout_at(dead, words.next()).await else {
                let why = format!("the watch was silent for {:?}", settings.watch_timeout + grace);
                return Err(Failed { kind: Kind::Watch(WatchFailure::Silent), why });
            };
            let Some(word) = word else {
                // At its time, or cut: the next one tells.
                return Ok(Ended::Resume);
            };
            let (word, revision) = word?;
            self.hear();
            if let Some(revision) = revision.filter(|revision| !revision.is_empty()) {
                *at = revision;
            }
            match word {
                Word::Is(version) => {
                    if !self.tell(control, version, None).await {
                        return Ok(Ended::List);
                    }
                }
                Word::Gone => blocking(control, Control::configmap_gone).await.unwrap_or_default(),
                Word::Bookmark => {}
            }
        }
    }

    /// Hands a version on; whether it was of use.
    async fn tell(&self, control: &Weak<Control>, version: Version, listed: Option<u64>) -> bool {
        let seen = move |control: &Control| control.configmap_seen(version, listed);
        let is_known = blocking(control, seen).await.unwrap_or(true);
        self.chores.notify_one();
        is_known
    }

    /// Writes what is held in memory, and raises the shared epoch to the own one: after each version, after each change, and again when
    /// that failed, because an API that refuses to write may be one that is heard all the time.
    async fn do_chores(&self, control: &Weak<Control>) {
        let Some(mut epochs) = control.upgrade().map(|control| control.subscribe()) else { return };
        let mut is_done = true;
        loop {
            let again = Pause(self.settings.write_timeout * CHORES_AGAIN).next();
            tokio::select! {
                () = self.chores.notified() => {}
                changed = epochs.changed() => if changed.is_err() { return },
                () = sleep(again), if !is_done => {}
            }
            let is_written = blocking(control, Control::write_held).await.unwrap_or(true);
            is_done = self.raise_epoch(control).await && is_written;
        }
    }

    /// Raises the shared epoch to the own one. Whether it stands there now, or the watch will tell.
    async fn raise_epoch(&self, control: &Weak<Control>) -> bool {
        let Some(Some(patch)) = blocking(control, Control::configmap_behind).await else {
            return true;
        };
        match self.write(&patch).await {
            Ok(version) => _ = self.tell(control, version, None).await,
            // Somebody else was faster: the watch brings what they wrote.
            Err(Failed { kind: Kind::Conflict, .. }) => {}
            Err(failed) => {
                self.suffer_writing(&failed);
                return false;
            }
        }
        true
    }

    fn hear(&self) {
        if self.facts.hear() {
            tracing::info!("the Kubernetes API is heard again");
        }
    }

    fn count(&self, failed: &Failed) {
        if let Kind::Watch(kind) = failed.kind {
            self.facts.count(kind);
        }
    }

    fn suffer(&self, failed: &Failed) {
        self.count(failed);
        if self.facts.suffer(&failed.why) {
            let error = &failed.why;
            tracing::warn!(error, "the Kubernetes API is not heard; the last number stands");
        }
    }

    /// The epoch could not be raised, which only comparing replicas notices.
    fn suffer_writing(&self, failed: &Failed) {
        self.count(failed);
        tracing::debug!(error = failed.why, "the shared epoch was not raised");
    }
}

/// Asks the writer where waiting is allowed; `None` when it is gone.
async fn blocking<T: Send + 'static>(
    control: &Weak<Control>,
    question: impl FnOnce(&Control) -> T + Send + 'static,
) -> Option<T> {
    let control = control.upgrade()?;
    tokio::task::spawn_blocking(move || question(&control)).await.ok()
}

/// Growing pauses, each between half and all of its length, so that replicas do not ask in step.
struct Pause(Duration);

impl Default for Pause {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Pause {
    fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let mut pause = Pause::default();
        let pauses: Vec<Duration> = (0..20).map(|_| pause.next()).collect();
        assert!(pauses[0] >= FIRST_PAUSE / 2 && pauses[0] <= FIRST_PAUSE, "{pauses:?}");
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE), "{pauses:?}");
        assert!(pauses[19] >= LONGEST_PAUSE / 2, "{pauses:?}");
    }
}
