//! The admin listener's connections: HTTP/1.1, so many at a time, and none for a client that does not say what it wants.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::ServiceExt as _;

use crate::accept::listener::accept_all;
use crate::config::live::Control;

/// Open connections; one more is closed at once. Probes, a scraper and the pages of some operators need a few dozen, and the descriptors that
/// a flood would take are those of the proxy itself.
const CONNECTIONS: u32 = 512;

/// The least that a head may take, whatever `limits.header_timeout` is: an operator who makes it short because of an attack still gets in.
const LEAST_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves until `shutdown` ends, and then finishes what is in flight. `limits.header_timeout` holds here too, and a connection that is kept
/// alive may be idle for as long.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    control: Arc<Control>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS as usize));
    let accepting = accept_all(listener, |stream, peer| {
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { return };
        let client = Client { peer, place, header_timeout: header_timeout(&control) };
        tokio::spawn(client.serve(stream, router.clone(), stopped.clone()));
    });
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    stop.send_replace(true);
    // All places are free when all connections have ended; an error would mean that nobody is left to free one.
    let _all = places.acquire_many(CONNECTIONS).await;
}

fn header_timeout(control: &Control) -> Duration {
    control.live().load().accept.limits.header_timeout.max(LEAST_HEADER_TIMEOUT)
}

/// Whoever is connected.
struct Client {
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    header_timeout: Duration,
}

impl Client {
    async fn serve(self, stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
        let Self { peer, place: _place, header_timeout } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            answer(router.clone(), request)
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(header_timeout);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            // How it ends is the client's business.
            _ended = connection.as_mut() => return,
            _stop = stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        let _ended = connection.await;
    }
}

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    router.oneshot(request).await
}
