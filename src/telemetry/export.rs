//! The exporter's own thread: takes traced requests from the queue in batches, and the numbers at every interval. Shell: clock, threads,
//! network.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::Settings;
use super::metrics::{Times, request};
use super::spans::spans;
use super::value::{SCHEMA, resource, scope};
use super::wire::{Collector, NotTaken};
use crate::counted::Names;
use crate::observe::exported::{ExportCounters, Signal};
use crate::observe::facts::Family;
use crate::observe::span::{Spans, Traced};

/// Requests in one export.
const BATCH: usize = 512;
/// How long the first request of a batch waits for more.
const LINGER: Duration = Duration::from_secs(1);
/// How often a batch is sent before it is given up.
const TRIES: u32 = 5;
/// The first pause between two tries; each one after is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest that a stop waits for the collector.
const FLUSH: Duration = Duration::from_secs(5);

/// Asks for all facts of this moment.
pub type ReadFacts = Box<dyn Fn() -> Vec<Family> + Send>;

/// A running exporter.
#[derive(Debug)]
pub struct Exporter {
    /// Where workers hand over traced requests; `None` without traces.
    pub spans: Option<Spans>,
    /// What became of what was exported.
    pub counters: Arc<ExportCounters>,
    queue: Option<mpsc::Receiver<Box<Traced>>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
struct Work {
    settings: Settings,
    collector: Collector,
    resource: Resource,
    names: Arc<Names>,
    facts: ReadFacts,
    counters: Arc<ExportCounters>,
    stop: watch::Receiver<bool>,
}

impl Exporter {
    /// An exporter that takes what it is given, and sends it once it is started.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let (spans, queue) = match settings.traces {
            true => Some(Spans::queue(settings.queue)).unzip(),
            false => (None, None),
        };
        Self {
            spans,
            counters: Arc::default(),
            queue,
            stop: watch::Sender::new(false),
            thread: None,
        }
    }

    /// Begins to send, on a thread of its own.
    ///
    /// # Errors
    /// When the CA can't be used, or the thread can't be made.
    pub fn start(
        &mut self,
        settings: Settings,
        names: Arc<Names>,
        facts: ReadFacts,
    ) -> io::Result<()> {
        let collector = Collector::new(&settings).map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = Work {
            resource: resource(&settings.service_name, &instance()),
            collector,
            names,
            facts,
            counters: Arc::clone(&self.counters),
            stop: self.stop.subscribe(),
            settings,
        };
        let queue = self.queue.take();
        let run = move || runtime.block_on(work.run(queue));
        self.thread =
            Some(std::thread::Builder::new().name("cutover-telemetry".to_owned()).spawn(run)?);
        Ok(())
    }

    /// Sends what waits, as far as the collector takes it at once, and ends. To be called when nobody hands over anything any more; takes
    /// no longer than `telemetry.timeout`, and never more than 5 seconds.
    pub fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!(
                "the exporter ended with a panic; this is a defect of cutover, please report it"
            );
        }
    }
}

/// A name for this process: a random UUID (RFC 9562 5.4), as the conventions ask for.
fn instance() -> String {
    let bits = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    let parts =
        [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| hex.get(range).unwrap_or_default());
    parts.join("-")
}

impl Work {
    async fn run(self, queue: Option<mpsc::Receiver<Box<Traced>>>) {
        let longest = FLUSH.min(self.settings.timeout);
        let sending = async {
            tokio::join!(self.traces(queue), self.metrics());
        };
        let patience = async {
            self.stopped().await;
            tokio::time::sleep(longest).await;
        };
        tokio::select! {
            () = sending => {}
            () = patience => tracing::warn!("the collector did not take the last telemetry in time"),
        }
    }

    async fn stopped(&self) {
        // An error means that the proxy itself is gone.
        let mut stop = self.stop.clone();
        let _gone = stop.wait_for(|stop| *stop).await;
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }

    // === traces

    async fn traces(&self, queue: Option<mpsc::Receiver<Box<Traced>>>) {
        let Some(mut queue) = queue else { return };
        let mut said = Said::new(Signal::Traces);
        loop {
            let batch = self.batch(&mut queue).await;
            if batch.is_empty() {
                return;
            }
            self.deliver(&batch, &mut said).await;
        }
    }

    /// The next batch; empty when there will be no more.
    async fn batch(&self, queue: &mut mpsc::Receiver<Box<Traced>>) -> Vec<Box<Traced>> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = queue.recv_many(&mut batch, BATCH) => {}
            () = self.stopped() => {}
        }
        let due = Instant::now() + LINGER;
        while !batch.is_empty() && batch.len() < BATCH && !self.is_stopping() {
            let room = BATCH - batch.len();
            tokio::select! {
                n = queue.recv_many(&mut batch, room) => if n == 0 { break },
                () = tokio::time::sleep_until(due) => break,
                () = self.stopped() => {}
            }
        }
        // A stop: what is there already goes along.
        while self.is_stopping() && batch.len() < BATCH {
            match queue.try_recv() {
                Ok(traced) => batch.push(traced),
                Err(_) => break,
            }
        }
        batch
    }

    /// Sends a batch until it is taken, refused, or given up.
    async fn deliver(&self, batch: &[Box<Traced>], said: &mut Said) {
        let names = self.names.list();
        let spans: Vec<_> = batch.iter().flat_map(|traced| spans(traced, &names)).collect();
        let count = spans.len() as u64;
        let scoped = ScopeSpans { scope: Some(scope()), spans, schema_url: SCHEMA.to_owned() };
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![scoped],
                schema_url: SCHEMA.to_owned(),
            }],
        };
        let mut pause = PAUSE;
        for left in (0..TRIES).rev() {
            let result = self.collector.traces(request.clone()).await;
            self.counters.exported(Signal::Traces, result.is_ok());
            said.hear(result.as_ref().err());
            match result {
                Ok(refused) => return self.counters.lost(refused.min(count)),
                Err(not) if !not.is_transient || left == 0 || self.is_stopping() => break,
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stopped() => {}
            }
            pause *= 2;
        }
        self.counters.lost(count);
    }

    // === metrics

    async fn metrics(&self) {
        if !self.settings.metrics {
            return;
        }
        let start = now();
        let mut said = Said::new(Signal::Metrics);
        let mut ticks = tokio::time::interval(self.settings.metrics_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.stopped() => {}
            }
            let is_last = self.is_stopping();
            let request = request((self.facts)(), &self.resource, Times { start, now: now() });
            let result = self.collector.metrics(request).await;
            self.counters.exported(Signal::Metrics, result.is_ok());
            said.hear(result.as_ref().err());
            if is_last {
                return;
            }
        }
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What was last said about a signal: only changes are logged.
struct Said {
    signal: &'static str,
    last: Option<NotTaken>,
}

impl Said {
    const fn new(signal: Signal) -> Self {
        Self { signal: signal.as_str(), last: None }
    }

    fn hear(&mut self, result: Option<&NotTaken>) {
        match (&self.last, result) {
            (Some(_), None) => {
                tracing::info!(signal = self.signal, "the collector takes telemetry again");
            }
            (last, Some(not)) if last.as_ref() != Some(not) => {
                let why = &*not.why;
                tracing::warn!(signal = self.signal, why, "the collector does not take telemetry");
            }
            _ => {}
        }
        self.last = result.cloned();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "shell: when numbers were read is a fact of the clock"
)]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_named_by_a_random_uuid() {
        let (one, other) = (instance(), instance());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}
