//! Counters, one shard per worker.
//!
//! A shard is written by its own worker alone, with a plain load and store: no read-modify-write, no lock, no cache
//! line that another worker writes. The scraper reads all shards and adds them up, and may see a request in one
//! counter a moment before it sees it in another. Every array is indexed by closed enums, so no client can make
//! a series. Two threads that wrote one shard would lose counts (never anything else).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::code::ErrorCode;
use super::event::{Ending, Finished, MethodClass};
use super::exported::Exported;
use super::facts::{self, Family};
use super::process::Process;
use super::published::KeyFacts;
use super::render;
use super::watching::WatchFacts;
use crate::counted::{Kind, Names, Slot};
use crate::decide::Reason;
use crate::decide::percentage::Percentage;
use crate::route::Route;
use crate::side::{Pair, Side};

/// Upper bounds of the latency buckets. From a local PostgREST's answer to a slow edge function's.
pub(super) const BOUNDS: [Duration; 14] = [
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(60),
];

/// Old, new, and `none`: answered by the proxy.
pub(super) const SIDES: usize = Side::ALL.len() + 1;
/// The six services, and `other`.
pub(super) const ROUTES: usize = Route::ALL.len() + 1;
pub(super) const METHODS: usize = MethodClass::ALL.len();
/// 1xx to 5xx.
pub(super) const CLASSES: usize = 5;
/// The proxy's own answers, then the endings that are no answer.
pub(super) const KINDS: usize = ErrorCode::ALL.len() + Ending::ALL.len();

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    shards: Vec<Arc<Shard>>,
    names: Arc<Names>,
}

/// One worker's counters; about 120 kB. Aligned so that no two shards share a cache line (128: adjacent-line prefetch).
#[derive(Debug)]
#[repr(align(128))]
pub struct Shard {
    /// By side, route, method, status class.
    pub(super) requests: Box<[Histogram]>,
    /// By side, route.
    pub(super) upstream: Box<[Histogram]>,
    /// By kind, side.
    pub(super) errors: [AtomicU64; KINDS * SIDES],
    /// By reason, side.
    pub(super) decisions: [AtomicU64; Reason::ALL.len() * Side::ALL.len()],
    pub(super) counters: [AtomicU64; Counter::ALL.len()],
    pub(super) gauges: [AtomicU64; Gauge::ALL.len()],
    /// By slot, side.
    counted: Box<[AtomicU64]>,
}

/// 15 buckets and a sum: two cache lines exactly.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Histogram {
    /// Not cumulative; the last holds what is above every bound.
    pub(super) buckets: [AtomicU64; BOUNDS.len() + 1],
    pub(super) sum_nanos: AtomicU64,
}

/// What is counted besides requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// A client connection was accepted.
    ClientConnected,
    /// A connection to a side was made.
    UpstreamConnected(Side),
    /// A request was sent again on a fresh connection.
    Retried(Side),
    /// A read decided for new was served by old.
    FellBack,
    /// A read of storage was not found on its own side, and was on this one.
    FoundElsewhere(Side),
    /// Something that the translation does not know was left alone.
    LeftAlone,
    /// A WebSocket was opened to a side.
    WebsocketOpened(Side),
    /// A WebSocket was closed because its user changed side.
    WebsocketClosedForFlip(Side),
    /// A user's token was signed again for a side.
    TokenSigned(Side),
    /// A user's token that could not be verified went to a side as it was.
    TokenUnproven(Side),
    /// A span found no room in the exporter's queue.
    SpansLost,
}

impl Counter {
    /// Every counter, in the order of the exposition.
    pub const ALL: [Self; 18] = [
        Self::ClientConnected,
        Self::UpstreamConnected(Side::Old),
        Self::UpstreamConnected(Side::New),
        Self::Retried(Side::Old),
        Self::Retried(Side::New),
        Self::FellBack,
        Self::LeftAlone,
        Self::WebsocketOpened(Side::Old),
        Self::WebsocketOpened(Side::New),
        Self::WebsocketClosedForFlip(Side::Old),
        Self::WebsocketClosedForFlip(Side::New),
        Self::TokenSigned(Side::Old),
        Self::TokenSigned(Side::New),
        Self::TokenUnproven(Side::Old),
        Self::TokenUnproven(Side::New),
        Self::FoundElsewhere(Side::Old),
        Self::FoundElsewhere(Side::New),
        Self::SpansLost,
    ];

