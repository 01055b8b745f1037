//! Faults behind where a side speaks HTTP/2, frame by frame: streams that are refused, reset or cut, connections that go away or break
//! the protocol. A request that the side says it has not looked at is sent again; what it may have done is not.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use cutover::side::Side;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::support::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame,
};
use crate::support::tls::{Authority, acceptor};
use crate::support::world::World;
use crate::support::{Named, eventually, within};

/// Which no client sends.
const PUSH_PROMISE: u8 = 5;

/// `:status: 200` (RFC 7541, appendix A).
const OK: &[u8] = b"\x88";

/// A field that no table has.
fn field(name: &str, value: &str) -> Vec<u8> {
    block(&[(name, value)])
}

fn goes_away(last: u32, code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

fn resets(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn answers(stream: u32, body: &[u8]) -> Vec<u8> {
    let head = [OK, &field("x-upstream", "new")].concat();
    [frame(HEADERS, END_HEADERS, stream, &head), frame(DATA, END_STREAM, stream, body)].concat()
}

/// When a request meets its fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Head,
    Whole,
}

/// What comes behind what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// The request is answered.
    Answers,
    /// Nothing: the connection goes on.
    Stays,
    Closes,
}

type Frames = fn(u32) -> Vec<u8>;
type Says = Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

#[derive(Clone)]
struct Fault {
    name: &'static str,
    when: When,
    says: Says,
    then: Then,
    /// How many requests meet it.
    times: usize,
    sees: Sees,
}

/// What the client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sees {
    Own,
    Refusal,
    Cut,
}

#[derive(Default)]
struct Inner {
    fault: Mutex<Option<Fault>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    /// Bodies of the requests that the side has taken to do something with them.
    taken: Mutex<Vec<Vec<u8>>>,
}

struct Faulty {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl Faulty {
    async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let accepting = Arc::clone(&inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (acceptor, inner) = (acceptor.clone(), Arc::clone(&accepting));
                tokio::spawn(async move {
                    inner.connections.fetch_add(1, SeqCst);
                    inner.open.fetch_add(1, SeqCst);
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _end = serve(&inner, stream).await;
                    }
                    inner.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, inner }
    }

    fn meets(&self, fault: Option<Fault>) {
        *self.inner.fault.lock().unwrap() = fault;
    }

    fn taken(&self, body: &str) -> usize {
        let taken = self.inner.taken.lock().unwrap();
        taken.iter().filter(|one| one.as_slice() == body.as_bytes()).count()
    }
}

impl Inner {
    fn fault(&self, when: When) -> Option<Fault> {
        let mut fault = self.fault.lock().unwrap();
        let fault = fault.as_mut().filter(|fault| fault.when == when && fault.times > 0)?;
        fault.times -= 1;
        Some(fault.clone())
    }
}

async fn serve(inner: &Inner, mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
    // What still comes on a stream that was refused is nobody's.
    let mut refused = HashSet::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        let mut fault = None;
        match kind {
            SETTINGS if flags & ACK == 0 => {
                stream.write_all(&frame(SETTINGS, ACK, 0, &[])).await?;
            }
            PING if flags & ACK == 0 => stream.write_all(&frame(PING, ACK, 0, &payload)).await?,
            HEADERS => {
                bodies.insert(id, Vec::new());
                fault = inner.fault(When::Head);
            }
            DATA if !refused.contains(&id) => bodies.entry(id).or_default().extend(payload),
            _ => {}
        }
        let is_refused = fault.as_ref().is_some_and(|fault| fault.then != Then::Answers);
        let mut body = None;
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 && !is_refused {
            body = bodies.remove(&id);
            if let Some(body) = &body {
                inner.taken.lock().unwrap().push(body.clone());
                fault = fault.or_else(|| inner.fault(When::Whole));
            }
        }
        if let Some(fault) = fault {
            stream.write_all(&(fault.says)(id)).await?;
            stream.flush().await?;
            match fault.then {
                Then::Answers => {}
                Then::Stays => {
                    bodies.remove(&id);
                    refused.insert(id);
                    continue;
                }
                Then::Closes => return stream.shutdown().await,
            }
        }
        if let Some(body) = body {
            stream.write_all(&answers(id, &body)).await?;
            stream.flush().await?;
        }
    }
}

