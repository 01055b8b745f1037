//! The map of buckets, read both ways: an old bucket is a bucket on new, or a folder in one.
//!
//! Nothing in a request says which dialect it is in, so the names do: what stands in a folder of the map is said the new way;
//! else a bucket that the map has on its left is said the old way; else a bucket that it has, whole, on its right is said the new
//! way. All else is the same on both sides.

use std::collections::BTreeMap;
use std::fmt;

use super::Folder;
use crate::side::Side;

/// A map that can be read both ways.
#[derive(Clone, Debug, Default)]
pub struct BucketMap {
    folders: Vec<Folder>,
    by_old: BTreeMap<String, usize>,
    /// New bucket → its folders, the longest first; a whole bucket last.
    by_new: BTreeMap<String, Vec<usize>>,
}

/// Why a map can't be read both ways.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapFault {
    /// Two old buckets would share their files.
    #[error("{first} and {second} both lead to {place}")]
    Twice {
        /// One of the two.
        first: String,
        /// The other.
        second: String,
        /// Where both lead.
        place: String,
    },
    /// A name that is one bucket on old and another, whole, on new: no request would say which.
    #[error(
        "{name} is a bucket of old that leads to {place}, and the bucket of new that {other} leads to"
    )]
    Crossed {
        /// The name.
        name: String,
        /// Where it leads.
        place: String,
        /// Which old bucket is called so on new.
        other: String,
    },
}

/// Where something is on one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket.
    pub bucket: String,
    /// The folder in it; empty for the whole bucket.
    pub prefix: String,
}

/// How the words of a request are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading<'m> {
    /// The map knows nothing of it: it is the same on both sides.
    Same,
    /// In this line's words on this side.
    Line(&'m Folder, Side),
    /// In the new dialect, across several lines: old has no words for it.
    Several,
}

/// What a name in a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// An object.
    Object,
    /// A folder's contents: a slash at its end or not.
    Folder,
    /// Whatever begins with this text.
    Prefix,
}

impl BucketMap {
    /// Reads the lines of `[storage.buckets]`.
    ///
    /// # Errors
    /// Every [`MapFault`].
    pub fn build(folders: Vec<Folder>) -> Result<Self, Vec<MapFault>> {
        let mut map = Self { folders, ..Self::default() };
        let mut faults = Vec::new();
        for (i, line) in map.folders.iter().enumerate() {
            map.by_old.insert(line.old.clone(), i);
            let lines = map.by_new.entry(line.bucket.clone()).or_default();
            if let Some(twin) = lines
                .iter()
                .find_map(|twin| map.folders.get(*twin).filter(|twin| twin.prefix == line.prefix))
            {
                let (first, second) = (twin.old.clone(), line.old.clone());
                faults.push(MapFault::Twice {
                    first,
                    second,
                    place: line.place(Side::New).to_string(),
                });
            }
            lines.push(i);
        }
        for lines in map.by_new.values_mut() {
            lines.sort_by_key(|i| map.folders.get(*i).map(|line| usize::MAX - line.prefix.len()));
        }
        faults.extend(map.folders.iter().filter_map(|line| map.crossed(line)));
        if faults.is_empty() { Ok(map) } else { Err(faults) }
    }

    /// A whole bucket's new name that is another line's old name.
    fn crossed(&self, whole: &Folder) -> Option<MapFault> {
        let line = self.old(&whole.bucket)?;
        let is_fault = whole.prefix.is_empty() && line.old != whole.old;
        is_fault.then(|| MapFault::Crossed {
            name: line.old.clone(),
            place: line.place(Side::New).to_string(),
            other: whole.old.clone(),
        })
    }

    /// Whether nothing is renamed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// Every line.
    #[must_use]
    pub fn lines(&self) -> &[Folder] {
        &self.folders
    }

    fn old(&self, bucket: &str) -> Option<&Folder> {
        self.folders.get(*self.by_old.get(bucket)?)
    }

    /// The lines whose place on new is in this bucket: longest folders first.
    pub fn within(&self, bucket: &str) -> impl Iterator<Item = &Folder> {
        let lines = self.by_new.get(bucket).map_or(&[][..], Vec::as_slice);
        lines.iter().filter_map(|i| self.folders.get(*i))
    }

    /// Whether the map says anything of this bucket, in either dialect.
    #[must_use]
    pub fn knows(&self, bucket: &str) -> bool {
        self.by_old.contains_key(bucket) || self.by_new.contains_key(bucket)
    }

    /// Whether names inside of this bucket, and not only its own, may change.
    #[must_use]
    pub fn has_folders(&self, bucket: &str) -> bool {
        self.old(bucket).is_some_and(|line| !line.prefix.is_empty())
            || self.within(bucket).any(|line| !line.prefix.is_empty())
    }

