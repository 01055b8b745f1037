//! Three real processes on one ConfigMap: from a change to the moment at which all three report it, by the admin API of one of them
//! and by hand in the ConfigMap. The API server is the tests' own, over real HTTP. A change that takes a second fails the bench.
//!
//! `REPLICAS_OUTAGE=120` adds an outage of the API server of so many seconds: nothing may change while it lasts, an abort by a
//! local file has to work, and afterwards the next change has to arrive.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: whatever fails ends it, and printing is its purpose"
)]
#![expect(unreachable_pub, reason = "the tests' server is not for readers of this crate")]
#![expect(clippy::disallowed_methods, reason = "a bench has no command line of its own")]

#[allow(dead_code, reason = "the bench asks for less than the tests")]
#[path = "../tests/it/support/kubernetes.rs"]
mod kubernetes;
#[allow(dead_code, reason = "each bench asks for less")]
mod serving;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use kubernetes::{Kubernetes, Mode, NAME, NAMESPACE, TOKEN};
use serving::{BUILT, Serving};

const CHANGES: usize = 100;
const NUMBER: &str = "V2_ROLLOUT_PERCENTAGE";
/// What the project promises.
const PROMISED: Duration = Duration::from_secs(1);

/// One replica.
struct Replica {
    process: Serving,
    folder: PathBuf,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let api = Kubernetes::start(&[(NUMBER, "10"), ("SUPABASE_ENV", "")]).await;
    let replicas: Vec<Replica> =
        (0..3).map(|n| start(&folder.path().join(n.to_string()), &api.url())).collect();
    api.is_watched_by(3).await;

    let mut took = Vec::new();
    for n in 0..CHANGES {
        let percentage = if n % 2 == 0 { 50 } else { 10 };
        let begun = Instant::now();
        let body = format!("{{\"percentage\":{percentage},\"reason\":\"bench\"}}");
        let (status, answer) = ask(replicas[n % 3].process.admin, "PUT", &body).await;
        assert_eq!(status, 200, "{answer}");
        arrives(&replicas, percentage).await;
        took.push(begun.elapsed());
    }
    show("admin API of one replica", took);
    let mut took = Vec::new();
    for n in 0..CHANGES {
        let percentage = if n % 2 == 0 { 50 } else { 10 };
        let begun = Instant::now();
        api.set(NUMBER, &percentage.to_string());
        arrives(&replicas, percentage).await;
        took.push(begun.elapsed());
    }
    show("by hand in the ConfigMap", took);
    if let Ok(seconds) = std::env::var("REPLICAS_OUTAGE") {
        outage(&api, &replicas, Duration::from_secs(seconds.parse().unwrap())).await;
    }
}

fn start(folder: &Path, api: &str) -> Replica {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("token"), TOKEN).unwrap();
    fs::write(folder.join("local.env"), "# for the worst case\n").unwrap();
    let text = format!(
        "listen = \"127.0.0.1:0\"\nworkers = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\naccess = false\n\
         [projects.old]\nurl = \"http://127.0.0.1:1\"\n[projects.new]\nurl = \"http://127.0.0.1:2\"\n\
         [rollout]\nenv_file = \"local.env\"\naudit_file = \"\"\n\
         [kubernetes]\nconfigmap = \"{NAMESPACE}/{NAME}\"\napi_url = \"{api}\"\ntoken_file = \"token\"\n"
    );
    fs::write(folder.join("config.toml"), text).unwrap();
    Replica { process: Serving::start(BUILT, folder, drop), folder: folder.to_owned() }
}

/// Waits until all report it.
async fn arrives(replicas: &[Replica], percentage: u64) {
    let begun = Instant::now();
    join_all(replicas.iter().map(async |replica| {
        while ask(replica.process.admin, "GET", "").await.1["percentage"] != percentage {
            assert!(begun.elapsed() < PROMISED, "a change takes a second");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }))
    .await;
}

async fn outage(api: &Kubernetes, replicas: &[Replica], length: Duration) {
    let (_, before) = ask(replicas[0].process.admin, "GET", "").await;
    api.is(Mode::Away);
    let begun = Instant::now();
    let mut looks = 0;
    while begun.elapsed() < length {
        for replica in replicas {
            let (_, now) = ask(replica.process.admin, "GET", "").await;
            let same = ["epoch", "percentage", "force"].iter().all(|key| now[key] == before[key]);
            assert!(same, "{now} was {before}");
            looks += 1;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (status, refused) =
        ask(replicas[0].process.admin, "PUT", "{\"percentage\":99,\"reason\":\"no\"}").await;
    assert_eq!(status, 503, "{refused}");
    let aborted = Instant::now();
    fs::write(replicas[0].folder.join("local.env"), "SUPABASE_ENV=production\n").unwrap();
    while ask(replicas[0].process.admin, "GET", "").await.1["force"] != "old" {
        assert!(aborted.elapsed() < PROMISED, "an abort by a file takes a second");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!(
        "replicas: API away for {length:?}: {looks} looks, nothing changed; set refused with {}; abort by a local file live after {:.1} ms",
        refused["code"],
        aborted.elapsed().as_secs_f64() * 1_000.0
    );
    fs::write(replicas[0].folder.join("local.env"), "# over\n").unwrap();
    api.is(Mode::Up);
    let back = Instant::now();
    api.set(NUMBER, "77");
    join_all(replicas.iter().map(async |replica| {
        while ask(replica.process.admin, "GET", "").await.1["percentage"] != 77 {
            assert!(back.elapsed() < Duration::from_secs(30), "no replica finds the API again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }))
    .await;
    println!(
        "replicas: all follow again {:.1} s after the API was back",
        back.elapsed().as_secs_f64()
    );
}

async fn ask(admin: SocketAddr, method: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(admin).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let length = body.len();
    let request = format!(
        "{method} /rollout HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn show(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let ms = |duration: Duration| duration.as_secs_f64() * 1_000.0;
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "replicas: {what}: until all 3 report it: median {:.1} ms, slowest {:.1} ms of {CHANGES}",
        ms(median),
        ms(worst)
    );
    assert!(worst < PROMISED, "slower than promised");
}
