//! Sockets that every worker has one of (`SO_REUSEPORT`: the kernel spreads the connections), the loop that accepts, and how a socket is
//! left to a process that shares its address.

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

/// Who may listen on an address already when this process comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// Nobody: a second process that is started by mistake must not get half of the clients.
    #[default]
    Nobody,
    /// A process of the same user that is to be replaced.
    Other,
}

/// Binds one socket per worker to the same address. With port 0 the first bind chooses the port for all.
///
/// # Errors
/// What the system says about the address: that it is in use, also where another process would share it and `share` is
/// [`Share::Nobody`].
pub fn bind(address: SocketAddr, workers: usize, share: Share) -> io::Result<Vec<TcpListener>> {
    let first = bind_one(address, share)?;
    let chosen = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind_one(chosen, Share::Other)?);
    }
    Ok(sockets)
}

fn bind_one(address: SocketAddr, share: Share) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share == Share::Other)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    // Said after the system has looked for others: from here on whoever asks to may share it.
    socket.set_reuse_port(true)?;
    Ok(socket.into())
}

/// Lets no new connection begin on a socket that others share: of a handshake that has not begun the first packet is dropped, so that
/// its client says it again (after a second) when this socket is closed, and another one gets it. Handshakes under way are finished, and
/// what waits to be accepted still waits. Closing a socket resets both.
///
/// # Errors
/// What the system says; then connections may be lost by the close.
#[cfg(target_os = "linux")]
pub fn turn_away(socket: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    // Classic BPF over a TCP header: byte 13 holds the flags, of which SYN is 0x02 and ACK is 0x10.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    SockRef::from(socket).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, 0x12),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, 0x02),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// The same where the system has no such filters: never.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn turn_away(_socket: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn any() -> SocketAddr {
        ([127, 0, 0, 1], 0).into()
    }

    /// How many connections wait to be accepted.
    fn waiting(socket: &TcpListener) -> usize {
        std::iter::from_fn(|| socket.accept().ok()).count()
    }

    #[test]
    fn an_address_is_shared_only_when_both_say_so() {
        let first = bind(any(), 2, Share::Nobody).unwrap();
        let address = first[0].local_addr().unwrap();
        let refused = bind(address, 1, Share::Nobody).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse, "started by mistake");
        let second = bind(address, 2, Share::Other).unwrap();
        let connections: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        let counts: Vec<_> = first.iter().chain(&second).map(waiting).collect();
        assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
        drop((first, connections));
        assert!(bind(address, 1, Share::Nobody).is_err(), "the second has it still");
        drop(second);
        // The clients closed first or not: connections that linger do not hold the address.
        bind(address, 1, Share::Nobody).unwrap();
        let strange = TcpListener::bind(any()).unwrap();
        let taken = bind(strange.local_addr().unwrap(), 1, Share::Other).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "a program that does not share");
    }

    /// What is accepted by nobody when a socket closes is reset, and so nothing may come that nobody accepts.
    #[test]
    fn a_socket_that_turns_clients_away_loses_none_of_them() {
        let old = bind(any(), 1, Share::Nobody).unwrap().remove(0);
        let address = old.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        let new = bind(address, 1, Share::Other).unwrap().remove(0);
        turn_away(&old).unwrap();
        let late: Vec<_> =
            (0..32).map(|_| std::thread::spawn(move || TcpStream::connect(address))).collect();
        // Those whose first packet the new one got are there at once, the others when the old one is closed.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(waiting(&old), 1, "what was there before is there still, and nothing else");
        drop(old);
        let late: Vec<_> = late.into_iter().map(|connecting| connecting.join().unwrap()).collect();
        assert!(late.iter().all(Result::is_ok), "{late:?}");
        assert_eq!(waiting(&new), 32);
        drop(early);
    }
}
