//! What happens to settings, and to the audit, at a bad hour: files that are none any more, a full disk, storms of signals, editors
//! that meet, processes that are killed in the middle.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use cutover::config::audit::{Verified, verify};
use cutover::side::Side;
use tempfile::TempDir;

use crate::support::conn::{Answer, Conn};
use crate::support::process::{Process, ended, serving};
use crate::support::upstream::Upstream;
use crate::support::world::{ANON_OLD, World, token};
use crate::support::{eventually, within};

const AUDIT: &str = "cutover-audit.jsonl";

/// Settings on disk between two sides, and whatever is run with them.
struct Desk {
    folder: TempDir,
    _sides: Option<(Upstream, Upstream)>,
}

impl Desk {
    /// With sides that answer. `more`: dotted key, TOML value.
    async fn new(more: &[(&str, &str)]) -> Self {
        let sides = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
        let mut setup = World::start().set("log.format", "\"json\"");
        for (key, value) in more {
            setup = setup.set(key, value);
        }
        let (folder, _) = setup.write(&sides.0, &sides.1);
        Self { folder, _sides: Some(sides) }
    }

    /// Without sides and proxy: the admin listener is nobody's.
    fn alone() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = "# a comment that has to stay\nadmin.listen = \"127.0.0.1:1\"\n\
                    [projects.old]\nurl = \"http://127.0.0.1:1\"\n[projects.new]\nurl = \"http://127.0.0.1:2\"\n\
                    [rollout]\npercentage = 1   # week 1\n";
        fs::write(folder.path().join("config.toml"), text).unwrap();
        Self { folder, _sides: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Replaces a file at once.
    fn put(&self, name: &str, text: &str) {
        fs::write(self.path("new"), text).unwrap();
        fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        ended(&mut self.command(arguments))
    }

    /// What a process left beside the files.
    fn left_over(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("..")).collect()
    }

    /// The audit's chain is whole, to the command that operators have for it too; answers the lines.
    fn audit(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.path(AUDIT)).unwrap_or_default();
        let verified = verify(&text);
        assert!(matches!(verified, Ok(Verified { torn: false, .. })), "{verified:?}\n{text}");
        let checked = self.run(&["rollout", "history", "--verify"]);
        assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], b"\n", &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

async fn ask(process: &Process) -> Answer {
    let mut conn = Conn::open(process.address).await;
    let bearer = token("ada");
    conn.send(format!(
        "GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\nauthorization: Bearer {bearer}\r\nconnection: close\r\n\r\n"
    ))
    .await;
    conn.answer().await
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What may stand where a file was, how it comes there, and what is said of it.
type Replacement = (&'static str, fn(&Path), &'static str);

const REPLACEMENTS: [Replacement; 9] = [
    ("nothing", |_| (), "No such file"),
    ("a directory", |path| fs::create_dir(path).unwrap(), "it is no file but a directory"),
    ("a FIFO", fifo, "it is no file but a FIFO"),
    ("a device", |path| symlink("/dev/zero", path).unwrap(), "it is no file but a device"),
    ("an empty file", |path| fs::write(path, "").unwrap(), "an empty file"),
    ("invalid UTF-8", |path| fs::write(path, b"# \xff\xfe\n").unwrap(), "UTF-8"),
    ("a dangling link", |path| symlink("nowhere", path).unwrap(), "No such file"),
    (
        "100 MB",
        |path| fs::File::create(path).unwrap().set_len(100_000_000).unwrap(),
        "larger than 16 MiB",
    ),
    (
        "a file that nobody may read",
        |path| {
            fs::write(path, "# closed\n").unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o0)).unwrap();
        },
        "Permission denied",
    ),
];

#[expect(clippy::print_stdout, reason = "figures, for whoever asks for them")]
fn print(figures: &str) {
    println!("{figures}");
}