fn fault(
    name: &'static str,
    when: When,
    says: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    then: Then,
    times: usize,
    sees: Sees,
) -> Fault {
    Fault { name, when, says: Arc::new(says), then, times, sees }
}

const ALWAYS: usize = usize::MAX;

/// The side has not looked at the request: GOAWAY with a lower number, REFUSED_STREAM (RFC 9113 6.8 and 8.7).
fn refused_unseen() -> Vec<Fault> {
    use Sees::{Own, Refusal};
    use Then::{Closes, Stays};
    use When::Head;
    vec![
        fault("goes away before it", Head, |id| goes_away(id - 1, 0), Stays, 1, Own),
        fault("goes away before all", Head, |_| goes_away(0, 0), Closes, 1, Own),
        fault("goes away with an error", Head, |_| goes_away(0, 11), Closes, 1, Own),
        fault("refuses the stream", Head, |id| resets(id, 7), Stays, 1, Own),
        fault("always goes away", Head, |_| goes_away(0, 0), Closes, ALWAYS, Refusal),
        fault("always refuses", Head, |id| resets(id, 7), Stays, ALWAYS, Refusal),
    ]
}

/// The side may have done what was asked.
fn lost() -> Vec<Fault> {
    use Sees::{Own, Refusal};
    use Then::{Answers, Closes, Stays};
    use When::Whole;
    let mut faults = vec![
        fault("goes away and answers", Whole, |id| goes_away(id, 0), Answers, ALWAYS, Own),
        fault("says that it will go", Whole, |_| goes_away(u32::MAX >> 1, 0), Answers, ALWAYS, Own),
        fault("goes away with it", Whole, |id| goes_away(id, 0), Closes, ALWAYS, Refusal),
        fault("goes away later", Whole, |_| goes_away(u32::MAX >> 1, 0), Closes, ALWAYS, Refusal),
        fault("closes", Whole, |_| Vec::new(), Closes, ALWAYS, Refusal),
        fault("an unknown frame", Whole, |_| frame(0xee, 3, 0, b"x"), Answers, ALWAYS, Own),
    ];
    for (name, code) in [
        ("resets: no error", 0),
        ("resets: internal error", 2),
        ("resets: cancel", 8),
        ("resets: calm down", 11),
        ("resets: an unknown code", 0xffff),
    ] {
        faults.push(fault(name, Whole, move |id| resets(id, code), Stays, ALWAYS, Refusal));
    }
    let nonsense: [(&'static str, Frames); 16] = [
        ("data before the head", |id| frame(DATA, 0, id, b"x")),
        ("data on a stream of nobody's", |_| frame(DATA, 0, 99, b"x")),
        ("a head on a stream of nobody's", |_| frame(HEADERS, END_HEADERS, 99, OK)),
        ("a head on no stream", |_| frame(HEADERS, END_HEADERS, 0, OK)),
        ("no status", |id| frame(HEADERS, END_HEADERS, id, &field("a", "b"))),
        ("a status that is none", |id| frame(HEADERS, END_HEADERS, id, b"\x08\x02xx")),
        ("a head that can't be read", |id| frame(HEADERS, END_HEADERS, id, &[0xff; 40])),
        ("a name in capitals", |id| {
            frame(HEADERS, END_HEADERS, id, &[OK, &field("A", "b")].concat())
        }),
        ("half of a head, and data", |id| {
            [frame(HEADERS, 0, id, OK), frame(DATA, 0, id, b"x")].concat()
        }),
        ("a continuation of nothing", |id| frame(CONTINUATION, END_HEADERS, id, OK)),
        ("a push", |id| frame(PUSH_PROMISE, END_HEADERS, id, &[&[0, 0, 0, 2], OK].concat())),
        ("settings of a wrong length", |_| frame(SETTINGS, 0, 0, b"abc")),
        ("a ping of a wrong length", |_| frame(PING, 0, 0, b"abc")),
        ("a window that is too large", |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ("a frame that is too large", |_| vec![0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]),
        ("HTTP/1", |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
    ];
    for (name, says) in nonsense {
        faults.push(fault(name, Whole, says, Stays, ALWAYS, Refusal));
    }
    let endless = |id| {
        let more = frame(CONTINUATION, 0, id, &field("a", &"b".repeat(100)).repeat(100));
        [frame(HEADERS, 0, id, OK), more.repeat(100)].concat()
    };
    faults.push(fault("a head without end", Whole, endless, Stays, ALWAYS, Refusal));
    faults
}

/// Answers that break off behind their head.
fn cut() -> Vec<Fault> {
    use Then::{Closes, Stays};
    let head = |id| frame(HEADERS, END_HEADERS, id, OK);
    let long = |id| {
        let head = [OK, &field("content-length", "10")].concat();
        frame(HEADERS, END_HEADERS, id, &head)
    };
    let cut = |name, says: Says, then| Fault {
        name,
        when: When::Whole,
        says,
        then,
        times: ALWAYS,
        sees: Sees::Cut,
    };
    vec![
        cut(
            "a reset behind the head",
            Arc::new(move |id| [head(id), resets(id, 2)].concat()),
            Stays,
        ),
        cut(
            "a reset in the body",
            Arc::new(move |id| [head(id), frame(DATA, 0, id, b"{"), resets(id, 2)].concat()),
            Stays,
        ),
        cut("the end behind the head", Arc::new(head), Closes),
        cut(
            "the end in the body",
            Arc::new(move |id| [head(id), frame(DATA, 0, id, b"{")].concat()),
            Closes,
        ),
        cut(
            "going away in the body",
            Arc::new(move |id| [head(id), frame(DATA, 0, id, b"{"), goes_away(id, 2)].concat()),
            Closes,
        ),
        cut(
            "less than its length",
            Arc::new(move |id| [long(id), frame(DATA, END_STREAM, id, b"{")].concat()),
            Stays,
        ),
        cut(
            "more than its length",
            Arc::new(move |id| [long(id), frame(DATA, END_STREAM, id, &[b'x'; 20])].concat()),
            Stays,
        ),
        cut(
            "trailers without an end",
            Arc::new(move |id| {
                let trailers = frame(HEADERS, END_HEADERS, id, &field("a", "b"));
                [head(id), frame(DATA, 0, id, b"{"), trailers].concat()
            }),
            Stays,
        ),
    ]
}

struct Field {
    world: World,
    faulty: Faulty,
    requests: usize,
}

impl Field {
    async fn new() -> Self {
        let authority = Authority::new();
        let acceptor = acceptor(&authority.issues("new-ref.example"), &["h2"]);
        let faulty = Faulty::start(acceptor).await;
        let world = World::start()
            .rollout(100)
            .set("workers", "1")
            .set("upstream.timeout", "\"5s\"")
            .set("rollout.anonymous", "\"old\"")
            .set("projects.new.url", &format!("\"https://{}\"", faulty.address))
            .set("projects.new.host", "\"new-ref.example\"")
            .set("projects.new.ca", "\"ca.pem\"")
            .file("ca.pem", &authority.pem)
            .await;
        Self { world, faulty, requests: 0 }
    }

    fn body(&mut self) -> String {
        self.requests += 1;
        format!("{{\"id\":{}}}", self.requests)
    }

    async fn is_answered(&mut self, after: &str) {
        let body = self.body();
        let answer = self.world.as_user("ada").post("/rest/v1/todos", &body).await;
        assert_eq!((answer.status, answer.text()), (200, body.clone()), "after {after}");
        assert_eq!(self.faulty.taken(&body), 1);
    }

    async fn meets(&mut self, fault: &Fault, method: &str, is_shared: bool) {
        let what = format!("{method}, shared: {is_shared}, {}", fault.name);
        let _named = Named(&what);
        self.faulty.meets(None);
        if is_shared {
            self.is_answered("the begin").await;
        }
        let body = self.body();
        self.faulty.meets(Some(fault.clone()));
        let said = (method == "POST").then_some(body.as_str());
        let answer = self.world.as_user("ada").ask(method, "/rest/v1/todos", said).await;
        match fault.sees {
            Sees::Own => {
                let own = said.unwrap_or_default();
                assert_eq!((answer.status, answer.text().as_str()), (200, own), "{what}");
                assert!(answer.body.is_whole, "{what}");
            }
            Sees::Refusal => {
                assert_eq!(answer.status, 502, "{what}: {answer:?}");
                answer.refused(502, "CUT5021");
            }
            Sees::Cut => {
                assert!(answer.status == 200 && !answer.body.is_whole, "{what}: {answer:?}")
            }
        }
        let times = self.faulty.taken(&body);
        assert!(times <= 1, "{what}: {times} times");
        if method == "POST" && fault.sees == Sees::Own {
            assert_eq!(times, 1, "{what}");
        }
        self.world.client().get("/rest/v1/todos").await.served_by(Side::Old);
        self.faulty.meets(None);
        for _ in 0..3 {
            self.is_answered(&what).await;
        }
    }

    async fn meets_all(mut self, faults: &[Fault]) {
        for fault in faults {
            for method in ["GET", "POST"] {
                self.meets(fault, method, true).await;
                // Whatever is left of it goes, so that the next one begins on a new connection.
                self.faulty.meets(Some(self::fault(
                    "bye",
                    When::Whole,
                    |id| goes_away(id, 0),
                    Then::Answers,
                    1,
                    Sees::Own,
                )));
                self.is_answered("all").await;
                self.meets(fault, method, false).await;
            }
        }
        self.world.is_quiet().await;
        let Self { world, faulty, .. } = self;
        eventually("no connection left", async || {
            let open = world.metric("cutover_upstream_connections_open", "side=\"new\"").await;
            open == 1.0 && faulty.inner.open.load(SeqCst) == 1
        })
        .await;
        let connections = faulty.inner.connections.load(SeqCst);
        println!("HTTP/2: {} faults, {connections} connections", faults.len() * 4);
    }
}

#[tokio::test]
async fn a_request_that_its_side_has_not_looked_at_is_sent_again() {
    Field::new().await.meets_all(&refused_unseen()).await;
}

#[tokio::test]
async fn streams_and_connections_that_are_lost_are_502() {
    Field::new().await.meets_all(&lost()).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_over_http2_is_cut() {
    Field::new().await.meets_all(&cut()).await;
}

/// A side that goes away finishes what it has begun; what comes after that goes to another connection.
#[tokio::test]
async fn what_comes_after_a_goodbye_goes_to_another_connection() {
    let mut field = Field::new().await;
    field.is_answered("the begin").await;
    // The first one is held, and its connection says that it goes.
    let held = |id| [goes_away(id, 0), frame(HEADERS, END_HEADERS, id, OK)].concat();
    field.faulty.meets(Some(fault("holds", When::Whole, held, Then::Stays, 1, Sees::Own)));
    let mut conn = field.world.raw().await;
    conn.send(field.world.as_user("ada").says("POST", "/rest/v1/todos", Some("held"))).await;
    assert!(conn.answer_head().await.start.contains(" 200 "));
    for _ in 0..5 {
        field.is_answered("a goodbye").await;
    }
    assert_eq!(field.faulty.inner.connections.load(SeqCst), 2);
    assert_eq!(field.faulty.inner.open.load(SeqCst), 2, "the held one goes on");
}

/// What happens to one stream does not happen to the others of its connection.
#[tokio::test]
async fn the_other_streams_of_a_connection_go_on() {
    let mut field = Field::new().await;
    field.is_answered("the begin").await;
    // Each third request is reset; all share a connection.
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let says = move |id| match counted.fetch_add(1, SeqCst) % 3 {
        0 => resets(id, 2),
        _ => answers(id, b"own"),
    };
    field.faulty.meets(Some(fault(
        "each third",
        When::Whole,
        says,
        Then::Stays,
        ALWAYS,
        Sees::Own,
    )));
    let asking = (0..60)
        .map(|_| async { field.world.as_user("ada").post("/rest/v1/todos", "{}").await.status });
    let seen = within("all answers", futures_util::future::join_all(asking)).await;
    let of = |status| seen.iter().filter(|one| **one == status).count();
    assert_eq!((of(200), of(502), count.load(SeqCst)), (40, 20, 60));
    assert_eq!(field.faulty.inner.connections.load(SeqCst), 1);
}
