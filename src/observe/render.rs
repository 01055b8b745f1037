//! Collects the facts that the metrics page and the exporter show. Series that were never counted are left out, except the gauges and the
//! counters without many labels, which are there from the start so that an alert can be written.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::code::ErrorCode;
use super::event::{Ending, MethodClass};
use super::exported::{Exported, Signal};
use super::facts::{Family, Kind, Sample, Totals, Value};
use super::metrics::{
    CLASSES, Counter, Gauge, Gauges, Histogram, KINDS, METHODS, Metrics, ROUTES, SIDES, Shard,
};
use super::published::KeyFetch;
use super::watching::WatchFailure;
use crate::decide::Reason;
use crate::route::Route;
use crate::side::Side;

const CLASS_NAMES: [&str; CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

pub(super) fn facts(metrics: &Metrics, gauges: &Gauges) -> Vec<Family> {
    let mut page = Page { families: Vec::with_capacity(64) };
    page.rollout(gauges);
    page.kubernetes(gauges);
    page.requests(metrics);
    page.upstream(metrics);
    page.errors(metrics);
    page.decisions(metrics);
    page.resources(metrics);
    page.counters(metrics);
    page.open(metrics);
    page.published(gauges);
    page.telemetry(metrics, gauges);
    page.process(gauges);
    page.families
}

/// What was collected; a sample belongs to the family that was begun last.
struct Page {
    families: Vec<Family>,
}

type Labels = Vec<(&'static str, String)>;

impl Page {
    fn rollout(&mut self, gauges: &Gauges) {
        self.gauge(
            "cutover_rollout_percentage",
            "Share of users on the new side, 0 to 100.",
            f64::from(gauges.percentage.hundredths()) / 100.0,
        );
        self.family(
            "cutover_rollout_forced",
            Kind::Gauge,
            "1 for the side that everybody is forced to.",
        );
        for side in Side::ALL {
            let forced = u64::from(gauges.force == Some(side));
            self.sample(of_side(side), forced);
        }
        self.gauge(
            "cutover_config_epoch",
            "Number of the live snapshot of the settings.",
            gauges.epoch,
        );
        self.gauge(
            "cutover_config_faults",
            "Faults in the sources right now; above 0 the last good snapshot is served.",
            gauges.config_faults,
        );
        if let Some(seconds) = gauges.config_last_success {
            self.gauge(
                "cutover_config_last_success_timestamp_seconds",
                "When the live snapshot was swapped in.",
                seconds,
            );
        }
        self.family("cutover_config_reloads_total", Kind::Counter, "Reloads by their result.");
        for (result, n) in [("success", gauges.reloads), ("failure", gauges.reload_failures)] {
            self.sample(vec![("result", result.to_owned())], n);
        }
    }

    fn kubernetes(&mut self, gauges: &Gauges) {
        let Some(facts) = &gauges.kubernetes else { return };
        self.gauge(
            "cutover_kubernetes_connected",
            "1 while the watch of the ConfigMap is well.",
            u64::from(facts.connected),
        );
        if let Some(seconds) = facts.heard_seconds {
            self.gauge(
                "cutover_kubernetes_last_heard_seconds",
                "Seconds since the Kubernetes API was last heard.",
                seconds,
            );
        }
        let name = "cutover_kubernetes_watch_failures_total";
        self.family(name, Kind::Counter, "Failures of lists, watches and writes of the ConfigMap.");
        for kind in WatchFailure::ALL {
            let label = ("kind", kind.as_str().to_owned());
            self.sample(vec![label], facts.failures[kind as usize]);
        }
        self.counter(
            "cutover_kubernetes_resyncs_total",
            "Lists of the ConfigMap, the first included.",
            facts.resyncs,
        );
    }

    fn requests(&mut self, metrics: &Metrics) {
        let cells: Vec<(Labels, Totals)> = (0..SIDES * ROUTES * METHODS * CLASSES)
            .filter_map(|i| {
                let totals = Totals::of(metrics, |shard| &shard.requests[i])?;
                Some((request_labels(i), totals))
            })
            .collect();
        let name = "cutover_requests_total";
        self.family(
            name,
            Kind::Counter,
            "Requests by the side that answered (none: the proxy itself).",
        );
        for (labels, totals) in &cells {
            self.sample(labels.clone(), totals.count());
        }
        self.histogram(
            "cutover_request_duration_seconds",
            "From a request's head to the end of its answer.",
            cells,
        );
    }

    fn upstream(&mut self, metrics: &Metrics) {
        let cells: Vec<(Labels, Totals)> = (0..Side::ALL.len() * Route::ALL.len())
            .filter_map(|i| {
                let totals = Totals::of(metrics, |shard| &shard.upstream[i])?;
                let (side, route) =
                    (Side::ALL[i / Route::ALL.len()], Route::ALL[i % Route::ALL.len()]);
                Some((vec![("side", side.to_string()), ("route", route.to_string())], totals))
            })
            .collect();
        self.histogram(
            "cutover_upstream_duration_seconds",
            "From a request's first byte sent to a side to the head of its answer.",
            cells,
        );
    }

    fn errors(&mut self, metrics: &Metrics) {
        let name = "cutover_errors_total";
        self.family(
            name,
            Kind::Counter,
            "The proxy's own answers, and answers that did not end well, by kind.",
        );
        for i in 0..KINDS * SIDES {
            let n = metrics.sum(|shard| &shard.errors[i]);
            if n > 0 {
                let labels = [("kind", kind(i / SIDES)), ("side", side(i % SIDES))];
                self.sample(labels.map(|(name, value)| (name, value.to_owned())).into(), n);
            }
        }
    }

    fn resources(&mut self, metrics: &Metrics) {
        let name = "cutover_resource_requests_total";
        self.family(
            name,
            Kind::Counter,
            "REST requests that a side served, by the table or function of the schema map.",
        );
        for (kind, resource, counts) in metrics.resources() {
            for side in Side::ALL {
                let mut labels =
                    vec![("kind", kind.as_str().to_owned()), ("name", resource.to_string())];
                labels.extend(of_side(side));
                self.sample(labels, counts[side]);
            }
        }
    }

    fn decisions(&mut self, metrics: &Metrics) {
        let name = "cutover_decisions_total";
        self.family(
            name,
            Kind::Counter,
            "Decisions by the rule that made them and the side they chose.",
        );
        for (r, reason) in Reason::ALL.into_iter().enumerate() {
            for (s, side) in Side::ALL.into_iter().enumerate() {
                let n = metrics.sum(|shard| &shard.decisions[r * Side::ALL.len() + s]);
                if n > 0 {
                    let labels =
                        vec![("reason", reason.as_str().to_owned()), ("side", side.to_string())];
                    self.sample(labels, n);
                }
            }
        }
    }

    fn counters(&mut self, metrics: &Metrics) {
        let mut last = "";
        for (i, counter) in Counter::ALL.into_iter().enumerate() {
            let Some((name, help, side)) = counter_facts(counter) else { continue };
            if name != last {
                self.family(name, Kind::Counter, help);
                last = name;
            }
            let labels = side.map(of_side).unwrap_or_default();
            self.sample(labels, metrics.sum(|shard| &shard.counters[i]));
        }
    }

    fn open(&mut self, metrics: &Metrics) {
        let mut last = "";
        for gauge in Gauge::ALL {
            let (name, help, side) = gauge_facts(gauge);
            if name != last {
                self.family(name, Kind::Gauge, help);
                last = name;
            }
            self.sample(side.map(of_side).unwrap_or_default(), metrics.gauge(gauge));
        }
    }

    fn published(&mut self, gauges: &Gauges) {
        let name = "cutover_jwks_fetches_total";
        self.family(
            name,
            Kind::Counter,
            "Fetches of a project's published keys, by their outcome.",
        );
        for side in Side::ALL {
            for (outcome, n) in KeyFetch::ALL.iter().zip(gauges.published[side].fetches) {
                let mut labels = of_side(side);
                labels.push(("result", outcome.as_str().to_owned()));
                self.sample(labels, n);
            }
        }
        let name = "cutover_jwks_age_seconds";
        self.family(name, Kind::Gauge, "Since a project's published keys were last fetched.");
        for side in Side::ALL {
            if let Some(age) = gauges.published[side].age {
                self.sample(of_side(side), age.as_secs_f64());
            }
        }
    }

    fn telemetry(&mut self, metrics: &Metrics, gauges: &Gauges) {
        let Exported { failed_spans, exports } = gauges.telemetry;
        self.family(
            "cutover_telemetry_dropped_total",
            Kind::Counter,
            "Spans that no collector got: no room in the queue, or not taken.",
        );
        let lost = metrics.sum(|shard| &shard.counters[Counter::SpansLost.index()]);
        for (reason, n) in [("queue", lost), ("export", failed_spans)] {
            self.sample(vec![("reason", reason.to_owned())], n);
        }
        self.family(
            "cutover_telemetry_exports_total",
            Kind::Counter,
            "Exports over OTLP, by what was sent and whether it was taken.",
        );
        for (signal, counts) in Signal::ALL.into_iter().zip(exports) {
            for (result, n) in [("success", counts.taken), ("failure", counts.failed)] {
                let labels = [("signal", signal.as_str()), ("result", result)];
                self.sample(labels.map(|(name, value)| (name, value.to_owned())).into(), n);
            }
        }
    }

    fn process(&mut self, gauges: &Gauges) {
        self.family("cutover_build_info", Kind::Gauge, "Always 1; the version is the label.");
        self.sample(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1_u64);
        self.gauge(
            "cutover_draining",
            "1 while the proxy is stopping.",
            u64::from(gauges.draining),
        );
        self.counter(
            "cutover_log_lines_dropped_total",
            "Log lines lost because the writer was behind.",
            gauges.log_lines_dropped,
        );
        self.gauge("process_start_time_seconds", "When the process started.", gauges.started);
        if let Some(process) = gauges.process {
            self.counter("process_cpu_seconds_total", "User and system time.", process.cpu_seconds);
            self.gauge("process_resident_memory_bytes", "Resident memory.", process.resident_bytes);
            self.gauge("process_threads", "Threads.", process.threads);
            self.gauge("process_open_fds", "Open file descriptors.", process.open_fds);
        }
    }

    fn histogram(&mut self, name: &'static str, help: &'static str, cells: Vec<(Labels, Totals)>) {
        self.family(name, Kind::Histogram, help);
        for (labels, totals) in cells {
            self.sample(labels, Value::Histogram(totals));
        }
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.family(name, Kind::Gauge, help);
        self.sample(Vec::new(), value);
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: impl Into<Value>) {
        self.family(name, Kind::Counter, help);
        self.sample(Vec::new(), value);
    }

    fn family(&mut self, name: &'static str, kind: Kind, help: &'static str) {
        self.families.push(Family { name, kind, help, samples: Vec::new() });
    }

    fn sample(&mut self, labels: Labels, value: impl Into<Value>) {
        if let Some(family) = self.families.last_mut() {
            family.samples.push(Sample { labels, value: value.into() });
        }
    }
}

impl Totals {
    /// Adds up one histogram of every shard; `None` when nothing was ever counted in it.
    fn of<'a>(metrics: &'a Metrics, cell: impl Fn(&'a Shard) -> &'a Histogram) -> Option<Self> {
        let sum =
            |pick: &dyn Fn(&'a Histogram) -> &'a AtomicU64| metrics.sum(|shard| pick(cell(shard)));
        let buckets = std::array::from_fn(|i| sum(&|histogram| &histogram.buckets[i]));
        let totals =
            Self { buckets, sum: Duration::from_nanos(sum(&|histogram| &histogram.sum_nanos)) };
        (totals.count() > 0).then_some(totals)
    }
}

fn request_labels(i: usize) -> Labels {
    let (rest, class) = (i / CLASSES, CLASS_NAMES[i % CLASSES]);
    let (rest, method) = (rest / METHODS, MethodClass::ALL[rest % METHODS].as_str());
    let route = Route::ALL.get(rest % ROUTES).map_or("other", |route| route.as_str());
    let side = side(rest / ROUTES);
    let labels = [("side", side), ("route", route), ("method", method), ("status", class)];
    labels.map(|(name, value)| (name, value.to_owned())).into()
}

fn of_side(side: Side) -> Labels {
    vec![("side", side.to_string())]
}

fn side(i: usize) -> &'static str {
    Side::ALL.get(i).map_or("none", |side| side.as_str())
}

fn kind(i: usize) -> &'static str {
    match ErrorCode::ALL.get(i) {
        Some(code) => code.label(),
        None => Ending::ALL[i - ErrorCode::ALL.len()].label(),
    }
}

/// Name, help, side; `None` where the counter is one of several in a family.
const fn counter_facts(counter: Counter) -> Option<(&'static str, &'static str, Option<Side>)> {
    Some(match counter {
        Counter::SpansLost => return None,
        Counter::ClientConnected => {
            ("cutover_client_connections_accepted_total", "Client connections accepted.", None)
        }
        Counter::UpstreamConnected(side) => (
            "cutover_upstream_connections_opened_total",
            "Connections made to a side; far fewer than requests while reuse works.",
            Some(side),
        ),
        Counter::Retried(side) => (
            "cutover_upstream_retries_total",
            "Requests sent again on a fresh connection because a kept-alive one was stale.",
            Some(side),
        ),
        Counter::FellBack => (
            "cutover_fallbacks_total",
            "Reads decided for new and served by old, because new could not be reached.",
            None,
        ),
        Counter::FoundElsewhere(side) => (
            "cutover_storage_found_elsewhere_total",
            "Reads of storage that their own side did not have, and this one did.",
            Some(side),
        ),
        Counter::LeftAlone => (
            "cutover_translations_left_alone_total",
            "Requests with syntax that the translation does not know, and answers too long for it: passed unchanged.",
            None,
        ),
        Counter::TokenSigned(side) => (
            "cutover_tokens_signed_total",
            "Users' tokens of the other project, signed again for this side.",
            Some(side),
        ),
        Counter::TokenUnproven(side) => (
            "cutover_tokens_unproven_total",
            "Users' tokens that no known key verified, passed to this side as they were.",
            Some(side),
        ),
        Counter::WebsocketOpened(side) => {
            ("cutover_websockets_opened_total", "WebSockets opened to a side.", Some(side))
        }
        Counter::WebsocketClosedForFlip(side) => (
            "cutover_websockets_closed_for_flip_total",
            "WebSockets of a side closed with 1012 because their user changed side.",
            Some(side),
        ),
    })
}

/// Name, help, side.
const fn gauge_facts(gauge: Gauge) -> (&'static str, &'static str, Option<Side>) {
    match gauge {
        Gauge::InFlight => {
            ("cutover_requests_in_flight", "Requests between head and end of answer.", None)
        }
        Gauge::ClientConnections => {
            ("cutover_client_connections_open", "Client connections open now.", None)
        }
        Gauge::UpstreamConnections(side) => (
            "cutover_upstream_connections_open",
            "Connections open to a side, idle ones included.",
            Some(side),
        ),
        Gauge::Websockets(side) => {
            ("cutover_websockets_open", "WebSockets open to a side.", Some(side))
        }
        Gauge::RealtimeSockets => (
            "cutover_realtime_sockets_open",
            "Clients' WebSockets of realtime, whether or not a side is open for them.",
            None,
        ),
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