/// Puts everything in place of `name`, and each time something good again.
async fn survives(desk: &Desk, name: &str, good: impl Fn(u8) -> String) {
    let process = Process::serve(desk.folder.path()).await;
    let (mut served, mut side) = (0_u8, Side::Old);
    ask(&process).await.served_by(side);
    for (what, replace, complaint) in REPLACEMENTS {
        let (path, begun) = (desk.path(name), Instant::now());
        remove(&path);
        replace(&path);
        if complaint == "Permission denied" && fs::read(&path).is_ok() {
            // Whoever runs this may read everything.
            continue;
        }
        eventually(what, async || {
            process.status().await["reload"]["faults"].to_string().contains(complaint)
        })
        .await;
        ask(&process).await.served_by(side);
        assert!(process.metric("cutover_config_faults", "").await > 0.0, "{what}");
        // It is written behind the proxy's back.
        eventually("the fault in the log", async || {
            let log = process.output();
            log.lines().any(|line| line.contains("refused") && line.contains(complaint))
        })
        .await;
        let change = "{\"percentage\":50,\"reason\":\"test\"}";
        let refused = process.ask_admin("PUT", "/rollout", change).await;
        assert_eq!(refused.status, 422, "{what}: nothing is written over it: {refused:?}");
        remove(&path);
        served = 100 - served;
        side = if served == 0 { Side::Old } else { Side::New };
        desk.put(name, &good(served));
        eventually("the next good file", async || {
            let status = process.status().await;
            status["percentage"] == served && status["reload"]["faults"] == serde_json::json!([])
        })
        .await;
        ask(&process).await.served_by(side);
        print(&format!("{name}, {what}: reported, and mended, in {:?}", begun.elapsed()));
    }
    assert_eq!(desk.left_over(), [""; 0]);
}

#[tokio::test]
async fn whatever_replaces_the_file_the_last_good_settings_serve() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let text = desk.read("config.toml");
    let good =
        |n: u8| text.replace("rollout.percentage = 0\n", &format!("rollout.percentage = {n}\n"));
    survives(&desk, "config.toml", good).await;
}

#[tokio::test]
async fn whatever_replaces_the_env_file_the_last_good_settings_serve() {
    let desk = Desk::new(&[("rollout.env_file", "\"cutover.env\"")]).await;
    let good = |n: u8| format!("# live\nV2_ROLLOUT_PERCENTAGE={n}\n");
    desk.put("cutover.env", &good(0));
    survives(&desk, "cutover.env", good).await;
}

#[tokio::test]
async fn whatever_replaces_the_watched_directory_the_last_good_settings_serve() {
    let desk = Desk::new(&[("rollout.watch_dir", "\"live\"")]).await;
    let (live, number) = (desk.path("live"), desk.path("live/V2_ROLLOUT_PERCENTAGE"));
    let good = |n: u8| {
        fs::create_dir_all(&live).unwrap();
        remove(&number);
        desk.put("live/V2_ROLLOUT_PERCENTAGE", &format!("{n}\n"));
    };
    good(0);
    let process = Process::serve(desk.folder.path()).await;
    let faults = async || process.status().await["reload"]["faults"].to_string();
    let becomes = async |n: u8| {
        eventually("the next good value", async || {
            process.status().await["percentage"] == n && faults().await == "[]"
        })
        .await;
    };
    for (n, (kind, complaint)) in
        [(fifo as fn(&Path), "a FIFO"), (|path| fs::create_dir(path).unwrap(), "a directory")]
            .into_iter()
            .enumerate()
    {
        let n = 2 * n as u8;
        remove(&number);
        kind(&number);
        eventually("the value's fault", async || faults().await.contains(complaint)).await;
        ask(&process).await.served_by(Side::Old);
        good(n + 1);
        becomes(n + 1).await;
        remove(&number);
        fs::remove_dir(&live).unwrap();
        kind(&live);
        if complaint == "a FIFO" {
            eventually("the directory's fault", async || faults().await.contains("watch_dir"))
                .await;
            ask(&process).await.served_by(Side::Old);
        }
        remove(&live);
        good(n + 2);
        becomes(n + 2).await;
    }
}

