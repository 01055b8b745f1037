//! Watches every source and reloads when one changes: inotify for speed, SIGHUP for operators, and a slow poll for
//! file systems that send no events.
//!
//! Nothing is decided by an event itself: it only says when to look. A file that was closed, renamed, linked or
//! removed is looked at after [`SETTLE`] without further events; one that is still open for writing waits for its
//! close, or [`PATIENCE`]. Settings that are bad are looked at again for [`PATIENCE`] before they are reported, so
//! that a file caught in the middle of being written is no fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::live::Control;

/// Quiet time after an event: a writer that replaces several files, or writes twice, is seen once.
const SETTLE: Duration = Duration::from_millis(2);
/// The longest wait for quiet; a source that is written all the time is still read this often.
const SETTLE_LONGEST: Duration = Duration::from_millis(8);
/// How long a half-written file may stay so without being reported.
const PATIENCE: Duration = Duration::from_millis(50);
/// Between two looks at a bad file within [`PATIENCE`].
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The safety poll.
const POLL: Duration = Duration::from_secs(5);
/// Events waiting to be looked at. When it is full one is dropped: those before it lead to the same look.
const QUEUE: usize = 64;

/// What an event means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// A source is being written.
    Writing,
    /// A source was written, replaced or removed.
    Settled,
}

/// Starts watching, on the tokio runtime that this is called on. Dropping or aborting the handle's task ends it.
///
/// # Errors
/// SIGHUP can't be listened to. A system without inotify is no error: the poll stays.
pub fn spawn(control: Arc<Control>) -> std::io::Result<JoinHandle<()>> {
    let hangup = signal(SignalKind::hangup())?;
    let (hints, queue) = mpsc::channel(QUEUE);
    let mut watch = Watch::new(control, hints);
    // Before this returns: a change right after the start is not missed.
    watch.arm();
    Ok(tokio::spawn(run(watch, queue, hangup)))
}

async fn run(
    mut watch: Watch,
    mut queue: mpsc::Receiver<Hint>,
    mut hangup: tokio::signal::unix::Signal,
) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Some(hint) = queue.recv() => {
                settle(hint, &mut queue).await;
                watch.look_patiently("file").await;
            }
            Some(()) = hangup.recv() => {
                tracing::info!("SIGHUP: reading the settings again");
                watch.look(Look::Reload("signal")).await;
            }
            _ = poll.tick() => watch.look_patiently("file").await,
        }
        if watch.arm() {
            watch.look_patiently("file").await;
        }
    }
}

