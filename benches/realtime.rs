//! What a frame of realtime costs: one that needs no rewriting, a database change in the client's words, and a join.

#![expect(missing_docs, reason = "criterion's macro makes a public function without one")]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cutover::identify::{Identity, User};
use cutover::realtime::Settings;
use cutover::realtime::session::{Frame, Ground, Holder, Session, Version};
use cutover::rewrite::schema::{Entry, SchemaMap};
use cutover::side::Side;

/// Everybody is on new, all rooms are on new.
struct World {
    map: SchemaMap,
    settings: Settings,
}

impl Ground for World {
    fn holder(&mut self, _: &str) -> Holder {
        Holder::Token(Identity::User(User::plain("ada")))
    }

    fn side_of(&mut self, _: &Identity) -> Side {
        Side::New
    }

    fn rooms(&self) -> Side {
        self.settings.rooms
    }

    fn say_token(&mut self, _: &str, _: Side) -> Option<String> {
        None
    }

    fn map(&self) -> &SchemaMap {
        &self.map
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }
}

fn world() -> World {
    let entries: Vec<Entry> = (0..100)
        .map(|i| Entry {
            old: format!("table_{i}"),
            schema: format!("domain_{}", i % 11),
            name: Some(format!("renamed_{i}")),
            canonical: false,
        })
        .collect();
    World {
        map: SchemaMap::build("public", &entries, &[]).unwrap_or_default(),
        settings: Settings {
            rooms: Side::New,
            identify_timeout: Duration::from_secs(1),
            send_timeout: Duration::from_secs(1),
            channels: 100,
            bindings: 100,
            join_bytes: 16 * 1024,
        },
    }
}

const JOIN: &str = r#"["1","1","realtime:a","phx_join",{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"","enabled":false},"postgres_changes":[{"event":"*","schema":"public","table":"table_7","filter":"user_id=eq.7"},{"event":"INSERT","schema":"public","table":"table_8"}],"private":false},"access_token":"header.payload.signature"}]"#;
const REPLY: &str = r#"["1","1","realtime:a","phx_reply",{"status":"ok","response":{"postgres_changes":[{"id":11,"event":"*","schema":"domain_7","table":"renamed_7","filter":"user_id=eq.7"},{"id":12,"event":"INSERT","schema":"domain_8","table":"renamed_8"}]}}]"#;

fn frame(text: &str) -> Frame {
    Frame::Text(text.into())
}

fn realtime(c: &mut Criterion) {
    let mut world = world();
    let mut actions = Vec::new();
    let mut session = Session::new(Version::V2);
    session.from_client(frame(JOIN), &mut world, &mut actions);
    session.from_side(Side::New, frame(REPLY), &mut world, &mut actions);

    let filler = "x".repeat(900);
    let broadcast = frame(&format!(
        r#"[null,null,"realtime:a","broadcast",{{"type":"broadcast","event":"e","payload":{{"text":"{filler}"}}}}]"#
    ));
    let change = frame(&format!(
        r#"[null,null,"realtime:a","postgres_changes",{{"ids":[11],"data":{{"schema":"domain_7","table":"renamed_7","commit_timestamp":"2026-11-21T10:00:00Z","type":"INSERT","columns":[{{"name":"id","type":"int8"}}],"record":{{"id":7,"text":"{filler}"}},"errors":null}}}}]"#
    ));
    let mut group = c.benchmark_group("realtime");
    for (name, said) in [("as_it_is", &broadcast), ("change", &change)] {
        let Frame::Text(text) = said else { continue };
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                actions.clear();
                session.from_side(Side::New, black_box(said.clone()), &mut world, &mut actions);
                actions.len()
            });
        });
    }
    let join = frame(JOIN);
    group.throughput(Throughput::Elements(1));
    group.bench_function("join", |b| {
        b.iter(|| {
            actions.clear();
            let mut session = Session::new(Version::V2);
            session.from_client(black_box(join.clone()), &mut world, &mut actions);
            session.from_side(Side::New, frame(REPLY), &mut world, &mut actions);
            actions.len()
        });
    });
    group.finish();
}

criterion_group!(benches, realtime);
criterion_main!(benches);