/// A clock that jumps shows in the times of files, which may be older than the ones before, or of the next century.
#[tokio::test]
async fn files_of_any_age_are_taken() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let text = desk.read("config.toml");
    let process = Process::serve(desk.folder.path()).await;
    let (year, now) = (
        Duration::from_secs(365 * 86_400),
        fs::metadata(desk.path("config.toml")).unwrap().modified().unwrap(),
    );
    for (n, time) in [now - 50 * year, now + 70 * year, now - year, now].into_iter().enumerate() {
        let n = n + 1;
        let good = text.replace("rollout.percentage = 0\n", &format!("rollout.percentage = {n}\n"));
        fs::write(desk.path("new"), good).unwrap();
        fs::File::open(desk.path("new")).unwrap().set_modified(time).unwrap();
        fs::rename(desk.path("new"), desk.path("config.toml")).unwrap();
        eventually("its number", async || process.status().await["percentage"] == n).await;
    }
    assert_eq!(desk.audit().len(), 4);
}

#[tokio::test]
async fn a_storm_of_sighup_ends_nothing_and_hides_nothing() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let text = desk.read("config.toml");
    let process = Process::serve(desk.folder.path()).await;
    let storm =
        format!("i=0; while [ $i -lt 1000 ]; do kill -HUP {}; i=$((i+1)); done", process.id());
    let mut storm = Command::new("/bin/sh").args(["-c", &storm]).spawn().unwrap();
    let mut asked = 0;
    while storm.try_wait().unwrap().is_none() || asked < 20 {
        ask(&process).await.served_by(Side::Old);
        asked += 1;
        if asked == 5 {
            desk.put("config.toml", &text.replace("percentage = 0\n", "percentage = 101\n"));
        }
    }
    assert!(storm.wait().unwrap().success());
    eventually("the fault", async || {
        process.status().await["reload"]["faults"].to_string().contains("101")
    })
    .await;
    desk.put("config.toml", &text.replace("percentage = 0\n", "percentage = 100\n"));
    eventually("the good file", async || process.status().await["percentage"] == 100).await;
    ask(&process).await.served_by(Side::New);
    assert_eq!(desk.audit().len(), 1);
}

/// Every change that was answered with success is in the audit, every other one is not, and the last one stands.
fn accounts(desk: &Desk, done: &BTreeSet<String>, refused: &BTreeSet<String>) -> String {
    let records = desk.audit();
    let reasons: BTreeSet<String> =
        records.iter().map(|record| record["reason"].as_str().unwrap().to_owned()).collect();
    assert!(done.is_subset(&reasons), "lost silently: {:?}", done - &reasons);
    assert!(refused.is_disjoint(&reasons), "refused, and yet made: {:?}", refused & &reasons);
    assert_eq!(desk.left_over(), [""; 0]);
    records.last().unwrap()["to"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn editors_that_meet_lose_nothing_silently() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let process = Process::serve(desk.folder.path()).await;
    let url = format!("http://{}", process.admin);
    let set = |n: u8| {
        let (number, reason) = (n.to_string(), format!("cli {n}"));
        let mut command = desk.command(&["rollout", "set", &number, "--reason", &reason]);
        (reason, command.env("CUTOVER_ADMIN_URL", &url).spawn().unwrap())
    };
    let (mut done, mut refused) = (BTreeSet::new(), BTreeSet::new());
    let mut ends = |(reason, command): (String, std::process::Child)| {
        let ended = command.wait_with_output().unwrap();
        match ended.status.code() {
            Some(0) => done.insert(reason),
            Some(3) => refused.insert(reason),
            _ => panic!("{}", said(&ended)),
        };
    };
    let two = [set(1), set(2)];
    two.into_iter().for_each(&mut ends);
    let commands: Vec<_> = (3..=10).map(set).collect();
    let mut by_api = BTreeSet::new();
    for n in 11..=30 {
        let reason = format!("api {n}");
        let change = format!("{{\"percentage\":{n},\"reason\":\"{reason}\"}}");
        let answer = process.ask_admin("PUT", "/rollout", &change).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        by_api.insert(reason);
    }
    commands.into_iter().for_each(&mut ends);
    assert!(!done.is_empty(), "of two that meet one is made");
    done.append(&mut by_api);
    let last = accounts(&desk, &done, &refused);
    assert_eq!(process.status().await["percentage"].to_string(), last);
    assert!(desk.read("config.toml").contains(&format!("rollout.percentage = {last}\n")));
    println!("20 by the API; of 10 by the command line {} refused", refused.len());
}

/// Without a proxy every command writes for itself, and the file is all that they share. Nobody waits for longer than a second for one that
/// stands still with the file locked; what both write then is not judged here.
#[test]
fn commands_that_meet_without_a_proxy_lose_nothing_silently() {
    let mut judged = 0;
    for _ in 0..10 {
        let begun = Instant::now();
        let desk = Desk::alone();
        let (mut done, mut refused) = (BTreeSet::new(), BTreeSet::new());
        let mut commands: Vec<_> = (2..=9)
            .map(|n| (n.to_string(), format!("set {n}")))
            .map(|(n, reason)| {
                (
                    desk.command(&["rollout", "set", &n, "--reason", &reason]).spawn().unwrap(),
                    reason,
                )
            })
            .collect();
        let abort = desk.command(&["rollout", "abort", "--reason", "abort"]).spawn().unwrap();
        commands.insert(4, (abort, "abort".to_owned()));
        for (command, reason) in commands {
            let ended = command.wait_with_output().unwrap();
            match ended.status.code() {
                Some(0) => done.insert(reason),
                Some(3) => refused.insert(reason),
                _ => panic!("{}", said(&ended)),
            };
        }
        assert!(done.contains("abort"), "an abort is never refused");
        // None of them waited for longer than all of them took.
        if begun.elapsed() >= Duration::from_secs(1) {
            continue;
        }
        judged += 1;
        // Whoever came after the abort was refused.
        assert_eq!(accounts(&desk, &done, &refused), "0 forced old");
        let text = desk.read("config.toml");
        assert!(
            text.contains("percentage = 0   # week 1") && text.contains("force = \"old\""),
            "{text}"
        );
        if judged == 4 {
            return;
        }
    }
    println!("{judged} of 10 rounds took less than a second, which those who wait have");
}

/// How a change was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Killed {
    /// Before it wrote anything, or while it wrote beside the file.
    Before,
    /// After the file was replaced.
    After,
    /// It was faster.
    Not,
}

