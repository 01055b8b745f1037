//! The composition root: from checked settings to listeners, workers and their end. The only place that knows every room.

mod doors;
mod jwks;
mod manager;
#[cfg(test)]
mod tests;
mod worker;

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

pub use crate::accept::listener::Share;
use crate::accept::tls::{Certificate, TlsError};
use crate::accept::wire::Stage;
use crate::admin::{self, Lifecycle, Phase};
use crate::config::live::{Control, Sources};
use crate::config::startup::Startup;
use crate::config::watch as watching;
use crate::forward::names::Resolver;
use crate::k8s;
use crate::observe::Metrics;
use crate::observe::log::{Dropped, Log, Options};
use crate::path::worker::Shared;
use crate::telemetry::export::Exporter;
pub use doors::Arrival;
use doors::{Door, Doors, Exit};
use jwks::Fetcher;
use worker::Seat;

/// How often the certificate's files are looked at. A poll sees every way in which a file can change, mounted secrets included.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(1);

/// How long a process that another one replaces goes on as if nothing were: for handshakes that have begun, and for clients that kept a
/// connection and can be told with their next answer to ask elsewhere. Shorter than the second after which a client whose first packet
/// was dropped says it again.
const FAREWELL: Duration = Duration::from_millis(500);

/// Threads for everything that is not a request: admin, watchers, certificates.
const BACKGROUND_THREADS: usize = 2;

/// Why the proxy can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be bound.
    #[error("can't listen on {address} ({key}): {cause}{hint}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting it comes from.
        key: &'static str,
        /// What to do about it; may be empty.
        hint: &'static str,
        /// What the system said.
        cause: io::Error,
    },
    /// A socket that was handed in can't be used.
    #[error("socket activation: {0}")]
    HandedIn(String),
    /// The certificate can't be used.
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    /// A runtime or thread can't be started.
    #[error("can't start: {0}")]
    Thread(#[from] io::Error),
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Where plain HTTP is served.
    pub address: SocketAddr,
    /// Where TLS is served.
    pub tls_address: Option<SocketAddr>,
    /// Where the admin API is served.
    pub admin_address: SocketAddr,
    drain: watch::Sender<bool>,
    end: watch::Sender<Stage>,
    exit: Exit,
    lifecycle: Arc<Lifecycle>,
    workers: Vec<JoinHandle<()>>,
    exporter: Option<Exporter>,
    background: Runtime,
}

/// Runs the proxy until SIGTERM or SIGINT. `share`: whether it may share its addresses with one that it replaces.
///
/// # Errors
/// Faults of the settings, and whatever keeps the proxy from starting.
pub fn serve(sources: Sources, share: Share) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| sources.environment.get(name).cloned();
    let (names, told) = (variable("LISTEN_FDNAMES"), variable("NOTIFY_SOCKET"));
    let arrival = Arrival::new(share, names.as_deref())?;
    let (control, startup, warnings) = k8s::start(sources)?;
    control.refuse_reshuffled()?;
    let colour = io::stderr().is_terminal();
    let log =
        Log::start(&Options { json: startup.log.json, level: startup.log.level.clone(), colour })?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let proxy = Proxy::start_at(arrival, control, &startup, log.dropped(), Resolver::default())?;
    tracing::info!(listen = %proxy.address, admin = %proxy.admin_address, workers = startup.workers, "serving");
    manager::tell(told.as_deref(), manager::READY);
    proxy.background.block_on(stop_signal())?;
    manager::tell(told.as_deref(), manager::STOPPING);
    tracing::info!("stopping: no new connections; requests in flight are finished");
    proxy.stop();
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn stop_signal() -> io::Result<()> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

