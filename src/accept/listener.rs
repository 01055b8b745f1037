//! Sockets that every worker has one of (`SO_REUSEPORT`: the kernel spreads the connections), and the loop that accepts.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

/// One more open connection, until it is dropped.
#[derive(Debug)]
pub struct Place {
    open: Arc<AtomicUsize>,
    before: usize,
}

impl Place {
    /// Takes a place. `open` counts over all workers; it is touched once per connection, not per request.
    #[must_use]
    pub fn take(open: &Arc<AtomicUsize>) -> Self {
        Self { open: Arc::clone(open), before: open.fetch_add(1, Relaxed) }
    }

    /// How many were open before it.
    #[must_use]
    pub const fn before(&self) -> usize {
        self.before
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// How long to wait when the system has no descriptors left: accepting again at once would only spin.
const BREATH: Duration = Duration::from_millis(20);

/// Binds one socket per worker to the same address. With port 0 the first bind chooses the port for all.
///
/// # Errors
/// What the system says about the address.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = bind_one(address)?;
    let chosen = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind_one(chosen)?);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the future is dropped, and hands each connection on. An accept that fails concerns one client
/// (or the descriptor limit), never the listener.
pub async fn accept_all(
    listener: tokio::net::TcpListener,
    mut hand_on: impl FnMut(TcpStream, SocketAddr),
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are written whole; waiting for more would only add latency.
                if stream.set_nodelay(true).is_ok() {
                    hand_on(stream, peer);
                }
            }
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "can't accept connections right now");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
