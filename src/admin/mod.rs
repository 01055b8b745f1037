//! The admin listener: health, metrics, status, and the number.
//!
//! | route | answer |
//! |---|---|
//! | `GET /`, `/console/…` | the console: a page and its files, without data |
//! | `POST /login`, `/logout`, `GET /session` | the page's session, begun with the token |
//! | `GET /events` | what the page draws, every second, as server-sent events |
//! | `GET /healthz` | 200 while the process lives; never needs the token |
//! | `GET /readyz` | 200 while requests are served, 503 before and while stopping; never needs the token |
//! | `GET /metrics` | Prometheus text |
//! | `GET /status` | version, rollout, reloads and faults, owners, warnings |
//! | `GET /explain?user=…` | side, bucket, reason, moves_at; also `path`, `method`, `profile`, `claims` |
//! | `GET /audit?limit=…` | the newest changes, oldest first |
//! | `GET`, `PUT /rollout` | the number; `ETag` and `If-Match` carry the epoch |
//! | `POST /rollout/abort` | percentage 0 and everybody on old, in one write |
//! | `GET /replicas` | what every replica serves: epoch, percentage, force, readiness |
//!
//! It runs on a runtime of its own and can't slow a request. It reads snapshots and asks
//! [`Control`]; it never changes anything by itself.

mod console;
mod error;
mod guard;
mod lifecycle;
mod listener;
mod patience;
mod places;
mod questions;
mod replicas;
mod rollout;
mod status;

use std::future::Future;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use tokio::net::TcpListener;

use crate::config::live::Control;
use crate::config::startup::Peers;
use crate::observe::Metrics;
use crate::observe::exported::ExportCounters;
use crate::observe::facts::Family;
use crate::observe::log::Dropped;
use crate::observe::process::host_name;
use crate::path::published::PublishedKeys;
use crate::secret::Secret;

use console::{Console, events, session};
pub use error::AdminError;
pub use lifecycle::{Lifecycle, Phase};

/// Bytes of a request body; a change of the rollout needs a hundred.
const BODY_BYTES: usize = 64 * 1024;

/// What the admin listener shows and asks.
#[derive(Clone, Debug)]
pub struct State {
    /// The single writer of the settings.
    pub control: Arc<Control>,
    /// The counters of all workers.
    pub metrics: Arc<Metrics>,
    /// Whether requests are served.
    pub lifecycle: Arc<Lifecycle>,
    /// What callers must present; `None` only on loopback.
    pub token: Option<Secret>,
    /// What both projects publish as their keys.
    pub published: Arc<PublishedKeys>,
    /// Where the other replicas are.
    pub peers: Peers,
    /// What this machine calls itself: in a pod, the pod's name.
    pub name: Option<String>,
    /// Log lines that were lost.
    pub log_dropped: Dropped,
    /// What became of what was exported.
    pub exported: Arc<ExportCounters>,
    /// When the process started.
    pub started: SystemTime,
    /// The same, on a clock that is never set.
    pub since: Instant,
    /// The console's sessions and viewers.
    console: Arc<Console>,
}

impl State {
    /// A state without token or log; the process starts now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "shell: the start of the process is a fact of the clock"
    )]
    pub fn new(control: Arc<Control>, metrics: Arc<Metrics>, lifecycle: Arc<Lifecycle>) -> Self {
        Self {
            control,
            metrics,
            lifecycle,
            token: None,
            published: Arc::default(),
            peers: Peers::default(),
            name: host_name(),
            log_dropped: Dropped::default(),
            exported: Arc::default(),
            started: SystemTime::now(),
            since: Instant::now(),
            console: Arc::default(),
        }
    }
}

impl State {
    /// Everything that the metrics page shows, in no format. Waits for a change that is being written: not for a request's thread.
    #[must_use]
    pub fn facts(&self) -> Vec<Family> {
        self.metrics.facts(&status::gauges(self, &status::said(&self.control)))
    }
}

/// Asks the writer where waiting is allowed: it reads files, and waits for a change that is being written.
async fn ask<T: Send + 'static>(
    state: &State,
    question: impl FnOnce(&Control) -> T + Send + 'static,
) -> Result<T, AdminError> {
    let control = Arc::clone(&state.control);
    tokio::task::spawn_blocking(move || question(&control))
        .await
        .map_err(|error| AdminError::internal(format!("the writer failed: {error}")))
}

/// Serves until `shutdown` ends, and then finishes what is in flight.
pub async fn serve(listener: TcpListener, state: State, shutdown: impl Future<Output = ()>) {
    let console = Arc::clone(&state.console);
    let control = Arc::clone(&state.control);
    let sampler = tokio::spawn(events::sample(state.clone()));
    let shutdown = async move {
        shutdown.await;
        console.events.close();
    };
    listener::serve(listener, router(state), control, shutdown).await;
    sampler.abort();
}

/// The routes, behind the guard.
fn router(state: State) -> Router {
    Router::new()
        .route(console::PAGE, get(console::page))
        .route("/console/{file}", get(console::file))
        .route("/login", post(session::login))
        .route("/logout", post(session::logout))
        .route("/session", get(session::standing))
        .route("/events", get(events::events))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .route("/status", get(status::status))
        .route("/explain", get(questions::explain))
        .route("/audit", get(questions::audit))
        .route("/rollout", get(rollout::show).put(rollout::set))
        .route("/rollout/abort", post(rollout::abort))
        .route("/replicas", get(replicas::show))
        .fallback(async || AdminError::not_found())
        .method_not_allowed_fallback(async || AdminError::method_not_allowed())
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(from_fn_with_state(state.clone(), guard::guard))
        .layer(map_response(console::strict))
        .with_state(state)
}

#[cfg(test)]
mod tests;
