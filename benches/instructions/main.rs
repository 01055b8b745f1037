//! What the pure half of a request costs, in instructions and in allocations. `run.py` runs this below callgrind, which counts what
//! happens in [`measured`] and nothing else; `--time` says nanoseconds instead.
//!
//! The request is the one of the side-by-side bench: a browser's GET of a table, with a user's token of about 800 bytes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench: whatever fails ends it, and printing is its purpose"
)]

mod requests;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use cutover::accept::framing;
use cutover::decide::bucket::{Bucket, Hash};
use cutover::decide::{Belongs, Question, decide};
use cutover::identify::cache::TokenCache;
use cutover::identify::claims::Wanted;
use cutover::identify::credentials::Credentials;
use cutover::identify::{Identity, User, identify};
use cutover::path::pure::walk;
use cutover::restore::cors;
use cutover::restore::headers::{PublicName, restore_cookies, restore_location};
use cutover::rewrite::headers::{ClientFacts, prepare, request_id, strip_hop_by_hop};
use cutover::rewrite::keys::{KeyPlaces, swap};
use cutover::rewrite::rest;
use cutover::route::Route;
use cutover::side::Side;
use cutover::snapshot::Snapshot;
use cutover::tokens::{Published, exchange};
use http::{HeaderMap, Method, Request};
use requests::{NOW, USER, fields, get, settings, token};

const PLAIN: &str = "select=*&order=created_at.desc&limit=20";
const EMBEDS: &str = "select=id,name,table_3(id,label,table_4!inner(*)),k:table_5(created_at)\
                                 &table_3.order=label.asc&k.id=eq.4&order=created_at.desc&limit=20";
/// How often each case runs. Shared by its counts, so that what happens once in a while has its share.
const TIMES: usize = 64;
/// How often, when it is timed.
const TIMED: usize = 20_000;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Runs a case. One function for all of them, and never a part of another, so that callgrind can tell it from what makes the inputs and
/// drops the answers.
#[inline(never)]
fn measured(case: &mut dyn FnMut()) {
    case();
}

/// Runs cases one after the other.
struct Bench {
    is_timed: bool,
    only: Option<String>,
}

impl Bench {
    /// One case: how an input is made, and what is done with it.
    fn case<I, O>(&self, name: &str, make: impl Fn(usize) -> I, mut case: impl FnMut(I) -> O) {
        if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            return;
        }
        // What is made once is nobody's.
        for n in 0..8 {
            black_box(case(make(n)));
        }
        let (times, rounds) = if self.is_timed { (TIMES, TIMED / TIMES) } else { (TIMES, 1) };
        let mut best = f64::MAX;
        for round in 1..=rounds {
            let inputs: Vec<I> = (0..times).map(|n| make(8 + round * times + n)).collect();
            let mut answers = Vec::with_capacity(times);
            let begun = Instant::now();
            let mut inputs = inputs.into_iter();
            measured(&mut || {
                inputs.by_ref().for_each(|input| answers.push(case(black_box(input))))
            });
            best = best.min(begun.elapsed().as_nanos() as f64 / times as f64);
            drop(black_box(answers));
        }
        match self.is_timed {
            true => println!("{name} {best:.0} ns"),
            false => println!("{name} {TIMES}"),
        }
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).peekable();
    let is_timed = arguments.next_if_eq("--time").is_some();
    let bench = Bench { is_timed, only: arguments.next() };
    parts(&bench);
    rewriting(&bench);
    whole(&bench);
}

/// Each phase by itself.
fn parts(bench: &Bench) {
    let new = settings(100, 10, 0);
    let request = get(&token(0));
    let head = requests::head(&token(0));
    bench.case("framing", |_| (), |()| framing::head(head.as_bytes(), 0));
    bench.case("route", |_| (), |()| Route::of(black_box(request.uri().path())));
    let cache = TokenCache::new(1000);
    bench.case("identify_cached", |_| (), |()| identified(&request, &new, &cache));
    let cache = TokenCache::new(50_000);
    bench.case(
        "identify_new",
        |n| get(&token(n)),
        |request| (identified(&request, &new, &cache), request),
    );
    bench.case("bucket_sha256", |_| (), |()| Bucket::of(Hash::Sha256, "cutover", black_box(USER)));
    for (name, percentage, pins) in [("decide", 50, 0), ("decide_10000_pins", 1, 10_000)] {
        let snapshot = settings(percentage, 10, pins);
        let identity = Identity::User(User::plain(USER));
        let question = Question {
            identity: &identity,
            route: Route::Rest,
            belongs: Belongs::ToRoute,
            domain: None,
            override_ask: None,
            client: PEER,
            random: 0,
        };
        bench.case(name, |_| (), |()| decide(black_box(&question), &snapshot.decide));
    }
    let exchanged = requests::exchanged();
    let published = Published::default();
    bench.case("exchange_hs256", requests::signed, |token| {
        (exchange(&exchanged, &published, &token, Side::New, NOW), token)
    });
}

