//! Everybody who asks: readers and writers on kept connections, uploads, clients that leave in the middle, and sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cutover::side::Side;
use futures_util::future::join_all;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::Soak;
use crate::side::{Fault, sum};
use crate::socket;
use crate::support::conn::{Answer, Conn};
use crate::support::world::{ANON_OLD, token};

const READERS: u64 = 24;
const WRITERS: u64 = 6;
const UPLOADERS: u64 = 2;
const LEAVERS: u64 = 2;
const SOCKETS: u64 = 40;
pub const USERS: u64 = 2000;
/// How long anything may take: longer than all of the proxy's own limits here.
pub const PATIENCE: Duration = Duration::from_secs(20);
const CALIBRATED: Duration = Duration::from_secs(4);
const PIECE: usize = 64 * 1024;

/// Everybody, running.
pub struct Load(Vec<JoinHandle<()>>);

/// What a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Upload,
}

/// A request's facts.
struct Request {
    kind: Kind,
    number: u64,
    user: String,
    size: usize,
    body: Vec<u8>,
}

/// What came back.
enum Outcome {
    Whole(Answer),
    Cut,
    /// The connection ended without an answer.
    Gone,
    Late,
}

impl Load {
    pub fn start(soak: &Arc<Soak>, rate: u64, until: Instant) -> Self {
        let pace = Duration::from_secs_f64((READERS + WRITERS) as f64 / rate.max(1) as f64);
        let seconds = Duration::from_secs(1);
        let mut tasks = Vec::new();
        for (count, kind, pace) in [
            (READERS, Kind::Read, pace),
            (WRITERS, Kind::Write, pace),
            (UPLOADERS, Kind::Upload, seconds),
        ] {
            tasks.extend(
                (0..count).map(|_| tokio::spawn(asks(Arc::clone(soak), kind, pace, until))),
            );
        }
        tasks.extend((0..LEAVERS).map(|_| tokio::spawn(leaves(Arc::clone(soak), until))));
        for is_realtime in [false, true] {
            let run = |_| tokio::spawn(socket::lives(Arc::clone(soak), is_realtime, until));
            tasks.extend((0..SOCKETS).map(run));
        }
        Self(tasks)
    }

    pub async fn ends(self) {
        for task in join_all(self.0).await {
            task.unwrap();
        }
    }
}

/// How many requests a second there can be, when everybody asks as fast as he is answered.
pub async fn calibrate(soak: &Arc<Soak>) -> u64 {
    let (before, until) = (soak.tally.requests(), Instant::now() + CALIBRATED);
    let task = |_| tokio::spawn(asks(Arc::clone(soak), Kind::Read, Duration::from_nanos(1), until));
    for task in join_all((0..READERS + WRITERS).map(task)).await {
        task.unwrap();
    }
    (soak.tally.requests() - before) / CALIBRATED.as_secs()
}

pub fn user() -> String {
    format!("user-{}", rand::random_range(0..USERS))
}

async fn asks(soak: Arc<Soak>, kind: Kind, pace: Duration, until: Instant) {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut conn = None;
    while Instant::now() < until {
        ticks.tick().await;
        let number = soak.tally.number();
        let (size, length) = match kind {
            Kind::Read => (if number.is_multiple_of(50) { 64 * 1024 } else { 300 }, 0),
            Kind::Write => (300, 1024),
            Kind::Upload => (300, rand::random_range(1..4) * 1024 * 1024),
        };
        let body = (0..length).map(|at: u64| (at.wrapping_mul(number) >> 3) as u8).collect();
        let request = Request { kind, number, user: user(), size, body };
        let began = Instant::now();
        let outcome = match timeout(PATIENCE, request.ask(&soak, &mut conn)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Late,
        };
        let closes =
            |answer: &Answer| answer.header("connection").is_some_and(|value| value == "close");
        if !matches!(&outcome, Outcome::Whole(answer) if !closes(answer)) {
            conn = None;
        }
        request.judge(&soak, began, &outcome);
    }
}

impl Request {
    fn head(&self) -> String {
        let Self { number, size, user, .. } = self;
        let (method, path) = match self.kind {
            Kind::Read => ("GET", "/rest/v1/todos?select=*".to_owned()),
            Kind::Write => ("POST", "/rest/v1/todos".to_owned()),
            Kind::Upload => ("POST", format!("/storage/v1/object/avatars/{number}.bin")),
        };
        let length = match self.kind {
            Kind::Read => String::new(),
            Kind::Write => {
                format!("content-type: text/plain\r\ncontent-length: {}\r\n", self.body.len())
            }
            Kind::Upload => {
                "content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n"
                    .to_owned()
            }
        };
        format!(
            "{method} {path} HTTP/1.1\r\nhost: proxy.example\r\napikey: {ANON_OLD}\r\nauthorization: Bearer {}\r\nx-soak: {number}\r\nx-soak-size: {size}\r\n{length}\r\n",
            token(user)
        )
    }

