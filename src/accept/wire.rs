//! What one client connection's parts tell each other: whoever reads and writes it, the watchdog beside it and the service above it. They
//! run on one worker.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Limits;
use super::framing::Malformed;

/// Why what came over the wire is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The framing is in doubt.
    Malformed(Malformed),
    /// More than `limits.header_bytes` or [`super::MAX_HEADERS`].
    HeadTooLarge,
    /// The connection is one too many (`limits.connections`).
    TooManyConnections,
    /// The connection is one too many of its address (`limits.connections_per_address`).
    TooManyOfAddress,
}

/// What the watchdog has said to a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Told {
    /// Nothing: it goes on.
    #[default]
    Nothing,
    /// Another process takes the proxy's place: whoever asks gets an answer, and is told to ask there next.
    Leave,
    /// The proxy stops: what has begun may end.
    Stop,
    /// Its head is too slow, it has been idle for too long, or it has taken nothing of its answer for too long.
    Overdue,
    /// It floods: not a byte of it is read any more.
    Flood,
}

/// A client that took nothing of its answer for `limits.send_timeout`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TooSlow {
    /// It is not.
    #[default]
    No,
    /// It was, and nobody has counted it yet.
    Yes,
    /// It was, and the request that this ended says so.
    Counted,
}

/// How far the proxy's own end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It is not in sight.
    #[default]
    Serving,
    /// Another process takes its place: connections are ended as their requests end.
    Leaving,
    /// What has begun may end; connections without a request are closed.
    Stopping,
}

/// The shared state of one client connection.
#[derive(Debug)]
pub struct Wire {
    header_timeout: Duration,
    idle_timeout: Duration,
    send_timeout: Duration,
    /// `limits.http2_resets`.
    resets: u32,
    /// Since when a head has been unfinished; a connection owes its first one from the moment it opens.
    head_since: Cell<Option<Instant>>,
    /// When something last happened.
    active: Cell<Instant>,
    /// When the head was complete of the request that begins next.
    head_at: Cell<Option<Instant>>,
    in_flight: Cell<u32>,
    /// A stream was taken whose request has not begun yet.
    opening: Cell<bool>,
    /// Answers of which more is here than the client takes.
    unread: Cell<u32>,
    /// Changes whenever the client takes something.
    taken: Cell<u64>,
    /// What `taken` was, and since when, as the watchdog saw it.
    stands: Cell<Option<(u64, Instant)>>,
    too_slow: Cell<TooSlow>,
    /// Requests that the client gave up before their answer, less those that were answered, and never less than none.
    given_up: Cell<u32>,
    has_flooded: Cell<bool>,
    linger: Cell<bool>,
    refused: Cell<Option<Refused>>,
    told: Cell<Told>,
    /// The task of the connection.
    task: RefCell<Option<Waker>>,
}

