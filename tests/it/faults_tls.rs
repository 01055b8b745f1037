//! Faults behind where a side speaks TLS and HTTP/2: handshakes that fail at each message, certificates that are not to be believed,
//! streams and connections that are refused, reset or spoiled.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cutover::side::Side;
use rustls::crypto::aws_lc_rs;
use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion, version};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::conn::Conn;
use crate::support::fault::well;
use crate::support::tls::{Authority, Pair};
use crate::support::world::{Setup, World};
use crate::support::{PATIENCE, eventually};

const NAME: &str = "new-ref.example";

fn server(pair: &Pair, only: &'static SupportedProtocolVersion, alpn: &str) -> Arc<ServerConfig> {
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[only])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    // Every handshake is a whole one.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Close,
    Reset,
    Hang,
}

/// What happens to the connections of a side.
#[derive(Clone)]
enum Plan {
    /// A handshake, and then requests are answered.
    Serve(Arc<ServerConfig>),
    /// These bytes, before or behind the client's first ones.
    Bytes { said: Vec<u8>, is_first: bool, end: End },
    /// A handshake up to this byte of this record of the server's. The byte -1 is its last.
    Cut { config: Arc<ServerConfig>, record: usize, byte: isize, end: End },
}

#[derive(Default)]
struct Noted {
    requests: AtomicUsize,
    open: AtomicUsize,
    /// The record at which the handshake was to be cut was there.
    is_cut: AtomicBool,
}

/// A side that speaks TLS.
struct Faulty {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    noted: Arc<Noted>,
}

