//! What the watchdog says, and when.

use std::convert::Infallible;

use http::Response;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;
use crate::accept::connection::{Terms, serve_plain};
use crate::accept::fixture::limits;
use crate::http1::stream::Stream;

fn wire() -> Wire {
    Wire::new(&limits())
}

async fn after(seconds: u64) -> Instant {
    tokio::time::advance(Duration::from_secs(seconds)).await;
    Instant::now()
}

#[tokio::test(start_paused = true)]
async fn slow_heads_and_idle_connections_are_overdue() {
    let first = wire();
    assert!(!first.is_overdue(after(9).await));
    assert!(first.is_overdue(after(1).await), "no first head");
    first.head_ends();
    assert_eq!(first.request_begins(), Instant::now());
    assert!(!first.is_overdue(after(1000).await), "a request in flight may take its time");
    first.request_ends(Instant::now(), true);
    assert!(!first.is_overdue(after(74).await));
    assert!(first.is_overdue(after(1).await), "idle");
    first.head_begins();
    first.head_begins();
    assert!(!first.is_overdue(after(9).await), "a head has its own time");
    assert!(first.is_overdue(after(1).await));
}

#[tokio::test(start_paused = true)]
async fn who_takes_nothing_of_an_answer_is_overdue_and_who_takes_little_is_not() {
    let wire = wire();
    wire.head_ends();
    wire.request_begins();
    wire.waits_for_reader(10);
    assert!(!wire.is_overdue(Instant::now()), "seen for the first time");
    assert!(!wire.is_overdue(after(59).await));
    wire.waits_for_reader(11);
    assert!(!wire.is_overdue(after(59).await), "it went on");
    // The whole of the answer is in the buffers: for the service the request is over.
    wire.request_ends(Instant::now(), true);
    assert!(!wire.is_overdue(after(59).await));
    assert!(!wire.was_too_slow() && !wire.was_too_slow_unseen());
    assert!(wire.is_overdue(after(1).await));
    assert!(wire.was_too_slow_unseen() && wire.was_too_slow() && !wire.was_too_slow_unseen());
    wire.is_read();
    assert!(!wire.is_overdue(after(60).await), "idle has its own time");
}

#[tokio::test(start_paused = true)]
async fn one_stream_that_nobody_reads_does_not_end_the_others() {
    let wire = wire();
    wire.speaks_http2();
    wire.request_begins();
    wire.request_begins();
    wire.stream_waits(true);
    assert!(!wire.is_overdue(Instant::now()));
    assert!(!wire.is_overdue(after(1000).await), "the other one's answer may take its time");
    wire.stream_waits(true);
    assert!(!wire.is_overdue(Instant::now()));
    assert!(!wire.is_overdue(after(59).await));
    wire.stream_moves();
    assert!(!wire.is_overdue(after(59).await));
    assert!(wire.is_overdue(after(60).await));
    wire.stream_waits(false);
    assert!(!wire.is_overdue(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_gives_up_what_it_asks_is_a_flood() {
    let wire = wire();
    let ends = |was_answered| {
        wire.request_begins();
        wire.request_ends(Instant::now(), was_answered);
    };
    for _ in 0..100 {
        ends(false);
        ends(true);
    }
    (0..100).for_each(|_| ends(true));
    ends(false);
    ends(false);
    assert_eq!(wire.told(), Told::Nothing, "two may be given up, whatever was before");
    ends(false);
    assert_eq!(wire.told(), Told::Flood);
}

#[tokio::test(start_paused = true)]
async fn the_watchdog_says_what_is_so_until_a_head_belies_it() {
    let (dog, wire) = (Watchdog::default(), Rc::new(wire()));
    dog.watch(&wire);
    assert_eq!(dog.look(Instant::now(), Stage::Serving), LONGEST_STEP);
    assert_eq!(wire.told(), Told::Nothing);
    dog.look(Instant::now(), Stage::Leaving);
    assert_eq!(wire.told(), Told::Leave);
    dog.look(Instant::now(), Stage::Stopping);
    assert_eq!(wire.told(), Told::Stop);
    dog.look(after(10).await, Stage::Stopping);
    assert_eq!(wire.told(), Told::Overdue);
    dog.look(Instant::now(), Stage::Serving);
    assert_eq!(wire.told(), Told::Overdue, "nothing else takes it back");
    wire.head_ends();
    assert_eq!(
        wire.told(),
        Told::Nothing,
        "its request is served, and its answer has its own time"
    );
    dog.look(Instant::now(), Stage::Stopping);
    assert_eq!(wire.told(), Told::Stop);
    drop(wire);
    dog.look(Instant::now(), Stage::Stopping);
    assert!(dog.wires.borrow().is_empty(), "who is gone is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_meets_the_end_of_its_connection_gets_its_whole_answer() {
    const LENGTH: usize = 100_000;
    let (wire, (mut client, io)) = (Rc::new(wire()), duplex(64));
    let service = tower::service_fn(|_request| async {
        Ok::<_, Infallible>(Response::new(Full::from("x".repeat(LENGTH))))
    });
    let terms = Terms { limits: limits(), refused: None };
    let serving = serve_plain(Stream::Memory(io), Rc::clone(&wire), terms, service);
    let asking = async {
        for told in [Told::Nothing, Told::Overdue] {
            // In one go: the connection's task finds both.
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            wire.tell(told);
            let mut answer = Vec::new();
            while answer.iter().filter(|byte| **byte == b'x').count() < LENGTH {
                assert!(client.read_buf(&mut answer).await.is_ok_and(|read| read > 0), "{told:?}");
            }
        }
    };
    tokio::select! {
        biased;
        () = asking => {}
        () = serving => panic!("it ended"),
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_another_process_takes_the_place_hears_it_at_once() {
    let (dog, (end, ending)) = (Rc::new(Watchdog::default()), watch::channel(Stage::Serving));
    let looking = Rc::clone(&dog);
    let comes = async {
        for (stage, told) in [(Stage::Serving, Told::Nothing), (Stage::Leaving, Told::Leave)] {
            end.send_replace(stage);
            tokio::task::yield_now().await;
            let wire = Rc::new(wire());
            dog.watch(&wire);
            assert_eq!(wire.told(), told);
        }
    };
    tokio::select! {
        biased;
        () = looking.run(ending) => {}
        () = comes => {}
    }
}