impl Wire {
    /// A connection that opens now.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let opened = Instant::now();
        Self {
            header_timeout: limits.header_timeout,
            idle_timeout: limits.idle_timeout,
            send_timeout: limits.send_timeout,
            resets: limits.http2_resets,
            head_since: Cell::new(Some(opened)),
            active: Cell::new(opened),
            head_at: Cell::new(None),
            in_flight: Cell::new(0),
            opening: Cell::new(false),
            unread: Cell::new(0),
            taken: Cell::new(0),
            stands: Cell::new(None),
            too_slow: Cell::new(TooSlow::No),
            given_up: Cell::new(0),
            has_flooded: Cell::new(false),
            linger: Cell::new(false),
            refused: Cell::new(None),
            told: Cell::new(Told::Nothing),
            task: RefCell::new(None),
        }
    }

    /// A head has begun (or goes on).
    pub(super) fn head_begins(&self) {
        if self.head_since.get().is_none() {
            self.head_since.set(Some(Instant::now()));
        }
    }

    /// A head is complete. If the connection was overdue it no longer is: the head was here before it was ended, and what is said of its
    /// answer is to be said anew. Of the proxy's own end the next look says again what is so.
    pub(super) fn head_ends(&self) {
        if self.told.get() == Told::Overdue {
            self.told.set(Told::Nothing);
            self.too_slow.set(TooSlow::No);
        }
        let now = Instant::now();
        self.owes_no_head(now);
        self.head_at.set(Some(now));
    }

    /// The connection speaks HTTP/2, whose heads are nobody's business here.
    pub(super) fn speaks_http2(&self) {
        self.owes_no_head(Instant::now());
    }

    fn owes_no_head(&self, now: Instant) {
        self.head_since.set(None);
        self.active.set(now);
    }

    /// Refuses the next request, and with it the connection.
    pub(super) fn refuse(&self, why: Refused) {
        self.refused.set(Some(why));
        self.answered_early();
    }

    /// The request was answered before it was read to its end: the close must not lose the answer.
    pub fn answered_early(&self) {
        self.linger.set(true);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.get()
    }

    /// Why the request is refused, if it is: the service answers for it.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.refused.get()
    }

    /// A request begins; answers when its head was complete.
    pub fn request_begins(&self) -> Instant {
        self.opening.set(false);
        self.in_flight.set(self.in_flight.get() + 1);
        self.head_at.take().unwrap_or_else(Instant::now)
    }

    /// A request, with its response's body, has ended. A client that gives up more requests than it lets be answered makes its sides work for
    /// nothing, and over HTTP/2 its streams are free again for the next ones (CVE-2023-44487): at some point it has to go.
    pub fn request_ends(&self, now: Instant, was_answered: bool) {
        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        self.active.set(now);
        let given_up = self.given_up.get();
        self.given_up.set(match was_answered {
            true => given_up.saturating_sub(1),
            false => given_up.saturating_add(1),
        });
        if self.given_up.get() > self.resets {
            self.tell(Told::Flood);
        }
    }

    /// The connection ends because of what it sent.
    pub(super) fn floods(&self) {
        self.has_flooded.set(true);
    }

    /// Whether the connection was ended because of what it sent. One whose client went away and left more requests than it may give up was not.
    #[must_use]
    pub fn has_flooded(&self) -> bool {
        self.has_flooded.get()
    }

    /// An HTTP/1 answer can't go on before the client reads. `taken`: how much went until now.
    pub(super) fn waits_for_reader(&self, taken: u64) {
        self.unread.set(1);
        self.taken.set(taken);
    }

    /// All that there was of an HTTP/1 answer has gone.
    pub(super) fn is_read(&self) {
        if self.unread.replace(0) > 0 {
            self.active.set(Instant::now());
        }
    }

    /// One of the answers of an HTTP/2 connection waits for its reader, or no longer does.
    pub(super) fn stream_waits(&self, waits: bool) {
        let unread = self.unread.get();
        self.unread.set(if waits { unread + 1 } else { unread.saturating_sub(1) });
        self.stream_moves();
    }

    /// One of the answers of an HTTP/2 connection goes on.
    pub(super) fn stream_moves(&self) {
        self.taken.set(self.taken.get().wrapping_add(1));
    }

    /// Whether the connection ends because the client took nothing of its answers. Whoever asks counts it.
    pub fn was_too_slow(&self) -> bool {
        let was = self.too_slow.get() != TooSlow::No;
        if was {
            self.too_slow.set(TooSlow::Counted);
        }
        was
    }

    /// The same, if no request counts it: each was over when its last bytes had been handed on.
    pub fn was_too_slow_unseen(&self) -> bool {
        self.too_slow.get() == TooSlow::Yes && self.in_flight.get() == 0
    }

    /// An HTTP/2 connection has taken a stream: its request begins when its task runs.
    pub(super) fn stream_opens(&self) {
        self.opening.set(true);
    }

    /// Whether an HTTP/2 connection that is overdue may end now: nothing is under way on it, and nothing was for so long, in which the last
    /// answer could go. Or the client does not read, and would not see what is under way.
    pub(super) fn may_end(&self, rest: Duration) -> bool {
        let is_at_rest = self.in_flight.get() == 0 && !self.opening.get();
        self.too_slow.get() != TooSlow::No || is_at_rest && self.active.get().elapsed() >= rest
    }

    /// What the watchdog has said. The task is woken when it says more.
    pub(super) fn listens(&self, cx: &Context<'_>) -> Told {
        let mut task = self.task.borrow_mut();
        if task.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
        self.told.get()
    }

    /// What the watchdog has said.
    pub(super) fn told(&self) -> Told {
        self.told.get()
    }

    /// Whether everything that is under way waits for the client to read. Of a client that takes one answer and leaves another, the first
    /// shall not be cut for the second.
    fn waits_to_be_read(&self) -> bool {
        let unread = self.unread.get();
        unread > 0 && unread >= self.in_flight.get()
    }

    /// Whether nothing was taken for too long. No clock is read where bytes are written: that they are is all that is noted there.
    fn is_too_slow(&self, now: Instant) -> bool {
        let taken = self.taken.get();
        match self.stands.get() {
            Some((then, since)) if then == taken => {
                now.saturating_duration_since(since) >= self.send_timeout
            }
            _ => {
                self.stands.set(Some((taken, now)));
                false
            }
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        if self.waits_to_be_read() {
            let is_too_slow = self.is_too_slow(now);
            if is_too_slow && self.too_slow.get() == TooSlow::No {
                self.too_slow.set(TooSlow::Yes);
            }
            return is_too_slow;
        }
        self.stands.set(None);
        let (since, most) = match self.head_since.get() {
            _ if self.in_flight.get() > 0 => return false,
            Some(since) => (since, self.header_timeout),
            None => (self.active.get(), self.idle_timeout),
        };
        now.saturating_duration_since(since) >= most
    }

    fn look(&self, now: Instant, stage: Stage) {
        let told = match stage {
            _ if self.is_overdue(now) => Told::Overdue,
            Stage::Stopping => Told::Stop,
            Stage::Leaving => Told::Leave,
            Stage::Serving => Told::Nothing,
        };
        self.tell(told);
    }

    fn tell(&self, told: Told) {
        if told > self.told.get() {
            self.told.set(told);
            if let Some(task) = self.task.take() {
                task.wake();
            }
        }
    }

    /// How often it has to be looked at: late by an eighth of the shortest time-out is on time.
    fn step(&self) -> Duration {
        let shortest = self.header_timeout.min(self.idle_timeout).min(self.send_timeout);
        (shortest / 8).clamp(SHORTEST_STEP, LONGEST_STEP)
    }
}