/// Phase 2 as the path does it.
fn identified(request: &Request<()>, snapshot: &Snapshot, cache: &TokenCache) -> Identity {
    let (headers, query) = (request.headers(), request.uri().query());
    let credentials = Credentials::of(headers, query, &snapshot.keyring);
    let mut read = |token: &str| cache.read(token, &Wanted::default());
    identify(headers, query, &credentials, &snapshot.identify, &snapshot.keyring, &mut read)
}

/// Phases 4 and 6, in parts.
fn rewriting(bench: &Bench) {
    let new = settings(100, 10, 0);
    let request = get(&token(0));
    let headers = |_| request.headers().clone();
    let client = ClientFacts { address: PEER, is_secure: false };
    bench.case("prepare", headers, |mut headers| {
        prepare(&mut headers, Route::Rest, client, false);
        headers
    });
    let places = KeyPlaces::of(&Credentials::of(request.headers(), None, &new.keyring));
    bench.case("keys", headers, |mut headers| {
        let swapped = swap(&mut headers, request.uri().query(), places, &new.keyring, Side::New);
        (swapped.unwrap(), headers)
    });
    bench.case("request_id", |_| (), |()| request_id(request.headers(), black_box(7)));
    let many = settings(100, 10_000, 0);
    for (name, snapshot, query, side) in [
        ("rest_untouched", &new, PLAIN, Side::Old),
        ("rest_plain", &new, PLAIN, Side::New),
        ("rest_plain_10000_tables", &many, PLAIN, Side::New),
        ("rest_embeds", &new, EMBEDS, Side::New),
    ] {
        bench.case(name, |_| (), |()| translated(snapshot, query, side));
    }
    let sent = walk(&new, &TokenCache::new(10), PEER, get(&token(0)), 7).unwrap();
    let public = public();
    bench.case(
        "restore",
        |_| answer(),
        |mut headers: HeaderMap| {
            strip_hop_by_hop(&mut headers);
            restore_location(&mut headers, &new.forward.projects.new.authority, &public);
            restore_cookies(&mut headers);
            sent.restore(&mut headers);
            cors::apply(&new.restore.cors, request.headers().get("origin"), &mut headers);
            headers
        },
    );
}

fn translated(snapshot: &Snapshot, query: &str, side: Side) -> rest::Translated {
    let headers = HeaderMap::new();
    let tail = "/memory_entries";
    let asked = rest::Asked { method: &Method::GET, tail, query: Some(query), headers: &headers };
    let resource = rest::resolve(&snapshot.rewrite, black_box(&asked));
    rest::translate(&snapshot.rewrite, &resource, &asked, side).unwrap()
}

/// Identify, decide and rewrite in one.
fn whole(bench: &Bench) {
    for (name, percentage, tables, pins) in [
        ("request_to_old", 0, 10, 0),
        ("request_to_new", 100, 10, 0),
        ("request_to_new_10000_tables_pins", 100, 10_000, 10_000),
    ] {
        let snapshot = settings(percentage, tables, pins);
        let cache = TokenCache::new(1000);
        bench.case(
            name,
            |_| get(&token(0)),
            |request| walk(&snapshot, &cache, PEER, request, black_box(7)).unwrap(),
        );
    }
    let (snapshot, cache) = (settings(100, 10, 0), TokenCache::new(1000));
    bench.case(
        "object_to_new",
        |_| requests::object(&token(0)),
        |request| walk(&snapshot, &cache, PEER, request, black_box(7)).unwrap(),
    );
}

/// The headers of an answer of PostgREST behind its gateway.
fn answer() -> HeaderMap {
    fields(
        "Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json; charset=utf-8\r\n\
         Content-Length: 1024\r\nConnection: keep-alive\r\nContent-Range: 0-19/*\r\n\
         Content-Location: /memory_entries?limit=20&order=created_at.desc&select=%2A\r\n\
         Content-Profile: security_service\r\nServer: cloudflare\r\nCF-Ray: 8f14e45fceea467f-FRA\r\n\
         sb-gateway-version: 1\r\nsb-project-ref: newnewnewnewnewnewne\r\nAccess-Control-Allow-Origin: *\r\n\
         Vary: Accept-Encoding\r\nStrict-Transport-Security: max-age=31536000; includeSubDomains; preload\r\n",
    )
}

/// How the client reached the proxy.
fn public() -> PublicName {
    PublicName { authority: "api.example.test".parse().ok(), is_secure: false }
}
