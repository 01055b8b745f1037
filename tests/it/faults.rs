//! Faults behind: whatever a side does to a connection, at each point of an exchange (design 10).
//!
//! Every case is met by a GET and a POST, over HTTP/1.1 and HTTP/2, on a connection that is new and on one that was kept. Each time the
//! client has to see what design 10 says, a write has to have been sent at most once, the next three requests on the side, which is well
//! again, have to get exactly their own answers, and at the end no connection may be left. Meanwhile a user of the other side is served by
//! the same worker, and never notices.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cutover::side::Side;
use http::Method;
use http_body_util::{BodyExt as _, Full};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::conn::Conn;
use crate::support::fault::{Act, Faulty, WHOLE};
use crate::support::upstream::response;
use crate::support::world::{Client, Setup, World, token};
use crate::support::{Named, PATIENCE, eventually, http2, within};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}

/// What a client has to see.
#[derive(Clone, Copy, Debug)]
enum Sees {
    /// An answer of the proxy's own.
    Refusal(u16, &'static str),
    /// An answer that says that there is no connection, or none any more.
    Unreached,
    /// The beginning of an answer, and that it is not all.
    Cut,
    /// An answer with this body.
    Whole(&'static str),
}

const BROKE: Sees = Sees::Refusal(502, "CUT5021");
const LATE: Sees = Sees::Refusal(504, "CUT504");

/// One fault.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    acts: Vec<Act>,
    sees: Sees,
}

fn case(name: impl Into<String>, acts: Vec<Act>, sees: Sees) -> Case {
    Case { name: name.into(), acts, sees }
}

impl Case {
    /// Something of an answer has come.
    fn has_answer(&self) -> bool {
        self.acts.iter().any(|act| matches!(act, Act::Say(bytes) if bytes.len() > 1))
    }

    /// It happens to a connection that was never used.
    fn is_of_new_connections(&self) -> bool {
        !matches!(self.acts.first(), Some(Act::Head))
    }
}

fn say(text: impl AsRef<[u8]>) -> Act {
    Act::Say(text.as_ref().to_vec())
}

/// Reads a request, and then does this.
fn answering(mut acts: Vec<Act>) -> Vec<Act> {
    acts.splice(0..0, [Act::Head, Act::Body(WHOLE)]);
    acts
}

/// What a client got.
#[derive(Debug)]
struct Got {
    /// 0: none.
    status: u16,
    text: String,
    is_whole: bool,
}

/// A proxy whose one side is faulty, and a client.
struct Field {
    world: World,
    side: Side,
    faulty: Faulty,
    speaks: Speaks,
    http2: http2::Sender,
    neighbour: Option<JoinHandle<usize>>,
    stop: watch::Sender<bool>,
    requests: usize,
    cases: usize,
}

/// Whose side this is at 40 %.
const fn user_of(side: Side) -> &'static str {
    match side {
        Side::Old => "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11",
        Side::New => "ada",
    }
}

fn world() -> Setup {
    World::start()
        .rollout(40)
        .set("workers", "1")
        // Faulty requests that wait for a timeout are functions', so that no other has to be in a hurry.
        .set("upstream.timeout", "\"20s\"")
        .set("upstream.functions_timeout", "\"200ms\"")
}

impl Field {
    async fn new(setup: Setup, faulty: Faulty, side: Side, speaks: Speaks) -> Self {
        let world = setup.set(&format!("projects.{side}.url"), &faulty.url()).await;
        let other = side.other();
        world.side(other).answers(move |seen| {
            let said = format!("{} {}", seen.method(), seen.target());
            response("200 OK", &format!("x-upstream: {other}\r\n"), &said)
        });
        let (stop, stopped) = watch::channel(false);
        let conn = world.raw().await;
        let neighbour = neighbour(world.as_user(user_of(other)), conn, stopped);
        let http2 = http2::open(&world).await;
        Self {
            http2,
            side,
            faulty,
            speaks,
            neighbour: Some(tokio::spawn(neighbour)),
            stop,
            requests: 0,
            cases: 0,
            world,
        }
    }

