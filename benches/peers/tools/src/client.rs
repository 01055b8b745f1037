//! Load clients over plain HTTP/1.1. The request file holds whole requests separated by NUL bytes; connections take them in turn.
//! A rate above 0 sends on a fixed schedule and measures from the time when a request was due (no coordinated omission); rate 0 is a
//! closed loop. One JSON line on stdout.
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::frame;
use crate::net::*;

/// A broken peer ends the run here, not at its time limit.
const MOST_ERRORS: u64 = 10_000;
/// How many connections `idle` opens at a time, so that the listen queue is never the limit.
const WAVE: usize = 64;
/// The first requests of a schedule open the connections behind the proxy; they are not counted.
const WARM: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Load,
    Ws,
    Realtime,
    Idle,
}

struct Options {
    mode: Mode,
    port: u16,
    conns: usize,
    limit: Duration,
    rate: f64,
    count: u64,
    requests: Vec<Vec<u8>>,
    join: Vec<u8>,
    say: Vec<u8>,
}

impl Options {
    fn read(mode: &str, arguments: &[String]) -> Self {
        let text = |name: &str| {
            arguments.iter().position(|a| a == name).map(|at| arguments[at + 1].as_str())
        };
        let number =
            |name: &str, default: f64| text(name).map_or(default, |t| t.parse().expect(name));
        let file = std::fs::read(text("--reqs").expect("--reqs")).expect("the request file");
        let mode = match mode {
            "load" => Mode::Load,
            "ws" => Mode::Ws,
            "realtime" => Mode::Realtime,
            _ => Mode::Idle,
        };
        let words =
            |name: &str| frame::client(frame::TEXT, text(name).unwrap_or_default().as_bytes());
        let say = match mode {
            Mode::Realtime => words("--say"),
            _ => frame::client(frame::BINARY, &vec![b'w'; number("--size", 100.) as usize]),
        };
        Self {
            mode,
            port: number("--port", 0.) as u16,
            conns: number("--conns", 64.) as usize,
            limit: if mode == Mode::Idle {
                Duration::from_secs(30)
            } else {
                Duration::from_secs_f64(number("--secs", 3.))
            },
            rate: number("--rate", 0.),
            count: number("--count", 0.) as u64,
            requests: file
                .split(|&b| b == 0)
                .filter(|r| !r.is_empty())
                .map(<[u8]>::to_vec)
                .collect(),
            join: words("--join"),
            say,
        }
    }

    fn is_closed_loop(&self) -> bool {
        self.rate == 0.
    }
}

/// What the next answer on a connection will be.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Http,
    Join,
    Frames,
}

struct Connection {
    fd: i32,
    busy: bool,
    due: Instant,
    inb: Vec<u8>,
    out: Vec<u8>,
    stage: Stage,
}

impl Connection {
    /// One that was opened just now.
    fn new(fd: i32, due: Instant) -> Self {
        Self { fd, busy: false, due, inb: vec![], out: vec![], stage: Stage::Http }
    }
}

#[derive(Default)]
struct Counts {
    done: u64,
    errors: u64,
    non2xx: u64,
    bytes: u64,
    held: usize,
}

struct Client {
    options: Options,
    poll: Poll,
    start: Instant,
    next: usize,
    connections: Vec<Connection>,
    free: VecDeque<usize>,
    waiting: VecDeque<Instant>,
    due: Instant,
    counts: Counts,
    /// In tenths of a microsecond.
    latencies: Vec<u32>,
}

pub fn run(mode: &str, arguments: &[String]) {
    let options = Options::read(mode, arguments);
    // SAFETY: asks for precise timers for this thread; no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let start = Instant::now();
    let mut client = Client {
        options,
        poll: Poll::new(),
        start,
        next: 0,
        connections: vec![],
        free: VecDeque::new(),
        waiting: VecDeque::new(),
        due: start + Duration::from_millis(20),
        counts: Counts::default(),
        latencies: Vec::with_capacity(1 << 20),
    };
    client.drive();
    client.report();
    if client.options.mode == Mode::Idle {
        let _ = std::io::stdin().read(&mut [0u8; 1]);
    }
}

