//! What a viewer is sent each second: rates, shares and quantiles between readings of the counters. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use serde::Serialize;

use crate::config::live::RolloutState;
use crate::decide::Reason;
use crate::observe::{Gauge, Metrics, Reading};
use crate::side::Pair;

/// Tables and functions that are sent, busiest first.
const TABLES: usize = 50;

/// One second of the charts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Point {
    /// Milliseconds since 1970.
    pub(super) at: u64,
    pub(super) sides: Pair<SidePoint>,
}

/// One side in one second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SidePoint {
    requests_per_second: f64,
    /// 0 to 1 over the last seconds; `None` without requests.
    error_share: Option<f64>,
    /// Seconds to the head of the side's answer, over the last seconds; `None` without answers.
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

/// Everything that changes by itself.
#[derive(Debug, Serialize)]
pub(super) struct Frame<'a> {
    #[serde(flatten)]
    pub(super) point: &'a Point,
    pub(super) rollout: &'a RolloutState,
    pub(super) phase: &'static str,
    pub(super) uptime_seconds: u64,
    /// Faults in the sources right now.
    pub(super) faults: usize,
    pub(super) reload_failures: u64,
    pub(super) open: Open,
    /// Answered by the proxy without a side.
    pub(super) own_per_second: f64,
    pub(super) decisions: Vec<Row<'a>>,
    pub(super) tables: Vec<Row<'a>>,
}

/// What is open right now.
#[derive(Debug, Serialize)]
pub(super) struct Open {
    requests: u64,
    client_connections: u64,
    upstream_connections: Pair<u64>,
    websockets: Pair<u64>,
    realtime_sockets: u64,
}

/// A reason, a table or a function.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Row<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    name: &'a str,
    /// Since the start of the process.
    total: Pair<u64>,
    per_second: Pair<f64>,
}

/// Two readings and the time between them.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) before: &'a Reading,
    pub(super) elapsed: Duration,
}

impl Point {
    /// `second`: since the reading before; `window`: since the one some seconds before, because a share or a quantile
    /// of one second's few requests says nothing.
    pub(super) fn new(at: u64, now: &Reading, second: Span<'_>, window: Span<'_>) -> Self {
        let (last, recent) = (now.since(second.before), now.since(window.before));
        let sides = Pair::from_fn(|side| {
            let SideTotals { share, quantiles: [p50, p95, p99] } =
                SideTotals::of(&recent.sides[side]);
            let requests_per_second = rate(last.sides[side].requests, second.elapsed);
            SidePoint { requests_per_second, error_share: share, p50, p95, p99 }
        });
        Self { at, sides }
    }
}

struct SideTotals {
    share: Option<f64>,
    quantiles: [Option<f64>; 3],
}

impl SideTotals {
    fn of(side: &crate::observe::reading::SideReading) -> Self {
        let quantiles = [0.5, 0.95, 0.99].map(|q| side.latency.quantile(q));
        Self { share: side.error_share(), quantiles }
    }
}

impl Open {
    pub(super) fn of(metrics: &Metrics) -> Self {
        Self {
            requests: metrics.in_flight(),
            client_connections: metrics.gauge(Gauge::ClientConnections),
            upstream_connections: Pair::from_fn(|side| {
                metrics.gauge(Gauge::UpstreamConnections(side))
            }),
            websockets: Pair::from_fn(|side| metrics.gauge(Gauge::Websockets(side))),
            realtime_sockets: metrics.gauge(Gauge::RealtimeSockets),
        }
    }
}

/// Every reason that ever decided, in the order in which the rules are asked.
pub(super) fn decisions<'a>(now: &Reading, window: Span<'_>) -> Vec<Row<'a>> {
    let recent = now.since(window.before);
    let rows = Reason::ALL.into_iter().zip(now.decisions).zip(recent.decisions);
    rows.filter(|((_, total), _)| total.old + total.new > 0)
        .map(|((reason, total), recent)| Row {
            kind: "",
            name: reason.as_str(),
            total,
            per_second: rates(recent, window.elapsed),
        })
        .collect()
}

/// The busiest tables and functions.
pub(super) fn tables<'a>(now: &'a Reading, window: Span<'_>) -> Vec<Row<'a>> {
    let recent = now.since(window.before);
    let mut rows: Vec<Row<'a>> = now
        .tables
        .iter()
        .zip(&recent.tables)
        .filter(|(table, _)| table.requests.old + table.requests.new > 0)
        .map(|(table, recent)| Row {
            kind: table.kind.as_str(),
            name: &table.name,
            total: table.requests,
            per_second: rates(recent.requests, window.elapsed),
        })
        .collect();
    rows.sort_by_key(|row| (Reverse(row.total.old + row.total.new), row.kind, row.name));
    rows.truncate(TABLES);
    rows
}

pub(super) fn rate(n: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { n as f64 / elapsed.as_secs_f64() }
}

fn rates(n: Pair<u64>, elapsed: Duration) -> Pair<f64> {
    Pair::from_fn(|side| rate(n[side], elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counted::Kind;
    use crate::observe::reading::TableReading;

    fn table(name: &str, old: u64, new: u64) -> TableReading {
        TableReading { kind: Kind::Table, name: name.into(), requests: Pair { old, new } }
    }

    #[test]
    fn rates_are_of_the_time_that_really_passed() {
        let before = Reading::default();
        let mut now = Reading::default();
        now.sides.old.requests = 30;
        now.sides.old.failures = 3;
        let span = |seconds| Span { before: &before, elapsed: Duration::from_secs_f64(seconds) };
        let point = Point::new(7, &now, span(1.5), span(5.0));
        assert_eq!(point.sides.old.requests_per_second, 20.0);
        assert_eq!(point.sides.old.error_share, Some(0.1));
        assert_eq!(point.sides.old.p50, None, "requests without an answer have no latency");
        assert_eq!(point.sides.new.error_share, None);
        assert_eq!(Point::new(7, &now, span(0.0), span(0.0)).sides.old.requests_per_second, 0.0);
    }

    #[test]
    fn the_busiest_tables_come_first_and_no_more_than_the_limit() {
        let before = Reading { tables: vec![table("b", 1, 0)], ..Reading::default() };
        let mut now = before.clone();
        now.tables = vec![table("a", 1, 1), table("b", 5, 6), table("c", 0, 0)];
        now.tables.extend((0..TABLES).map(|i| table(&format!("t{i:02}"), 1, 0)));
        let span = Span { before: &before, elapsed: Duration::from_secs(5) };
        let rows = tables(&now, span);
        assert_eq!(rows.len(), TABLES);
        assert_eq!((rows[0].name, rows[1].name, rows[2].name), ("b", "a", "t00"));
        assert_eq!(rows[0].per_second, Pair { old: 0.8, new: 1.2 });
        assert_eq!(rows[0].total, Pair { old: 5, new: 6 });
    }
}
