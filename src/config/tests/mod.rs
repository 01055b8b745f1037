//! Tests of the room as a whole: files on disk, a process environment made of data, and no sleeping for luck.

mod apply;
mod audited;
mod docs;
mod edits;
mod faults;
mod followed;
mod held;
mod layered;
mod live;
mod tokens;
mod watching;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use super::fault::Faults;
use super::live::{Change, Control, Sources};
use super::{Report, check};
use crate::decide::percentage::Percentage;

/// The smallest file without faults or warnings.
const GOOD: &str = r#"# Cutover
[projects.old]
url = "https://a.example.com"
anon_key = "old-anon"

[projects.new]
url = "https://b.example.com"
anon_key = "new-anon"

[rollout]
percentage = 10   # week 1
"#;

/// A directory with a `config.toml`, and an environment.
struct Home {
    directory: TempDir,
    environment: BTreeMap<String, String>,
}

impl Home {
    fn new(config: &str) -> Self {
        let home = Self { directory: tempfile::tempdir().unwrap(), environment: BTreeMap::new() };
        home.write("config.toml", config);
        home
    }

    /// `GOOD` with more lines in `[rollout]`, and what may follow.
    fn with(more: &str) -> Self {
        Self::new(&format!("{GOOD}{more}"))
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Replaces a file as editors do: a new one, renamed over it.
    fn rename_over(&self, name: &str, text: &str) {
        self.write("new", text);
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn sources(&self) -> Sources {
        Sources { file: Some(self.path("config.toml")), environment: self.environment.clone() }
    }

    fn check(&self) -> Result<Report, Faults> {
        check(&self.sources())
    }

    /// The faults as text, one a line, without the directory's name.
    fn faults(&self) -> String {
        let faults = self.check().expect_err("faults").to_string();
        faults.replace(&format!("{}/", self.directory.path().display()), "")
    }

    fn start(&self) -> Arc<Control> {
        Control::start(self.sources()).unwrap().0
    }
}

fn percent(text: &str) -> Percentage {
    text.parse().unwrap()
}

fn set(text: &str) -> Change {
    Change {
        percentage: Some(percent(text)),
        actor: "admin:test".to_owned(),
        reason: "because".to_owned(),
        ..Change::default()
    }
}

/// Looks again and again until `holds`, or fails.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn mounted(directory: &Path, version: &str, files: &[(&str, &str)]) {
    use std::os::unix::fs::symlink;
    // As the kubelet does it: a new directory of files, and one rename of a link.
    let data = directory.join(format!("..{version}"));
    fs::create_dir_all(&data).unwrap();
    for (name, text) in files {
        fs::write(data.join(name), text).unwrap();
        let link = directory.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("..data/{name}"), link).unwrap();
        }
    }
    symlink(format!("..{version}"), directory.join("..data_tmp")).unwrap();
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).unwrap();
}
