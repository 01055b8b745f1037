//! The composition root: from checked settings to listeners, workers and their end. The only place that knows every room.

mod jwks;
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

use crate::accept::listener;
use crate::accept::tls::{Certificate, TlsError};
use crate::admin::{self, Lifecycle, Phase};
use crate::config::live::{Control, Sources};
use crate::config::startup::Startup;
use crate::config::watch as watching;
use crate::k8s;
use crate::observe::Metrics;
use crate::observe::log::{Dropped, Log, Options};
use crate::path::worker::Shared;
use crate::telemetry::export::Exporter;
use jwks::Fetcher;
use worker::Seat;

/// How often the certificate's files are looked at. A poll sees every way in which a file can change, mounted secrets included.
const CERTIFICATE_LOOK: Duration = Duration::from_secs(1);

/// Threads for everything that is not a request: admin, watchers, certificates.
const BACKGROUND_THREADS: usize = 2;

/// Why the proxy can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be bound.
    #[error("can't listen on {address} ({key}): {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting it comes from.
        key: &'static str,
        /// What the system said.
        cause: io::Error,
    },
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
    lifecycle: Arc<Lifecycle>,
    workers: Vec<JoinHandle<()>>,
    exporter: Option<Exporter>,
    background: Runtime,
}

/// Runs the proxy until SIGTERM or SIGINT.
///
/// # Errors
/// Faults of the settings, and whatever keeps the proxy from starting.
pub fn serve(sources: Sources) -> anyhow::Result<ExitCode> {
    let (control, startup, warnings) = k8s::start(sources)?;
    let colour = io::stderr().is_terminal();
    let log =
        Log::start(&Options { json: startup.log.json, level: startup.log.level.clone(), colour })?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let proxy = Proxy::start(control, &startup, log.dropped())?;
    tracing::info!(listen = %proxy.address, admin = %proxy.admin_address, workers = startup.workers, "serving");
    proxy.background.block_on(stop_signal())?;
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
    /// Opens all listeners and starts all threads. With port 0 the system chooses; the addresses say what it chose.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(
        control: Arc<Control>,
        startup: &Startup,
        log_dropped: Dropped,
    ) -> Result<Self, StartError> {
        let background = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(BACKGROUND_THREADS)
            .thread_name("cutover-background")
            .enable_all()
            .build()?;
        let sockets = bind("listen", startup.listen, startup.workers)?;
        let address = sockets[0].local_addr()?;
        let certificate = match &startup.tls {
            Some(tls) => Some(Arc::new(Certificate::load(&tls.cert, &tls.key)?)),
            None => None,
        };
        let tls_sockets = match &startup.tls {
            Some(tls) => bind("tls.listen", tls.listen, startup.workers)?,
            None => Vec::new(),
        };
        let tls_address = tls_sockets.first().map(std::net::TcpListener::local_addr).transpose()?;
        let admin_socket = bind("admin.listen", startup.admin, 1)?.swap_remove(0);
        let admin_address = admin_socket.local_addr()?;

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
        };
        let open = Arc::new(AtomicUsize::new(0));
        let mut tls_sockets = tls_sockets.into_iter();
        let mut workers = Vec::with_capacity(startup.workers + 1);
        for (index, socket) in sockets.into_iter().enumerate() {
            let seat = Seat {
                shared: shared.clone(),
                shard: metrics.shard(index),
                socket,
                tls: tls_sockets.next().zip(certificate.clone()),
                open: Arc::clone(&open),
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
        run_background(&background, control, certificate, admin_socket, state)?;
        lifecycle.enter(Phase::Serving);
        Ok(Self {
            address,
            tls_address,
            admin_address,
            drain,
            lifecycle,
            workers,
            exporter,
            background,
        })
    }

    /// Stops accepting, finishes what is in flight within `drain_timeout`, and returns when all threads have ended.
    pub fn stop(self) {
        self.lifecycle.enter(Phase::Draining);
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

fn bind(
    key: &'static str,
    address: SocketAddr,
    count: usize,
) -> Result<Vec<std::net::TcpListener>, StartError> {
    listener::bind(address, count).map_err(|cause| StartError::Listen { address, key, cause })
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
    admin_socket: std::net::TcpListener,
    state: admin::State,
) -> io::Result<()> {
    let _inside = background.enter();
    let admin_socket = tokio::net::TcpListener::from_std(admin_socket)?;
    // Until the runtime itself ends: the last thing that operators lose is the view.
    background.spawn(admin::serve(admin_socket, state, std::future::pending()));
    watching::spawn(control)?;
    if let Some(certificate) = certificate {
        background.spawn(reload_certificate(certificate));
    }
    Ok(())
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