    async fn ask(&self, soak: &Soak, conn: &mut Option<Conn>) -> Outcome {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(Conn::open(soak.proxy.address).await),
        };
        // Whoever is refused early hears it, even if he can't say all that he wanted to.
        let _refused = self.send(conn).await;
        match conn.try_answer_to("GET").await {
            None => Outcome::Gone,
            Some(answer) if answer.body.is_whole => Outcome::Whole(answer),
            Some(_) => Outcome::Cut,
        }
    }

    async fn send(&self, conn: &mut Conn) -> Option<()> {
        if self.kind != Kind::Upload {
            let message = [self.head().as_bytes(), &self.body].concat();
            return conn.try_send(message).await.then_some(());
        }
        conn.try_send(self.head()).await.then_some(())?;
        for piece in self.body.chunks(PIECE) {
            let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
            conn.try_send(chunk).await.then_some(())?;
        }
        conn.try_send("0\r\n\r\n").await.then_some(())
    }

    fn judge(&self, soak: &Soak, began: Instant, outcome: &Outcome) {
        let Self { number, user, .. } = self;
        let ended = Instant::now();
        let fault = soak.tally.fault(*number);
        soak.tally.forget_write(*number);
        let allowed = soak.history.allowed(user, began, ended);
        let is_away = allowed.iter().any(|side| soak.history.was_away(*side, began, ended));
        let why = match fault {
            Some(fault) if fault.is_felt() => Some(format!("{fault:?}")),
            _ => is_away.then(|| "an outage".to_owned()),
        };
        let said = match outcome {
            Outcome::Whole(answer) if answer.status == 200 => {
                match self.mistake(answer, &allowed) {
                    None => return,
                    // No fault and no outage makes a whole answer wrong.
                    Some(mistake) => {
                        return soak
                            .tally
                            .unexplained(format!("request {number} of {user}: {mistake}"));
                    }
                }
            }
            Outcome::Whole(answer) if matches!(answer.status, 502..=504) => {
                format!("{} {}", answer.status, answer.json()["code"])
            }
            Outcome::Whole(answer) => {
                return soak.tally.unexplained(format!("request {number} of {user}: {answer:?}"));
            }
            Outcome::Cut => "a cut body".to_owned(),
            Outcome::Gone => format!("no answer to {:?}, and the connection closed", self.kind),
            Outcome::Late => "no answer in time".to_owned(),
        };
        match why {
            Some(why) if !matches!(outcome, Outcome::Late) => {
                soak.tally.count(format!("{said}, because of {why}"))
            }
            _ => soak.tally.unexplained(format!(
                "request {number} of {user}: {said}; fault {fault:?}, sides {allowed:?}"
            )),
        }
    }

    /// What is wrong with a whole answer.
    fn mistake(&self, answer: &Answer, allowed: &[Side]) -> Option<String> {
        let Ok(json) = serde_json::from_slice::<Value>(&answer.body.bytes) else {
            return Some(format!("no JSON: {}", answer.text()));
        };
        let want = (self.number, self.body.len() as u64, u64::from(sum(&self.body)));
        let number = |key: &str| json[key].as_u64().unwrap_or(u64::MAX);
        let got = (number("number"), number("length"), number("sum"));
        if got != want {
            return Some(format!("(number, length, sum) is {got:?} instead of {want:?}"));
        }
        if answer.body.bytes.len() != self.size.max(answer.body.bytes.len().min(300)) {
            return Some(format!("{} bytes instead of {}", answer.body.bytes.len(), self.size));
        }
        let side = json["side"].as_str().and_then(Side::parse);
        match side.is_some_and(|side| allowed.contains(&side)) {
            true => None,
            false => Some(format!("served by {side:?} instead of {allowed:?}")),
        }
    }
}

/// Begins an upload or a download, and leaves in the middle.
async fn leaves(soak: Arc<Soak>, until: Instant) {
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let number = soak.tally.number();
        let is_upload = number.is_multiple_of(2);
        let (kind, size) =
            if is_upload { (Kind::Write, 300) } else { (Kind::Read, 2 * 1024 * 1024) };
        let body = vec![7; if is_upload { 256 * 1024 } else { 0 }];
        let request = Request { kind, number, user: user(), size, body };
        let mut conn = Conn::open(soak.proxy.address).await;
        conn.try_send(request.head()).await;
        conn.try_send(&request.body[..request.body.len() / 2]).await;
        if !is_upload {
            let _some = timeout(PATIENCE, conn.fill()).await;
        }
        drop(conn);
        soak.tally.count(if is_upload {
            "clients that left in an upload"
        } else {
            "clients that left in a download"
        });
        let _fault: Option<Fault> = soak.tally.fault(number);
        soak.tally.forget_write(number);
    }
}
