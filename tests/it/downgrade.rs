//! HTTP/2 as an enemy sends it, to a side that speaks HTTP/1: what could become two messages, or another one, on the way.

use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, block, frame, get,
    request,
};
use crate::support::strict::{Message, StrictUpstream};
use crate::support::within;
use crate::support::world::World;

/// What is to come of a case.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// The side gets one message: method, target, body.
    Passes(&'static str, &'static str, &'static str),
    /// The side gets this message or none, and the connection ends.
    AtMost(&'static str),
    /// No side sees a whole message, and the client gets a reset, or the end, or an answer with this code of the proxy's.
    Refused(Option<&'static str>),
}
use Want::{AtMost, Passes, Refused};

const RESET: Want = Refused(None);
const MALFORMED: Want = Refused(Some("CUT400"));
const SMUGGLED: &str = "GET /rest/v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";

/// A request's frames on stream 1, from its fields and the pieces of its body.
fn message(fields: &[(&str, &str)], body: &[&str]) -> Vec<u8> {
    let flags = if body.is_empty() { END_HEADERS | END_STREAM } else { END_HEADERS };
    let mut bytes = frame(HEADERS, flags, 1, &block(fields));
    for (index, piece) in body.iter().enumerate() {
        let flags = if index + 1 == body.len() { END_STREAM } else { 0 };
        bytes.extend_from_slice(&frame(DATA, flags, 1, piece.as_bytes()));
    }
    bytes
}

/// A case whose fields come behind those of every POST to `/rest/v1/t`.
fn with(fields: &[(&str, &str)], body: &[&str]) -> Vec<u8> {
    message(&[&request("POST", "/rest/v1/t")[..], fields].concat(), body)
}

/// A GET with this target.
fn target(path: &str) -> Vec<u8> {
    message(&request("GET", path), &[])
}

/// Name, bytes, what comes of it.
type Case = (String, Vec<u8>, Want);

fn lengths() -> Vec<Case> {
    let passes = Passes("POST", "/rest/v1/t", "hello");
    let mut cases = vec![
        ("a body without a length".into(), with(&[], &["he", "llo"]), passes),
        ("a length that is right".into(), with(&[("content-length", "5")], &["hello"]), passes),
        ("a length and no body".into(), with(&[("content-length", "5")], &[]), RESET),
        ("a body too short".into(), with(&[("content-length", "9")], &["hello"]), RESET),
        ("a body too long".into(), with(&[("content-length", "5")], &["hello", SMUGGLED]), RESET),
        ("a length of 0 and a body".into(), with(&[("content-length", "0")], &[SMUGGLED]), RESET),
        (
            "two lengths".into(),
            with(&[("content-length", "5"), ("content-length", "0")], &["hello"]),
            RESET,
        ),
        (
            "a body that is a request".into(),
            with(&[], &[SMUGGLED]),
            Passes("POST", "/rest/v1/t", SMUGGLED),
        ),
        (
            "a body that is a last chunk and a request".into(),
            with(&[], &["0\r\n\r\n", SMUGGLED]),
            Passes(
                "POST",
                "/rest/v1/t",
                "0\r\n\r\nGET /rest/v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n",
            ),
        ),
    ];
    for length in ["+5", " 5", "5 ", "5, 5", "", "0x5", "-5", "5\r\n", "99999999999999999999999"] {
        let name = format!("a length of {length:?}");
        cases.push((name, with(&[("content-length", length)], &["hello"]), RESET));
    }
    cases
}

fn fields() -> Vec<Case> {
    let passes = Passes("POST", "/rest/v1/t", "hello");
    let mut cases = vec![
        ("te: trailers".into(), with(&[("te", "trailers")], &["hello"]), passes),
        ("values above ASCII".into(), with(&[("x", "\u{e9}\u{ff}")], &["hello"]), passes),
        ("another Host".into(), with(&[("host", "evil")], &["hello"]), MALFORMED),
        ("the same Host".into(), with(&[("host", "A")], &["hello"]), passes),
        ("two Hosts".into(), with(&[("host", "a"), ("host", "a")], &["hello"]), MALFORMED),
        (
            "another expectation".into(),
            with(&[("expect", "y 100-continue")], &["hello"]),
            MALFORMED,
        ),
        ("100-continue".into(), with(&[("expect", "100-continue")], &["hello"]), passes),
    ];
    for (name, value) in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "x-own"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("te", "chunked"),
        ("te", "trailers, chunked"),
        ("x", "a\r\nx: b"),
        ("x", "a\r\n\r\nGET /rest/v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("x", "a\nb"),
        ("x", "a\rb"),
        ("x", "a\0b"),
        ("x", "\0"),
        ("x", "a\u{7f}"),
        ("x", "a\u{1}b"),
        ("X", "a"),
        ("Content-Length", "5"),
        ("x y", "a"),
        ("x:", "a"),
        ("x: a\r\ny", "b"),
        ("x\r\n", "a"),
        ("x\0", "a"),
        ("x\u{ff}", "a"),
        ("", "a"),
        (" x", "a"),
        ("transfer-encoding ", "chunked"),
        ("transfer-encoding: chunked\r\nx", "a"),
        (":method", "GET"),
        (":path", "/rest/v1/smuggled"),
        (":authority", "evil"),
        (":scheme", "https"),
        (":status", "200"),
        (":unknown", "a"),
        (":protocol", "websocket"),
        (":", "a"),
    ] {
        let shown = format!("{name:?}: {value:?}");
        cases.push((shown, with(&[(name, value)], &["hello"]), RESET));
    }
    let many: Vec<(String, String)> = (0..101).map(|i| (format!("x{i}"), "y".into())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    cases.push(("105 fields".into(), with(&many, &["hello"]), Refused(Some("CUT431"))));
    cases
}

fn pseudo() -> Vec<Case> {
    let m = |fields: &[(&str, &str)]| message(fields, &[]);
    let base = request("GET", "/rest/v1/t");
    let without = |name: &str| -> Vec<(&str, &str)> {
        base.iter().filter(|(key, _)| *key != name).copied().collect()
    };
    let set = |name: &'static str, value: &'static str| {
        let changed = base.iter().map(|(key, old)| (*key, if *key == name { value } else { *old }));
        m(&changed.collect::<Vec<_>>())
    };
    let passes = Passes("GET", "/rest/v1/t", "");
    let mut cases: Vec<Case> = vec![
        ("a plain GET".into(), m(&base), passes),
        ("no method".into(), m(&without(":method")), RESET),
        ("no scheme".into(), m(&without(":scheme")), RESET),
        ("no path".into(), m(&without(":path")), RESET),
        ("no authority".into(), m(&without(":authority")), passes),
        (
            "a pseudo-header behind a field".into(),
            m(&[&without(":path")[..], &[("x", "y"), (":path", "/rest/v1/t")]].concat()),
            RESET,
        ),
        ("https".into(), set(":scheme", "https"), passes),
        // The scheme does not go on.
        ("no scheme's name".into(), set(":scheme", ""), passes),
        (
            "CONNECT".into(),
            m(&[(":method", "CONNECT"), (":authority", "a:80")]),
            Refused(Some("CUT405")),
        ),
        ("CONNECT with a path".into(), set(":method", "CONNECT"), RESET),
        ("TRACE".into(), set(":method", "TRACE"), Refused(Some("CUT405"))),
        ("a method of one's own".into(), set(":method", "get"), Passes("get", "/rest/v1/t", "")),
        ("another authority".into(), set(":authority", "evil.example"), passes),
    ];
    for (name, value) in [
        (":method", ""),
        (":method", "GET /rest/v1/smuggled HTTP/1.1\r\nhost: a\r\n\r\nGET"),
        (":method", "GET "),
        (":method", "G\0T"),
        (":method", "G:T"),
        (":scheme", "http\r\n"),
        (":scheme", "http://evil/"),
        (":authority", "a b"),
        (":authority", "a\r\nx: y"),
        (":authority", "a\0"),
        (":authority", "a/b"),
        (":authority", "a?b"),
        (":authority", "a:b:c"),
    ] {
        cases.push((format!("{name} {value:?}"), set(name, value), RESET));
    }
    cases
}

fn paths() -> Vec<Case> {
    let passes = Passes("GET", "/rest/v1/t", "");
    let mut cases: Vec<Case> = Vec::new();
    for path in [
        "",
        " ",
        "/rest/v1/t HTTP/1.1\r\nhost: a\r\n\r\nGET /rest/v1/smuggled",
        "/rest/v1/t x",
        "/rest/v1/t\r\nx: y",
        "/rest/v1/t\n",
        "/rest/v1/t\0",
        "/rest/v1/t\t",
        "/rest/v1/t\u{7f}",
        "/rest/v1/t\u{ff}",
        "rest/v1/t",
        "http://evil/rest/v1/t",
        "a:80",
        "\\rest\\v1\\t",
        "\r\n/rest/v1/t",
    ] {
        cases.push((format!(":path {path:?}"), target(path), RESET));
    }
    for (path, code) in [
        ("//evil/rest/v1/t", "CUT404"),
        ("*", "CUT404"),
        ("?x", "CUT404"),
        ("/", "CUT404"),
        ("/rest/v1/../../smuggled", "CUT4001"),
        ("/rest/v1/%2e%2e/smuggled", "CUT4001"),
    ] {
        cases.push((format!(":path {path:?}"), target(path), Refused(Some(code))));
    }
    cases.push(("a fragment".into(), target("/rest/v1/t#smuggled"), passes));
    cases.push((
        "an encoded line end".into(),
        target("/rest/v1/t%0d%0ahost:%20evil"),
        Passes("GET", "/rest/v1/t%0d%0ahost:%20evil", ""),
    ));
    cases
}

fn trailers() -> Vec<Case> {
    let post = |announced: &str, trailers: &[(&str, &str)], flags: u8| {
        let fields = [&request("POST", "/rest/v1/t")[..], &[("trailer", announced)]].concat();
        [
            frame(HEADERS, END_HEADERS, 1, &block(&fields)),
            frame(DATA, 0, 1, b"hello"),
            frame(HEADERS, END_HEADERS | flags, 1, &block(trailers)),
        ]
        .concat()
    };
    let passes = Passes("POST", "/rest/v1/t", "hello");
    vec![
        ("a trailer".into(), post("x-sum", &[("x-sum", "a")], END_STREAM), passes),
        (
            "trailers that are no trailers".into(),
            post(
                "content-length, host, authorization, x-forwarded-for",
                &[
                    ("content-length", "0"),
                    ("host", "b"),
                    ("authorization", "c"),
                    ("x-forwarded-for", "d"),
                ],
                END_STREAM,
            ),
            passes,
        ),
        (
            "a coding as a trailer".into(),
            post("x", &[("transfer-encoding", "chunked")], END_STREAM),
            RESET,
        ),
        // h2 leaves it out.
        ("a pseudo-header as a trailer".into(), post("x", &[(":path", "/b")], END_STREAM), passes),
        ("a line end in a trailer".into(), post("x", &[("x", "a\r\nb: c")], END_STREAM), RESET),
        ("trailers that do not end the stream".into(), post("x", &[("x", "a")], 0), RESET),
    ]
}

/// Frames that break the protocol, or the compression.
fn broken() -> Vec<Case> {
    let ends = END_HEADERS | END_STREAM;
    let raw = |bytes: &[u8]| frame(HEADERS, ends, 1, bytes);
    let half = block(&request("GET", "/rest/v1/t"));
    let (first, second) = half.split_at(half.len() / 2);
    vec![
        ("an index that is not there".into(), raw(&[0xff, 0x80, 0x01]), RESET),
        ("index 0".into(), raw(&[0x80]), RESET),
        ("an integer without end".into(), raw(&[&[0xff][..], &[0xff; 20]].concat()), RESET),
        ("a string longer than its block".into(), raw(&[0, 0x7f, 0x7f, b'a']), RESET),
        ("a table larger than was allowed".into(), raw(&[0x3f, 0xff, 0xff, 0x7f]), RESET),
        ("Huffman that is none".into(), raw(&[0, 0x81, 0x00, 0x84, 0xff, 0xff, 0xff, 0xff]), RESET),
        (
            "a head in two frames".into(),
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)]
                .concat(),
            Passes("GET", "/rest/v1/t", ""),
        ),
        (
            "another stream between two halves of a head".into(),
            [frame(HEADERS, END_STREAM, 1, first), get(3, "/rest/v1/smuggled")].concat(),
            RESET,
        ),
        (
            "the second half of another head".into(),
            [frame(HEADERS, END_STREAM, 1, first), frame(CONTINUATION, END_HEADERS, 3, second)]
                .concat(),
            RESET,
        ),
        ("a head for stream 0".into(), frame(HEADERS, ends, 0, &half), RESET),
        ("a head for an even stream".into(), frame(HEADERS, ends, 2, &half), RESET),
        ("a body for stream 0".into(), frame(DATA, END_STREAM, 0, b"hello"), RESET),
        ("a body without a head".into(), frame(DATA, END_STREAM, 1, b"hello"), RESET),
        (
            "a head behind the end".into(),
            [get(1, "/rest/v1/t"), get(1, "/rest/v1/smuggled")].concat(),
            AtMost("GET /rest/v1/t "),
        ),
        ("padding longer than its frame".into(), frame(DATA, 8, 1, &[9, 1]), RESET),
        ("HTTP/1 in the place of a frame".into(), SMUGGLED.as_bytes().to_vec(), RESET),
    ]
}

async fn run(world: &World, side: &StrictUpstream, case: &Case) -> Vec<String> {
    let (name, bytes, want) = case;
    let before = side.messages().len();
    let mut frames = Frames::open(world.address, &[]).await;
    frames.send(bytes).await;
    let outcome = within(name, frames.outcome(1)).await;
    // The same connection is good for another request, or it has ended.
    frames.send(&get(5, "/rest/v1/canary")).await;
    let canary = within(name, frames.outcome(5)).await;
    let seen: Vec<Message> = side.messages().split_off(before);
    let (canaries, others): (Vec<Message>, Vec<Message>) =
        seen.into_iter().partition(|message| message.target == "/rest/v1/canary");
    let others: Vec<String> = others.iter().map(Message::in_short).collect();
    let mut wrong = Vec::new();
    let answered = matches!(canary, Outcome::Answered(_));
    if canaries.len() != usize::from(answered) {
        wrong.push(format!("{name}: {} canaries, {canary:?}", canaries.len()));
    }
    let holds = match want {
        Passes(method, target, body) => {
            others == [format!("{method} {target} {body}")]
                && matches!(outcome, Outcome::Answered(_))
        }
        AtMost(message) => {
            others.iter().all(|seen| seen == message)
                && others.len() < 2
                && matches!(canary, Outcome::Closed(_))
        }
        Refused(code) => {
            others.is_empty()
                && match (&outcome, code) {
                    (Outcome::Answered(body), Some(code)) => body.contains(&format!("{code:?}")),
                    (Outcome::Answered(_), None) => false,
                    (Outcome::Reset(_) | Outcome::Closed(_), code) => code.is_none(),
                }
        }
    };
    if !holds {
        wrong.push(format!("{name}: wanted {want:?}, got {outcome:?}, seen {others:?}"));
    }
    wrong
}

#[tokio::test]
async fn nothing_that_http2_can_say_becomes_two_messages() {
    let side = StrictUpstream::start().await;
    let world = World::start()
        .set("projects.old.url", &format!("\"http://{}\"", side.address))
        .set("limits.body_idle_timeout", "\"400ms\"")
        .await;
    let mut wrong = Vec::new();
    let cases = [lengths(), fields(), pseudo(), paths(), trailers(), broken()].concat();
    println!("{} cases", cases.len());
    for case in cases {
        wrong.extend(run(&world, &side, &case).await);
    }
    wrong.extend(side.faults());
    for message in side.messages() {
        if message.target.contains("smuggled") && !message.target.contains('%') {
            wrong.push(format!("smuggled: {message:?}"));
        }
        let names = ["content-length", "host", "authorization", "x-forwarded-for"];
        if message.trailers.iter().any(|(name, _)| names.contains(&name.as_str())) {
            wrong.push(format!("a trailer that should have ended: {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.is_quiet().await;
}
