//! What is counted of the exporter. One thread writes it, the scraper reads it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Numbers.
    Metrics,
}

impl Signal {
    /// Both, in the order of the exposition.
    pub const ALL: [Self; 2] = [Self::Traces, Self::Metrics];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// What became of what was exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Spans that were given up, or that the collector refused.
    pub failed_spans: u64,
    /// Exports, in the order of [`Signal::ALL`].
    pub exports: [Counts; Signal::ALL.len()],
}

/// How exports of one signal went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by the collector.
    pub taken: u64,
    /// Not taken: one for each try.
    pub failed: u64,
}

/// The exporter's own counters.
#[derive(Debug, Default)]
pub struct ExportCounters {
    failed_spans: AtomicU64,
    taken: [AtomicU64; Signal::ALL.len()],
    failed: [AtomicU64; Signal::ALL.len()],
}

impl ExportCounters {
    /// Counts an export.
    pub fn exported(&self, signal: Signal, is_taken: bool) {
        let counters = if is_taken { &self.taken } else { &self.failed };
        counters[signal as usize].fetch_add(1, Relaxed);
    }

    /// Counts spans that no collector has.
    pub fn lost(&self, spans: u64) {
        self.failed_spans.fetch_add(spans, Relaxed);
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> Exported {
        let counts = |signal: Signal| Counts {
            taken: self.taken[signal as usize].load(Relaxed),
            failed: self.failed[signal as usize].load(Relaxed),
        };
        Exported { failed_spans: self.failed_spans.load(Relaxed), exports: Signal::ALL.map(counts) }
    }
}