impl Client {
    fn drive(&mut self) {
        let Options { mode, conns, .. } = self.options;
        for _ in 0..if mode == Mode::Idle { WAVE.min(conns) } else { conns } {
            if let Some(i) = self.open() {
                if self.options.is_closed_loop() {
                    self.send(i, Instant::now())
                } else {
                    self.free.push_back(i)
                }
            }
        }
        let mut buffer = vec![0u8; 256 * 1024];
        let mut found = events();
        while !self.is_over() {
            let wait = self.keep_schedule();
            let n = self.poll.wait(&mut found, Some(wait));
            for event in &found[..n] {
                self.ready(event.u64 as usize, event.events, &mut buffer);
            }
        }
    }

    fn is_over(&self) -> bool {
        let Options { mode, conns, limit, count, .. } = self.options;
        let passed = self.start.elapsed();
        let is_late = passed >= limit
            && (self.options.is_closed_loop()
                || self.free.len() == self.connections.len()
                || passed > limit + Duration::from_secs(2));
        is_late
            || self.counts.errors > MOST_ERRORS
            || (count > 0 && self.counts.done >= count)
            || (mode == Mode::Idle && self.counts.held == conns)
    }

    /// Sends what is due; how long to wait for events then, in nanoseconds.
    fn keep_schedule(&mut self) -> u64 {
        let (now, limit) = (Instant::now(), self.options.limit);
        if self.options.is_closed_loop() {
            return limit.saturating_sub(now - self.start).as_nanos() as u64 + 1000;
        }
        while self.due <= now && self.due - self.start < limit {
            self.waiting.push_back(self.due);
            self.due += Duration::from_secs_f64(1. / self.options.rate);
        }
        // The oldest idle connection first: all connections stay in use.
        while !self.waiting.is_empty() {
            let Some(i) = self.free.pop_front() else { break };
            if let Some(when) = self.waiting.pop_front() {
                self.send(i, when);
            }
        }
        match self.due - self.start < limit {
            true => self.due.saturating_duration_since(Instant::now()).as_nanos() as u64,
            false => 1_000_000,
        }
    }

    fn open(&mut self) -> Option<usize> {
        let fd = connect(self.options.port)?;
        let i = self.connections.len();
        self.connections.push(Connection::new(fd, self.start));
        self.poll.add(fd, IN, i as u64);
        Some(i)
    }

    fn send(&mut self, i: usize, when: Instant) {
        let connection = &mut self.connections[i];
        let bytes: &[u8] = match connection.stage {
            Stage::Http => {
                self.next += 1;
                &self.options.requests[self.next % self.options.requests.len()]
            }
            Stage::Join => &self.options.join,
            Stage::Frames => &self.options.say,
        };
        connection.busy = true;
        connection.due = when;
        let written = write(connection.fd, bytes).max(0) as usize;
        if written < bytes.len() {
            connection.out = bytes[written..].to_vec();
            self.poll.set(connection.fd, IN | OUT, i as u64);
        }
    }

    fn ready(&mut self, i: usize, events: u32, buffer: &mut [u8]) {
        let connection = &mut self.connections[i];
        if events & OUT != 0 && !connection.out.is_empty() {
            let written = write(connection.fd, &connection.out).max(0) as usize;
            connection.out.drain(..written);
            if connection.out.is_empty() {
                self.poll.set(connection.fd, IN, i as u64);
            }
        }
        if events & (IN | HUP) == 0 {
            return;
        }
        match read(connection.fd, buffer) {
            -1 => {}
            ..=0 => self.lost(i),
            n => self.heard(i, &buffer[..n as usize]),
        }
    }

    /// The peer closed: the connection is opened again in its place. One that was idle lost nothing.
    fn lost(&mut self, i: usize) {
        let was_busy = self.connections[i].busy;
        close_fd(self.connections[i].fd);
        self.counts.errors += u64::from(was_busy);
        if self.options.mode == Mode::Idle {
            self.counts.errors += 1;
            return;
        }
        let Some(fd) = connect(self.options.port) else {
            self.counts.errors += 1;
            return;
        };
        self.connections[i] = Connection::new(fd, self.start);
        self.poll.add(fd, IN, i as u64);
        if self.options.is_closed_loop() {
            self.send(i, Instant::now());
        } else if was_busy {
            self.free.push_back(i);
        }
    }