    /// Reads a bucket and all names that a request gives in it.
    #[must_use]
    pub fn read(&self, bucket: &str, names: &[&str], naming: Naming) -> Reading<'_> {
        let mut inside = names.iter().map(|name| self.folder_of(bucket, name, naming));
        let first = inside.next().flatten();
        let is_one = inside.all(|line| line == first);
        match (first, is_one, self.old(bucket)) {
            (Some(line), true, _) => Reading::Line(line, Side::New),
            (_, _, Some(line)) => Reading::Line(line, Side::Old),
            (None, true, None) => match self.whole(bucket) {
                Some(line) => Reading::Line(line, Side::New),
                // Above every folder, a listing would show all of them.
                None if naming != Naming::Object && self.by_new.contains_key(bucket) => {
                    Reading::Several
                }
                None => Reading::Same,
            },
            (_, false, None) => Reading::Several,
        }
    }

    /// Reads a bucket as such.
    #[must_use]
    pub fn read_bucket(&self, bucket: &str) -> Reading<'_> {
        match (self.old(bucket), self.whole(bucket)) {
            (Some(line), _) => Reading::Line(line, Side::Old),
            (None, Some(line)) => Reading::Line(line, Side::New),
            (None, None) if self.by_new.contains_key(bucket) => Reading::Several,
            (None, None) => Reading::Same,
        }
    }

    /// The folder of the map that a name stands in.
    fn folder_of(&self, bucket: &str, name: &str, naming: Naming) -> Option<&Folder> {
        self.within(bucket).filter(|line| !line.prefix.is_empty()).find(|line| {
            name.strip_prefix(line.prefix.as_str()).is_some_and(|rest| match naming {
                Naming::Object | Naming::Prefix => rest.starts_with('/'),
                Naming::Folder => rest.is_empty() || rest.starts_with('/'),
            })
        })
    }

    fn whole(&self, bucket: &str) -> Option<&Folder> {
        self.within(bucket).find(|line| line.prefix.is_empty())
    }

    /// Whether this place on new, which `line` leads to, is read as another line's: two old buckets meet there.
    #[must_use]
    pub fn collides(&self, line: &Folder, name: &str) -> bool {
        self.folder_of(&line.bucket, name, Naming::Object)
            .is_some_and(|found| found.old != line.old)
    }
}

impl Folder {
    /// Where it is on a side.
    #[must_use]
    pub fn place(&self, side: Side) -> Place {
        match side {
            Side::Old => Place { bucket: self.old.clone(), prefix: String::new() },
            Side::New => Place { bucket: self.bucket.clone(), prefix: self.prefix.clone() },
        }
    }

    /// Whether it is a folder of a bucket that others may share.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        !self.prefix.is_empty()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

/// From one side's words to another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// The words that are read.
    pub from: Place,
    /// The words that are said.
    pub to: Place,
}

impl Words {
    /// The way back.
    #[must_use]
    pub fn back(&self) -> Self {
        Self { from: self.to.clone(), to: self.from.clone() }
    }

    /// A bucket's name; `None` when it is another bucket.
    #[must_use]
    pub fn bucket(&self, bucket: &str) -> Option<&str> {
        (bucket == self.from.bucket).then_some(self.to.bucket.as_str())
    }

    /// An object's name in the bucket; `None` when it is not in the folder.
    #[must_use]
    pub fn name(&self, name: &str) -> Option<String> {
        let rest = match self.from.prefix.as_str() {
            "" => name,
            prefix => name.strip_prefix(prefix)?.strip_prefix('/')?,
        };
        Some(match self.to.prefix.as_str() {
            "" => rest.to_owned(),
            prefix => format!("{prefix}/{rest}"),
        })
    }

    /// A folder's name in the bucket, with or without a slash at its end; `None` when it is not in the folder.
    #[must_use]
    pub fn folder(&self, name: &str) -> Option<String> {
        if !self.from.prefix.is_empty() && name == self.from.prefix {
            return Some(self.to.prefix.clone());
        }
        if name.is_empty() && self.from.prefix.is_empty() {
            return Some(self.to.prefix.clone());
        }
        self.name(name)
    }

    /// `bucket/name`; `None` when it is somewhere else.
    #[must_use]
    pub fn path(&self, path: &str) -> Option<String> {
        let (bucket, name) = path.split_once('/')?;
        Some(format!("{}/{}", self.bucket(bucket)?, self.name(name)?))
    }
}

#[cfg(test)]
pub(super) mod tests;
