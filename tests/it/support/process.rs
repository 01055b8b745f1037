//! The real binary as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use std::io::{BufRead, BufReader, Read};

use super::eventually;

/// `cutover serve`, running.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// Starts it and waits until it says where it listens.
    pub async fn serve(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(["serve", "--config"])
            .arg(folder.join("config.toml"))
            .current_dir(folder)
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().unwrap(), &output);
        collect(child.stderr.take().unwrap(), &output);
        let address = |text: &str, key: &str| -> Option<SocketAddr> {
            let line = text.lines().find(|line| line.contains("\"serving\""))?;
            serde_json::from_str::<serde_json::Value>(line).ok()?.get(key)?.as_str()?.parse().ok()
        };
        let of = |key: &str| address(&output.lock().unwrap(), key);
        eventually("the line that says where it listens", async || of("listen").is_some()).await;
        let (address, admin) = (of("listen").unwrap(), of("admin").unwrap());
        Self { child, output, address, admin }
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it wrote so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Asks for a reload.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    pub async fn ends(&mut self) -> ExitStatus {
        eventually("the end of the process", async || self.child.try_wait().unwrap().is_some())
            .await;
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn collect(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    });
}