    fn client(&self) -> Client {
        self.world.as_user(user_of(self.side))
    }

    /// A target that no other request has.
    fn target(&mut self, path: &str) -> String {
        self.requests += 1;
        format!("{path}?id=eq.{}", self.requests)
    }

    async fn ask(&mut self, method: &str, target: &str, body: Option<&[u8]>) -> Got {
        match self.speaks {
            Speaks::Http1 => {
                let head = self.client().says(method, target, None);
                self.over_http1(method, head, body).await
            }
            Speaks::Http2 => self.over_http2(method, target, body).await,
        }
    }

    async fn over_http1(&self, method: &str, head: String, body: Option<&[u8]>) -> Got {
        let length = body.map(|body| format!("content-length: {}\r\n\r\n", body.len()));
        let head = head.trim_end().to_owned() + "\r\n" + length.as_deref().unwrap_or("\r\n");
        let request = [head.as_bytes(), body.unwrap_or_default()].concat();
        let (mut reader, mut writer) = self.world.raw().await.split();
        // A side may have answered, and the proxy closed, before all is sent.
        let asking = async { tokio::join!(reader.try_answer_to(method), writer.try_send(request)) };
        let Some(answer) = within("an answer", asking).await.0 else {
            return Got { status: 0, text: String::new(), is_whole: false };
        };
        Got { status: answer.status, text: answer.text(), is_whole: answer.body.is_whole }
    }

    async fn over_http2(&mut self, method: &str, target: &str, body: Option<&[u8]>) -> Got {
        let body = Bytes::copy_from_slice(body.unwrap_or_default());
        let mut request = http2::get(target).map(|_| Full::new(body).boxed());
        *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        let token = format!("Bearer {}", token(user_of(self.side)));
        request.headers_mut().insert("authorization", token.parse().unwrap());
        within("room for a request", self.http2.ready()).await.unwrap();
        let Ok(answer) = within("an answer", self.http2.send_request(request)).await else {
            return Got { status: 0, text: String::new(), is_whole: false };
        };
        let status = answer.status().as_u16();
        let mut body = answer.into_body();
        let mut text = Vec::new();
        let is_whole = loop {
            match within("a body", body.frame()).await {
                None => break true,
                Some(Err(_)) => break false,
                Some(Ok(frame)) => {
                    text.extend(frame.into_data().map(|data| data.to_vec()).unwrap_or_default());
                }
            }
        };
        Got { status, text: String::from_utf8_lossy(&text).into_owned(), is_whole }
    }

    /// A request to the side, which is well: it gets its own answer.
    async fn is_answered(&mut self, method: &str, after: &str) {
        let target = self.target("/rest/v1/todos");
        let body = (method == "POST").then_some(&b"{}"[..]);
        let got = self.ask(method, &target, body).await;
        assert_eq!(got.status, 200, "{method} after {after}: {got:?}");
        assert_eq!(got.text, format!("{method} {target}"), "after {after}");
        assert!(got.is_whole, "after {after}");
    }

    /// The side has no connection, and the proxy knows.
    async fn begins_anew(&self) {
        self.faulty.hangs_up().await;
        self.turns().await;
    }

    /// The worker has looked at all of its sockets: it has served a request that came after what happened before.
    async fn turns(&self) {
        let other = self.world.as_user(user_of(self.side.other()));
        for _ in 0..2 {
            let answer = other.get("/rest/v1/todos?turn=eq.1").await;
            answer.served_by(self.side.other());
        }
    }

