//! A deterministic simulation of reload, drain and the moves of sockets. The proxy's own code from a client's first byte to a side's last
//! (`accept`, `path`, `realtime`, `forward`) runs on the real writer of the settings, with real files; only the network is pipes in memory,
//! the clock is paused, and the dice are seeded. Each seed draws a play: changes of the file good and bad, of the admin, aborts, pins, users
//! that ask, upload, open sockets, become somebody else, stand still, and a stop in the middle of it all.
//!
//! A play that breaks a law says so with its seed and what happened; `CUTOVER_SEED=17` plays that one alone, `CUTOVER_SEEDS=100000` more.

mod clients;
mod sides;
mod stage;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{Instant, sleep, timeout};

use super::worker::House;
use crate::accept::connection::serve_plain;
use crate::accept::wire::Stage as End;
use crate::chance;
use crate::config::live::{Change, Control, Refused, Sources};
use crate::forward::memory;
use crate::forward::names::Resolver;
use crate::http1::stream::Stream;
use crate::observe::Metrics;
use crate::path::worker::Shared;
use crate::side::Side;
use clients::{Client, Door};
use stage::{DRAIN, Kind, Rollout, SALT, SEND, SOCKET_DRAIN, Stage, USERS, Version, name};

/// Plays in `make test`.
const SEEDS: u64 = 1500;

/// Where all clients are.
const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 1000);

/// A play, from its seed.
struct Play {
    stage: Rc<Stage>,
    dice: StdRng,
    control: Arc<Control>,
    file: PathBuf,
    /// What the file says while it is good.
    written: Rollout,
    is_bad: bool,
    /// An abort is held in memory, because the file was bad.
    is_held: bool,
    door: Door,
    tasks: Vec<JoinHandle<()>>,
}

/// The file of a rollout.
fn text(rollout: &Rollout) -> String {
    let pins = |side| {
        let pinned = rollout.pins.iter().filter(|(_, pin)| **pin == side);
        pinned.map(|(user, _)| format!("{:?}", name(*user))).collect::<Vec<_>>().join(", ")
    };
    format!(
        "listen = \"127.0.0.1:0\"\ndebug_headers = true\ndrain_timeout = \"{}s\"\n\
         [projects.old]\nurl = \"http://old.test\"\nanon_key = \"old-anon\"\n\
         [projects.new]\nurl = \"http://new.test\"\nanon_key = \"new-anon\"\n\
         [rollout]\npercentage = {}\nforce = \"{}\"\nsalt = \"{SALT}\"\naudit_file = \"\"\n\
         pins = {{ old = [{}], new = [{}] }}\n\
         [realtime]\ndrain = \"{}s\"\nsend_timeout = \"{}s\"\n[log]\naccess = false\n",
        DRAIN.as_secs(),
        rollout.percentage,
        rollout.force.map_or("", Side::as_str),
        pins(Side::Old),
        pins(Side::New),
        SOCKET_DRAIN.as_secs(),
        SEND.as_secs(),
    )
}

impl Play {
    /// Some steps, then the stop.
    async fn run(
        mut self,
        (drain, end): (watch::Sender<bool>, watch::Sender<End>),
        serving: JoinHandle<()>,
    ) -> Rc<Stage> {
        for _ in 0..self.dice.random_range(4..15) {
            self.step();
            let is_at_once = self.dice.random_bool(0.25);
            let pause = if is_at_once { 0 } else { self.dice.random_range(1..4000) };
            sleep(Duration::from_millis(pause)).await;
            self.check();
        }
        if self.dice.random_bool(0.5) {
            // Everybody is where he belongs, if only there is time.
            sleep(SOCKET_DRAIN + Duration::from_secs(1)).await;
            self.check();
        }
        self.stage.say("stop");
        let stopped = Instant::now();
        self.stage.stopped.set(Some(stopped));
        end.send_replace(End::Stopping);
        drain.send_replace(true);
        if timeout(DRAIN + Duration::from_millis(50), serving).await.is_err() {
            self.stage.fault("the drain took longer than drain_timeout");
        }
        self.stage.say("stopped");
        let Self { stage, control, tasks, .. } = self;
        // What the proxy held is closed: nobody has anything to wait for but his own pauses.
        for task in tasks {
            match timeout(Duration::from_secs(60), task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => stage.fault(&format!("a client fell over: {error}")),
                Err(_) => stage.fault("a client waits for ever"),
            }
        }
        drop(control);
        stage
    }

