//! The admin listener's connections: HTTP/1.1, so many at a time, and none for a client that does not say what it wants or does not hear what
//! is said.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tower::ServiceExt as _;

use super::patience::{Answering, Patient, Timely};
use super::places::{Place, Places};
use crate::accept::listener::accept_all;
use crate::config::live::Control;

/// Open connections; one more takes the place of the one that has been without a complete request for longest, and is closed at once if there
/// is none. Probes, a scraper and the pages of some operators need a few dozen, and the descriptors that a flood would take are those of the
/// proxy itself.
const CONNECTIONS: usize = 512;

/// The least that a head may take, or a body, or a client that does not read, whatever `limits.header_timeout` is: an operator who makes it
/// short because of an attack still gets in.
const LEAST_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until `shutdown` ends, and then finishes what is in flight. `limits.header_timeout` holds here too: for a head, for the body behind
/// it, for a client that takes nothing of its answer, and for a connection that is kept alive. The making of an answer has no end here: a
/// change may wait for Kubernetes.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    control: Arc<Control>,
    shutdown: impl Future<Output = ()>,
) {
    let (stop, stopped) = watch::channel(false);
    let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
    let places = Places::new(CONNECTIONS);
    let accepting = accept_all(listener, |stream, peer| {
        let Some(place) = places.enter() else { return };
        let client = Client { peer, place, patience: patience(&control) };
        let (serving, alive) =
            (client.serve(stream, router.clone(), stopped.clone()), alive.clone());
        tokio::spawn(async move {
            serving.await;
            drop(alive);
        });
    });
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    stop.send_replace(true);
    drop(alive);
    // Nobody says anything: it is closed when all connections have ended.
    let _none = all_gone.recv().await;
}

fn patience(control: &Control) -> Duration {
    control.live().load().accept.limits.header_timeout.max(LEAST_PATIENCE)
}

/// Whoever is connected.
struct Client {
    peer: SocketAddr,
    place: Arc<Place>,
    patience: Duration,
}

impl Client {
    async fn serve(self, stream: TcpStream, router: Router, mut stopped: watch::Receiver<bool>) {
        let Self { peer, place, patience } = self;
        let gives_way = place.gives_way();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            answer(router.clone(), request, patience, Arc::clone(&place))
        });
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(patience);
        let io = TokioIo::new(Patient::new(stream, patience));
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            // How it ends is the client's business.
            _ended = connection.as_mut() => return,
            () = gives_way.notified() => return,
            _stop = stopped.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
        }
        let _ended = connection.await;
    }
}

async fn answer(
    router: Router,
    request: Request<Incoming>,
    patience: Duration,
    place: Arc<Place>,
) -> Result<Response<Answering>, Infallible> {
    if request.body().is_end_stream() && !place.asks() {
        // The connection ends.
        return pending().await;
    }
    let request = request.map(|body| Timely::new(body, patience, Arc::clone(&place)));
    let answer = router.oneshot(request).await?;
    Ok(answer.map(|body| Answering::new(body, place)))
}
