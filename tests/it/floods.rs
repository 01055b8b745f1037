//! HTTP/2 floods: what one client sends without end is ended by a limit, takes no more memory than the limit says, and the others are
//! answered all the while. `cargo bench --bench flood` says how fast.

use std::cell::{Cell, RefCell};

use cutover::side::Side;

use crate::support::conn::Conn;
use crate::support::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Flooded, Frames, HEADERS,
    INITIAL_WINDOW, Outcome, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
    get, request,
};
use crate::support::process::Process;
use crate::support::upstream::{Upstream, usual};
use crate::support::world::{Setup, World};
use crate::support::{eventually, within};

/// The code with which h2 says that it has had enough (RFC 9113 7).
const ENHANCE_YOUR_CALM: u32 = 11;

/// The real binary before a side of which `…/big` never ends and `…/hold` is never answered.
struct Guarded {
    process: Process,
    old: Upstream,
    _folder: tempfile::TempDir,
}

async fn guarded(setup: Setup) -> Guarded {
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    old.does(|seen, mut conn| async move {
        if seen.target().contains("hold") {
            std::future::pending::<()>().await;
        }
        if seen.target().contains("big") {
            // More than is waited for anywhere, and then nothing.
            conn.send("HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n").await;
            conn.try_send(vec![b'x'; 1 << 20]).await;
            while conn.fill().await > 0 {}
            return None;
        }
        conn.request_body(&seen.head).await;
        conn.send(usual(Side::Old)).await;
        Some(conn)
    });
    let (folder, _) = setup.set("log.format", "\"json\"").write(&old, &new);
    let process = Process::serve(folder.path()).await;
    Guarded { process, old, _folder: folder }
}

impl Guarded {
    /// A metric of the process.
    async fn metric(&self, name: &str) -> f64 {
        self.process.metric(name, "").await
    }

    async fn megabytes(&self) -> f64 {
        self.metric("process_resident_memory_bytes").await / 1e6
    }

    /// Another client's request.
    async fn asks(&self) {
        let mut conn = Conn::open(self.process.address).await;
        conn.send("GET /rest/v1/other HTTP/1.1\r\nhost: a\r\n\r\n").await;
        within("another client's answer", conn.answer()).await.served_by(Side::Old);
    }

    /// Floods, on one connection after the other, until another client has been answered this often.
    async fn flooded(&self, others: usize, flood: &Flood) -> Vec<Flooded> {
        let (is_over, rounds) = (Cell::new(false), RefCell::new(Vec::new()));
        let flooding = async {
            while !is_over.get() {
                let mut frames = Frames::open(self.process.address, &[]).await;
                frames.send(&flood.opening).await;
                let flooded = frames::flood(frames, 200_000, &flood.piece).await;
                rounds.borrow_mut().push(flooded);
            }
        };
        let asking = async {
            for _ in 0..others {
                self.asks().await;
            }
            is_over.set(true);
        };
        tokio::join!(flooding, asking);
        rounds.into_inner()
    }
}

/// One kind of flood.
struct Flood {
    name: &'static str,
    /// What is sent first.
    opening: Vec<u8>,
    /// What is sent again and again.
    piece: Box<dyn Fn(u32) -> Vec<u8>>,
}

impl Flood {
    fn of(name: &'static str, opening: Vec<u8>, piece: impl Fn(u32) -> Vec<u8> + 'static) -> Self {
        Self { name, opening, piece: Box::new(piece) }
    }

    /// The same frame again and again.
    fn same(name: &'static str, opening: &[u8], bytes: Vec<u8>) -> Self {
        Self::of(name, opening.to_vec(), move |_| bytes.clone())
    }
}

