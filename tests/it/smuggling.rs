//! HTTP/1 as an enemy sends it: every case of the corpus through the proxy, in front of an upstream that reads in the strictest way. Whatever
//! is sent, the proxy and the side agree on where each message ends: one answer for each message, none for what was smuggled.

use futures_util::{StreamExt as _, stream};

use crate::support::conn::Conn;
use crate::support::corpus::{Case, Ends, cases};
use crate::support::strict::{Message, StrictUpstream};
use crate::support::within;
use crate::support::world::World;

/// What a client got before its connection ended, or the canary was answered.
#[derive(Debug, Default)]
struct Got {
    /// Status, the number of the side's message, whether the connection was to end.
    answers: Vec<(u16, Option<usize>, bool)>,
    has_ended: bool,
}

async fn started() -> (World, StrictUpstream) {
    let side = StrictUpstream::start().await;
    let world = World::start()
        .set("projects.old.url", &format!("\"http://{}\"", side.address))
        // Longer than this machine stands still between two pieces. Only cases that wait for an end wait for it.
        .set("limits.header_timeout", "\"3s\"")
        .set("limits.body_idle_timeout", "\"3s\"")
        .set("limits.idle_timeout", "\"3s\"")
        .set("limits.connections", "1000")
        .await;
    (world, side)
}