    /// One fault, and what is left of it.
    async fn meets(&mut self, case: &Case, method: &str, body: Option<&[u8]>, is_kept: bool) {
        let what = format!("{method} {:?} kept: {is_kept}, {}", self.speaks, case.name);
        let _named = Named(&what);
        self.begins_anew().await;
        if is_kept {
            self.is_answered("GET", "the begin").await;
        }
        match case.acts.is_empty() {
            true => self.faulty.refuses().await,
            false => self.faulty.does(&case.acts),
        }
        let is_late = matches!(case.sees, Sees::Refusal(504, _));
        let target = self.target(if is_late { "/functions/v1/f" } else { "/rest/v1/todos" });
        let begun = Instant::now();
        let got = self.ask(method, &target, body).await;
        let took = begun.elapsed();
        self.saw(case, &got, &what);
        assert!(took < PATIENCE / 2, "{what}: {took:?}");
        assert!(!is_late || took >= Duration::from_millis(200), "{what}: {took:?}");
        // Once more for a read on a kept connection, and never else.
        let times = self.faulty.seen_of(&format!("{target} "));
        assert!(times <= 1 + usize::from(is_kept && method == "GET"), "{what}: {times} times");
        self.faulty.has_done().await;
        self.turns().await;
        self.faulty.is_well();
        for method in ["GET", "POST", "GET"] {
            self.is_answered(method, &what).await;
        }
        self.cases += 1;
    }

    fn saw(&self, case: &Case, got: &Got, what: &str) {
        match case.sees {
            Sees::Refusal(status, code) => {
                assert_eq!(got.status, status, "{what}: {got:?}");
                let said: serde_json::Value = serde_json::from_str(&got.text).unwrap();
                assert_eq!(said["code"], code, "{what}: {got:?}");
                assert!(got.is_whole, "{what}: {got:?}");
            }
            Sees::Unreached => {
                assert!(got.status == 502 && got.text.contains("CUT502"), "{what}: {got:?}");
            }
            // Over HTTP/2 a cut may overtake the head: no answer is not a short one.
            Sees::Cut if got.status == 0 => assert_eq!(self.speaks, Speaks::Http2, "{what}"),
            Sees::Cut => {
                assert_eq!((got.status, got.is_whole), (200, false), "{what}: {got:?}");
            }
            Sees::Whole(text) => {
                assert_eq!((got.status, got.text.as_str()), (200, text), "{what}: {got:?}");
                assert!(got.is_whole, "{what}: {got:?}");
            }
        }
    }

    /// Every case, with these methods, on a new connection and on a kept one. Where the answer has begun that makes no difference, and
    /// they take turns.
    async fn meets_all(&mut self, cases: &[Case], methods: &[&str], body: &[u8]) {
        for (number, case) in cases.iter().enumerate() {
            for (turn, method) in methods.iter().enumerate() {
                let body = (*method == "POST").then_some(body);
                let is_turn =
                    |kept: bool| !case.has_answer() || (number + turn).is_multiple_of(2) == kept;
                if case.is_of_new_connections() || is_turn(false) {
                    self.meets(case, method, body, false).await;
                }
                if !case.is_of_new_connections() && is_turn(true) {
                    self.meets(case, method, body, true).await;
                }
            }
        }
    }

    /// Nothing is left: one connection for the last request, which both ends know of.
    async fn leaves_nothing(mut self, what: &str) {
        self.begins_anew().await;
        self.is_answered("POST", "all").await;
        self.stop.send_replace(true);
        let served = self.neighbour.take().unwrap().await.expect("the other side was touched");
        let (side, cases) = (self.side, self.cases);
        let Self { world, faulty, http2, .. } = self;
        drop(http2);
        world.is_quiet().await;
        let labels = format!("side=\"{side}\"");
        eventually("no connection left", async || {
            world.metric("cutover_upstream_connections_open", &labels).await == 1.0
        })
        .await;
        assert_eq!(faulty.open(), 1);
        assert!(served > 0);
        println!(
            "{what}: {cases} faults survived; {served} requests of the other side, none failed"
        );
    }
}

