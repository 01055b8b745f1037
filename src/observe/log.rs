//! Log lines. Shell: writes to stderr.
//!
//! A worker never waits for the log: lines go through a bounded queue to a thread that writes them, and a line that
//! finds the queue full is dropped and counted (`cutover_log_lines_dropped_total`).

use std::io::stderr;

use anyhow::Context as _;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_log::{AsLog, LogTracer};
use tracing_subscriber::EnvFilter;

use super::event::{Ending, Finished};
use super::redact::{redact, up_to};
use crate::trace::Context;

/// Lines that may wait for the writer.
const QUEUE_LINES: usize = 16_384;
/// Bytes of a request id that are logged: clients choose them.
const REQUEST_ID_BYTES: usize = 128;
/// The access lines' own target, so that a filter can tell them from the rest.
pub const ACCESS: &str = "cutover::access";

/// How lines are written.
#[derive(Clone, Debug)]
pub struct Options {
    /// One JSON object per line, or text for people.
    pub json: bool,
    /// A level, or a tracing-subscriber filter.
    pub level: String,
    /// Colours; only ever for a terminal.
    pub colour: bool,
}

/// The running log. Dropping it writes what still waits.
#[derive(Debug)]
pub struct Log {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Log {
    /// Starts the log of the whole process.
    ///
    /// # Errors
    /// When the level is no filter, or a log was started before.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let (writer, guard) = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE_LINES)
            .thread_name("cutover-log")
            .finish(stderr());
        let log = Self { dropped: writer.error_counter(), _writer: guard };
        install(options, writer)?;
        Ok(log)
    }

    /// Lines dropped so far, for the metrics page: a handle that outlives moves of the log.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        Dropped(Some(self.dropped.clone()))
    }
}

/// Counts the lines that were dropped; the default counts nothing (tests, commands without a log).
#[derive(Clone, Debug, Default)]
pub struct Dropped(Option<ErrorCounter>);

impl Dropped {
    /// Lines dropped so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.0.as_ref().map_or(0, |counter| counter.dropped_lines() as u64)
    }
}

fn install(options: &Options, writer: NonBlocking) -> anyhow::Result<()> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&options.level)?)
        .with_writer(writer)
        .with_ansi(options.colour && !options.json);
    let log: Dispatch = if options.json {
        subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .finish()
            .into()
    } else {
        subscriber.finish().into()
    };
    let started = tracing::dispatcher::set_global_default(log).map_err(anyhow::Error::from);
    started.and_then(|()| Ok(listen_to_libraries()?)).context("the log can't be started")
}

/// Takes in what libraries log. Not what the WebSockets' library does: it shows whole messages, and messages have tokens in them.
fn listen_to_libraries() -> Result<(), tracing_log::log::SetLoggerError> {
    LogTracer::builder()
        .ignore_crate("tungstenite")
        .ignore_crate("tokio_tungstenite")
        .with_max_level(LevelFilter::current().as_log())
        .init()
}

/// One line for a finished request. Nothing is formatted unless the line will be written; call it only when
/// `log.access` is on. It never has a header, a body or a targeting key.
pub fn access(
    finished: &Finished,
    method: &http::Method,
    path_and_query: &str,
    request_id: &str,
    trace: Context,
) {
    if !tracing::enabled!(target: ACCESS, tracing::Level::INFO) {
        return;
    }
    let millis = |duration: std::time::Duration| duration.as_micros() as f64 / 1_000.0;
    tracing::info!(
        target: ACCESS,
        method = method.as_str(),
        path = &*redact(path_and_query),
        status = finished.status,
        side = finished.side.map_or("none", |side| side.as_str()),
        route = finished.route.map_or("other", |route| route.as_str()),
        reason = finished.reason.map(|reason| reason.as_str()),
        bucket = finished.bucket.map(|bucket| bucket.number()),
        epoch = finished.epoch,
        ms = millis(finished.elapsed),
        upstream_ms = finished.upstream_elapsed.map(millis),
        code = finished.code.map(|code| code.code()),
        ending = (finished.ending != Ending::Complete).then(|| finished.ending.label()),
        retried = finished.retried.then_some(true),
        fell_back = finished.fell_back.then_some(true),
        found_elsewhere = finished.found_elsewhere.then_some(true),
        request_id = up_to(request_id, REQUEST_ID_BYTES),
        trace_id = %trace.trace_id(),
        span_id = trace.is_sampled.then(|| tracing::field::display(trace.span_id())),
    );
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::decide::Reason;
    use crate::observe::MethodClass;
    use crate::route::Route;
    use crate::side::Side;

    const TRACE: Context = Context { trace: 10, span: 11, is_sampled: true };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `work` logs at `level`, as JSON lines.
    fn logged(level: &str, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(level))
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn finished() -> Finished {
        Finished {
            side: Some(Side::New),
            route: Some(Route::Rest),
            status: 200,
            reason: Some(Reason::Percentage),
            elapsed: Duration::from_micros(1_250),
            ..Finished::new(MethodClass::Get, 3)
        }
    }

    #[test]
    fn one_line_with_what_an_operator_asks_for_and_no_secret() {
        let text = logged("info", || {
            let id = format!("id-{}", "x".repeat(500));
            access(&finished(), &http::Method::GET, "/rest/v1/t?apikey=hush", &id, TRACE);
        });
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains("hush"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        for (key, value) in [
            ("method", "GET"),
            ("path", "/rest/v1/t?apikey=[redacted]"),
            ("side", "new"),
            ("route", "rest"),
            ("reason", "percentage"),
            ("trace_id", "0000000000000000000000000000000a"),
            ("span_id", "000000000000000b"),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
        assert_eq!(
            (&line["status"], &line["epoch"], &line["ms"]),
            (&200.into(), &3.into(), &1.25.into())
        );
        assert_eq!(line["request_id"].as_str().unwrap().len(), REQUEST_ID_BYTES);
        assert!(line.get("code").is_none() && line.get("retried").is_none());
    }

    #[test]
    fn nothing_is_written_below_the_level() {
        let access =
            |trace| move || access(&finished(), &http::Method::GET, "/rest/v1/t", "id", trace);
        assert_eq!(logged("warn", access(TRACE)), "");
        // What is not recorded has no span.
        let text = logged("info", access(Context { is_sampled: false, ..TRACE }));
        assert!(text.contains("trace_id") && !text.contains("span_id"), "{text}");
    }
}
