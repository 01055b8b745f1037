//! The real binary as a process.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use std::io::{BufRead, BufReader, Read};

use super::conn::{Answer, ask_admin};
use super::{PATIENCE, eventually, sum};

/// `cutover serve`, running.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    /// Those who read what it writes, until its end.
    readers: Vec<JoinHandle<()>>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Process {
    /// Starts it and waits until it says where it listens.
    pub async fn serve(folder: &Path) -> Self {
        Self::start(serving(folder)).await
    }

    /// Starts this command, which becomes `cutover serve`, and waits until it says where it listens.
    pub async fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        // Standard output may be something else.
        let mut readers = vec![collect(child.stderr.take().unwrap(), &output)];
        readers.extend(child.stdout.take().map(|stdout| collect(stdout, &output)));
        let address = |text: &str, key: &str| -> Option<SocketAddr> {
            let line = text.lines().find(|line| line.contains("\"serving\""))?;
            serde_json::from_str::<serde_json::Value>(line).ok()?.get(key)?.as_str()?.parse().ok()
        };
        let of = |key: &str| address(&output.lock().unwrap(), key);
        eventually("the line that says where it listens", async || of("listen").is_some()).await;
        let (address, admin) = (of("listen").unwrap(), of("admin").unwrap());
        Self { child, output, readers, address, admin }
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

    /// Ends it as nothing can be prepared for.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub async fn ask_admin(&self, method: &str, path: &str, body: &str) -> Answer {
        ask_admin(self.admin, method, path, body).await
    }

    /// The sum over every series of a metric whose labels hold `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        sum(&self.ask_admin("GET", "/metrics", "").await.text(), name, labels)
    }

    pub async fn status(&self) -> serde_json::Value {
        self.ask_admin("GET", "/status", "").await.json()
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Waits for its end, and for the last that it said.
    pub async fn ends(&mut self) -> ExitStatus {
        eventually("the end of the process", async || self.child.try_wait().unwrap().is_some())
            .await;
        eventually("the end of its output", async || {
            self.readers.iter().all(JoinHandle::is_finished)
        })
        .await;
        self.child.wait().unwrap()
    }
}

/// Runs a command that has to end by itself. One that goes on is ended, and the test fails.
pub fn ended(command: &mut Command) -> Output {
    let mut child = command.spawn().unwrap();
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it goes on: {command:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// The command that serves with the settings in a folder, in an empty environment.
pub fn serving(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command
        .args(["serve", "--config"])
        .arg(folder.join("config.toml"))
        .current_dir(folder)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn collect(stream: impl Read + Send + 'static, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    })
}