    pub(super) const fn index(self) -> usize {
        match self {
            Self::ClientConnected => 0,
            Self::UpstreamConnected(side) => 1 + side as usize,
            Self::Retried(side) => 3 + side as usize,
            Self::FellBack => 5,
            Self::LeftAlone => 6,
            Self::WebsocketOpened(side) => 7 + side as usize,
            Self::WebsocketClosedForFlip(side) => 9 + side as usize,
            Self::TokenSigned(side) => 11 + side as usize,
            Self::TokenUnproven(side) => 13 + side as usize,
            Self::FoundElsewhere(side) => 15 + side as usize,
            Self::SpansLost => 17,
        }
    }
}

/// What is open right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gauge {
    /// Requests between head and end of answer.
    InFlight,
    /// Client connections.
    ClientConnections,
    /// Connections to a side, idle ones included.
    UpstreamConnections(Side),
    /// WebSockets to a side.
    Websockets(Side),
    /// Clients' WebSockets of realtime, whether or not a side is open for them.
    RealtimeSockets,
}

impl Gauge {
    /// Every gauge, in the order of the exposition.
    pub const ALL: [Self; 7] = [
        Self::InFlight,
        Self::ClientConnections,
        Self::UpstreamConnections(Side::Old),
        Self::UpstreamConnections(Side::New),
        Self::Websockets(Side::Old),
        Self::Websockets(Side::New),
        Self::RealtimeSockets,
    ];

    const fn index(self) -> usize {
        match self {
            Self::InFlight => 0,
            Self::ClientConnections => 1,
            Self::UpstreamConnections(side) => 2 + side as usize,
            Self::Websockets(side) => 4 + side as usize,
            Self::RealtimeSockets => 6,
        }
    }
}

/// What the metrics page shows besides the shards: asked of its owners at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Share of users on new.
    pub percentage: Percentage,
    /// Everybody on one side.
    pub force: Option<Side>,
    /// Number of the live snapshot.
    pub epoch: u64,
    /// Reloads that swapped a snapshot in.
    pub reloads: u64,
    /// Reloads that were refused.
    pub reload_failures: u64,
    /// Faults in the sources right now.
    pub config_faults: u64,
    /// When the live snapshot was swapped in, seconds since 1970.
    pub config_last_success: Option<f64>,
    /// The keys that each project publishes.
    pub published: Pair<KeyFacts>,
    /// The watch of the ConfigMap; `None` when there is none to follow.
    pub kubernetes: Option<WatchFacts>,
    /// What became of what was exported.
    pub telemetry: Exported,
    /// Log lines lost because the writer was behind.
    pub log_lines_dropped: u64,
    /// Whether the proxy is stopping.
    pub draining: bool,
    /// When the process started, seconds since 1970.
    pub started: f64,
    /// The process, as the system sees it; `None` where there is no `/proc`.
    pub process: Option<Process>,
}

