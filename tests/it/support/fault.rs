//! An upstream that misbehaves as it is told to, at each point of an exchange, and is well again when that is over.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cutover::side::Side;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::conn::{Conn, Head};
use super::upstream::response;

/// One thing that the upstream does on a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Waits for the head of a request. What stands before it is done as soon as the connection is there.
    Head,
    /// Reads this many bytes of the request's body, or all of it.
    Body(usize),
    /// Sends bytes.
    Say(Vec<u8>),
    /// Sends one byte after the other, with this pause before each.
    Drip(Vec<u8>, Duration),
    /// Lets time pass.
    Wait(Duration),
    /// Sends the same again and again, until the other end has gone.
    Forever(&'static str),
    /// Does nothing until the other end has gone.
    Hang,
    /// Ends the connection with a reset.
    Reset,
    /// Goes on as a server that is well. Without it the connection is closed at the end of the acts.
    Stay,
}

/// All of a request's body.
pub const WHOLE: usize = usize::MAX;

type Script = Option<Arc<[Act]>>;

struct Inner {
    side: Side,
    script: Mutex<Script>,
    seen: Mutex<Vec<Head>>,
    /// Connections that are open.
    open: AtomicUsize,
    /// Scripts that have not come to their end.
    acting: AtomicUsize,
    hang_up: watch::Sender<usize>,
}

/// One side.
pub struct Faulty {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    /// Holds the port while nobody listens on it.
    _place: Socket,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What a side that is well answers to a request: its method and target again, so that no two answers are alike.
pub fn well(side: Side, head: &Head) -> String {
    let said = head.start.trim_end_matches(" HTTP/1.1");
    response("200 OK", &format!("x-upstream: {side}\r\n"), said)
}

impl Faulty {
    /// A side that is well.
    pub fn start(side: Side) -> Self {
        Self::start_on(side, "127.0.0.1:0".parse().unwrap())
    }

    /// The same on an address of one's choice.
    pub fn start_on(side: Side, address: SocketAddr) -> Self {
        let place = socket(address);
        let address = place.local_addr().unwrap().as_socket().unwrap();
        let inner = Inner {
            side,
            script: Mutex::default(),
            seen: Mutex::default(),
            open: AtomicUsize::new(0),
            acting: AtomicUsize::new(0),
            hang_up: watch::Sender::new(0),
        };
        let faulty =
            Self { address, inner: Arc::new(inner), _place: place, accepting: Mutex::default() };
        faulty.listens();
        faulty
    }

    fn listens(&self) {
        let mut accepting = self.accepting.lock().unwrap();
        if accepting.is_some() {
            return;
        }
        let listener = socket(self.address);
        listener.listen(128).unwrap();
        let listener = TcpListener::from_std(listener.into()).unwrap();
        let inner = Arc::clone(&self.inner);
        *accepting = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let inner = Arc::clone(&inner);
                inner.open.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    let mut hang_up = inner.hang_up.subscribe();
                    tokio::select! {
                        () = serve(&inner, stream) => {}
                        _ = hang_up.changed() => {}
                    }
                    inner.open.fetch_sub(1, SeqCst);
                });
            }
        }));
    }

    /// From now on nobody listens. What is connected stays so.
    pub async fn refuses(&self) {
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(accepting) = accepting {
            accepting.abort();
            accepting.await.ok();
        }
    }

    /// From now on every request, or every new connection where the acts do not wait for one, meets this.
    pub fn does(&self, acts: &[Act]) {
        *self.inner.script.lock().unwrap() = Some(acts.into());
    }

    /// From now on every request is answered.
    pub fn is_well(&self) {
        *self.inner.script.lock().unwrap() = None;
        self.listens();
    }

    /// Closes every connection, and waits until they are closed.
    pub async fn hangs_up(&self) {
        self.inner.hang_up.send_modify(|count| *count += 1);
        super::eventually("all connections closed", async || self.open() == 0).await;
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<Head> {
        self.inner.seen.lock().unwrap().clone()
    }

    /// Requests so far with this in their first line.
    pub fn seen_of(&self, what: &str) -> usize {
        self.seen().iter().filter(|head| head.start.contains(what)).count()
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.inner.open.load(SeqCst)
    }

    /// Waits until every script has come to its end, and so every connection that it wanted to see closed is closed.
    pub async fn has_done(&self) {
        super::eventually("the end of the acts", async || self.inner.acting.load(SeqCst) == 0)
            .await;
    }

    pub fn url(&self) -> String {
        format!("\"http://{}\"", self.address)
    }
}

/// A bound socket that lets others have the same port.
fn socket(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&address.into()).unwrap();
    socket
}

async fn serve(inner: &Inner, stream: TcpStream) {
    let handle = SockRef::from(&stream).try_clone().unwrap();
    let mut conn = Conn::new(stream);
    let mut script = inner.script.lock().unwrap().clone();
    let mut head = None;
    loop {
        let begins = script.as_deref().and_then(<[Act]>::first);
        if begins.is_none_or(|act| matches!(act, Act::Head)) {
            head = conn.head().await;
            let Some(head) = &head else { return };
            inner.seen.lock().unwrap().push(head.clone());
            script = inner.script.lock().unwrap().clone();
        }
        match (script.take(), &head) {
            (Some(acts), _) => {
                inner.acting.fetch_add(1, SeqCst);
                let goes_on = act(inner, &acts, &mut conn, &handle, head.take()).await;
                if !goes_on {
                    // First closed, then told.
                    drop((conn, handle));
                    inner.acting.fetch_sub(1, SeqCst);
                    return;
                }
                inner.acting.fetch_sub(1, SeqCst);
            }
            (None, Some(head)) => {
                if !conn.request_body(head).await.is_whole
                    || !conn.try_send(well(inner.side, head)).await
                {
                    return;
                }
            }
            (None, None) => return,
        }
    }
}

/// Whether the connection goes on.
async fn act(
    inner: &Inner,
    acts: &[Act],
    conn: &mut Conn,
    handle: &Socket,
    mut head: Option<Head>,
) -> bool {
    for act in acts {
        match act {
            Act::Head if head.is_some() => {}
            Act::Head => {
                head = conn.head().await;
                let Some(head) = &head else { return false };
                inner.seen.lock().unwrap().push(head.clone());
            }
            Act::Body(WHOLE) => {
                let head = head.as_ref().expect("a body behind a head");
                conn.request_body(head).await;
            }
            Act::Body(length) => {
                conn.take(*length).await;
            }
            Act::Say(bytes) => {
                conn.try_send(bytes).await;
            }
            Act::Drip(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(*pause).await;
                    if !conn.try_send([*byte]).await {
                        return false;
                    }
                }
            }
            Act::Wait(pause) => tokio::time::sleep(*pause).await,
            Act::Forever(text) => {
                while conn.try_send(text.repeat(100)).await {}
                return false;
            }
            Act::Hang => {
                while conn.fill().await > 0 {}
                return false;
            }
            Act::Reset => {
                handle.set_linger(Some(Duration::ZERO)).unwrap();
                return false;
            }
            Act::Stay => return true,
        }
    }
    false
}