    fn step(&mut self) {
        match self.dice.random_range(0..20) {
            0..=4 => self.spawn(Client::browse),
            5..=7 => self.spawn(|client| client.socket(Kind::Realtime)),
            8 | 9 => self.spawn(|client| client.socket(Kind::Tunnel)),
            10..=13 => self.write_good(),
            14 => self.write_bad(),
            15 | 16 => self.set(),
            17 => self.abort(),
            18 if self.dice.random() => self.spawn(Client::hang),
            _ => self.rows(),
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(&mut self, act: impl FnOnce(Client) -> F) {
        let client = Client::new(&self.stage, &self.door, self.dice.random());
        self.tasks.push(tokio::task::spawn_local(act(client)));
    }

    /// Each side writes a row.
    fn rows(&mut self) {
        let side = if self.dice.random() { Side::Old } else { Side::New };
        self.stage.rows[side].send_modify(|rows| *rows += 1);
    }

    /// The settings that are in force, by what was done: the file's last good word, and the abort that is held.
    fn in_force(&self) -> Rollout {
        let force = if self.is_held { Some(Side::Old) } else { self.written.force };
        Rollout { force, ..self.written.clone() }
    }

    fn write_good(&mut self) {
        let mut wanted = self.written.clone();
        match self.dice.random_range(0..10) {
            0..=5 => wanted.percentage = [0, 5, 10, 25, 50, 75, 100][self.dice.random_range(0..7)],
            6 | 7 => {
                let user = self.dice.random_range(0..USERS);
                if wanted.pins.remove(&user).is_none() {
                    let side = if self.dice.random() { Side::Old } else { Side::New };
                    wanted.pins.insert(user, side);
                }
            }
            8 => {
                wanted.force =
                    [None, Some(Side::Old), Some(Side::New)][self.dice.random_range(0..3)]
            }
            // The same again: mended, if it was bad.
            _ => {}
        }
        self.write(&text(&wanted));
        self.is_bad = false;
        // What is held yields only to a force that the file did not have before.
        if wanted.force.is_some() && wanted.force != self.written.force {
            self.is_held = false;
        }
        let is_new = wanted != self.written;
        self.written = wanted;
        let reloaded = self.control.reload("signal");
        self.stage.say(&format!("the file says {:?}: {reloaded:?}", self.written));
        if reloaded.as_ref() != Ok(&is_new) {
            self.stage.fault(&format!("a good file was answered with {reloaded:?}, new: {is_new}"));
        }
        self.publish();
    }

    fn write_bad(&mut self) {
        let good = text(&self.written);
        let garbage = [
            String::new(),
            good.replace("percentage = ", "percentage = 1000"),
            good.replace("[rollout]", "[rollout"),
            good[..good.find("new-anon").unwrap()].to_owned(),
            good.replace("http://new.test", "no url"),
            good.replace(SALT, "another salt") + "unknown = 1\n",
        ];
        let chosen = self.dice.random_range(0..garbage.len());
        self.write(&garbage[chosen]);
        self.is_bad = true;
        let reloaded = self.control.reload("signal");
        self.stage.say(&format!("the file is bad ({chosen})"));
        if reloaded.is_ok() {
            self.stage.fault(&format!("a bad file was taken: {}", garbage[chosen]));
        }
    }

    /// An operator sets a number, and ends a force if there is one and he knows of it.
    fn set(&mut self) {
        let percentage = self.dice.random_range(0..=100);
        let is_forced = self.in_force().force.is_some();
        let resume = is_forced && self.dice.random();
        let change = Change {
            percentage: percentage.to_string().parse().ok(),
            resume,
            actor: "admin:simulation".to_owned(),
            ..Change::default()
        };
        let applied = self.control.apply(&change);
        self.stage.say(&format!("set {percentage}, resume {resume}: {}", applied.is_ok()));
        let is_right = match &applied {
            Ok(state) => {
                !self.is_bad
                    && (!is_forced || resume)
                    && state.percentage.to_string() == percentage.to_string()
            }
            Err(Refused::Faults(_)) => self.is_bad,
            Err(Refused::Forced { .. }) => is_forced && !resume,
            Err(_) => false,
        };
        if !is_right {
            self.stage.fault(&format!(
                "set {percentage} (resume {resume}) was answered with {applied:?}"
            ));
        }
        if applied.is_ok() {
            self.written.percentage = percentage;
            if resume {
                (self.written.force, self.is_held) = (None, false);
            }
            self.publish();
        }
    }

    /// An operator pulls the brake. It works whatever the file is.
    fn abort(&mut self) {
        let change = Change {
            percentage: "0".parse().ok(),
            force: Some(Some(Side::Old)),
            actor: "admin:simulation".to_owned(),
            ..Change::default()
        };
        let applied = self.control.apply(&change);
        self.stage.say(&format!("abort: {}", applied.is_ok()));
        if applied.is_err() {
            self.stage.fault(&format!("an abort was refused: {applied:?}"));
        }
        if self.is_bad {
            self.is_held = true;
        } else {
            (self.written.percentage, self.written.force, self.is_held) =
                (0, Some(Side::Old), false);
        }
        self.publish();
    }

    fn write(&self, text: &str) {
        fs::write(&self.file, text).unwrap();
    }

    /// Notes what has to be in force now.
    fn publish(&self) {
        let rollout = self.in_force();
        let epoch = self.control.live().load().epoch;
        let mut versions = self.stage.versions.borrow_mut();
        if versions.last().is_none_or(|last| last.rollout != rollout || last.epoch != epoch) {
            versions.push(Version { at: Instant::now(), epoch, rollout });
        }
    }

    /// What is live is what was published last, and everybody is served by it.
    fn check(&self) {
        let live = self.control.live().load();
        let wanted = self.stage.versions.borrow().last().unwrap().clone();
        let pins: BTreeMap<String, Side> =
            wanted.rollout.pins.iter().map(|(user, side)| (name(*user), *side)).collect();
        let decide = &live.decide;
        let is_live = decide.percentage.to_string() == wanted.rollout.percentage.to_string()
            && decide.force == wanted.rollout.force
            && decide.pins.iter().all(|(user, side)| pins.get(user) == Some(side))
            && decide.pins.len() == pins.len()
            && live.epoch == wanted.epoch;
        if !is_live {
            self.stage.fault(&format!("live is {:?}, published was {wanted:?}", decide));
        }
        self.stage.look();
    }
}

/// A door's part: whoever knocks is let in, until the stop.
async fn lets_in(
    door: super::worker::Door,
    mut knocking: mpsc::UnboundedReceiver<DuplexStream>,
    mut ending: watch::Receiver<End>,
) {
    loop {
        let io = tokio::select! {
            biased;
            Some(io) = knocking.recv() => io,
            _stopping = ending.wait_for(|stage| *stage == End::Stopping) => return,
        };
        if let Some((wire, terms, service)) = door.admit(SocketAddr::from(PEER)) {
            tokio::task::spawn_local(serve_plain(Stream::Memory(io), wire, terms, service));
        }
    }
}

/// One play, on this thread; answers what happened.
fn play(seed: u64, folder: &Path) -> (Vec<String>, Vec<String>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    chance::seeded::begin(seed);
    let mut dice = StdRng::seed_from_u64(seed);
    let file = folder.join("config.toml");
    let percentage = [0, 25, 50, 100][dice.random_range(0..4)];
    let written = Rollout { percentage, force: None, pins: BTreeMap::new() };
    fs::write(&file, text(&written)).unwrap();
    let sources = Sources { file: Some(file.clone()), environment: BTreeMap::new() };
    let (control, startup, _) = Control::start(sources).unwrap();
    let stage = LocalSet::new().block_on(&runtime, async {
        let stage = Rc::new(Stage::new());
        call_sides(&stage, dice.random());
        let (door, knocking) = mpsc::unbounded_channel();
        let (drain, drained) = watch::channel(false);
        let (end, ending) = watch::channel(End::default());
        let shared = Shared {
            live: Arc::clone(control.live()),
            epochs: control.subscribe(),
            drain: drained,
            access_log: false,
            spans: None,
            socket_drain: startup.realtime_drain,
            stop_drain: startup.realtime_drain.min(startup.drain_timeout / 2),
            published: Arc::default(),
            resolver: Resolver::default(),
        };
        let metrics = Metrics::counting(1, Arc::clone(control.counted()));
        let house = House {
            shared,
            shard: metrics.shard(0),
            open: Arc::default(),
            end: ending.clone(),
            drain_timeout: startup.drain_timeout,
        };
        let serving = tokio::task::spawn_local(async move {
            // As on a worker's thread: what is left when the drain is over goes with its tasks.
            let tasks = LocalSet::new();
            let serving = house.serve(|door| {
                vec![tokio::task::spawn_local(lets_in(door(None), knocking, ending))]
            });
            tasks.run_until(serving).await;
        });
        let is_bad = false;
        let play = Play {
            stage,
            dice,
            control,
            file,
            written,
            is_bad,
            is_held: false,
            door,
            tasks: Vec::new(),
        };
        play.publish();
        play.run((drain, end), serving).await
    });
    let (faults, log) = (stage.faults.take(), stage.log.take());
    (faults, log, stage.answered.get() + stage.sockets.borrow().len())
}

/// The proxy's calls lead to the sides of this play.
fn call_sides(stage: &Rc<Stage>, seed: u64) {
    let (calls, mut called) = mpsc::unbounded_channel();
    let dice = RefCell::new(StdRng::seed_from_u64(seed));
    memory::answer(Box::new(move |host| {
        let size = [256, 4096, 65_536][dice.borrow_mut().random_range(0..3)];
        let (theirs, mine) = duplex(size);
        let side = if host == "old.test" { Side::Old } else { Side::New };
        calls
            .send((side, mine))
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused))?;
        Ok(theirs)
    }));
    let stage = Rc::clone(stage);
    tokio::task::spawn_local(async move {
        while let Some((side, io)) = called.recv().await {
            tokio::task::spawn_local(sides::serve(Rc::clone(&stage), side, io));
        }
    });
}

