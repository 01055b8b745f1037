//! A real `cutover serve`, for the benches that measure a whole process.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

/// The program that cargo built for the bench.
pub const BUILT: &str = env!("CARGO_BIN_EXE_cutover");

/// The process; it ends when this is dropped.
pub struct Serving {
    pub child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Serving {
    /// Starts the program with the `config.toml` in a folder, in an empty environment, and waits until it says where it listens, which takes
    /// `log.format = "json"`. What it says after that is handed to `hears`.
    pub fn start(program: &str, folder: &Path, hears: impl FnMut(String) + Send + 'static) -> Self {
        let mut child = Command::new(program)
            .args(["serve", "--config"])
            .arg(folder.join("config.toml"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let addresses = |line: &Value| -> Option<(SocketAddr, SocketAddr)> {
            let of = |key: &str| line.get(key)?.as_str()?.parse().ok();
            Some((of("listen")?, of("admin")?))
        };
        let said = lines.by_ref().find_map(|line| addresses(&serde_json::from_str(&line).ok()?));
        let (address, admin) = said.unwrap();
        // Nobody may be left to write to a full pipe.
        std::thread::spawn(move || lines.for_each(hears));
        Self { child, address, admin }
    }

    /// A number of `/proc/PID/status`: memory in kB.
    pub fn status(&self, key: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