const SHORTEST_STEP: Duration = Duration::from_millis(5);
const LONGEST_STEP: Duration = Duration::from_secs(1);

/// Looks at all connections of a worker now and then, so that none of them needs a timer of its own, or to hear of the stop by itself.
#[derive(Debug, Default)]
pub struct Watchdog {
    wires: RefCell<Vec<Weak<Wire>>>,
    /// How long it sleeps.
    step: Cell<Duration>,
    /// It sleeps too long for a connection that has just opened.
    sooner: Notify,
}

impl Watchdog {
    /// Watches a connection until it is dropped.
    pub fn watch(&self, wire: &Rc<Wire>) {
        self.wires.borrow_mut().push(Rc::downgrade(wire));
        if wire.step() < self.step.get() {
            self.sooner.notify_one();
        }
    }

    /// Looks around until the future is dropped.
    pub async fn run(&self, mut end: watch::Receiver<Stage>) {
        loop {
            let stage = *end.borrow_and_update();
            self.step.set(self.look(Instant::now(), stage));
            tokio::select! {
                biased;
                () = tokio::time::sleep(self.step.get()) => {}
                () = self.sooner.notified() => {}
                _further = end.wait_for(|now| *now > stage), if stage < Stage::Stopping => {}
            }
        }
    }

    /// Looks at every connection; answers when to look again.
    fn look(&self, now: Instant, stage: Stage) -> Duration {
        let mut step = LONGEST_STEP;
        self.wires.borrow_mut().retain(|wire| {
            let Some(wire) = wire.upgrade() else { return false };
            wire.look(now, stage);
            step = step.min(wire.step());
            true
        });
        step
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::Response;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;
    use crate::accept::connection::{Terms, serve_plain};
    use crate::accept::fixture::limits;
    use crate::http1::stream::Stream;

    fn wire() -> Wire {
        Wire::new(&limits())
    }

    async fn after(seconds: u64) -> Instant {
        tokio::time::advance(Duration::from_secs(seconds)).await;
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn slow_heads_and_idle_connections_are_overdue() {
        let first = wire();
        assert!(!first.is_overdue(after(9).await));
        assert!(first.is_overdue(after(1).await), "no first head");
        first.head_ends();
        assert_eq!(first.request_begins(), Instant::now());
        assert!(!first.is_overdue(after(1000).await), "a request in flight may take its time");
        first.request_ends(Instant::now(), true);
        assert!(!first.is_overdue(after(74).await));
        assert!(first.is_overdue(after(1).await), "idle");
        first.head_begins();
        first.head_begins();
        assert!(!first.is_overdue(after(9).await), "a head has its own time");
        assert!(first.is_overdue(after(1).await));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_of_an_answer_is_overdue_and_who_takes_little_is_not() {
        let wire = wire();
        wire.head_ends();
        wire.request_begins();
        wire.waits_for_reader(10);
        assert!(!wire.is_overdue(Instant::now()), "seen for the first time");
        assert!(!wire.is_overdue(after(59).await));
        wire.waits_for_reader(11);
        assert!(!wire.is_overdue(after(59).await), "it went on");
        // The whole of the answer is in the buffers: for the service the request is over.
        wire.request_ends(Instant::now(), true);
        assert!(!wire.is_overdue(after(59).await));
        assert!(!wire.was_too_slow() && !wire.was_too_slow_unseen());
        assert!(wire.is_overdue(after(1).await));
        assert!(wire.was_too_slow_unseen() && wire.was_too_slow() && !wire.was_too_slow_unseen());
        wire.is_read();
        assert!(!wire.is_overdue(after(60).await), "idle has its own time");
    }

    #[tokio::test(start_paused = true)]
    async fn one_stream_that_nobody_reads_does_not_end_the_others() {
        let wire = wire();
        wire.speaks_http2();
        wire.request_begins();
        wire.request_begins();
        wire.stream_waits(true);
        assert!(!wire.is_overdue(Instant::now()));
        assert!(!wire.is_overdue(after(1000).await), "the other one's answer may take its time");
        wire.stream_waits(true);
        assert!(!wire.is_overdue(Instant::now()));
        assert!(!wire.is_overdue(after(59).await));
        wire.stream_moves();
        assert!(!wire.is_overdue(after(59).await));
        assert!(wire.is_overdue(after(60).await));
        wire.stream_waits(false);
        assert!(!wire.is_overdue(Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_gives_up_what_it_asks_is_a_flood() {
        let wire = wire();
        let ends = |was_answered| {
            wire.request_begins();
            wire.request_ends(Instant::now(), was_answered);
        };
        for _ in 0..100 {
            ends(false);
            ends(true);
        }
        (0..100).for_each(|_| ends(true));
        ends(false);
        ends(false);
        assert_eq!(wire.told(), Told::Nothing, "two may be given up, whatever was before");
        ends(false);
        assert_eq!(wire.told(), Told::Flood);
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_says_what_is_so_until_a_head_belies_it() {
        let (dog, wire) = (Watchdog::default(), Rc::new(wire()));
        dog.watch(&wire);
        assert_eq!(dog.look(Instant::now(), Stage::Serving), LONGEST_STEP);
        assert_eq!(wire.told(), Told::Nothing);
        dog.look(Instant::now(), Stage::Leaving);
        assert_eq!(wire.told(), Told::Leave);
        dog.look(Instant::now(), Stage::Stopping);
        assert_eq!(wire.told(), Told::Stop);
        dog.look(after(10).await, Stage::Stopping);
        assert_eq!(wire.told(), Told::Overdue);
        dog.look(Instant::now(), Stage::Serving);
        assert_eq!(wire.told(), Told::Overdue, "nothing else takes it back");
        wire.head_ends();
        assert_eq!(
            wire.told(),
            Told::Nothing,
            "its request is served, and its answer has its own time"
        );
        dog.look(Instant::now(), Stage::Stopping);
        assert_eq!(wire.told(), Told::Stop);
        drop(wire);
        dog.look(Instant::now(), Stage::Stopping);
        assert!(dog.wires.borrow().is_empty(), "who is gone is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_meets_the_end_of_its_connection_gets_its_whole_answer() {
        const LENGTH: usize = 100_000;
        let (wire, (mut client, io)) = (Rc::new(wire()), duplex(64));
        let service = tower::service_fn(|_request| async {
            Ok::<_, Infallible>(Response::new(Full::from("x".repeat(LENGTH))))
        });
        let terms = Terms { limits: limits(), refused: None };
        let serving = serve_plain(Stream::Memory(io), Rc::clone(&wire), terms, service);
        let asking = async {
            for told in [Told::Nothing, Told::Overdue] {
                // In one go: the connection's task finds both.
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                wire.tell(told);
                let mut answer = Vec::new();
                while answer.iter().filter(|byte| **byte == b'x').count() < LENGTH {
                    assert!(
                        client.read_buf(&mut answer).await.is_ok_and(|read| read > 0),
                        "{told:?}"
                    );
                }
            }
        };
        tokio::select! {
            biased;
            () = asking => {}
            () = serving => panic!("it ended"),
        }
    }
}
