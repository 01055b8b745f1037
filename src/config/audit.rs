//! The hash-chained record of every change: one JSON object per line, appended and never rewritten, each naming the
//! hash of the one before, so that a line taken out or changed afterwards shows.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::file;

/// One change of the rollout: a line of the audit file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// RFC 3339, UTC.
    pub time: String,
    /// The epoch that the change made.
    pub epoch: u64,
    /// Before, as text: `10`, `10 forced old`.
    pub from: String,
    /// After.
    pub to: String,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// Which source holds the number.
    pub source: String,
    /// A fingerprint of salt and hash, by which users were dealt from then on. Not in records of other settings, or of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buckets: Option<String>,
    /// Hash of the record before; 64 zeros for the first.
    pub previous: String,
    /// sha256 over this record without this field.
    pub hash: String,
}

/// The hash before the first record.
pub const FIRST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What an unbroken file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many records.
    pub records: usize,
    /// Whether the last line was cut off while it was written; it was never part of the chain.
    pub torn: bool,
}

/// The first line that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct Broken {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: Break,
}

/// What was done to a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    /// Not even a record: cut off, or something else.
    #[error("it is no whole record")]
    NoRecord,
    /// Another text than the one that was hashed.
    #[error("its content was changed")]
    Changed,
    /// Its `previous` is no line's hash.
    #[error("the line that it follows is missing: one or more were removed before it")]
    Missing,
    /// Its `previous` is the hash of another line.
    #[error("it follows line {0}, not the one before it: lines were inserted or moved")]
    Follows(usize),
    /// Its `previous` is [`FIRST`], and it is not the first.
    #[error("a chain of its own begins with it: two files were joined")]
    Begins,
}

impl Record {
    /// The hash that this record must have: over its JSON without the field `hash`, in the order of the fields.
    #[must_use]
    pub fn computed_hash(&self) -> String {
        let fields = [
            ("time", self.time.as_str().into()),
            ("epoch", serde_json::Value::from(self.epoch)),
            ("from", self.from.as_str().into()),
            ("to", self.to.as_str().into()),
            ("actor", self.actor.as_str().into()),
            ("reason", self.reason.as_str().into()),
            ("source", self.source.as_str().into()),
        ];
        let buckets = self.buckets.iter().map(|buckets| ("buckets", buckets.as_str().into()));
        let last = [("previous", self.previous.as_str().into())];
        let fields = fields.into_iter().chain(buckets).chain(last);
        let object: serde_json::Map<_, _> =
            fields.map(|(name, value)| (name.to_owned(), value)).collect();
        let digest = Sha256::digest(serde_json::Value::Object(object).to_string());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Puts the record behind another one.
    fn chain(&mut self, previous: &str) {
        previous.clone_into(&mut self.previous);
        self.hash = self.computed_hash();
    }
}

/// Checks the whole chain of a file's text, byte by byte. What it can't show: that lines were removed from the end, and that the whole
/// chain was written anew; for that the newest hash has to be known from elsewhere (the log, the running proxy).
///
/// # Errors
/// [`Broken`]: the first line that does not fit.
pub fn verify(text: &str) -> Result<Verified, Broken> {
    let mut previous = FIRST.to_owned();
    let mut records = 0;
    for (i, line) in text.split_inclusive('\n').enumerate() {
        let broken = |cause| Err(Broken { line: i + 1, cause });
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            if line.ends_with('\n') {
                return broken(Break::NoRecord);
            }
            return Ok(Verified { records, torn: true });
        };
        let written = line.strip_suffix('\n').unwrap_or(line);
        let is_as_written = serde_json::to_string(&record).is_ok_and(|as_is| as_is == written);
        if !is_as_written || record.computed_hash() != record.hash {
            return broken(Break::Changed);
        }
        if record.previous != previous {
            return broken(followed(text, &record.previous));
        }
        previous = record.hash;
        records += 1;
    }
    Ok(Verified { records, torn: false })
}

/// Why a line follows another than the one before it.
fn followed(text: &str, previous: &str) -> Break {
    if previous == FIRST {
        return Break::Begins;
    }
    let mut records = text.lines().map(|line| serde_json::from_str::<Record>(line).ok());
    let place = records.position(|record| record.is_some_and(|record| record.hash == previous));
    place.map_or(Break::Missing, |i| Break::Follows(i + 1))
}

/// Bytes of an audit file that can be read back: some millions of records.
pub const LARGEST: u64 = 1 << 30;

/// How long another process may hold the file: it appends some lines.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// How many records are kept in memory, for the history and for the time in which the file can't be written.
const KEPT: usize = 1_000;

/// The audit: its newest records, and the file behind them.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    file: Option<PathBuf>,
    recent: std::collections::VecDeque<Record>,
    /// Records that are not in the file yet.
    unwritten: usize,
    /// Why the file could not be written, the last time it was tried.
    pub(crate) trouble: Option<String>,
    /// What is wrong with the chain that the file held when it was opened.
    pub(crate) broken: Option<String>,
}

impl Audit {
    /// Continues the file at `path` (`None`: the log and the memory only).
    pub(crate) fn open(path: Option<PathBuf>) -> Self {
        let mut audit = Self::default();
        audit.move_to(path);
        audit
    }