/// Where the files of the plays are: in memory, where there is such a place, because a change waits for its disk.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn reload_drain_and_moves_of_sockets_keep_their_promises() {
    let (first, count) = match asked("CUTOVER_SEED") {
        Some(seed) => (seed, 1),
        None => (0, asked("CUTOVER_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let served = AtomicU64::new(0);
    let broken: Vec<String> = std::thread::scope(|scope| {
        let one = || {
            let folder = folder();
            let mut broken = Vec::new();
            while broken.is_empty() {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    break;
                }
                let (faults, log, answered) = play(seed, folder.path());
                served.fetch_add(answered as u64, Ordering::Relaxed);
                if !faults.is_empty() || count == 1 {
                    broken.push(told(seed, &faults, &log));
                }
                if faults.is_empty() {
                    broken.clear();
                }
            }
            broken
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(one)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    println!("{count} plays, {} requests and sockets", served.into_inner());
}

fn told(seed: u64, faults: &[String], log: &[String]) -> String {
    let mut told = format!("seed {seed} (CUTOVER_SEED={seed} plays it again): {faults:#?}\n");
    for line in log {
        let _written = writeln!(told, "{line}");
    }
    told
}

/// A seed that failed can be looked at: it plays the same again, to the last word.
#[test]
fn a_seed_plays_the_same_again() {
    let folder = folder();
    for seed in 0..20 {
        let (first, again) = (play(seed, folder.path()), play(seed, folder.path()));
        assert_eq!(first.1, again.1, "seed {seed}");
    }
}
