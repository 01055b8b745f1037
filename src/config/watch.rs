//! Watches every source and reloads when one changes: inotify for speed, SIGHUP for operators, and a slow poll for
//! file systems that send no events.
//!
//! Nothing is decided by an event itself: it only says when to look, which is after [`SETTLE`] without further events,
//! and not while a file is open for writing. What was read while events came in is thrown away and read again: half of
//! a file can be good TOML with the number missing. Settings that are bad are looked at again for [`PATIENCE`] before
//! they are reported, so that a file that is replaced in several steps is no fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::live::Control;
use super::variables::{self, Meaning};

/// Quiet time after an event: a writer that replaces several files, or writes twice, is seen once.
const SETTLE: Duration = Duration::from_millis(2);
/// How long sources may be bad without being reported.
const PATIENCE: Duration = Duration::from_millis(50);
/// How long a writer is waited for that does nothing and doesn't close its file. Long, because half of a file can be
/// good settings with another number, and a busy disk makes a writer wait for seconds.
pub(super) const WRITER: Duration = Duration::from_secs(5);
/// How long sources that never rest keep the watcher from everything else.
const RESTLESS: Duration = Duration::from_secs(1);
/// Between two looks at a bad file within [`PATIENCE`].
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The safety poll.
const POLL: Duration = Duration::from_secs(5);

/// Starts watching, on the tokio runtime that this is called on. Dropping or aborting the handle's task ends it.
///
/// # Errors
/// SIGHUP can't be listened to. A system without inotify is no error: the poll stays.
pub fn spawn(control: Arc<Control>) -> std::io::Result<JoinHandle<()>> {
    let hangup = signal(SignalKind::hangup())?;
    // One wake-up is as good as many: it only says that there is something to look at.
    let (wake, woken) = mpsc::channel(1);
    let mut watch = Watch::new(control, wake);
    // Before this returns: a change right after the start is not missed.
    let watched = watch.control.watched();
    watch.arm(watched);
    Ok(tokio::spawn(run(watch, woken, hangup)))
}

async fn run(mut watch: Watch, mut woken: Woken, mut hangup: Signal) {
    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = true;
    loop {
        tokio::select! {
            Some(()) = hangup.recv() => {
                tracing::info!("SIGHUP: reading the settings again");
                watch.look(Look::Reload).await;
            }
            Some(()) = woken.recv() => done = watch.look_patiently(&mut woken).await,
            () = std::future::ready(()), if !done => done = watch.look_patiently(&mut woken).await,
            _ = poll.tick() => done = watch.look_patiently(&mut woken).await,
        }
        // Not here: the writer may be waiting for the Kubernetes API, and this thread serves the admin listener too.
        let control = Arc::clone(&watch.control);
        let Ok(watched) = spawn_blocking(move || control.watched()).await else { continue };
        if watch.arm(watched) {
            // What happened there before was not seen.
            done = false;
        }
    }
}

/// Told that events came in.
type Woken = mpsc::Receiver<()>;

/// How to look.
#[derive(Clone, Copy)]
enum Look {
    /// Report what is bad even if it was reported before.
    Reload,
    /// Report what is bad at most once, and count only if no more than these events came in meanwhile.
    Probe { report: bool, events: u64 },
}

struct Watch {
    control: Arc<Control>,
    watcher: Option<RecommendedWatcher>,
    /// The directories that inotify watches now, each with its inode: one that was replaced is another.
    armed: BTreeMap<PathBuf, u64>,
    /// Shared with the event handler.
    seen: Arc<Seen>,
}

/// What the event handler knows and tells.
#[derive(Default)]
struct Seen {
    names: Mutex<Names>,
    /// How many events concerned us.
    events: AtomicU64,
    /// When the fence was put up whose event has not come in yet, see [`Seen::is_calm`].
    fence: Mutex<Option<Instant>>,
    fence_seen: Condvar,
}

/// The names that count in the watched directories.
#[derive(Default)]
struct Names {
    paths: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
    /// Those that were written and not closed yet, and when they were written last.
    open: BTreeMap<PathBuf, Instant>,
    /// A watched directory that nobody opens but us.
    fence: Option<PathBuf>,
}

impl Seen {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> u64 {
        self.events.load(Ordering::Acquire)
    }

    /// Whether a writer is at work; one that has done nothing for [`WRITER`] is not.
    fn is_open(&self) -> bool {
        let mut names = self.names();
        names.open.retain(|_, written| written.elapsed() < WRITER);
        !names.open.is_empty()
    }

    /// Whether no event has come in since there were `events`, not even one that is still under way: events come in
    /// order, so that we make one of our own, by opening a watched directory, and wait for it.
    fn is_calm(&self, events: u64) -> bool {
        let Some(directory) = self.names().fence.clone() else { return self.events() == events };
        let wait = |fence| {
            let up = |fence: &mut Option<Instant>| fence.is_some();
            self.fence_seen
                .wait_timeout_while(fence, PATIENCE, up)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        };
        // One that came in too late for the question before would be taken for ours.
        let mut fence = wait(self.fence());
        if fence.is_some_and(|since| since.elapsed() < RESTLESS) {
            return false;
        }
        *fence = Some(Instant::now());
        // As a directory: what stands in its place may be a FIFO, and opening one waits.
        if fs::read_dir(directory).is_err() {
            *fence = None;
        }
        wait(fence).is_none() && self.events() == events
    }