    fn heard(&mut self, i: usize, bytes: &[u8]) {
        self.counts.bytes += bytes.len() as u64;
        let connection = &mut self.connections[i];
        let whole = if connection.inb.is_empty() {
            answer(bytes, connection.stage, self.options.mode)
        } else {
            connection.inb.extend_from_slice(bytes);
            answer(&connection.inb, connection.stage, self.options.mode)
        };
        let Some(status) = whole else {
            if connection.inb.is_empty() {
                connection.inb.extend_from_slice(bytes);
            }
            return;
        };
        connection.inb.clear();
        connection.busy = false;
        let now = Instant::now();
        if matches!(self.options.mode, Mode::Load | Mode::Idle) || connection.stage == Stage::Frames
        {
            self.counts.done += 1;
            if self.options.is_closed_loop() || connection.due - self.start > WARM {
                self.latencies.push(
                    (now - connection.due).as_nanos().min(u128::from(u32::MAX) * 100) as u32 / 100,
                );
            }
        }
        if !(200..300).contains(&status) && status != 101 {
            self.counts.non2xx += 1;
        }
        self.go_on(i, now);
    }

    fn go_on(&mut self, i: usize, now: Instant) {
        match self.options.mode {
            Mode::Idle => {
                self.counts.held += 1;
                if self.connections.len() < self.options.conns {
                    if let Some(next) = self.open() {
                        self.send(next, now);
                    }
                }
                return;
            }
            Mode::Load if !self.options.is_closed_loop() => return self.free.push_back(i),
            Mode::Load => {}
            Mode::Ws => self.connections[i].stage = Stage::Frames,
            Mode::Realtime => {
                let connection = &mut self.connections[i];
                connection.stage =
                    if connection.stage == Stage::Http { Stage::Join } else { Stage::Frames };
            }
        }
        self.send(i, now);
    }

    fn report(&mut self) {
        let passed = self.start.elapsed().as_secs_f64();
        let all = &mut self.latencies;
        all.sort_unstable();
        let at = |share: f64| {
            if all.is_empty() {
                0.
            } else {
                f64::from(all[((all.len() - 1) as f64 * share) as usize]) / 10.
            }
        };
        let Counts { done, errors, non2xx, bytes, held } = self.counts;
        println!(
            "{{\"done\":{done},\"errors\":{errors},\"non2xx\":{non2xx},\"bytes\":{bytes},\"secs\":{passed:.4},\"rps\":{:.1},\
             \"p50_us\":{:.1},\"p90_us\":{:.1},\"p99_us\":{:.1},\"p999_us\":{:.1},\"max_us\":{:.1},\"held\":{held},\"unsent\":{}}}",
            done as f64 / passed,
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            at(1.0),
            self.waiting.len()
        );
        let _ = std::io::stdout().flush();
    }
}

/// The status of one whole answer, once the buffer holds it. For a frame: 200 if it is what was to come, else 500.
fn answer(bytes: &[u8], stage: Stage, mode: Mode) -> Option<u32> {
    if stage == Stage::Http {
        return http_answer(bytes);
    }
    frame::whole_of_server(bytes)?;
    let wanted = if mode == Mode::Realtime { frame::TEXT } else { frame::BINARY };
    let is_right = bytes[0] == wanted && (stage != Stage::Join || find(bytes, b"\"ok\"").is_some());
    Some(if is_right { 200 } else { 500 })
}

fn http_answer(bytes: &[u8]) -> Option<u32> {
    let end = head_end(bytes)?;
    let head = &bytes[..end];
    let status = std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()?;
    if status == 101 {
        return Some(101);
    }
    for line in head.split(|&x| x == b'\n') {
        let Some(colon) = line.iter().position(|&x| x == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
            return (bytes.len() >= end + length).then_some(status);
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_whole =
                bytes.ends_with(b"\r\n0\r\n\r\n") || bytes[end..].starts_with(b"0\r\n\r\n");
            return is_whole.then_some(status);
        }
    }
    Some(status)
}