fn floods() -> Vec<Flood> {
    let post = block(&request("POST", "/rest/v1/hold"));
    let opened = frame(HEADERS, END_HEADERS, 1, &post);
    let begun = frame(HEADERS, END_STREAM, 1, &post);
    let reset = |stream: u32| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let whole = END_HEADERS | END_STREAM;
    let odd = |i: u32| 2 * i + 1;
    // One field of 3,900 bytes that is remembered, and then named twelve thousand times.
    let mut bomb = block(&request("GET", "/rest/v1/t"));
    bomb.extend_from_slice(&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
    bomb.extend_from_slice(&[b'y'; 3900]);
    bomb.resize(16_000, 0xbe);
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
    let more = [0, 0, 0, 1];
    let fields = block(&[("x", &"y".repeat(1000))]);
    let malformed = block(&[("X", "y")]);
    let gone = get(1, "/rest/v1/t");
    vec![
        Flood::same("PING", &[], frame(PING, 0, 0, &[7; 8])),
        Flood::same("PING, acknowledged", &[], frame(PING, ACK, 0, &[7; 8])),
        Flood::same("SETTINGS", &[], settings),
        Flood::same("SETTINGS, empty", &[], frame(SETTINGS, 0, 0, &[])),
        Flood::same("PRIORITY", &[], frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 16])),
        Flood::same("WINDOW_UPDATE", &[], frame(WINDOW_UPDATE, 0, 0, &more)),
        Flood::same("WINDOW_UPDATE of a stream", &opened, frame(WINDOW_UPDATE, 0, 1, &more)),
        Flood::same("frames of no kind", &[], frame(99, 0, 0, &[])),
        Flood::same("DATA, empty", &opened, frame(DATA, 0, 1, &[])),
        Flood::same("DATA of padding", &opened, frame(DATA, 8, 1, &[0])),
        Flood::same("RST_STREAM of a stream that is gone", &gone, reset(1)),
        Flood::same("CONTINUATION, empty", &begun, frame(CONTINUATION, 0, 1, &[])),
        Flood::same("CONTINUATION with fields", &begun, frame(CONTINUATION, 0, 1, &fields)),
        Flood::of("streams that never end", Vec::new(), move |i| {
            frame(HEADERS, END_HEADERS, odd(i), &post)
        }),
        Flood::of("rapid reset", Vec::new(), move |i| {
            [get(odd(i), "/rest/v1/hold"), reset(odd(i))].concat()
        }),
        Flood::of("malformed requests", Vec::new(), move |i| {
            frame(HEADERS, whole, odd(i), &malformed)
        }),
        Flood::of("a head that unpacks to 46 MB", Vec::new(), move |i| {
            frame(HEADERS, whole, odd(i), &bomb)
        }),
    ]
}

#[tokio::test]
async fn every_flood_is_ended_and_the_others_are_answered() {
    const OTHERS: usize = 10;
    let guarded = guarded(World::start()).await;
    guarded.asks().await;
    for flood in floods() {
        let name = flood.name;
        let (megabytes, asked) = (guarded.megabytes().await, guarded.old.count());
        let rounds = guarded.flooded(OTHERS, &flood).await;
        assert!(rounds.iter().all(|flooded| flooded.was_closed), "{name}: {rounds:?}");
        let grown = guarded.megabytes().await - megabytes;
        assert!(grown < 32.0, "{name}: {grown:.0} MB more");
        let asked = guarded.old.count() - asked - OTHERS;
        assert!(asked <= 250 * rounds.len(), "{name}: its side was asked {asked} times");
        let last = rounds.last().unwrap();
        println!(
            "{name}: ended {} times, last at {} with {:?}; {grown:+.1} MB; its side was asked {asked} times",
            rounds.len(),
            last.sent,
            last.code
        );
    }
    guarded.asks().await;
    let metric = "cutover_requests_in_flight";
    eventually("all is quiet", async || guarded.metric(metric).await == 0.0).await;
}