/// Kills a command that changes the number, at a moment that depends on `n`: after some time, or as soon as it is seen to write.
fn kill_at(desk: &Desk, n: usize, longest: Duration) -> Killed {
    let before = desk.read("config.toml");
    let number = (n % 98 + 2).to_string();
    let line = before.lines().find(|line| line.starts_with("percentage")).unwrap();
    let after = before.replace(line, &format!("percentage = {number}   # week 1"));
    let inode = || fs::metadata(desk.path("config.toml")).unwrap().ino();
    let first = inode();
    let reason = format!("kill {n}");
    let mut child =
        desk.command(&["rollout", "set", &number, "--reason", &reason]).spawn().unwrap();
    let begun = Instant::now();
    let due = longest.mul_f64(((n / 3) % 40) as f64 / 40.0);
    let is_time = || match n % 3 {
        0 => begun.elapsed() >= due,
        1 => !desk.left_over().is_empty() || inode() != first,
        _ => inode() != first,
    };
    while !is_time() && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    let now = desk.read("config.toml");
    assert!(now == before || now == after, "half of a file:\n{now}");
    match (ended.code(), now == before) {
        (Some(0), false) => Killed::Not,
        (Some(code), _) => panic!("exit {code}: {}", said(&child.wait_with_output().unwrap())),
        (None, true) => Killed::Before,
        (None, false) => Killed::After,
    }
}

/// Two hundred in all, half of them on each of two threads.
#[test]
fn a_change_that_is_killed_leaves_the_old_file_or_the_new_one() {
    let lane = |first: usize| {
        let desk = Desk::alone();
        let begun = Instant::now();
        let whole = desk.run(&["rollout", "set", "99.5", "--reason", "how long it takes"]);
        assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));
        let longest = begun.elapsed();
        let mut ended: Vec<Killed> = (0..100).map(|n| kill_at(&desk, first + n, longest)).collect();
        // Nothing stands in the way of the next one: no lock, and what was left is taken away.
        let next = desk.run(&["rollout", "set", "1", "--reason", "the next one"]);
        assert_eq!(next.status.code(), Some(0), "{}", said(&next));
        assert_eq!(desk.left_over(), [""; 0]);
        let records = desk.audit();
        for pair in records.windows(2) {
            assert_eq!(pair[0]["to"], pair[1]["from"], "a change that nobody recorded: {pair:?}");
        }
        assert_eq!(records.last().unwrap()["to"], "1");
        ended.sort();
        ended
    };
    let other = std::thread::spawn(move || lane(100));
    let mut ended = lane(0);
    ended.extend(other.join().unwrap());
    let count = |how| ended.iter().filter(|ended| **ended == how).count();
    let (before, after, not) = (count(Killed::Before), count(Killed::After), count(Killed::Not));
    println!("killed before the file was replaced: {before}, after: {after}, too late: {not}");
    // How many of each is the machine's affair; some of each there have to be, or nothing was tried.
    assert!(before > 0 && after > 0, "{before} {after} {not}");
}