    /// Goes on in another file.
    pub(crate) fn move_to(&mut self, path: Option<PathBuf>) {
        if self.file == path && path.is_some() {
            return;
        }
        self.file = path;
        self.broken = None;
        let Some(path) = &self.file else { return };
        match file::read(path, LARGEST) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                match verify(&text) {
                    Ok(Verified { torn: false, .. }) => {}
                    Ok(_) => {
                        tracing::warn!(file = %path.display(), "the audit file's last line was cut off while it was written")
                    }
                    Err(broken) => {
                        tracing::error!(file = %path.display(), %broken, "the audit file's chain is broken");
                        self.broken = Some(format!("{}: {broken}", path.display()));
                    }
                }
                let mut read: Vec<Record> =
                    text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
                let newest = read.split_off(read.len().saturating_sub(KEPT));
                self.recent.extend(newest);
                self.trim();
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.note_trouble(&error),
        }
    }

    /// Adds a record. The change that it tells of stands whether or not the file can be written: then the record waits
    /// in memory and is written with the next one.
    pub(crate) fn add(&mut self, record: Record) {
        self.recent.push_back(record);
        self.unwritten += 1;
        self.trim();
        self.flush();
        let Some(record) = self.recent.back() else { return };
        // With its hash: where the log is kept elsewhere, it shows what was taken from the file's end.
        tracing::info!(
            epoch = record.epoch,
            from = record.from,
            to = record.to,
            actor = record.actor,
            reason = record.reason,
            source = record.source,
            hash = record.hash,
            "settings changed"
        );
    }

    fn trim(&mut self) {
        while self.recent.len() > KEPT {
            self.recent.pop_front();
        }
        self.unwritten = self.unwritten.min(self.recent.len());
    }

    fn flush(&mut self) {
        let first = self.recent.len() - self.unwritten;
        let Some(path) = self.file.clone() else {
            self.chain_from(first, None);
            self.unwritten = 0;
            return;
        };
        match self.append(&path, first) {
            Ok(()) => {
                self.unwritten = 0;
                self.trouble = None;
            }
            Err(error) => {
                self.chain_from(first, None);
                self.note_trouble(&error);
            }
        }
    }

    /// Chains the records from `first` on behind `previous`, or behind the newest before them.
    fn chain_from(&mut self, first: usize, previous: Option<String>) {
        let before = first.checked_sub(1).and_then(|i| self.recent.get(i)).map(|r| r.hash.clone());
        let mut previous = previous.or(before).unwrap_or_else(|| FIRST.to_owned());
        for record in self.recent.iter_mut().skip(first) {
            record.chain(&previous);
            previous.clone_from(&record.hash);
        }
    }

    /// Appends under a lock, behind the last record that is in the file at that moment: another process may share the
    /// file, and a rotated file begins a chain of its own.
    fn append(&mut self, path: &Path, first: usize) -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file::is_file(&file)?;
        file::lock(&file, PATIENCE)?;
        let last = last_hash(&mut file)?;
        self.chain_from(first, Some(last.unwrap_or_else(|| FIRST.to_owned())));
        let mut lines = String::new();
        for record in self.recent.iter().skip(first) {
            lines.push_str(&serde_json::to_string(record)?);
            lines.push('\n');
        }
        let length = file.seek(SeekFrom::End(0))?;
        file.write_all(lines.as_bytes()).and_then(|()| file.sync_data()).inspect_err(|_| {
            // All of it is written again later: what of it got in (a full disk takes half a line) must not stay.
            _ = file.set_len(length);
        })
    }

    fn note_trouble(&mut self, error: &io::Error) {
        let file = self.file.as_deref().unwrap_or_else(|| Path::new("")).display().to_string();
        tracing::error!(file, %error, "the audit file can't be used; records are kept in memory");
        self.trouble = Some(format!("{file}: {error}"));
    }

    /// The newest `limit` records, oldest first.
    pub(crate) fn newest(&self, limit: usize) -> Vec<Record> {
        self.recent.iter().skip(self.recent.len().saturating_sub(limit)).cloned().collect()
    }

    /// By which salt and hash users were dealt last, as far as the file knows.
    pub(crate) fn last_buckets(&self) -> Option<&str> {
        self.recent.iter().rev().find_map(|record| record.buckets.as_deref())
    }

    /// What the file last said of the rollout.
    pub(crate) fn last_rollout(&self) -> Option<&str> {
        self.recent.iter().rev().map(|record| record.to.as_str()).find(|to| *to != SETTINGS)
    }
}

/// What `from` and `to` say when something else than the rollout changed.
pub const SETTINGS: &str = "settings";

/// The hash of the last whole record. A line that was cut off while it was written is taken away first: the record
/// after it would otherwise be glued to it.
fn last_hash(file: &mut File) -> io::Result<Option<String>> {
    const TAIL: u64 = 64 * 1024;
    let length = file.seek(SeekFrom::End(0))?;
    let start = length.saturating_sub(TAIL);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if whole < bytes.len() {
        let torn = String::from_utf8_lossy(&bytes[whole..]).into_owned();
        if serde_json::from_str::<Record>(&torn).is_ok() {
            // Whole but for its line end.
            file.write_all(b"\n")?;
            return Ok(serde_json::from_str::<Record>(&torn).ok().map(|record| record.hash));
        }
        tracing::warn!(bytes = torn.len(), "took away the audit file's cut-off last line");
        file.set_len(start + whole as u64)?;
    }
    let text = String::from_utf8_lossy(&bytes[..whole]);
    Ok(text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<Record>(line).ok())
        .map(|r| r.hash))
}
