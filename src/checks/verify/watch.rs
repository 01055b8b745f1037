//! The progress bar, the rate, and the state file of a comparison. Shell.

use std::cell::{Cell, RefCell};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::report::Table;
use super::state::{Begun, State, Unusable};
use super::walk::{Job, Reached, Watch};
use crate::side::Side;

/// The file is written no more often than this.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Why the state file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFault {
    /// It can't be read or written.
    #[error("{path}: {cause}")]
    File {
        /// Which file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// It is there, and can't be gone on from.
    #[error("{path}: {cause}")]
    Unusable {
        /// Which file.
        path: String,
        /// Why.
        cause: Unusable,
    },
}

/// Follows one run.
#[derive(Debug)]
pub struct Watcher {
    bar: ProgressBar,
    /// Rows in a second, on both sides together; `None`: as fast as it goes.
    rate: Option<u32>,
    /// When the rate allows the next page.
    free: Cell<Instant>,
    path: Option<PathBuf>,
    state: RefCell<State>,
    saved: Cell<Instant>,
    /// Why the file could not be written: said once, at the end.
    fault: RefCell<Option<StateFault>>,
}

impl Watcher {
    /// Begins, or goes on from the file of an earlier run with the same settings. The second value says which.
    ///
    /// # Errors
    /// [`StateFault`]
    pub fn open(
        path: Option<&Path>,
        settings: &str,
        rate: Option<u32>,
        shows_progress: bool,
    ) -> Result<(Self, bool), StateFault> {
        let (state, resumed) = match path {
            Some(path) => read(path, settings)?,
            None => (State::new(settings), false),
        };
        let bar = if shows_progress { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = "{elapsed_precise} [{bar:30}] {human_pos}/{human_len} rows {per_sec} ETA {eta} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        let now = Instant::now();
        let watcher = Self {
            bar,
            rate,
            free: Cell::new(now),
            path: path.map(Path::to_owned),
            state: RefCell::new(state),
            saved: Cell::new(now),
            fault: RefCell::default(),
        };
        // A file that can't be written is said before hours are spent.
        watcher.save()?;
        Ok((watcher, resumed))
    }

    /// More rows will be gone through.
    pub fn expect(&self, rows: u64) {
        self.bar.inc_length(rows);
    }

    /// What is being done.
    pub fn say(&self, what: &str) {
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        self.bar.set_message(what.chars().map(plain).collect::<String>());
    }

    /// What an earlier run found of a table that it finished.
    #[must_use]
    pub fn done(&self, label: &str) -> Option<Table> {
        self.state.borrow().done.get(label).cloned()
    }

    /// How far an earlier run came with a table; a new beginning with this sample if it did not begin it.
    #[must_use]
    pub fn begun(&self, label: &str, below: Option<u32>) -> Begun {
        let mut state = self.state.borrow_mut();
        let new = || Begun { below, ..Begun::default() };
        state.begun.entry(label.to_owned()).or_insert_with(new).clone()
    }

    /// What was summed up of a table is of no use: the next run begins it anew.
    pub fn forget(&self, label: &str) {
        self.state.borrow_mut().begun.remove(label);
    }

    /// A table is finished.
    pub fn finish(&self, label: &str, table: &Table) {
        self.state.borrow_mut().finish(label, table.clone());
        self.keep_fault(self.save());
    }

    /// Ends the progress bar and writes the file a last time, or removes it when everything was compared.
    ///
    /// # Errors
    /// [`StateFault::File`]
    pub fn end(&self, is_complete: bool) -> Result<(), StateFault> {
        self.bar.finish_and_clear();
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        match &self.path {
            Some(path) if is_complete => {
                fs::remove_file(path).map_err(|cause| file_fault(path, cause))
            }
            _ => self.save(),
        }
    }

    fn save_sometimes(&self) {
        if self.saved.get().elapsed() >= SAVE_EVERY {
            self.keep_fault(self.save());
        }
    }

    fn keep_fault(&self, saved: Result<(), StateFault>) {
        if let Err(fault) = saved {
            self.fault.replace(Some(fault));
        }
    }

    fn save(&self) -> Result<(), StateFault> {
        let Some(path) = &self.path else { return Ok(()) };
        self.saved.set(Instant::now());
        write(path, &self.state.borrow()).map_err(|cause| file_fault(path, cause))
    }
}

impl Watch for Watcher {
    fn reached(&self, job: &Job, side: Side, reached: &Reached) {
        if self.path.is_none() {
            return;
        }
        if let Some(begun) = self.state.borrow_mut().begun.get_mut(&job.label) {
            begun.reached[side] = reached.clone();
        }
        self.save_sometimes();
    }

    async fn pace(&self, rows: u64) {
        self.bar.inc(rows);
        let Some(rate) = self.rate else { return };
        let cost = Duration::from_secs_f64(
            f64::from(u32::try_from(rows).unwrap_or(u32::MAX)) / f64::from(rate.max(1)),
        );
        let free = self.free.get().max(Instant::now()) + cost;
        self.free.set(free);
        tokio::time::sleep_until(free).await;
    }
}

fn read(path: &Path, settings: &str) -> Result<(State, bool), StateFault> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Ok((State::new(settings), false));
        }
        Err(cause) => return Err(file_fault(path, cause)),
    };
    match State::read(&text, settings) {
        Ok(state) => Ok((state, true)),
        Err(cause) => Err(StateFault::Unusable { path: path.display().to_string(), cause }),
    }
}

/// Whole or not at all: written beside, then renamed. Readable by its owner alone, for the keys in it.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&serde_json::to_vec(state)?)?;
    file.sync_data()?;
    fs::rename(&beside, path)
}

fn file_fault(path: &Path, cause: io::Error) -> StateFault {
    StateFault::File { path: path.display().to_string(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, settings: &str) -> Result<(Watcher, bool), StateFault> {
        Watcher::open(Some(path), settings, None, false)
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_goes_on_from_its_own_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("verify.state");
        let (first, resumed) = open(&path, "s").unwrap();
        assert!(!resumed);
        let job = Job { label: "t".into(), ..Job::default() };
        assert_eq!(first.begun("t", Some(7)).below, Some(7));
        let reached = Reached { relation: 1, ..Reached::default() };
        tokio::time::advance(SAVE_EVERY).await;
        first.reached(&job, Side::New, &reached);
        drop(first); // killed: nothing more is written

        let (second, resumed) = open(&path, "s").unwrap();
        assert!(resumed);
        let begun = second.begun("t", Some(9));
        assert_eq!((begun.below, &begun.reached.new), (Some(7), &reached));
        assert!(matches!(open(&path, "other"), Err(StateFault::Unusable { .. })));
        second.finish("t", &Table::default());
        second.end(false).unwrap();
        let (third, _) = open(&path, "s").unwrap();
        assert_eq!(third.done("t"), Some(Table::default()));
        third.end(true).unwrap();
        assert!(!path.exists(), "nothing is left to go on from");
    }

    #[test]
    fn a_file_that_can_not_be_written_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no").join("such");
        assert!(matches!(open(&path, "s"), Err(StateFault::File { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_for_both_sides_together() {
        let (watcher, _) = Watcher::open(None, "s", Some(100), false).unwrap();
        let begun = Instant::now();
        futures_util::future::join(watcher.pace(50), watcher.pace(150)).await;
        assert_eq!(begun.elapsed().as_millis(), 2000);
    }
}