impl Proxy {
    /// Opens all listeners and starts all threads; `resolver` is asked for the projects' names. With port 0 the system chooses; the addresses say what it chose.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(
        control: Arc<Control>,
        startup: &Startup,
        log_dropped: Dropped,
        resolver: Resolver,
    ) -> Result<Self, StartError> {
        Self::start_at(Arrival::default(), control, startup, log_dropped, resolver)
    }

    /// The same with sockets that were handed in, or beside a process that is to be replaced.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start_at(
        arrival: Arrival,
        control: Arc<Control>,
        startup: &Startup,
        log_dropped: Dropped,
        resolver: Resolver,
    ) -> Result<Self, StartError> {
        let background = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(BACKGROUND_THREADS)
            .thread_name("cutover-background")
            .enable_all()
            .build()?;
        // Before the sockets: what would be accepted by nobody must not be let in.
        let certificate = match &startup.tls {
            Some(tls) => Some(Arc::new(Certificate::load(&tls.cert, &tls.key)?)),
            None => None,
        };
        let Doors { plain, tls, admin, exit } = Doors::open(startup, arrival)?;
        let (address, admin_address) = (plain.address, admin.address);
        let tls_address = tls.as_ref().map(|door| door.address);

        let (drain, drained) = watch::channel(false);
        let metrics = Arc::new(Metrics::counting(startup.workers, Arc::clone(control.counted())));
        let lifecycle = Arc::new(Lifecycle::default());
        let mut exporter = startup.telemetry.as_ref().map(Exporter::new);
        let shared = Shared {
            live: Arc::clone(control.live()),
            epochs: control.subscribe(),
            drain: drained,
            access_log: startup.log.access,
            spans: exporter.as_ref().and_then(|exporter| exporter.spans.clone()),
            socket_drain: startup.realtime_drain,
            // Half of the time is left for the goodbyes themselves: a socket that is cut is not told to come back.
            stop_drain: startup.realtime_drain.min(startup.drain_timeout / 2),
            published: Arc::default(),
            addresses: Arc::default(),
            resolver,
        };
        let open = Arc::new(AtomicUsize::new(0));
        let (end, ending) = watch::channel(Stage::default());
        let mut tls_sockets = tls.into_iter().flat_map(|door| door.sockets);
        let mut workers = Vec::with_capacity(startup.workers + 1);
        for (index, plain) in plain.sockets.into_iter().enumerate() {
            let seat = Seat {
                shared: shared.clone(),
                shard: metrics.shard(index),
                plain,
                tls: tls_sockets.next().zip(certificate.clone()),
                open: Arc::clone(&open),
                end: ending.clone(),
                drain_timeout: startup.drain_timeout,
            };
            workers.push(
                std::thread::Builder::new()
                    .name(format!("cutover-{index}"))
                    .spawn(move || seat.run())?,
            );
        }
        workers.push(Fetcher::of(&shared, &metrics).start()?);
        let mut state = admin::State::new(Arc::clone(&control), metrics, Arc::clone(&lifecycle));
        state.published = Arc::clone(&shared.published);
        state.token.clone_from(&startup.admin_token);
        state.log_dropped = log_dropped;
        state.peers = startup.peers.clone();
        export(exporter.as_mut(), startup, &mut state)?;
        run_background(&background, control, certificate, (admin, ending), state)?;
        lifecycle.enter(Phase::Serving);
        Ok(Self {
            address,
            tls_address,
            admin_address,
            drain,
            end,
            exit,
            lifecycle,
            workers,
            exporter,
            background,
        })
    }

    /// Stops accepting, finishes what is in flight within `drain_timeout`, and returns when all threads have ended. Where another
    /// process listens too, it gets all new connections before this one closes its sockets.
    pub fn stop(self) {
        self.lifecycle.enter(Phase::Draining);
        if self.exit.is_handed_in || self.exit.has_successor() {
            tracing::info!("clients are left to the process that listens here as well");
            self.exit.turn_away();
            self.end.send_replace(Stage::Leaving);
            std::thread::sleep(FAREWELL);
        }
        drop(self.exit);
        self.end.send_replace(Stage::Stopping);
        self.drain.send_replace(true);
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!(
                    "a worker ended with a panic; this is a defect of cutover, please report it"
                );
            }
        }
        if let Some(mut exporter) = self.exporter {
            exporter.stop();
        }
        self.background.shutdown_timeout(Duration::from_secs(1));
    }
}

/// Starts the exporter: the numbers that it sends are those of the metrics page.
fn export(
    exporter: Option<&mut Exporter>,
    startup: &Startup,
    state: &mut admin::State,
) -> io::Result<()> {
    let (Some(exporter), Some(settings)) = (exporter, &startup.telemetry) else { return Ok(()) };
    state.exported = Arc::clone(&exporter.counters);
    let (names, state) = (Arc::clone(state.control.counted()), state.clone());
    exporter.start(settings.clone(), names, Box::new(move || state.facts()))
}

fn run_background(
    background: &Runtime,
    control: Arc<Control>,
    certificate: Option<Arc<Certificate>>,
    (admin, ending): (Door, watch::Receiver<Stage>),
    state: admin::State,
) -> io::Result<()> {
    let _inside = background.enter();
    for socket in admin.sockets.into_iter().flat_map(|sockets| sockets.sockets) {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        background.spawn(admin::serve(socket, state.clone(), leaves(ending.clone())));
    }
    watching::spawn(control)?;
    if let Some(certificate) = certificate {
        background.spawn(reload_certificate(certificate));
    }
    Ok(())
}

/// Resolves when another process answers for this one. Otherwise never, until the runtime itself ends: the last thing that operators
/// lose is the view.
async fn leaves(mut ending: watch::Receiver<Stage>) {
    if ending.wait_for(|stage| *stage == Stage::Leaving).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn reload_certificate(certificate: Arc<Certificate>) {
    let mut last_fault = None;
    loop {
        tokio::time::sleep(CERTIFICATE_LOOK).await;
        let looking = Arc::clone(&certificate);
        let Ok(looked) = tokio::task::spawn_blocking(move || looking.reload()).await else {
            return;
        };
        match looked {
            Ok(false) => {}
            Ok(true) => tracing::info!("certificate changed; new handshakes use it"),
            Err(error) => {
                let fault = error.to_string();
                if last_fault.as_ref() != Some(&fault) {
                    tracing::error!(
                        error = fault,
                        "certificate not reloaded; the last good one stays"
                    );
                }
                last_fault = Some(fault);
                continue;
            }
        }
        last_fault = None;
    }
}