/// Sends a case in pieces of this many bytes, and reads until the canary is answered or the connection has ended.
async fn send(world: &World, side: &StrictUpstream, case: &Case, piece: usize) -> Got {
    let (mut reader, mut writer) = Conn::open(world.address).await.split();
    let bytes = case.bytes();
    // A long case in fewer pieces: each costs a write.
    let piece = piece.max(bytes.len() / 200);
    let sending = async move {
        for piece in bytes.chunks(piece) {
            if !writer.try_send(piece).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        writer
    };
    let reading = async {
        let mut got = Got::default();
        while let Some(head) = reader.head().await {
            let status: u16 = head.start.split(' ').nth(1).unwrap().parse().unwrap();
            if status == 100 {
                continue;
            }
            reader.request_body(&head).await;
            let number = head.get("x-seen").map(|number| number.parse().unwrap());
            got.answers.push((status, number, head.get("connection") == Some("close")));
            let is_canary = |at: usize| side.messages()[at].target == case.canary();
            if number.is_some_and(is_canary) && case.ends == Ends::Canary {
                return got;
            }
        }
        got.has_ended = true;
        got
    };
    // Who writes keeps its half open until all is read: a client that ends is gone.
    let (got, _writer) = within(&case.title(), async { tokio::join!(reading, sending) }).await;
    got
}

/// What must be so of every case, whatever it is.
fn laws(case: &Case, got: &Got, all: &[Message]) -> Vec<String> {
    let mut broken = Vec::new();
    let numbers: Vec<usize> = got.answers.iter().filter_map(|(_, number, _)| *number).collect();
    let of_case = |message: &Message| message.target.contains(&case.id);
    let seen: Vec<usize> = (0..all.len()).filter(|at| of_case(&all[*at])).collect();
    if numbers != seen {
        broken.push(format!("answers {numbers:?} for messages {seen:?}"));
    }
    if all.iter().any(|message| message.target == case.smuggled()) {
        broken.push("what was smuggled is a request".to_owned());
    }
    if all.iter().filter(|message| message.target == case.canary()).count() > 1 {
        broken.push("the canary was seen twice".to_owned());
    }
    for (status, number, _) in &got.answers {
        if number.is_none() && !(400..500).contains(status) {
            broken.push(format!("an answer {status}"));
        }
    }
    broken
}

/// What the corpus says of this case.
fn expected(case: &Case, got: &Got, all: &[Message]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut check = |holds: bool, what: &str| {
        if !holds {
            broken.push(what.to_owned());
        }
    };
    let seen: Vec<&Message> =
        all.iter().filter(|message| message.target.contains(&case.id)).collect();
    let mut wanted = case.sees.clone();
    if case.ends == Ends::Canary {
        wanted.push(format!("GET {} ", case.canary()));
    }
    check(seen.iter().map(|message| message.in_short()).collect::<Vec<_>>() == wanted, "messages");
    let own = got.answers.iter().filter(|(_, number, closes)| number.is_none() && !closes).count();
    check(own == case.own, "answers of the proxy's own");
    let last = got.answers.last().copied();
    match case.ends {
        Ends::Canary => check(!got.has_ended, "the end"),
        Ends::Eof => check(got.has_ended && last.is_some_and(|last| last.0 == 200), "the end"),
        Ends::Refused => {
            check(last == Some((case.status.unwrap_or(400), None, true)), "the refusal");
            check(got.has_ended, "the end");
        }
        Ends::Cut => {
            let is_refusal = |last: (u16, Option<usize>, bool)| last.1.is_none() && last.2;
            check(last.is_none_or(is_refusal) && got.has_ended, "the cut");
        }
    }
    if let Some(first) = seen.first() {
        check(!case.absent.iter().any(|name| first.has(name)), "a field that should have ended");
        check(case.present.iter().all(|name| first.has(name)), "a field that should be there");
        if let Some(trailers) = &case.trailers {
            let names: Vec<&String> = first.trailers.iter().map(|(name, _)| name).collect();
            check(names == trailers.iter().collect::<Vec<_>>(), "trailers");
        }
    }
    broken
}

/// Sends every case, some at a time, and collects what is wrong.
async fn run(piece: usize, judge: impl Fn(&Case, &Got, &[Message]) -> Vec<String>) {
    let (world, side) = started().await;
    let cases = cases();
    let (proxy, recorder) = (&world, &side);
    let sending = stream::iter(&cases).map(|case| async move {
        let got = send(proxy, recorder, case, piece).await;
        (case, got)
    });
    let got: Vec<(&Case, Got)> = sending.buffer_unordered(50).collect().await;
    let messages = side.messages();
    let mut wrong = side.faults();
    for (case, got) in &got {
        for what in judge(case, got, &messages) {
            let of_case = messages.iter().filter(|message| message.target.contains(&case.id));
            let seen: Vec<String> = of_case.map(Message::in_short).collect();
            wrong.push(format!("{} ({}): {what}; {got:?}; seen {seen:?}", case.title(), case.id));
        }
    }
    let is_stray = |message: &&Message| !cases.iter().any(|case| message.target.contains(&case.id));
    wrong.extend(messages.iter().filter(is_stray).map(|stray| format!("a stray {stray:?}")));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    world.is_quiet().await;
}

#[tokio::test]
async fn every_case_is_refused_or_goes_on_in_one_form() {
    run(usize::MAX, |case, got, all| [laws(case, got, all), expected(case, got, all)].concat())
        .await;
}

/// A broken chunk may be seen when the head is on its way already; then the body is cut, which is no message either.
#[tokio::test]
async fn no_case_is_read_in_two_ways_however_it_is_cut() {
    run(7, laws).await;
}

/// The test has to be able to see what it looks for.
#[test]
fn the_strict_reader_faults_what_two_servers_may_read_in_two_ways() {
    use crate::support::strict::{Read, read};
    let whole = |text: &str| match read(text.as_bytes()) {
        Read::Whole(message, length) => Some((message.in_short(), length)),
        _ => None,
    };
    let known = "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(whole(&format!("{known}GET")), Some(("POST /a hi".to_owned(), known.len())));
    let chunked = "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\n";
    assert_eq!(whole(chunked), Some(("POST /a hi".to_owned(), chunked.len())));
    for text in [
        "GET /a HTTP/1.1\nhost: a\n\n",
        "GET /a HTTP/1.1\r\nhost: a\r\nx: a\rb\r\n\r\n",
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.0\r\nhost: a\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a\r\n x: y\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n",
    ] {
        assert!(matches!(read(text.as_bytes()), Read::Fault(_)), "{text:?}");
    }
}