#[tokio::test]
async fn a_proxy_that_is_killed_while_it_changes_the_number_starts_with_the_old_or_the_new_one() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    for n in 1..=20_u8 {
        let mut process = Process::serve(desk.folder.path()).await;
        let before = process.status().await["percentage"].clone();
        let change = format!("{{\"percentage\":{n},\"reason\":\"killed\"}}");
        let mut conn = Conn::open(process.admin).await;
        conn.send(format!(
            "PUT /rollout HTTP/1.1\r\nhost: {}\r\ncontent-length: {}\r\n\r\n{change}",
            process.admin,
            change.len()
        ))
        .await;
        let due = Instant::now() + Duration::from_micros(300) * u32::from(n);
        while Instant::now() < due {
            std::thread::yield_now();
        }
        process.kill();
        let text = desk.read("config.toml");
        let is = |n: &str| text.contains(&format!("rollout.percentage = {n}\n"));
        assert!(is(&before.to_string()) || is(&n.to_string()), "{text}");
    }
    let process = Process::serve(desk.folder.path()).await;
    let change = "{\"percentage\":99,\"reason\":\"the next one\"}";
    assert_eq!(process.ask_admin("PUT", "/rollout", change).await.status, 200);
    let records = accounts(&desk, &BTreeSet::from(["the next one".to_owned()]), &BTreeSet::new());
    assert_eq!(records, "99");
}

/// A disk that is full, as far as a process can tell: no file may grow beyond 8 KiB.
#[tokio::test]
async fn a_full_disk_loses_neither_settings_nor_audit() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let usual = serving(desk.folder.path());
    let mut command = Command::new("/bin/sh");
    // Without the trap the signal would end the process, which a full disk does not.
    command
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(usual.get_program())
        .args(usual.get_args())
        .current_dir(desk.folder.path())
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let process = Process::start(command).await;
    let set = async |n: usize| {
        let reason = format!("change {n} {}", "x".repeat(900));
        let change = format!("{{\"percentage\":{n},\"reason\":\"{reason}\"}}");
        process.ask_admin("PUT", "/rollout", &change).await
    };
    let troubled = async || process.status().await["warnings"].to_string().contains("audit file");
    let mut made = 0;
    while !troubled().await {
        made += 1;
        assert!(made < 20, "the audit never filled the disk");
        assert_eq!(set(made).await.status, 200, "a change does not wait for the audit");
    }
    made += 1;
    assert_eq!(set(made).await.status, 200);
    let text = desk.read(AUDIT);
    let Ok(Verified { records, torn: false }) = verify(&text) else { panic!("{text}") };
    assert_eq!(records + 2, made, "two wait in memory");
    let told = desk.run(&["rollout", "history", "--verify", "--file", AUDIT]);
    assert_eq!(told.status.code(), Some(0), "what is there is whole: {}", said(&told));

    // The settings themselves: what does not fit is refused, and nothing is half written.
    let small = desk.read("config.toml");
    let large = format!("{small}{}", "# a line that makes the file longer\n".repeat(300));
    desk.put("config.toml", &large);
    let refused = set(made + 1).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert_eq!(desk.read("config.toml"), large);
    assert_eq!(desk.left_over(), [""; 0]);
    ask(&process).await.served_by(Side::Old);
    assert_eq!(process.status().await["percentage"], made);

    // There is room again: nothing that was recorded is lost.
    desk.put("config.toml", &small);
    fs::rename(desk.path(AUDIT), desk.path("rotated.jsonl")).unwrap();
    eventually("the file that fits", async || set(99).await.status == 200).await;
    assert!(!troubled().await);
    let waited = desk.audit();
    assert_eq!(waited.len(), 3, "{waited:?}");
    assert_eq!(waited[2]["to"], "99");
    let rotated = desk.run(&["rollout", "history", "--verify", "--file", "rotated.jsonl"]);
    assert_eq!(rotated.status.code(), Some(0), "{}", said(&rotated));
}