impl Metrics {
    /// Makes one shard per worker, and one more for everything that is not a worker. No table or function has a name.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self::counting(workers, Arc::new(Names::new(0)))
    }

    /// The same, with the names under which tables and functions are counted.
    #[must_use]
    pub fn counting(workers: usize, names: Arc<Names>) -> Self {
        let shards = (0..=workers).map(|_| Arc::new(Shard::new(names.slots()))).collect();
        Self { shards, names }
    }

    /// The shard of worker `i`; any number past the last worker is the shard of everything else.
    #[must_use]
    pub fn shard(&self, i: usize) -> Arc<Shard> {
        Arc::clone(&self.shards[i.min(self.shards.len() - 1)])
    }

    /// Number of workers.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shards.len() - 1
    }

    /// Requests in flight over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.gauge(Gauge::InFlight)
    }

    /// What is open right now over all workers.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> u64 {
        self.sum(|shard| &shard.gauges[gauge.index()])
    }

    /// Requests for each table and function of the operator's map that was asked for on either side, by the side that served them; what
    /// the map doesn't name is one of each kind, [`crate::counted::OTHER`].
    #[must_use]
    pub fn resources(&self) -> Vec<(Kind, Arc<str>, Pair<u64>)> {
        let count =
            |slot, side| self.sum(|shard| &shard.counted[slot * Side::ALL.len() + side as usize]);
        let all = self.names.list().into_iter().enumerate();
        all.map(|(slot, (kind, name))| (kind, name, Pair::from_fn(|side| count(slot, side))))
            .filter(|(_, _, counts)| Side::ALL.iter().any(|side| counts[*side] > 0))
            .collect()
    }

    /// The exposition in Prometheus' text format 0.0.4.
    #[must_use]
    pub fn render(&self, gauges: &Gauges) -> String {
        facts::text(&self.facts(gauges))
    }

    /// Everything that is measured, in no format.
    #[must_use]
    pub fn facts(&self, gauges: &Gauges) -> Vec<Family> {
        render::facts(self, gauges)
    }

    /// Every worker's counters, and those of everything else.
    pub(super) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().map(AsRef::as_ref)
    }

    /// Adds up one cell of every shard.
    pub(super) fn sum<'a>(&'a self, cell: impl Fn(&'a Shard) -> &'a AtomicU64) -> u64 {
        self.shards.iter().map(|shard| cell(shard).load(Relaxed)).sum()
    }
}

impl Shard {
    fn new(slots: usize) -> Self {
        let histograms = |n: usize| (0..n).map(|_| Histogram::new()).collect();
        Self {
            requests: histograms(SIDES * ROUTES * METHODS * CLASSES),
            upstream: histograms(Side::ALL.len() * Route::ALL.len()),
            errors: zeros(),
            decisions: zeros(),
            counters: zeros(),
            gauges: zeros(),
            counted: (0..slots * Side::ALL.len()).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Counts a finished request.
    pub fn finish(&self, finished: &Finished) {
        let Finished { side, route, method, status, .. } = *finished;
        self.requests[request_index(side, route, method, status)].observe(finished.elapsed);
        if let (Some(side), Some(route), Some(elapsed)) = (side, route, finished.upstream_elapsed) {
            self.upstream[side as usize * Route::ALL.len() + route as usize].observe(elapsed);
        }
        if let (Some(side), Some(reason)) = (side, finished.reason) {
            // What fell back, or was found elsewhere, was decided for the side that did not serve it.
            let is_other = finished.fell_back || finished.found_elsewhere;
            let decided = if is_other { side.other() } else { side };
            add(&self.decisions[reason as usize * Side::ALL.len() + decided as usize], 1);
        }
        if let (Some(side), Some(slot)) = (side, finished.counted) {
            self.counted(slot, side);
        }
        if let Some(code) = finished.code {
            self.error(code, side);
        }
        if finished.ending != Ending::Complete {
            add(&self.errors[ending_index(finished.ending, side)], 1);
        }
        if let (true, Some(side)) = (finished.retried, side) {
            self.count(Counter::Retried(side));
        }
        if finished.fell_back {
            self.count(Counter::FellBack);
        }
        if let (true, Some(side)) = (finished.found_elsewhere, side) {
            self.count(Counter::FoundElsewhere(side));
        }
        if finished.left_alone {
            self.count(Counter::LeftAlone);
        }
    }

    /// Counts an answer of the proxy outside of a request (a connection refused at the door). Inside one,
    /// [`Shard::finish`] does it.
    pub fn error(&self, code: ErrorCode, side: Option<Side>) {
        add(&self.errors[code as usize * SIDES + side_index(side)], 1);
    }

    /// Counts an ending outside of a request (a WebSocket outlives its own).
    pub fn ended(&self, ending: Ending, side: Option<Side>) {
        add(&self.errors[ending_index(ending, side)], 1);
    }

    fn counted(&self, slot: Slot, side: Side) {
        // A slot of another registry than the shard's has no cell; only a test can make one.
        if let Some(cell) = self.counted.get(slot.index() * Side::ALL.len() + side as usize) {
            add(cell, 1);
        }
    }

    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.count_many(counter, 1);
    }

    /// Counts several.
    pub fn count_many(&self, counter: Counter, n: u64) {
        add(&self.counters[counter.index()], n);
    }

    /// Counts one thing as open until the returned guard is dropped, on the shard's own thread.
    #[must_use]
    pub fn hold(self: &Arc<Self>, gauge: Gauge) -> Held {
        add(&self.gauges[gauge.index()], 1);
        Held { shard: Arc::clone(self), gauge }
    }
}

/// Something open; dropping it counts it as closed.
#[derive(Debug)]
pub struct Held {
    shard: Arc<Shard>,
    gauge: Gauge,
}

impl Drop for Held {
    fn drop(&mut self) {
        add(&self.shard.gauges[self.gauge.index()], u64::MAX);
    }
}

impl Histogram {
    fn new() -> Self {
        Self { buckets: zeros(), sum_nanos: AtomicU64::new(0) }
    }

