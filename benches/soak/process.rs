//! The process: started, told, sampled, and asked whether anything is left.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::side::Pair;
use serde_json::Value;
use tempfile::TempDir;

use crate::events::SALT;
use crate::serving::{BUILT, Serving};
use crate::side::Upstream;
use crate::support::conn::ask_admin;
use crate::support::world::{ANON_NEW, ANON_OLD};
use crate::support::{PATIENCE, eventually, sum};

pub const DRAIN: Duration = Duration::from_secs(2);
const NUMBER: &str = "V2_ROLLOUT_PERCENTAGE";
/// How long the last ones may take to be gone.
const QUIET: Duration = Duration::from_secs(30);
/// Lines of the log that are kept.
const KEPT: usize = 20;

/// `cutover serve`.
pub struct Process {
    serving: Mutex<Serving>,
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
        let program = std::env::var("CUTOVER_BIN").unwrap_or_else(|_| BUILT.to_owned());
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&complaints);
        let serving = Serving::start(&program, folder.path(), move |line| note(&noted, line));
        let (address, admin) = (serving.address, serving.admin);
        Self { serving: Mutex::new(serving), folder, address, admin, complaints }
    }

    /// Changes the percentage, and waits until it is live.
    pub async fn is_told(&self, percentage: u8, by_file: bool) {
        if by_file {
            let beside = self.folder.path().join("live.env.new");
            fs::write(&beside, format!("{NUMBER}={percentage}\n")).unwrap();
            fs::rename(beside, self.folder.path().join("live.env")).unwrap();
        } else {
            let body = format!("{{\"percentage\":{percentage},\"reason\":\"soak\"}}");
            let answer = ask_admin(self.admin, "PUT", "/rollout", &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let begun = Instant::now();
        loop {
            let now = ask_admin(self.admin, "GET", "/rollout", "").await.json();
            if now["percentage"] == percentage {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "the percentage does not become {percentage}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn sample(&self) -> Sample {
        let page = ask_admin(self.admin, "GET", "/metrics", "").await.text();
        let gauge = |name: &str| sum(&page, name, "") as u64;
        let serving = self.serving.lock().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{}/fd", serving.child.id())).unwrap();
        Sample {
            memory: serving.status("VmRSS"),
            descriptors: descriptors.count() as u64,
            threads: serving.status("Threads"),
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
        let id = self.serving.lock().unwrap().child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually("the end of the process", async || {
            self.serving.lock().unwrap().child.try_wait().unwrap().is_some()
        })
        .await;
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