/// Waits until the writer seems to be done.
async fn settle(first: Hint, queue: &mut mpsc::Receiver<Hint>) {
    let start = Instant::now();
    let mut hint = first;
    loop {
        let (quiet, longest) = match hint {
            Hint::Settled => (SETTLE, SETTLE_LONGEST),
            Hint::Writing => (PATIENCE, PATIENCE),
        };
        let left = longest.saturating_sub(start.elapsed());
        match timeout(quiet.min(left), queue.recv()).await {
            Ok(Some(Hint::Settled)) => hint = Hint::Settled,
            // A second writer after a closed one: its own close follows.
            Ok(Some(Hint::Writing)) => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// How to look.
#[derive(Clone, Copy)]
enum Look {
    /// Report what is bad even if it was reported before.
    Reload(&'static str),
    /// Report what is bad once.
    Probe(&'static str),
    /// Don't report.
    Patient(&'static str),
}

struct Watch {
    control: Arc<Control>,
    watcher: Option<RecommendedWatcher>,
    /// The directories that inotify watches now, each with its inode: one that was replaced is another.
    armed: BTreeMap<PathBuf, u64>,
    /// The names that count in them, shared with the event handler.
    names: Arc<Mutex<Names>>,
}

/// Which events concern us.
#[derive(Default)]
struct Names {
    paths: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
}

impl Watch {
    fn new(control: Arc<Control>, hints: mpsc::Sender<Hint>) -> Self {
        let names = Arc::new(Mutex::new(Names::default()));
        let known = Arc::clone(&names);
        let handler = move |event: notify::Result<Event>| {
            let hint = match event {
                Ok(event) if event.need_rescan() => Some(Hint::Settled),
                Ok(event) => {
                    let names = known.lock().unwrap_or_else(PoisonError::into_inner);
                    hint_of(&event.kind)
                        .filter(|_| event.paths.iter().any(|path| names.concern(path)))
                }
                Err(_) => Some(Hint::Settled),
            };
            if let Some(hint) = hint {
                // Full: the ones before it lead to the same look.
                _ = hints.try_send(hint);
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "no file events; settings are polled"))
            .ok();
        Self { control, watcher, armed: BTreeMap::new(), names }
    }

    /// Watches the directories of the sources as they are now. Whether there is one that was not watched before: what
    /// happened there before this moment was not seen.
    fn arm(&mut self) -> bool {
        let mut names = Names::default();
        for path in self.control.watched() {
            names.add(&path);
        }
        let wanted = names.watchable();
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        let Some(watcher) = &mut self.watcher else { return false };
        let gone: Vec<_> =
            self.armed.iter().filter(|(path, inode)| wanted.get(*path) != Some(inode)).collect();
        for (directory, _) in &gone {
            // A directory that was removed is no longer watched anyhow.
            _ = watcher.unwatch(directory);
        }
        let mut armed = self.armed.clone();
        armed.retain(|path, inode| wanted.get(path) == Some(inode));
        let mut new = false;
        for (directory, inode) in wanted {
            if armed.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    armed.insert(directory, inode);
                    new = true;
                }
                Err(error) => {
                    let directory = directory.display();
                    tracing::warn!(%directory, %error, "no file events there; it is polled");
                }
            }
        }
        self.armed = armed;
        new
    }

    async fn look_patiently(&self, actor: &'static str) {
        let start = Instant::now();
        while !self.look(Look::Patient(actor)).await {
            if start.elapsed() >= PATIENCE {
                self.look(Look::Probe(actor)).await;
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Whether the settings are good. They are read where blocking is allowed.
    async fn look(&self, how: Look) -> bool {
        let control = Arc::clone(&self.control);
        let looked = tokio::task::spawn_blocking(move || match how {
            Look::Reload(actor) => control.reload(actor),
            Look::Probe(actor) => control.probe(actor, false),
            Look::Patient(actor) => control.probe(actor, true),
        });
        // A look that panicked has said so itself; the next event or poll looks again.
        matches!(looked.await, Ok(Ok(_)))
    }
}

impl Names {
    /// Adds a path, each hop of its symbolic links, and the place where it would appear if it is missing.
    fn add(&mut self, path: &Path) {
        if path.is_dir() {
            self.directories.insert(path.to_owned());
        }
        let mut hop = path.to_owned();
        // As many hops as Linux follows.
        for _ in 0..40 {
            self.paths.insert(hop.clone());
            let Ok(target) = fs::read_link(&hop) else { break };
            hop = hop.parent().unwrap_or_else(|| Path::new("/")).join(target);
        }
        if let Ok(real) = fs::canonicalize(path) {
            self.paths.insert(real);
        }
        let missing = path.ancestors().skip(1).take_while(|parent| !parent.exists());
        self.paths.extend(missing.map(Path::to_owned));
    }

    /// The directories in which something may happen to the paths.
    fn watchable(&self) -> BTreeMap<PathBuf, u64> {
        let parents = self.paths.iter().filter_map(|path| path.parent());
        let existing =
            parents.filter_map(|parent| parent.ancestors().find(|ancestor| ancestor.is_dir()));
        let all = existing.map(Path::to_owned).chain(self.directories.iter().cloned());
        all.filter_map(|path| fs::metadata(&path).ok().map(|m| (path, m.ino()))).collect()
    }

    fn concern(&self, path: &Path) -> bool {
        // `..data` and its like are how a mounted ConfigMap changes under the links that we read.
        let swapped =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("..data"));
        let inside = path.parent().is_some_and(|parent| self.directories.contains(parent));
        swapped || inside || self.paths.contains(path)
    }
}

fn hint_of(kind: &EventKind) -> Option<Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Settled),
        // Opening and reading, which we do ourselves.
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => Some(Hint::Writing),
        // A new file is written next; a new link or a hard link is complete, and is seen after the same patience.
        EventKind::Create(_) => Some(Hint::Writing),
        _ => Some(Hint::Settled),
    }
}
