//! Files that somebody else may have replaced by anything: opening never waits, what is no file is not read, and a lock is waited for
//! only so long.

use std::fs::{File, FileType, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at a lock.
const LOOK: Duration = Duration::from_millis(2);

/// Opens a file for reading. A FIFO would keep the reader until somebody writes into it, and a device need not end.
///
/// # Errors
/// What the system says; a directory, FIFO, device or socket.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    is_file(&file)?;
    Ok(file)
}

/// Whether what was opened is a file.
///
/// # Errors
/// It is not, or the system does not say.
pub(crate) fn is_file(opened: &File) -> io::Result<()> {
    let kind = opened.metadata()?.file_type();
    if kind.is_file() {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidInput, format!("it is no file but {}", name(kind))))
}

fn name(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

/// Reads a file of at most `largest` bytes.
///
/// # Errors
/// What [`open`] says; a larger file.
pub(crate) fn read(path: &Path, largest: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    (&file).take(largest.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > largest {
        return Err(too_large(largest));
    }
    Ok(bytes)
}

/// What is said of a file that is too large.
#[must_use]
pub(crate) fn too_large(largest: u64) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("larger than {} MiB", largest >> 20))
}

/// Locks a file against other processes that lock it, until it is closed; the end of a process, however it comes, closes it.
///
/// # Errors
/// Somebody else has held it for `patience`; the system has no such locks.
pub(crate) fn lock(file: &File, patience: Duration) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                std::thread::sleep(LOOK);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_no_file_is_named_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let socket = folder.path().join("socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for (path, want) in [
            (folder.path(), "it is no file but a directory"),
            (&fifo, "it is no file but a FIFO"),
            (Path::new("/dev/zero"), "it is no file but a device"),
        ] {
            assert_eq!(read(path, 10).unwrap_err().to_string(), want);
        }
        assert!(read(&socket, 10).is_err());
    }

    #[test]
    fn a_file_is_read_up_to_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"0123456789");
        assert_eq!(read(&path, 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_lock_is_waited_for_only_so_long_and_ends_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let holder = File::create(&path).unwrap();
        lock(&holder, Duration::ZERO).unwrap();
        let other = open(&path).unwrap();
        assert!(lock(&other, Duration::from_millis(20)).is_err());
        drop(holder);
        lock(&other, Duration::ZERO).unwrap();
    }
}