impl Faulty {
    async fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::new(Mutex::new(plan));
        let noted = Arc::new(Noted::default());
        let (planned, noting) = (Arc::clone(&plan), Arc::clone(&noted));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (plan, noted) = (planned.lock().unwrap().clone(), Arc::clone(&noting));
                noted.open.fetch_add(1, SeqCst);
                tokio::spawn(async move {
                    meet(stream, plan, &noted).await;
                    noted.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Self { address, plan, noted }
    }

    fn plans(&self, plan: Plan) {
        *self.plan.lock().unwrap() = plan;
    }

    fn requests(&self) -> usize {
        self.noted.requests.load(SeqCst)
    }

    fn open(&self) -> usize {
        self.noted.open.load(SeqCst)
    }
}

async fn meet(mut stream: TcpStream, plan: Plan, noted: &Noted) {
    stream.set_nodelay(true).unwrap();
    match plan {
        Plan::Serve(config) => {
            let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
            let mut conn = Conn::new(stream);
            while let Some(head) = conn.head().await {
                noted.requests.fetch_add(1, SeqCst);
                let is_whole = conn.request_body(&head).await.is_whole;
                if !is_whole || !conn.try_send(well(Side::New, &head)).await {
                    return;
                }
            }
        }
        Plan::Bytes { said, is_first, end } => {
            if !is_first {
                let _hello = stream.read(&mut [0; 4096]).await;
            }
            stream.write_all(&said).await.ok();
            ends(stream, end).await;
        }
        Plan::Cut { config, record, byte, end } => {
            let mut session = ServerConnection::new(config).unwrap();
            noted.is_cut.store(cut(&mut stream, &mut session, record, byte).await, SeqCst);
            ends(stream, end).await;
        }
    }
}

async fn ends(mut stream: TcpStream, end: End) {
    match end {
        End::Close => {}
        End::Reset => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        End::Hang => while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {},
    }
}

/// A handshake up to a byte of a record; whether it came so far.
async fn cut(
    stream: &mut TcpStream,
    session: &mut ServerConnection,
    record: usize,
    byte: isize,
) -> bool {
    let mut records = 0;
    loop {
        let mut out = Vec::new();
        while session.wants_write() {
            session.write_tls(&mut out).unwrap();
        }
        let mut rest = &out[..];
        while !rest.is_empty() {
            let length = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
            let (one, behind) = rest.split_at(length);
            rest = behind;
            if records == record {
                let sent = usize::try_from(byte).unwrap_or(length - 1).min(length - 1);
                stream.write_all(&one[..sent]).await.ok();
                return true;
            }
            stream.write_all(one).await.ok();
            records += 1;
        }
        if !session.is_handshaking() {
            return false;
        }
        let mut read = vec![0; 4096];
        match stream.read(&mut read).await {
            Ok(length @ 1..) => {
                session.read_tls(&mut &read[..length]).unwrap();
                if session.process_new_packets().is_err() {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

fn world(address: SocketAddr, ca: &str) -> Setup {
    World::start()
        .rollout(100)
        .set("workers", "1")
        .set("rollout.anonymous", "\"old\"")
        .set("projects.new.url", &format!("\"https://{address}\""))
        .set("projects.new.host", &format!("{NAME:?}"))
        .set("projects.new.ca", "\"ca.pem\"")
        .file("ca.pem", ca)
}

/// The other side serves, and this one too, three times.
async fn all_is_well(world: &World, what: &str) {
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    for (number, method) in ["GET", "POST", "GET"].into_iter().enumerate() {
        let target = format!("/rest/v1/todos?id=eq.{number}");
        let body = (method == "POST").then_some("{}");
        let answer = world.as_user("ada").ask(method, &target, body).await;
        assert_eq!(answer.text(), format!("{method} {target}"), "after {what}");
    }
}

struct Case {
    name: String,
    plan: Plan,
}

fn no_tls() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, said) in [
        ("nothing", &b""[..]),
        ("plain HTTP", b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        ("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("zeros", &[0; 512]),
        ("a fatal alert", b"\x15\x03\x03\0\x02\x02\x28"),
        ("a warning alert", b"\x15\x03\x03\0\x02\x01\x5a"),
        ("half of a record's head", b"\x16\x03\x03"),
        ("a record without end", b"\x16\x03\x03\xff\xff\x02\0"),
        ("data without a handshake", b"\x17\x03\x03\0\x01x"),
    ] {
        for is_first in [true, false] {
            for end in [End::Close, End::Reset] {
                let name = format!("{name}, first: {is_first}, {end:?}");
                cases.push(Case { name, plan: Plan::Bytes { said: said.to_vec(), is_first, end } });
            }
        }
    }
    let said = Vec::new();
    cases.push(Case {
        name: "no answer to the handshake".to_owned(),
        plan: Plan::Bytes { said, is_first: false, end: End::Hang },
    });
    cases
}

fn certificates(authority: &Authority) -> Vec<Case> {
    let now = time::OffsetDateTime::now_utc();
    let stranger = Authority::new();
    let day = time::Duration::DAY;
    [
        ("an unknown authority", stranger.issues(NAME)),
        ("another name", authority.issues("other-ref.example")),
        ("a longer name", authority.issues("a.new-ref.example")),
        ("a shorter name", authority.issues("example")),
        ("expired", authority.issues_until(NAME, now - day)),
        ("not valid yet", authority.issues_from(NAME, now + day)),
        ("self-signed", Pair::self_signed(NAME)),
    ]
    .map(|(name, pair)| {
        let plan = Plan::Serve(server(&pair, &version::TLS13, "http/1.1"));
        Case { name: name.to_owned(), plan }
    })
    .into()
}

#[tokio::test]
async fn handshakes_that_fail_are_502_and_nothing_was_sent() {
    let authority = Authority::new();
    let pair = authority.issues(NAME);
    let serving = Plan::Serve(server(&pair, &version::TLS13, "http/1.1"));
    let faulty = Faulty::start(serving.clone()).await;
    let mut cases = no_tls();
    cases.extend(certificates(&authority));
    for case in &cases {
        // Each begins without a connection.
        let mut setup = world(faulty.address, &authority.pem);
        if matches!(case.plan, Plan::Bytes { end: End::Hang, .. }) {
            setup = setup.set("upstream.connect_timeout", "\"1s\"");
        }
        let world = setup.await;
        faulty.plans(case.plan.clone());
        let before = faulty.requests();
        for (method, body) in [("GET", None), ("POST", Some("{}"))] {
            let begun = Instant::now();
            let answer = world.as_user("ada").ask(method, "/rest/v1/todos", body).await;
            assert_eq!(answer.status, 502, "{}: {answer:?}", case.name);
            answer.refused(502, "CUT502");
            assert!(begun.elapsed() < PATIENCE / 2, "{}", case.name);
        }
        assert_eq!(faulty.requests(), before, "{}", case.name);
        faulty.plans(serving.clone());
        all_is_well(&world, &case.name).await;
        let open = world.metric("cutover_upstream_connections_open", "side=\"new\"").await;
        assert_eq!(open, 1.0, "{}", case.name);
        drop(world);
    }
    println!("TLS: {} ways in which a handshake fails", cases.len());
}

#[tokio::test]
async fn handshakes_that_are_cut_at_any_message_are_502() {
    let authority = Authority::new();
    let pair = authority.issues(NAME);
    let serving = Plan::Serve(server(&pair, &version::TLS13, "http/1.1"));
    let mut cuts = 0;
    for only in [&version::TLS13, &version::TLS12] {
        let config = server(&pair, only, "http/1.1");
        let faulty = Faulty::start(serving.clone()).await;
        let world = world(faulty.address, &authority.pem).await;
        let mut records = 0;
        'records: loop {
            for (byte, end) in [
                (0, End::Close),
                (0, End::Reset),
                (3, End::Close),
                (5, End::Reset),
                (10, End::Close),
                (100, End::Reset),
                (300, End::Close),
                (500, End::Close),
                (-1, End::Close),
                (-1, End::Reset),
            ] {
                faulty.noted.is_cut.store(false, SeqCst);
                let plan = Plan::Cut { config: Arc::clone(&config), record: records, byte, end };
                faulty.plans(plan);
                let answer = world.as_user("ada").post("/rest/v1/todos", "{}").await;
                eventually("the end", async || faulty.open() == 0).await;
                if !faulty.noted.is_cut.load(SeqCst) {
                    // The handshake has no such record: it was whole.
                    break 'records;
                }
                answer.refused(502, "CUT502");
                cuts += 1;
            }
            records += 1;
        }
        assert!(records > 2, "{records} records");
        assert_eq!(faulty.requests(), 0);
        faulty.plans(serving.clone());
        all_is_well(&world, "cut handshakes").await;
    }
    println!("TLS: handshakes cut in {cuts} places");
}
