//! The counters at one moment, added up over the workers, and what lies between two such moments: rates, shares and
//! quantiles for those who watch. Prometheus computes the same from the metrics page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::metrics::{BOUNDS, CLASSES, METHODS, Metrics, ROUTES, SIDES};
use crate::counted::Kind;
use crate::decide::Reason;
use crate::route::Route;
use crate::side::{Pair, Side};

/// The bounds' buckets, and one for what is above every bound.
const BUCKETS: usize = BOUNDS.len() + 1;
/// Cells of one side in the shard's `requests`.
const CELLS: usize = ROUTES * METHODS * CLASSES;
/// 5xx, as an index of status classes.
const SERVER_ERROR: usize = CLASSES - 1;

/// What the counters say at one moment, or what was added between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Each side's requests.
    pub sides: Pair<SideReading>,
    /// Requests that the proxy answered without a side.
    pub own: u64,
    /// Decisions by reason, in the order of [`Reason::ALL`], and the side that was chosen.
    pub decisions: [Pair<u64>; Reason::ALL.len()],
    /// Requests by table and function that was ever asked for, always in the same order.
    pub tables: Vec<TableReading>,
}

/// One side's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SideReading {
    /// Requests that ended.
    pub requests: u64,
    /// Those whose answer was 5xx.
    pub failures: u64,
    /// Times from a request's first byte sent to the head of the side's answer.
    pub latency: Latencies,
}

/// Requests to one table or function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableReading {
    /// Table or function.
    pub kind: Kind,
    /// Its name in the old dialect, or [`crate::counted::OTHER`].
    pub name: Arc<str>,
    /// Requests by the side that served them.
    pub requests: Pair<u64>,
}

/// Times by bucket; not cumulative.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies([u64; BUCKETS]);

impl Metrics {
    /// Adds up what all workers have counted. A few ten thousand plain loads for each worker and no lock, so that
    /// once a second is nothing; a request may be in one number a moment before it is in another.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let requests = |cells: std::ops::Range<usize>| -> u64 {
            cells
                .map(|i| self.histogram(|shard| &shard.requests[i].buckets).iter().sum::<u64>())
                .sum()
        };
        let sides = Pair::from_fn(|side| {
            let cells = side as usize * CELLS..(side as usize + 1) * CELLS;
            let failures = cells.clone().filter(|i| i % CLASSES == SERVER_ERROR);
            let mut latency = [0; BUCKETS];
            for route in 0..Route::ALL.len() {
                let cell = side as usize * Route::ALL.len() + route;
                let more = self.histogram(|shard| &shard.upstream[cell].buckets);
                latency.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
            }
            SideReading {
                requests: requests(cells),
                failures: failures.map(|i| requests(i..i + 1)).sum(),
                latency: Latencies(latency),
            }
        });
        let decisions = std::array::from_fn(|reason| {
            Pair::from_fn(|side| {
                self.sum(|shard| &shard.decisions[reason * Side::ALL.len() + side as usize])
            })
        });
        let own = requests((SIDES - 1) * CELLS..SIDES * CELLS);
        let tables = self.resources().into_iter();
        let tables = tables.map(|(kind, name, requests)| TableReading { kind, name, requests });
        Reading { sides, own, decisions, tables: tables.collect() }
    }

    /// One histogram over all shards.
    fn histogram<'a>(
        &'a self,
        cell: impl Fn(&'a super::metrics::Shard) -> &'a [AtomicU64; BUCKETS],
    ) -> [u64; BUCKETS] {
        let mut sums = [0; BUCKETS];
        for shard in self.shards() {
            for (sum, n) in sums.iter_mut().zip(cell(shard)) {
                *sum += n.load(Relaxed);
            }
        }
        sums
    }
}

impl Reading {
    /// What was counted since `before`. Never below zero, whatever order the two were read in.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let both = |now: Pair<u64>, then: Pair<u64>| {
            Pair::from_fn(|side| now[side].saturating_sub(then[side]))
        };
        Self {
            sides: Pair::from_fn(|side| self.sides[side].since(&before.sides[side])),
            own: self.own.saturating_sub(before.own),
            decisions: std::array::from_fn(|i| both(self.decisions[i], before.decisions[i])),
            tables: self.tables_since(before),
        }
    }

    /// Names only ever come in between, so those of before are met in their order.
    fn tables_since(&self, before: &Self) -> Vec<TableReading> {
        let mut then = before.tables.iter().peekable();
        let since = self.tables.iter().map(|table| {
            let same = then.next_if(|then| then.kind == table.kind && then.name == table.name);
            let then = same.map(|then| then.requests).unwrap_or_default();
            let requests = Pair::from_fn(|side| table.requests[side].saturating_sub(then[side]));
            TableReading { requests, ..table.clone() }
        });
        since.collect()
    }
}

impl SideReading {
    fn since(&self, before: &Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            failures: self.failures.saturating_sub(before.failures),
            latency: Latencies(std::array::from_fn(|i| {
                self.latency.0[i].saturating_sub(before.latency.0[i])
            })),
        }
    }

    /// The share of answers that are 5xx, 0 to 1; `None` without requests.
    #[must_use]
    pub fn error_share(&self) -> Option<f64> {
        (self.requests > 0).then(|| (self.failures as f64 / self.requests as f64).min(1.0))
    }
}

impl Latencies {
    /// The time in seconds below which the share `q` (0 to 1) of all lies, as Prometheus' `histogram_quantile` says it:
    /// linear within the bucket, and the highest bound for what is above every bound. `None` when there is nothing.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total: u64 = self.0.iter().sum();
        if total == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total as f64;
        let (mut below, mut lower) = (0_u64, 0.0);
        for (bound, n) in BOUNDS.iter().zip(self.0) {
            let upper = bound.as_secs_f64();
            if n > 0 && (below + n) as f64 >= rank {
                let within = ((rank - below as f64) / n as f64).clamp(0.0, 1.0);
                return Some(lower + (upper - lower) * within);
            }
            below += n;
            lower = upper;
        }
        Some(lower)
    }
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;