    fn observe(&self, elapsed: Duration) {
        let bucket = BOUNDS.iter().position(|bound| elapsed <= *bound).unwrap_or(BOUNDS.len());
        add(&self.buckets[bucket], 1);
        add(&self.sum_nanos, u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// The one way a cell changes. Wrapping, so that adding `u64::MAX` takes one away.
fn add(cell: &AtomicU64, n: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

fn zeros<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

const fn side_index(side: Option<Side>) -> usize {
    match side {
        Some(side) => side as usize,
        None => SIDES - 1,
    }
}

fn request_index(
    side: Option<Side>,
    route: Option<Route>,
    method: MethodClass,
    status: u16,
) -> usize {
    let route = route.map_or(ROUTES - 1, |route| route as usize);
    let class = usize::from(status / 100).clamp(1, CLASSES) - 1;
    ((side_index(side) * ROUTES + route) * METHODS + method as usize) * CLASSES + class
}

const fn ending_index(ending: Ending, side: Option<Side>) -> usize {
    (ErrorCode::ALL.len() + ending as usize) * SIDES + side_index(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_are_their_own_index() {
        for (i, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter.index(), i, "{counter:?}");
        }
        for (i, gauge) in Gauge::ALL.into_iter().enumerate() {
            assert_eq!(gauge.index(), i, "{gauge:?}");
        }
        for (i, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, i, "{code:?}");
        }
        for (i, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i, "{reason:?}");
        }
        for (i, route) in Route::ALL.into_iter().enumerate() {
            assert_eq!(route as usize, i, "{route:?}");
        }
        for (i, method) in MethodClass::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, i, "{method:?}");
        }
        for (i, ending) in Ending::ALL.into_iter().enumerate() {
            assert_eq!(ending as usize, i, "{ending:?}");
        }
    }

    #[test]
    fn a_histogram_fills_whole_cache_lines() {
        assert_eq!(size_of::<Histogram>(), 128);
        assert_eq!(align_of::<Shard>(), 128);
    }

    #[test]
    fn any_status_has_a_cell() {
        let last = SIDES * ROUTES * METHODS * CLASSES - 1;
        assert_eq!(request_index(None, None, MethodClass::Other, 599), last);
        for status in [0, 99, 100, 600, u16::MAX] {
            assert!(request_index(None, None, MethodClass::Other, status) <= last, "{status}");
        }
    }

    #[test]
    fn a_guard_counts_until_it_is_dropped() {
        let metrics = Metrics::new(2);
        let first = metrics.shard(0).hold(Gauge::InFlight);
        let second = metrics.shard(1).hold(Gauge::InFlight);
        let other = metrics.shard(99).hold(Gauge::Websockets(Side::New));
        assert_eq!(metrics.in_flight(), 2);
        assert_eq!(metrics.gauge(Gauge::Websockets(Side::New)), 1);
        drop((first, second, other));
        assert_eq!(metrics.in_flight(), 0);
        assert_eq!(metrics.gauge(Gauge::Websockets(Side::New)), 0);
    }
}