/// CVE-2023-44487 as it is done against a proxy: each stream is reset when its side has begun to work on it.
#[tokio::test]
async fn requests_that_are_given_up_end_their_connection_at_the_limit() {
    let world = World::start().set("limits.http2_resets", "20").await;
    world.old.does(|_, conn| async move {
        std::future::pending::<()>().await;
        Some(conn)
    });
    let mut frames = Frames::open(world.address, &[]).await;
    let mut given_up = 0;
    for stream in (1..).step_by(2).take(30) {
        if !frames.send(&get(stream, "/rest/v1/hold")).await {
            break;
        }
        let seen = async || world.old.count() > given_up;
        let is_over = async || world.metric("cutover_errors_total", "kind=\"flood\"").await > 0.0;
        eventually("the side's work, or the end", async || seen().await || is_over().await).await;
        if is_over().await {
            break;
        }
        frames.send(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await;
        given_up += 1;
        eventually("it is given up", async || {
            world.metric("cutover_requests_in_flight", "").await == 0.0
        })
        .await;
    }
    assert_eq!(given_up, 21);
    within("the end", frames.end()).await;
    assert_eq!(world.old.count(), 21);
    world.old.answers_as_usual();
    world.client().get("/rest/v1/todos").await.served_by(Side::Old);
    world.is_quiet().await;
}

#[tokio::test]
async fn requests_that_are_answered_make_up_for_those_that_are_given_up() {
    let world = World::start().set("limits.http2_resets", "2").await;
    world.old.does(|seen, mut conn| async move {
        if seen.target().contains("hold") {
            std::future::pending::<()>().await;
        }
        conn.send(usual(Side::Old)).await;
        Some(conn)
    });
    let mut frames = Frames::open(world.address, &[]).await;
    for i in 0..30_u32 {
        let (given_up, answered) = (4 * i + 1, 4 * i + 3);
        frames.send(&get(given_up, "/rest/v1/hold")).await;
        world.old.has_seen(2 * i as usize + 1).await;
        frames.send(&frame(RST_STREAM, 0, given_up, &[0, 0, 0, 8])).await;
        frames.send(&get(answered, "/rest/v1/todos")).await;
        let outcome = within("an answer", frames.outcome(answered)).await;
        assert!(matches!(outcome, Outcome::Answered(_)), "{outcome:?}");
    }
    assert_eq!(world.metric("cutover_errors_total", "kind=\"flood\"").await, 0.0);
}

/// A hundred answers that never end, for a client that does not read, or reads one byte at a time.
#[tokio::test]
async fn answers_that_nobody_reads_take_no_more_than_their_buffers() {
    const STREAMS: u32 = 100;
    let guarded = guarded(World::start()).await;
    guarded.asks().await;
    for (name, window) in [("large windows", 0x7fff_ffff), ("a window of one byte", 1)] {
        let (before, asked) = (guarded.megabytes().await, guarded.old.count());
        let mut frames = Frames::open(guarded.process.address, &[(INITIAL_WINDOW, window)]).await;
        frames.send(&frame(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes())).await;
        for i in 0..STREAMS {
            frames.send(&get(2 * i + 1, "/rest/v1/big")).await;
        }
        guarded.old.has_seen(asked + STREAMS as usize).await;
        // Byte by byte, as far as the limit on such frames lets it.
        for i in 0..1000 {
            frames.send(&frame(WINDOW_UPDATE, 0, 2 * (i % STREAMS) + 1, &[0, 0, 0, 1])).await;
        }
        for _ in 0..20 {
            guarded.asks().await;
        }
        let grown = guarded.megabytes().await - before;
        println!("{name}: {grown:+.1} MB");
        assert!(grown < 28.0, "{name}: {grown:.0} MB more");
        drop(frames);
        eventually("all is quiet", async || {
            guarded.metric("cutover_requests_in_flight").await == 0.0
        })
        .await;
    }
}

/// What h2 ends it ends with a word; the limit on frames ends without one.
#[tokio::test]
async fn resets_before_a_request_was_looked_at_have_a_limit_too() {
    let world = World::start().await;
    let mut frames = Frames::open(world.address, &[]).await;
    // In one write, so that the proxy sees them at once.
    let pair = |i: u32| {
        let stream = 2 * i + 1;
        [get(stream, "/rest/v1/t"), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    frames.send(&(0..1000).flat_map(pair).collect::<Vec<u8>>()).await;
    assert_eq!(within("the end", frames.end()).await, Some(ENHANCE_YOUR_CALM));
    assert!(world.old.count() <= 300, "{}", world.old.count());
    world.is_quiet().await;
}