/// A user of the other side, who is served all the time.
async fn neighbour(client: Client, mut conn: Conn, stop: watch::Receiver<bool>) -> usize {
    let mut served = 0;
    while !*stop.borrow() {
        let (method, body) = if served % 2 == 0 { ("GET", None) } else { ("POST", Some("{}")) };
        let target = format!("/rest/v1/todos?neighbour=eq.{served}");
        conn.send(client.says(method, &target, body)).await;
        let answer = conn.answer().await;
        assert_eq!((answer.status, answer.text()), (200, format!("{method} {target}")));
        served += 1;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    served
}

/// Both clients at the same time, each with a proxy of its own, one with a faulty old and one with a faulty new.
async fn met_by_both(what: &str, cases: &[Case], methods: &[&str], body: &[u8]) {
    let meet = async |side, speaks| {
        let mut field = Field::new(world(), Faulty::start(side), side, speaks).await;
        field.meets_all(cases, methods, body).await;
        field.leaves_nothing(&format!("{what}, {speaks:?}")).await;
    };
    tokio::join!(meet(Side::New, Speaks::Http1), meet(Side::Old, Speaks::Http2));
}

const ANSWER: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n[\"a\",\"bc\"]";
const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
const CHUNKS: &str = "5\r\nhello\r\n3;x=y\r\nbye\r\n0\r\nx-sum: 1\r\n\r\n";
const UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nx-a: b\r\n\r\n";

/// A connection that ends, by a close and by a reset, before there is the head of an answer.
fn ends_before_an_answer() -> Vec<Case> {
    let mut cases = Vec::new();
    for (ending, end) in [("reset", &[Act::Reset][..]), ("closed", &[])] {
        let mut ends = |name: &str, acts: &[Act]| {
            let acts = if acts.is_empty() && end.is_empty() {
                // A list of no acts is a side that refuses.
                vec![say("")]
            } else {
                [acts, end].concat()
            };
            // Whether a connection is known to be made before it ends is a matter of chance.
            let is_new = !matches!(acts.first(), Some(Act::Head));
            let sees = if is_new { Sees::Unreached } else { BROKE };
            cases.push(case(format!("{ending} {name}"), acts, sees));
        };
        ends("on accept", &[]);
        ends("after the request's head", &[Act::Head]);
        ends("after the request", &answering(Vec::new()));
        for (name, said) in [
            ("after one byte", "H"),
            ("after half of the status line", "HTTP/1.1 20"),
            ("behind the status line", "HTTP/1.1 200 OK\r\n"),
            ("after half of the head", "HTTP/1.1 200 OK\r\ncontent-len"),
            ("before the last byte of the head", &HEAD[..HEAD.len() - 1]),
            ("after an interim answer", "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"),
        ] {
            ends(name, &answering(vec![say(said)]));
        }
    }
    cases.push(case("refused", Vec::new(), Sees::Refusal(502, "CUT502")));
    cases
}

#[tokio::test]
async fn connections_that_end_before_an_answer() {
    met_by_both("no answer", &ends_before_an_answer(), &["GET", "POST"], b"{\"a\":1}").await;
}

#[tokio::test]
async fn connections_that_end_in_the_middle_of_an_upload() {
    let body = vec![b'x'; 1_000_000];
    let mut cases = Vec::new();
    for read in [0, 1, 100_000, body.len() - 1] {
        for (ending, end) in [("reset", Some(Act::Reset)), ("closed", None)] {
            let acts = [Act::Head, Act::Body(read)].into_iter().chain(end).collect();
            cases.push(case(format!("{ending} after {read} bytes of the body"), acts, BROKE));
        }
    }
    met_by_both("cut uploads", &cases, &["POST"], &body).await;
}

/// Bodies cut at each class of place; of chunks, at these.
fn cut_bodies(in_chunks: &[usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (ending, end) in [("reset", Some(Act::Reset)), ("closed", None)] {
        let mut cuts = |name: String, said: String, sees: Sees| {
            let acts = answering([say(said)].into_iter().chain(end.clone()).collect());
            cases.push(case(format!("{ending} {name}"), acts, sees));
        };
        for sent in [0, 1, 9] {
            let said = &ANSWER[..HEAD.len() + sent];
            cuts(format!("after {sent} of 10 bytes"), said.to_owned(), Sees::Cut);
        }
        for sent in in_chunks {
            let said = format!("{CHUNKED}{}", &CHUNKS[..*sent]);
            cuts(format!("in chunks, after {sent} bytes"), said, Sees::Cut);
        }
        // An error's body is read whole before any of it is passed on.
        let error = ANSWER.replace("200 OK", "404 Not Found");
        for left in [10, 1] {
            let said = &error[..error.len() - left];
            cuts(format!("{left} bytes before the end of an error"), said.to_owned(), BROKE);
        }
    }
    for said in ["", "x", "hello"] {
        let said = format!("{UNTIL_CLOSE}{said}");
        let acts = answering(vec![say(said), Act::Reset]);
        cases.push(case("reset in a body that ends with its connection", acts, Sees::Cut));
    }
    let whole = answering(vec![say(format!("{UNTIL_CLOSE}hello"))]);
    cases.push(case("a body that ends with its connection", whole, Sees::Whole("hello")));
    for (name, coded) in [
        ("a chunk that is longer than it says", "2\r\nhello\r\n0\r\n\r\n"),
        ("a size that is none", "5\r\nhello\r\nxyz\r\n"),
        ("a size without end", "5\r\nhello\r\nfffffffffffffffff\r\n"),
        ("a negative size", "5\r\nhello\r\n-1\r\n"),
        ("a bare line feed", "5\r\nhello\r\n0\n\n"),
        ("trailers that are none", "5\r\nhello\r\n0\r\nno colon\r\n\r\n"),
    ] {
        let acts = answering(vec![say(format!("{CHUNKED}{coded}")), Act::Hang]);
        cases.push(case(name, acts, Sees::Cut));
    }
    for (name, endless) in [
        ("a size line without end", "5\r\nhello\r\n1;x="),
        ("trailers without end", "5\r\nhello\r\n0\r\n"),
    ] {
        let acts = answering(vec![say(format!("{CHUNKED}{endless}")), Act::Forever("a: b\r\n")]);
        cases.push(case(name, acts, Sees::Cut));
    }
    cases
}

#[tokio::test]
async fn bodies_that_break_off_when_they_are_read() {
    let everywhere: Vec<_> = (0..CHUNKS.len()).collect();
    met_by_both("cut bodies, GET", &cut_bodies(&everywhere), &["GET"], b"").await;
}

#[tokio::test]
async fn bodies_that_break_off_when_something_was_written() {
    // In the size, behind it, in the data, behind it, behind its line end, in an extension, in the last chunk, in a trailer, before the end.
    let classes = [1, 2, 3, 6, 8, 9, 10, 13, 21, 22, 24, 30, 33, CHUNKS.len() - 1];
    met_by_both("cut bodies, POST", &cut_bodies(&classes), &["POST"], b"{\"a\":1}").await;
}

/// What is no head of an answer. The connection stays open: nothing but the bytes themselves says that they are wrong.
const GARBAGE: &[&str] = &[
    "HTTP/1.1\r\n\r\n",
    "HTTP/1.1 \r\n\r\n",
    "HTTP/1.1  200 OK\r\n\r\n",
    "HTTP/1.1 2x0 OK\r\n\r\n",
    "HTTP/1.1 20 OK\r\n\r\n",
    "HTTP/1.1 2000 OK\r\n\r\n",
    "HTTP/1.1 099 Low\r\n\r\n",
    "HTTP/1.1 -20 OK\r\n\r\n",
    "HTTP/1.1 OK 200\r\n\r\n",
    "HTTP/1.1\t200 OK\r\n\r\n",
    "HTTP/1.1 200\0OK\r\n\r\n",
    "HTTP/1.1 200 O\0K\r\n\r\n",
    "HTTP/1.2 200 OK\r\n\r\n",
    "HTTP/2 200 OK\r\n\r\n",
    "HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/3 200\r\n\r\n",
    "HTTP/0.9 200 OK\r\n\r\n",
    "HTTP 200 OK\r\n\r\n",
    "http/1.1 200 OK\r\n\r\n",
    "HTTPS/1.1 200 OK\r\n\r\n",
    " HTTP/1.1 200 OK\r\n\r\n",
    "ICY 200 OK\r\n\r\n",
    "RTSP/1.0 200 OK\r\n\r\n",
    "200 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "220 mail.example ESMTP\r\n\r\n",
    "-ERR unknown command\r\n\r\n",
    "<!doctype html><title>hello</title>\r\n\r\n",
    "{\"side\":\"old\"}\r\n\r\n",
    "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "\x15\x03\x01\0\x02\x02\x46\r\n\r\n",
    "\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64\r\n\r\n",
    "\0\0\0\0\0\0\0\0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n: no name\r\n\r\n",
    "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
    "HTTP/1.1 200 OK\r\na : c\r\n\r\n",
    "HTTP/1.1 200 OK\r\n folded: a\r\n\r\n",
    "HTTP/1.1 200 OK\r\na: b\r\n folded\r\n\r\n",
    "HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 1x\r\n\r\n",
    "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
];

fn garbage() -> Vec<Case> {
    let said = |text: &&str| {
        let acts = answering(vec![say(text), Act::Hang]);
        case(format!("garbage {text:?}"), acts, BROKE)
    };
    let mut cases: Vec<_> = GARBAGE.iter().map(said).collect();
    for (name, begin, endless) in [
        ("a status line without end", "HTTP/1.1 200 O", "K"),
        ("a head without end", "HTTP/1.1 200 OK\r\n", "a: b\r\n"),
        ("a header without end", "HTTP/1.1 200 OK\r\na: ", "b"),
        ("a name without end", "HTTP/1.1 200 OK\r\n", "b"),
        ("interim answers without end", "", "HTTP/1.1 102 Processing\r\n\r\n"),
        ("empty lines without end", "", "\r\n"),
    ] {
        cases.push(case(name, answering(vec![say(begin), Act::Forever(endless)]), BROKE));
    }
    cases
}

#[tokio::test]
async fn answers_that_are_no_http() {
    met_by_both("garbage", &garbage(), &["GET", "POST"], b"{\"a\":1}").await;
}

/// Sides that take their time. One byte in 100 ms is too slow for a head of 75 bytes in 200 ms; a body may take as long as it likes.
#[tokio::test]
async fn answers_that_do_not_come_in_time() {
    let pause = Duration::from_millis(100);
    let said = |text: &str| answering(vec![say(text), Act::Hang]);
    let cases = [
        case("accepted, and nothing else", vec![Act::Hang], LATE),
        case("hangs after the request's head", vec![Act::Head, Act::Hang], LATE),
        case("hangs after the request", said(""), LATE),
        case("hangs after half of the status line", said("HTTP/1.1 20"), LATE),
        case("hangs after half of the head", said("HTTP/1.1 200 OK\r\ncontent-len"), LATE),
        case("hangs before the last byte of the head", said(&HEAD[..HEAD.len() - 1]), LATE),
        case("hangs after an empty line", said("\r\n"), LATE),
        case(
            "hangs after an interim answer",
            said("HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n"),
            LATE,
        ),
        case(
            "a head, byte by byte",
            answering(vec![Act::Drip(ANSWER.into(), pause), Act::Stay]),
            LATE,
        ),
        case(
            "a body, byte by byte",
            answering(vec![
                say(HEAD),
                Act::Drip(ANSWER[HEAD.len()..].into(), pause * 2 / 5),
                Act::Stay,
            ]),
            Sees::Whole("[\"a\",\"bc\"]"),
        ),
    ];
    met_by_both("late", &cases, &["GET", "POST"], b"{\"a\":1}").await;
}

/// What a side says and nobody asked for: it belongs to nobody, and its connection is not used again.
#[tokio::test]
async fn more_than_was_asked_for() {
    let evil = response("200 OK", "", "evil");
    let mut cases = Vec::new();
    let chunks = format!("{CHUNKED}{CHUNKS}");
    for (name, answer, sees) in [
        ("a length", ANSWER, Sees::Whole("[\"a\",\"bc\"]")),
        ("chunks", chunks.as_str(), Sees::Whole("hellobye")),
        ("no body", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Sees::Whole("")),
    ] {
        for (behind, more) in [
            ("an answer", evil.as_str()),
            ("half of one", "HTTP/1.1 20"),
            ("a byte", "x"),
            ("an empty line", "\r\n"),
        ] {
            let name = format!("{behind} behind {name}");
            let together = vec![say(format!("{answer}{more}")), Act::Stay];
            cases.push(case(format!("{name}, at once"), answering(together), sees));
            let apart = vec![say(answer), say(more), Act::Stay];
            cases.push(case(format!("{name}, afterwards"), answering(apart), sees));
        }
    }
    // An answer that came before the request, and then the one to the request.
    let early = vec![say(ANSWER), Act::Head, Act::Body(WHOLE), say(&evil), Act::Stay];
    cases.push(case("an answer before the request", early, Sees::Whole("[\"a\",\"bc\"]")));
    met_by_both("unasked", &cases, &["GET", "POST"], b"{\"a\":1}").await;
}

/// A side that closes its connections at some moment around the next request: a read never notices, and a write is never sent twice.
#[tokio::test]
async fn kept_connections_that_are_closed_at_the_moment_of_their_reuse() {
    let mut field = Field::new(world(), Faulty::start(Side::New), Side::New, Speaks::Http1).await;
    let (mut lost, mut reads, mut writes) = (0, 0, 0);
    for round in 0..400_u64 {
        let end = match round % 3 {
            0 => vec![Act::Reset],
            _ => Vec::new(),
        };
        let wait = Act::Wait(Duration::from_micros(round * 37 % 1500));
        field.faulty.does(&[answering(vec![say(ANSWER), wait]), end].concat());
        let (method, body) =
            if round % 2 == 0 { ("GET", None) } else { ("POST", Some(&b"{}"[..])) };
        let target = field.target("/rest/v1/todos");
        let got = field.ask(method, &target, body).await;
        let times = field.faulty.seen_of(&format!("{target} "));
        match (method, got.status) {
            ("GET", 200) => reads += 1,
            ("POST", 200) => {
                assert_eq!(times, 1, "{target}");
                writes += 1;
            }
            // Nobody knows whether the side has seen it, and so it is not sent again.
            ("POST", 502) => {
                assert!(got.text.contains("CUT5021") && times <= 1, "{times}: {got:?}");
                lost += 1;
            }
            _ => panic!("{method}: {got:?}"),
        }
    }
    field.faulty.has_done().await;
    field.faulty.is_well();
    println!(
        "reuse: {reads} reads, all answered; {writes} writes answered, {lost} refused, none twice"
    );
    field.leaves_nothing("reuse").await;
}

/// A body may pause for as long as it likes (events are sent so), so it is the client that decides how long to wait; when it has gone,
/// so has the connection.
#[tokio::test]
async fn a_body_that_stalls_is_given_up_with_its_client() {
    let mut field = Field::new(world(), Faulty::start(Side::New), Side::New, Speaks::Http1).await;
    for (name, begin) in [
        ("a length", format!("{HEAD}[")),
        ("chunks", format!("{CHUNKED}5\r\nhel")),
        ("none", UNTIL_CLOSE.to_owned()),
    ] {
        for method in ["GET", "POST"] {
            field.begins_anew().await;
            field.faulty.does(&answering(vec![say(&begin), Act::Hang]));
            let target = field.target("/rest/v1/todos");
            let mut conn = field.world.raw().await;
            conn.send(field.client().says(method, &target, None)).await;
            assert!(conn.answer_head().await.start.contains(" 200 "), "{name}");
            drop(conn);
            field.faulty.has_done().await;
            field.faulty.is_well();
            field.is_answered("GET", name).await;
        }
    }
    field.leaves_nothing("stalled bodies").await;
}
