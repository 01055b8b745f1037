//! Reading and replacing whole files, so that no reader ever sees half of one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::file;

/// No settings file is larger; a bigger one is a mistake (a device, a log).
const LARGEST: u64 = 16 * 1024 * 1024;

/// Reads a file whole. When it changes under our hands it is read again, a few times.
pub(crate) fn read(path: &Path) -> io::Result<String> {
    let stamp = |file: &File| file.metadata().map(|m| (m.len(), m.mtime(), m.mtime_nsec()));
    for _ in 0..4 {
        let mut file = file::open(path)?;
        let before = stamp(&file)?;
        if before.0 > LARGEST {
            return Err(file::too_large(LARGEST));
        }
        let mut text = String::new();
        (&mut file).take(LARGEST).read_to_string(&mut text)?;
        if stamp(&file)? == before {
            return Ok(text);
        }
    }
    Err(io::Error::new(ErrorKind::ResourceBusy, "it changes while it is read"))
}

/// What stands at a path right now, cheap to ask: another value means that it was written or replaced.
pub(crate) fn stamp(path: &Path) -> Option<(u64, u64, u64, i64, i64)> {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.len(), m.mtime(), m.mtime_nsec()))
}

/// How long another process may take to change a file.
const PATIENCE: Duration = Duration::from_secs(1);

/// Held while a file is read, compared and replaced and the change recorded, so that of two processes that change it the second sees all
/// that the first did. The system lets go of it when the process ends, however that ends.
pub(crate) struct Locked {
    /// `None`: there is no file yet, or it can't be locked.
    _file: Option<File>,
}

/// Locks a file against other processes that change it through [`replace`], and takes away what they left beside it when they were
/// killed in the middle. One that holds it for too long is not waited for: a roll back must not depend on it.
pub(crate) fn lock(path: &Path) -> Locked {
    loop {
        let Ok(file) = file::open(path) else { return Locked { _file: None } };
        if let Err(error) = file::lock(&file, PATIENCE) {
            tracing::warn!(file = %path.display(), %error, "going on without a lock");
            return Locked { _file: None };
        }
        let id = |m: fs::Metadata| (m.dev(), m.ino());
        // Replaced while it was waited for: the lock is on a file that is nowhere any more.
        match (file.metadata().map(id), fs::metadata(path).map(id)) {
            (Ok(locked), Ok(there)) if locked != there => {}
            _ => {
                sweep(path);
                return Locked { _file: Some(file) };
            }
        }
    }
}

fn sweep(path: &Path) {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let Some(folder) = target.parent() else { return };
    let left = left_beside(&target);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&left)) {
        tracing::info!(file = %entry.path().display(), "taking away what a killed process left");
        // Best effort: it is in nobody's way.
        _ = fs::remove_file(entry.path());
    }
}

/// A file that was replaced and may not survive a power cut yet. While it is held, the new file is locked as the old one was.
#[must_use = "the change is not on the disk before `sync`"]
pub(crate) struct Replaced {
    file: File,
    directory: Option<PathBuf>,
}

impl Replaced {
    /// Makes the new text, and the rename, last through a power cut.
    pub(crate) fn sync(self) -> io::Result<()> {
        self.file.sync_all()?;
        // Some file systems can't sync a directory; the change stands all the same.
        if let Some(directory) = self.directory.and_then(|directory| File::open(directory).ok()) {
            _ = directory.sync_all();
        }
        Ok(())
    }
}

/// Replaces the text of a file: a new file beside it, renamed over it, with the old one's mode and owner. Whoever reads sees the old
/// or the new text. Syncing is left to the caller, because it takes milliseconds and a change of the rollout can be live before.
/// A symbolic link stays, its target is replaced. Where a rename can't be (a single file mounted into a container,
/// a directory that can't be written), the text is written in place.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<Replaced> {
    replace_with(path, text, |from, to| fs::rename(from, to))
}

fn replace_with(
    path: &Path,
    text: &str,
    rename: impl FnOnce(&Path, &Path) -> io::Result<()>,
) -> io::Result<Replaced> {
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let beside = beside(&target);
    let renamed = write_beside(&target, &beside, text)
        .and_then(|file| rename(&beside, &target).map(|()| file));
    match renamed {
        Ok(file) => Ok(Replaced { file, directory: target.parent().map(Path::to_owned) }),
        Err(error) => {
            // Best effort: the file beside may not exist.
            _ = fs::remove_file(&beside);
            if is_no_rename(error.kind()) && target.exists() {
                Ok(Replaced { file: in_place(&target, text)?, directory: None })
            } else {
                Err(error)
            }
        }
    }
}

/// The mount point of a single file can't be renamed over (EBUSY); the others mean that the directory is closed.
const fn is_no_rename(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ResourceBusy
            | ErrorKind::CrossesDevices
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
    )
}

/// A name that begins with `..`, which readers of a watched directory skip.
fn beside(target: &Path) -> PathBuf {
    target.with_file_name(format!("{}{}", left_beside(target), std::process::id()))
}

/// How such names begin, whoever made them.
fn left_beside(target: &Path) -> String {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    format!("..{name}.cutover-")
}

fn write_beside(target: &Path, beside: &Path, text: &str) -> io::Result<File> {
    // What a crash may have left.
    _ = fs::remove_file(beside);
    let mut file = OpenOptions::new().write(true).create_new(true).open(beside)?;
    if let Ok(old) = fs::metadata(target) {
        file.set_permissions(old.permissions())?;
        let new = file.metadata()?;
        if (old.uid(), old.gid()) != (new.uid(), new.gid())
            && fchown(&file, Some(old.uid()), Some(old.gid())).is_err()
        {
            // Another owner could lock the operator out of the file: better in place.
            return Err(io::Error::new(ErrorKind::PermissionDenied, "its owner can't be kept"));
        }
    }
    file.write_all(text.as_bytes())?;
    // Whoever finds it after the rename waits until the change is recorded. Nobody else has it yet, so that this never waits; a file
    // system without locks has none to lose.
    _ = file.try_lock();
    Ok(file)
}

/// Overwrites without truncating first, so that a reader in between sees old or mixed text but never an empty file. When it can't be
/// done to the end (a full disk), what was there before is put back, which needs no more room than it had.
fn in_place(target: &Path, text: &str) -> io::Result<File> {
    let before = fs::read(target)?;
    let file = OpenOptions::new().write(true).open(target)?;
    overwrite(&file, text.as_bytes()).inspect_err(|_| {
        if let Err(error) = overwrite(&file, &before) {
            tracing::error!(file = %target.display(), %error, "half written, and what was there can't be put back");
        }
    })?;
    Ok(file)
}

fn overwrite(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    file.rewind()?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_its_links() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "one").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("real", &link).unwrap();
        let inode = fs::metadata(&real).unwrap().ino();
        replace(&link, "two").unwrap().sync().unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "two");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let now = fs::metadata(&real).unwrap();
        assert_eq!(now.permissions().mode() & 0o777, 0o640);
        assert_ne!(now.ino(), inode, "renamed, not overwritten");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing left beside");
    }

    /// A file that is mounted by itself into a container can't be renamed over: EBUSY.
    #[test]
    fn where_no_rename_can_be_the_text_is_written_in_place() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mounted");
        fs::write(&file, "a longer text").unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        replace_with(&file, "short", |_, _| Err(ErrorKind::ResourceBusy.into()))
            .unwrap()
            .sync()
            .unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "short");
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing left beside");
        let full = replace_with(&file, "x", |_, _| Err(ErrorKind::StorageFull.into()));
        assert!(full.is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "short");
    }
}