    fn fence(&self) -> MutexGuard<'_, Option<Instant>> {
        self.fence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fence_came_in(&self) {
        *self.fence() = None;
        self.fence_seen.notify_all();
    }

    /// Notes an event. Whether it concerns us.
    fn note(&self, event: &Event) -> bool {
        let mut names = self.names();
        if matches!(event.kind, EventKind::Access(AccessKind::Open(_)))
            && event.paths.iter().any(|path| Some(path) == names.fence.as_ref())
        {
            self.fence_came_in();
        }
        if event.need_rescan() {
            // Events were lost, maybe the closing of a file, maybe the fence.
            names.open.clear();
            self.fence_came_in();
        }
        let ours =
            event.paths.iter().filter(|path| means_change(&event.kind) && names.concern(path));
        let ours: Vec<_> = ours.cloned().collect();
        let concerned = event.need_rescan() || !ours.is_empty();
        for path in ours {
            match event.kind {
                EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => {
                    names.open.insert(path, Instant::now());
                }
                _ => {
                    names.open.remove(&path);
                }
            }
        }
        if concerned {
            self.events.fetch_add(1, Ordering::Release);
        }
        concerned
    }
}

impl Watch {
    fn new(control: Arc<Control>, wake: mpsc::Sender<()>) -> Self {
        let seen = Arc::new(Seen::default());
        let told = Arc::clone(&seen);
        let handler = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| told.note(&event)) {
                // Full: the look is still to come.
                _ = wake.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| tracing::warn!(%error, "no file events; settings are polled"))
            .ok();
        Self { control, watcher, armed: BTreeMap::new(), seen }
    }

    /// Watches the directories of the sources as they are now. Whether there is something that was not watched before:
    /// what happened there before this moment was not seen.
    fn arm(&mut self, watched: BTreeSet<PathBuf>) -> bool {
        let mut names = Names::default();
        for path in watched {
            names.add(&path);
        }
        let wanted = names.watchable();
        let mut known = self.seen.names();
        names.open = std::mem::take(&mut known.open);
        names.fence = known.fence.take();
        let changed = (&known.paths, &known.directories) != (&names.paths, &names.directories);
        *known = names;
        drop(known);
        let Some(watcher) = &mut self.watcher else { return changed };
        let gone: Vec<_> =
            self.armed.iter().filter(|(path, inode)| wanted.get(*path) != Some(inode)).collect();
        for (directory, _) in &gone {
            // A directory that was removed is no longer watched anyhow.
            _ = watcher.unwatch(directory);
        }
        let mut armed = self.armed.clone();
        armed.retain(|path, inode| wanted.get(path) == Some(inode));
        let mut new = changed;
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
        let mut known = self.seen.names();
        // Where the parent is watched too, each opening is two events, and the second would be taken for the next one.
        let is_alone = |path: &Path| path.parent().is_none_or(|parent| !armed.contains_key(parent));
        let fit = |path: &&PathBuf| !known.directories.contains(*path) && is_alone(path);
        let fence = armed.keys().find(fit).cloned();
        known.fence = fence;
        drop(known);
        self.armed = armed;
        new
    }

    /// Looks until what was read can be trusted: no file was open for writing, and no event came in meanwhile. Not
    /// done after [`RESTLESS`]: then it is time to listen to others, and to look again.
    async fn look_patiently(&self, woken: &mut Woken) -> bool {
        let start = Instant::now();
        let mut rest = start;
        while start.elapsed() < RESTLESS {
            // Events wake it up at once; the sleep before a look is the time in which none came.
            if let Ok(Some(())) = timeout(SETTLE, woken.recv()).await {
                rest = Instant::now();
                continue;
            }
            // In this order: a file that is opened after the question is an event after the count.
            let events = self.seen.events();
            if self.seen.is_open() {
                continue;
            }
            let report = rest.elapsed() >= PATIENCE;
            let good = self.look(Look::Probe { report, events }).await;
            let calm = self.seen.events() == events;
            if calm && (good || report) {
                return true;
            }
            if calm {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        false
    }

    /// Whether the settings are good. They are read where blocking is allowed.
    async fn look(&self, how: Look) -> bool {
        let (control, seen) = (Arc::clone(&self.control), Arc::clone(&self.seen));
        let looked = spawn_blocking(move || match how {
            Look::Reload => control.reload("signal"),
            Look::Probe { report, events } => {
                let calm = || seen.is_calm(events);
                control.probe("file", report, &calm)
            }
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
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // `..data` and its like are how a mounted ConfigMap changes under the links that we read.
        let swapped = name.starts_with("..data");
        let inside = path.parent().is_some_and(|parent| self.directories.contains(parent))
            && !matches!(variables::meaning(&name), Meaning::Ignored);
        swapped || inside || self.paths.contains(path)
    }
}

/// Opening and reading are no changes, and we do them ourselves.
const fn means_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        _ => true,
    }
}
