//! From [`Control`], which waits, to the thread that speaks with the API.

use std::sync::mpsc as waiting;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::api::{self, Failed, Kind};
use super::watch::Follower;
use crate::config::configmap::{Contact, NotWritten, Patch, Store, Version};
use crate::config::live::{Control, First};
use crate::config::startup::Kubernetes;
use crate::observe::watching::{Failures, WatchFailure};

/// Beyond the limit of a request: the thread answers by itself when that is over.
const MARGIN: Duration = Duration::from_millis(500);

/// What is asked of the thread.
pub(super) enum Command {
    /// Tell this one of every version from now on.
    Follow(Weak<Control>),
    Write(Patch, waiting::SyncSender<Result<Version, NotWritten>>),
    Read(waiting::SyncSender<Result<Version, NotWritten>>),
}

/// The other end of the thread. Dropping it ends the thread.
pub(super) struct Link {
    /// `namespace/name`
    name: String,
    commands: mpsc::UnboundedSender<Command>,
    first: Mutex<Option<waiting::Receiver<First>>>,
    facts: Arc<Facts>,
    start_timeout: Duration,
    write_timeout: Duration,
}

/// What the thread knows of the watch. Never locked for longer than a copy takes.
#[derive(Default)]
pub(super) struct Facts(Mutex<Known>);

#[derive(Default)]
struct Known {
    heard: Option<Instant>,
    trouble: Option<String>,
    failures: Failures,
    resyncs: u64,
}

impl Link {
    /// Starts the thread.
    pub(super) fn start(settings: Kubernetes) -> Self {
        let (commands, asked) = mpsc::unbounded_channel();
        let (say_first, first) = waiting::sync_channel(1);
        let facts = Arc::new(Facts::default());
        let link = Self {
            name: format!("{}/{}", api::namespace(&settings), settings.name),
            commands,
            first: Mutex::new(Some(first)),
            facts: Arc::clone(&facts),
            start_timeout: settings.start_timeout,
            write_timeout: settings.write_timeout,
        };
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => {
                    let follower = Follower::new(settings, facts);
                    LocalSet::new().block_on(&runtime, follower.run(asked, say_first));
                }
                Err(error) => tracing::error!(%error, "the ConfigMap can't be followed"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("cutover-k8s".to_owned()).spawn(run) {
            tracing::error!(%error, "the ConfigMap can't be followed");
        }
        link
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the API's first word.
    pub(super) fn first_word(&self) -> First {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let word = first.and_then(|first| first.recv_timeout(self.start_timeout).ok());
        word.unwrap_or(First::Silence)
    }

    /// Tells `control` of every version from now on.
    pub(super) fn follow(&self, control: &Arc<Control>) {
        // A thread that is gone has said so.
        _ = self.commands.send(Command::Follow(Arc::downgrade(control)));
    }

    fn ask(
        &self,
        command: impl FnOnce(waiting::SyncSender<Result<Version, NotWritten>>) -> Command,
    ) -> Result<Version, NotWritten> {
        let (answer, answered) = waiting::sync_channel(1);
        _ = self.commands.send(command(answer));
        let silence = |_| Err(NotWritten::Away("no answer in time".to_owned()));
        answered.recv_timeout(self.write_timeout + MARGIN).unwrap_or_else(silence)
    }
}

impl Store for Link {
    fn write(&self, patch: Patch) -> Result<Version, NotWritten> {
        self.ask(|answer| Command::Write(patch, answer))
    }

    fn read(&self) -> Result<Version, NotWritten> {
        self.ask(Command::Read)
    }

    fn contact(&self) -> Contact {
        let known = self.facts.known();
        Contact {
            heard: known.heard.map(|heard| heard.elapsed()),
            connected: known.heard.is_some() && known.trouble.is_none(),
            trouble: known.trouble.clone(),
            failures: known.failures,
            resyncs: known.resyncs,
        }
    }
}

impl Failed {
    /// What it means to somebody who wanted to write.
    pub(super) fn for_writer(self) -> NotWritten {
        match self.kind {
            Kind::Conflict => NotWritten::Conflict,
            Kind::Refused => NotWritten::Refused(self.why),
            Kind::Watch(WatchFailure::Forbidden | WatchFailure::Missing) => {
                NotWritten::Refused(self.why)
            }
            Kind::Watch(_) => NotWritten::Away(self.why),
        }
    }
}

impl Facts {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A word of the API. Whether it was away before.
    pub(super) fn hear(&self) -> bool {
        let mut known = self.known();
        known.heard = Some(Instant::now());
        known.trouble.take().is_some()
    }

    pub(super) fn count_list(&self) {
        self.known().resyncs += 1;
    }

    pub(super) fn count(&self, kind: WatchFailure) {
        self.known().failures[kind as usize] += 1;
    }

    /// Something is wrong from now on. Whether that is news.
    pub(super) fn suffer(&self, why: &str) -> bool {
        self.known().trouble.replace(why.to_owned()).is_none()
    }
}