#[tokio::test]
async fn history_verify_names_the_break_and_what_is_missing_at_the_end() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let process = Process::serve(desk.folder.path()).await;
    for n in 1..=3 {
        let change = format!("{{\"percentage\":{n},\"reason\":\"test\"}}");
        assert_eq!(process.ask_admin("PUT", "/rollout", &change).await.status, 200);
    }
    // The proxy's own address, which the settings say: only then its memory is compared with this file.
    let text = desk.read("config.toml");
    let named = text.replace(
        "admin.listen = \"127.0.0.1:0\"",
        &format!("admin.listen = \"{}\"", process.admin),
    );
    fs::write(desk.path("here.toml"), &named).unwrap();
    let history = ["rollout", "history", "--verify", "--config", "here.toml"];
    let whole = desk.run(&history);
    assert_eq!(whole.status.code(), Some(0), "{}", said(&whole));
    assert!(said(&whole).contains("3 records"), "{}", said(&whole));
    let audit = desk.read(AUDIT);
    let lines: Vec<_> = audit.split_inclusive('\n').collect();
    for (bad, want) in [
        (audit.replace("\"to\":\"2\"", "\"to\":\"7\""), "line 2: its content was changed"),
        (lines[1..].concat(), "line 1: the line that it follows is missing"),
        (lines[..2].concat(), "the running proxy's newest record"),
        (String::new(), "the running proxy's newest record"),
    ] {
        fs::write(desk.path(AUDIT), bad).unwrap();
        let broken = desk.run(&history);
        assert_eq!(broken.status.code(), Some(1), "{want}");
        assert!(said(&broken).contains(want), "{want}: {}", said(&broken));
        let json = desk.run(&[&history[..], &["--json"]].concat());
        let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(report["ok"], false);
        assert!(report["fault"].as_str().unwrap().contains(want), "{report}");
    }
    within("the proxy", ask(&process)).await.served_by(Side::Old);
}

/// Other buckets would move users at random: that is refused while the proxy runs, and must not come by a restart either.
#[tokio::test]
async fn a_salt_that_was_changed_while_nothing_ran_is_refused_at_the_start() {
    let desk = Desk::new(&[("rollout.percentage", "0")]).await;
    let mut process = Process::serve(desk.folder.path()).await;
    let change = "{\"percentage\":30,\"reason\":\"test\"}";
    assert_eq!(process.ask_admin("PUT", "/rollout", change).await.status, 200);
    process.terminate();
    assert_eq!(process.ends().await.code(), Some(0));
    let good = desk.read("config.toml");
    let other = good.replace("\"cutover\"", "\"another\"");
    assert_ne!(good, other);
    let refuses = || {
        let refused = ended(&mut serving(desk.folder.path()));
        assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        let said = said(&refused);
        assert!(said.contains("users would change sides at random"), "{said}");
    };
    desk.put("config.toml", &other);
    refuses();
    // A command that writes to the file does not make it right, and an abort works all the same.
    assert_eq!(desk.run(&["rollout", "set", "40", "--reason", "x"]).status.code(), Some(0));
    refuses();
    let starts = async |text: &str| {
        desk.put("config.toml", text);
        let mut process = Process::serve(desk.folder.path()).await;
        process.terminate();
        assert_eq!(process.ends().await.code(), Some(0));
    };
    starts(&good).await;
    // With leave; and from then on they are the ones that count.
    starts(&format!("{other}rollout.allow_reshuffle = true\n")).await;
    starts(&other).await;
    desk.put("config.toml", &good);
    refuses();
    // With nobody on new there is nobody to move.
    starts(&good.replace("percentage = 30\n", "percentage = 0\n")).await;
    starts(&good).await;
    let abort = desk.run(&["rollout", "abort"]);
    assert_eq!(abort.status.code(), Some(0), "{}", said(&abort));
    desk.audit();
}
