//! The process: started, told, sampled, and asked whether anything is left.

use std::fmt;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::side::Pair;
use serde_json::Value;
use tempfile::TempDir;

use crate::events::SALT;
use crate::side::Upstream;
use crate::support::conn::Conn;
use crate::support::world::{ANON_NEW, ANON_OLD};
use crate::support::{PATIENCE, eventually};

pub const DRAIN: Duration = Duration::from_secs(2);
const NUMBER: &str = "V2_ROLLOUT_PERCENTAGE";
/// How long the last ones may take to be gone.
const QUIET: Duration = Duration::from_secs(30);
/// Lines of the log that are kept.
const KEPT: usize = 20;

/// `cutover serve`.
pub struct Process {
    child: Mutex<Child>,
    folder: TempDir,
    pub address: SocketAddr,
    admin: SocketAddr,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// What the process holds at one moment.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Resident, in kB.
    pub memory: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub clients: u64,
    pub upstreams: u64,
    pub sockets: u64,
    pub flying: u64,
}

impl Process {
    pub fn serve(sides: &Pair<Upstream>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("live.env"), format!("{NUMBER}=0\n")).unwrap();
        fs::write(folder.path().join("config.toml"), settings(sides)).unwrap();
        let built = env!("CARGO_BIN_EXE_cutover").to_owned();
        let mut child = Command::new(std::env::var("CUTOVER_BIN").unwrap_or(built))
            .args(["serve", "--config", "config.toml"])
            .current_dir(folder.path())
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let (address, admin) = lines.by_ref().find_map(|line| addresses(&line)).unwrap();
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&complaints);
        std::thread::spawn(move || lines.for_each(|line| note(&noted, line)));
        Self { child: Mutex::new(child), folder, address, admin, complaints }
    }

    /// Changes the percentage, and waits until it is live.
    pub async fn is_told(&self, percentage: u8, by_file: bool) {
        if by_file {
            let beside = self.folder.path().join("live.env.new");
            fs::write(&beside, format!("{NUMBER}={percentage}\n")).unwrap();
            fs::rename(beside, self.folder.path().join("live.env")).unwrap();
        } else {
            let body = format!("{{\"percentage\":{percentage},\"reason\":\"soak\"}}");
            let (status, text) = self.ask("PUT", "/rollout", &body).await;
            assert_eq!(status, 200, "{text}");
        }
        let begun = Instant::now();
        loop {
            let (_, text) = self.ask("GET", "/rollout", "").await;
            if serde_json::from_str::<Value>(&text).unwrap()["percentage"] == percentage {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the percentage does not become {percentage}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn sample(&self) -> Sample {
        let (_, page) = self.ask("GET", "/metrics", "").await;
        let gauge = |name: &str| {
            let of = |line: &str| line.strip_prefix(name)?.strip_prefix(['{', ' ']).map(drop);
            let lines = page.lines().filter(|line| of(line).is_some());
            lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum::<f64>()
                as u64
        };
        let id = self.child.lock().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let line = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Sample {
            memory: line("VmRSS"),
            descriptors: fs::read_dir(format!("/proc/{id}/fd")).unwrap().count() as u64,
            threads: line("Threads"),
            clients: gauge("cutover_client_connections_open"),
            upstreams: gauge("cutover_upstream_connections_open"),
            sockets: gauge("cutover_websockets_open") + gauge("cutover_realtime_sockets_open"),
            flying: gauge("cutover_requests_in_flight"),
        }
    }

    /// Waits until nobody is served any more; not for ever.
    pub async fn becomes_quiet(&self) -> Sample {
        let begun = Instant::now();
        loop {
            let sample = self.sample().await;
            if begun.elapsed() > QUIET || sample.clients + sample.sockets + sample.flying == 0 {
                return sample;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What it said at level ERROR, and what is no line of its log: a panic.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// Asks it to stop, and waits for that.
    pub async fn stops(&self) {
        let id = self.child.lock().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually("the end of the process", async || {
            self.child.lock().unwrap().try_wait().unwrap().is_some()
        })
        .await;
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut conn = Conn::open(self.admin).await;
        let length = body.len();
        conn.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}",
            self.admin
        ))
        .await;
        let answer = conn.answer_to(method).await;
        (answer.status, answer.text())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap();
        child.kill().ok();
        child.wait().ok();
    }
}

fn settings(sides: &Pair<Upstream>) -> String {
    format!(
        "listen = \"127.0.0.1:0\"\nworkers = 2\ndrain_timeout = \"5s\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\naccess = false\n\
         [projects.old]\nurl = \"http://{}\"\nanon_key = {ANON_OLD:?}\n[projects.new]\nurl = \"http://{}\"\nanon_key = {ANON_NEW:?}\n\
         [rollout]\nenv_file = \"live.env\"\naudit_file = \"\"\nsalt = {SALT:?}\n[upstream]\ntimeout = \"3s\"\nconnect_timeout = \"500ms\"\n\
         [realtime]\ndrain = \"{}s\"\n[schema.tables]\ntodos = \"app\"\n",
        sides.old.address,
        sides.new.address,
        DRAIN.as_secs(),
    )
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let of = |key: &str| line.get(key)?.as_str()?.parse().ok();
    Some((of("listen")?, of("admin")?))
}

/// Keeps what should not be said: a side's faults are no errors of the proxy's own.
fn note(complaints: &Mutex<Vec<String>>, line: String) {
    let is_error =
        serde_json::from_str::<Value>(&line).map_or(true, |line| line["level"] == "ERROR");
    let mut complaints = complaints.lock().unwrap();
    if is_error && complaints.len() < KEPT {
        complaints.push(line);
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory, descriptors, threads, clients, upstreams, sockets, flying } = self;
        write!(
            f,
            "{memory} kB, {descriptors} descriptors, {threads} threads, {clients} clients, {upstreams} to the sides, {sockets} sockets, {flying} in flight"
        )
    }
}
