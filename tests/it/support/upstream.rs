//! A recording upstream: what the real ones can't be made to do.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use cutover::side::Side;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::conn::{Body, Conn, Head};
use super::eventually;

/// A request as the upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: Head,
    pub body: Body,
    /// The how manieth connection it came on, from 1.
    pub connection: usize,
}

impl Seen {
    pub fn method(&self) -> &str {
        self.head.start.split(' ').next().unwrap()
    }

    /// Path and query, raw.
    pub fn target(&self) -> &str {
        self.head.start.split(' ').nth(1).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.get(name)
    }
}

type Doing = Pin<Box<dyn Future<Output = Option<Conn>> + Send>>;
type Raw = Arc<dyn Fn(Seen, Conn) -> Doing + Send + Sync>;
type Plain = Arc<dyn Fn(&Seen) -> String + Send + Sync>;

#[derive(Clone)]
enum Script {
    /// Reads the whole request, then answers with these bytes.
    Plain(Plain),
    /// Gets the head and the connection, and does what it likes; `None` = the connection is gone.
    Raw(Raw),
}

struct Inner {
    side: Side,
    seen: Mutex<Vec<Seen>>,
    script: Mutex<Script>,
    connections: AtomicUsize,
    open: AtomicUsize,
    gone: AtomicUsize,
    hang_up: watch::Sender<usize>,
}

/// One side.
#[derive(Clone)]
pub struct Upstream {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

/// A response with a length.
pub fn response(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

impl Upstream {
    pub async fn start(side: Side) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            side,
            seen: Mutex::default(),
            script: Mutex::new(Script::Plain(Arc::new(move |_| usual(side)))),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            hang_up: watch::Sender::new(0),
        });
        let accepting = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let inner = Arc::clone(&accepting);
                tokio::spawn(async move {
                    let number = inner.connections.fetch_add(1, SeqCst) + 1;
                    inner.open.fetch_add(1, SeqCst);
                    let mut hang_up = inner.hang_up.subscribe();
                    tokio::select! {
                        () = serve(&inner, Conn::new(stream), number) => {}
                        _ = hang_up.changed() => {}
                    }
                    inner.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, inner }
    }

    /// From now on: reads whole requests and answers with these bytes.
    pub fn answers(&self, answer: impl Fn(&Seen) -> String + Send + Sync + 'static) {
        *self.inner.script.lock().unwrap() = Script::Plain(Arc::new(answer));
    }

    /// From now on: hands the connection over when a head has come.
    pub fn does<F>(&self, doing: impl Fn(Seen, Conn) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Option<Conn>> + Send + 'static,
    {
        let raw: Raw = Arc::new(move |seen, conn| Box::pin(doing(seen, conn)));
        *self.inner.script.lock().unwrap() = Script::Raw(raw);
    }

    /// From now on: reads whole requests, and answers as usual when the sender says true.
    pub fn holds(&self) -> watch::Sender<bool> {
        let ((release, held), side) = (watch::channel(false), self.inner.side);
        self.does(move |seen, mut conn| {
            let mut held = held.clone();
            async move {
                conn.request_body(&seen.head).await;
                held.wait_for(|go| *go).await.ok()?;
                conn.send(usual(side)).await;
                Some(conn)
            }
        });
        release
    }

    /// From now on: every request body breaks off, which is noted as a client gone.
    pub fn expects_cut_bodies(&self) {
        let gone = self.notes_gone();
        self.does(move |seen, mut conn| {
            let gone = gone.clone();
            async move {
                assert!(!conn.request_body(&seen.head).await.is_whole);
                gone();
                None
            }
        });
    }

    /// Back to the usual answer.
    pub fn answers_as_usual(&self) {
        let side = self.inner.side;
        self.answers(move |_| usual(side));
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.inner.seen.lock().unwrap().len()
    }

    /// The newest request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("the upstream saw nothing")
    }

    /// Connections that were ever opened.
    pub fn connections(&self) -> usize {
        self.inner.connections.load(SeqCst)
    }

    /// Scripts that saw their client go away (see [`Upstream::notes_gone`]).
    pub fn gone(&self) -> usize {
        self.inner.gone.load(SeqCst)
    }

    /// A handle for scripts to note that the proxy closed the connection.
    pub fn notes_gone(&self) -> impl Fn() + Clone + Send + Sync + 'static {
        let inner = Arc::clone(&self.inner);
        move || {
            inner.gone.fetch_add(1, SeqCst);
        }
    }

    /// Closes every open connection, and waits until they are closed.
    pub async fn hangs_up(&self) {
        self.inner.hang_up.send_modify(|count| *count += 1);
        eventually("all connections closed", async || self.inner.open.load(SeqCst) == 0).await;
    }

    pub async fn has_seen(&self, count: usize) {
        eventually("requests at the upstream", async || self.count() >= count).await;
    }
}

pub fn usual(side: Side) -> String {
    let headers = format!("content-type: application/json\r\nx-upstream: {side}\r\n");
    response("200 OK", &headers, &format!("{{\"side\":\"{side}\"}}"))
}

async fn serve(inner: &Inner, mut conn: Conn, connection: usize) {
    while let Some(head) = conn.head().await {
        let mut seen = Seen { head, body: Body::default(), connection };
        let script = inner.script.lock().unwrap().clone();
        match script {
            Script::Plain(answer) => {
                seen.body = conn.request_body(&seen.head).await;
                let text = answer(&seen);
                let is_head = seen.method() == "HEAD";
                inner.seen.lock().unwrap().push(seen);
                let end = text.find("\r\n\r\n").map_or(text.len(), |at| at + 4);
                let bytes = if is_head { &text.as_bytes()[..end] } else { text.as_bytes() };
                if !conn.try_send(bytes).await
                    || text[..end].to_ascii_lowercase().contains("connection: close")
                {
                    return;
                }
            }
            Script::Raw(doing) => {
                inner.seen.lock().unwrap().push(seen.clone());
                match doing(seen, conn).await {
                    Some(again) => conn = again,
                    None => return,
                }
            }
        }
    }
}
