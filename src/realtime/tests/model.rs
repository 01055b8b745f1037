//! Two servers as realtime behaves (its `realtime_channel.ex`, `subscriptions.ex`, Phoenix' socket), a client as the SDKs behave,
//! and random scripts between them.

use std::collections::{HashMap, HashSet, VecDeque};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::fixture::{World, world};
use crate::realtime::session::{Action, Frame, Session, Version};
use crate::side::{Pair, Side};

/// One row's table in both dialects.
const TABLES: [(&str, &str, &str); 4] = [
    ("memory_entries", "security_service", "memory_entries"),
    ("vendor_api_keys", "vendors", "api_keys"),
    ("smart_home", "intelligence", "smart_home"),
    ("plain", "public", "plain"),
];
const USERS: [&str; 4] = ["u:ada", "u:bob", "old-anon", "u:eve"];
const TOPICS: [&str; 4] = ["realtime:a", "realtime:public:b", "realtime:bad", "realtime:c"];

fn bindings(choice: usize) -> Value {
    let table = |schema: &str, table: &str| json!({"event": "*", "schema": schema, "table": table});
    match choice % 7 {
        0 => json!([]),
        1 => json!([table("public", "memory_entries")]),
        2 => json!([table("public", "vendor_api_keys"), table("vendors", "api_keys")]),
        3 => json!([{"event": "*", "schema": "public"}, table("public", "memory_entries")]),
        4 => json!([table("vendors", "*"), table("public", "plain")]),
        5 => json!([{"event": "INSERT", "schema": "*"}, table("intelligence", "smart_home")]),
        _ => {
            json!([table("*", "vendor_api_keys"), {"event": "*", "schema": "public", "table": "*"}])
        }
    }
}

/// A frame as a value, whatever the version.
fn read(version: Version, text: &str) -> (Value, Value, String, String, Value) {
    let value: Value = serde_json::from_str(text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    match version {
        Version::V1 => (
            value["join_ref"].clone(),
            value["ref"].clone(),
            text(&value["topic"]),
            text(&value["event"]),
            value["payload"].clone(),
        ),
        Version::V2 => {
            (value[0].clone(), value[1].clone(), text(&value[2]), text(&value[3]), value[4].clone())
        }
    }
}

/// `down`: vsn 1.0.0 has no `join_ref` in what the server says.
fn write(version: Version, down: bool, parts: (Value, Value, &str, &str, Value)) -> String {
    let (join_ref, reference, topic, event, payload) = parts;
    match version {
        Version::V2 => json!([join_ref, reference, topic, event, payload]).to_string(),
        Version::V1 if down => {
            json!({"topic": topic, "event": event, "payload": payload, "ref": reference})
                .to_string()
        }
        Version::V1 => json!({"topic": topic, "event": event, "payload": payload,
            "ref": reference, "join_ref": join_ref})
        .to_string(),
    }
}

struct Joined {
    join_ref: Value,
    /// Schema, table, id.
    changes: Vec<(String, String, u64)>,
}

struct Server {
    version: Version,
    side: Side,
    is_rooms: bool,
    channels: HashMap<String, Joined>,
    said: VecDeque<String>,
}

impl Server {
    fn say(
        &mut self,
        join_ref: &Value,
        reference: Value,
        topic: &str,
        event: &str,
        payload: Value,
    ) {
        let parts = (join_ref.clone(), reference, topic, event, payload);
        self.said.push_back(write(self.version, true, parts));
    }

    fn reply(
        &mut self,
        join_ref: &Value,
        reference: Value,
        topic: &str,
        status: &str,
        body: Value,
    ) {
        let payload = json!({"status": status, "response": body});
        self.say(join_ref, reference, topic, "phx_reply", payload);
    }

    fn hear(&mut self, text: &str) {
        let (join_ref, reference, topic, event, payload) = read(self.version, text);
        if topic == "phoenix" {
            return self.reply(&Value::Null, reference, &topic, "ok", json!({}));
        }
        if event == "phx_join" {
            return self.join(join_ref, reference, &topic, &payload);
        }
        let Some(joined) = self.channels.get(&topic) else {
            let ok = event == "phx_leave";
            let (status, body) = if ok {
                ("ok", json!({}))
            } else {
                ("error", json!({"reason": "unmatched topic"}))
            };
            return self.reply(&join_ref, reference, &topic, status, body);
        };
        let joined_ref = joined.join_ref.clone();
        match event.as_str() {
            // "The client has raced a server close": no answer.
            "phx_leave" if joined_ref != join_ref => {}
            "phx_leave" => {
                self.channels.remove(&topic);
                self.reply(&joined_ref, reference, &topic, "ok", json!({}));
                self.say(&joined_ref, joined_ref.clone(), &topic, "phx_close", json!({}));
            }
            "presence" | "broadcast" => {
                assert!(self.is_rooms, "a room on two sides: {text}");
                self.reply(&joined_ref, reference, &topic, "ok", json!({}));
            }
            "access_token" => {}
            _ => panic!("{text}"),
        }
    }

    /// Phoenix' socket sends itself the closing of the join that a second one replaces: it comes behind the answer to the second.
    fn join(&mut self, join_ref: Value, reference: Value, topic: &str, payload: &Value) {
        let before = self.channels.remove(topic);
        let answer = self.said.len();
        self.join_new(join_ref, reference, topic, payload);
        if let Some(before) = before {
            let behind: Vec<String> = self.said.drain(answer + 1..).collect();
            self.say(&before.join_ref, before.join_ref.clone(), topic, "phx_close", json!({}));
            self.said.extend(behind);
        }
    }

    fn join_new(&mut self, join_ref: Value, reference: Value, topic: &str, payload: &Value) {
        if topic == "realtime:bad" {
            let body = json!({"reason": "Unauthorized: no"});
            return self.reply(&join_ref, reference, topic, "error", body);
        }
        let config = &payload["config"];
        if !self.is_rooms {
            assert_eq!(config["presence"]["enabled"], json!(false), "present on two sides");
            assert_eq!(config["broadcast"]["self"], json!(false));
        }
        let asked = config["postgres_changes"].as_array().unwrap();
        let mut list = Vec::new();
        let mut changes = Vec::new();
        for asked in asked {
            let text = |name: &str| asked[name].as_str().unwrap_or("*").to_owned();
            // Deterministic, so equal bindings share an id.
            let id = asked.to_string().bytes().fold(7_u64, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u64::from(byte)) % 134_217_728
            });
            let (schema, table) = (text("schema"), text("table"));
            assert!(self.has(&schema, &table), "nothing is found, and all bindings fail: {asked}");
            changes.push((schema, table, id));
            let mut listed = asked.clone();
            listed["id"] = json!(id);
            list.push(listed);
        }
        let any = !changes.is_empty();
        self.channels.insert(topic.to_owned(), Joined { join_ref: join_ref.clone(), changes });
        self.reply(&join_ref, reference, topic, "ok", json!({"postgres_changes": list}));
        if any {
            let system = json!({"extension": "postgres_changes", "status": "ok",
                "message": "Subscribed to PostgreSQL", "channel": topic});
            self.say(&join_ref, Value::Null, topic, "system", system);
        }
    }

    /// Whether a published table is found.
    fn has(&self, schema: &str, table: &str) -> bool {
        let is = |pattern: &str, text: &str| pattern == "*" || pattern == text;
        let here = TABLES.iter().map(|(old, new_schema, name)| match self.side {
            Side::Old => ("public", *old),
            Side::New => (*new_schema, *name),
        });
        here.into_iter().any(|here| is(schema, here.0) && is(table, here.1))
    }

    fn change(&mut self, schema: &str, table: &str) {
        let mut said = Vec::new();
        for (topic, joined) in &self.channels {
            let like = |pattern: &str, text: &str| pattern == "*" || pattern == text;
            let heard = joined.changes.iter().filter(|(s, t, _)| like(s, schema) && like(t, table));
            let ids: Vec<u64> = heard.map(|(_, _, id)| *id).collect();
            if !ids.is_empty() {
                let data = json!({"schema": schema, "table": table, "type": "INSERT"});
                said.push((topic.clone(), json!({"ids": ids, "data": data})));
            }
        }
        for (topic, payload) in said {
            self.say(&Value::Null, Value::Null, &topic, "postgres_changes", payload);
        }
    }
}

/// What the client knows of a channel.
struct Wanted {
    join_ref: String,
    user: usize,
    asked: Value,
    /// The list of the ok reply.
    joined: Option<Value>,
}

struct Play {
    version: Version,
    session: Session,
    world: World,
    servers: Pair<Server>,
    open: Pair<bool>,
    wanted: HashMap<String, Wanted>,
    replies: HashMap<String, usize>,
    asked: HashSet<String>,
    /// The leave of each join that was left, both by their refs.
    leaves: HashMap<String, String>,
    closed: HashSet<String>,
    heard: Vec<(String, Value)>,
    next: u32,
}

#[derive(Clone, Debug)]
enum Step {
    Join(usize, usize, usize),
    Leave(usize),
    /// A leave of an earlier join: the server does not answer it.
    LateLeave(usize),
    Token(usize, usize),
    Presence(usize),
    Beat,
    Deliver(bool, u8),
    Change(usize),
}

impl Play {
    fn new(version: Version, rooms: Side) -> Self {
        let server = |side| Server {
            version,
            side,
            is_rooms: side == rooms,
            channels: HashMap::new(),
            said: VecDeque::new(),
        };
        let mut world = world();
        world.settings.rooms = rooms;
        Self {
            version,
            session: Session::new(version),
            world,
            servers: Pair::from_fn(server),
            open: Pair::default(),
            wanted: HashMap::new(),
            replies: HashMap::new(),
            asked: HashSet::new(),
            leaves: HashMap::new(),
            closed: HashSet::new(),
            heard: Vec::new(),
            next: 0,
        }
    }

    fn do_all(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Open(side) => {
                    assert!(!std::mem::replace(&mut self.open[side], true), "opened twice");
                }
                Action::ToSide(side, Frame::Text(text)) => {
                    assert!(self.open[side], "said to a closed side");
                    self.servers[side].hear(&text);
                }
                Action::ToClient(Frame::Text(text)) => self.client_hears(&text),
                Action::Shut(side) => {
                    assert!(std::mem::replace(&mut self.open[side], false));
                    assert!(self.servers[side].channels.is_empty(), "shut with channels");
                    self.servers[side].said.clear();
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(self.session.channels.len() <= self.world.settings.channels);
    }

    fn client_hears(&mut self, text: &str) {
        let (join_ref, reference, topic, event, payload) = read(self.version, text);
        let reference = reference.as_str().map(str::to_owned);
        match event.as_str() {
            "phx_reply" => {
                let reference = reference.unwrap();
                assert!(self.asked.contains(&reference), "nobody asked: {text}");
                *self.replies.entry(reference.clone()).or_default() += 1;
                if let Some(wanted) = self.wanted.get_mut(&topic)
                    && wanted.join_ref == reference
                {
                    if payload["status"] == "ok" {
                        wanted.joined = Some(payload["response"]["postgres_changes"].clone());
                    } else {
                        self.wanted.remove(&topic);
                    }
                }
            }
            "phx_close" | "phx_error" => {
                let of = join_ref.as_str().map(str::to_owned).or(reference);
                let current = self.wanted.get(&topic).map(|wanted| wanted.join_ref.clone());
                assert_ne!(of, current, "closed while wanted: {text}");
                let of = of.unwrap();
                if let Some(leave) = self.leaves.get(&of) {
                    assert!(self.replies.contains_key(leave), "closed before the answer: {text}");
                }
                assert!(self.closed.insert(of), "closed twice: {text}");
            }
            "postgres_changes" => self.heard.push((topic, payload)),
            _ => {}
        }
    }

    fn say(&mut self, topic: &str, event: &str, payload: Value) -> String {
        self.next += 1;
        let reference = self.next.to_string();
        let joined = self.wanted.get(topic).map(|wanted| json!(wanted.join_ref));
        let join_ref =
            if event == "phx_join" { json!(reference) } else { joined.unwrap_or(Value::Null) };
        if event != "access_token" {
            self.asked.insert(reference.clone());
        }
        if event == "phx_join" {
            let wanted =
                Wanted { join_ref: reference.clone(), user: 0, asked: Value::Null, joined: None };
            self.wanted.insert(topic.to_owned(), wanted);
        }
        if event == "phx_leave"
            && let Some(left) = self.wanted.remove(topic)
        {
            self.leaves.insert(left.join_ref, reference.clone());
        }
        let parts = (join_ref, json!(reference), topic, event, payload);
        self.send(&write(self.version, false, parts));
        reference
    }

    fn send(&mut self, text: &str) {
        let mut actions = Vec::new();
        self.session.from_client(Frame::Text(text.into()), &mut self.world, &mut actions);
        self.do_all(actions);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Join(topic, user, choice) => {
                let (topic, list) = (TOPICS[*topic], bindings(*choice));
                let payload = json!({"config": {"broadcast": {"ack": true, "self": true},
                    "presence": {"key": "", "enabled": true}, "postgres_changes": list,
                    "private": false}, "access_token": USERS[*user]});
                self.say(topic, "phx_join", payload);
                if let Some(wanted) = self.wanted.get_mut(topic) {
                    (wanted.user, wanted.asked) = (*user, list);
                }
            }
            Step::Leave(topic) => {
                self.say(TOPICS[*topic], "phx_leave", json!({}));
            }
            Step::LateLeave(topic) => {
                let joined =
                    self.wanted.get(TOPICS[*topic]).is_some_and(|one| one.joined.is_some());
                if joined {
                    let reference = json!("late");
                    let parts = (reference.clone(), reference, TOPICS[*topic], "phx_leave");
                    let (join_ref, reference, topic, event) = parts;
                    let parts = (join_ref, reference, topic, event, json!({}));
                    self.send(&write(self.version, false, parts));
                }
            }
            Step::Token(topic, user) => {
                let topic = TOPICS[*topic];
                // SDKs send it on joined channels only.
                let joined = self.wanted.get_mut(topic).filter(|wanted| wanted.joined.is_some());
                if let Some(wanted) = joined {
                    wanted.user = *user;
                    self.say(topic, "access_token", json!({"access_token": USERS[*user]}));
                }
            }
            Step::Presence(topic) => {
                let payload = json!({"type": "presence", "event": "track", "payload": {"n": 1}});
                self.say(TOPICS[*topic], "presence", payload);
            }
            Step::Beat => {
                self.say("phoenix", "heartbeat", json!({}));
            }
            Step::Deliver(new, count) => {
                let side = if *new { Side::New } else { Side::Old };
                for _ in 0..*count {
                    self.deliver(side);
                }
            }
            Step::Change(row) => self.change(*row),
        }
    }

    fn deliver(&mut self, side: Side) -> bool {
        let Some(text) = self.servers[side].said.pop_front() else { return false };
        let mut actions = Vec::new();
        self.session.from_side(side, Frame::Text(text.into()), &mut self.world, &mut actions);
        self.do_all(actions);
        true
    }

    fn deliver_all(&mut self) {
        while self.deliver(Side::Old) || self.deliver(Side::New) {}
    }

    fn change(&mut self, row: usize) {
        let (old, schema, name) = TABLES[row];
        self.servers.old.change("public", old);
        self.servers.new.change(schema, name);
    }

    /// What a channel hears of a row: wording and ids, asked of the client's bindings alone.
    fn expected(wanted: &Wanted, row: usize) -> Vec<((String, String), HashSet<u64>)> {
        let (old, new_schema, new_name) = TABLES[row];
        let mut heard: Vec<((String, String), HashSet<u64>)> = Vec::new();
        let joined = wanted.joined.as_ref().unwrap().as_array().unwrap();
        for (asked, listed) in wanted.asked.as_array().unwrap().iter().zip(joined) {
            let text = |name: &str| asked[name].as_str().unwrap_or("*").to_owned();
            let (schema, table) = (text("schema"), text("table"));
            let is =
                |s: &str, t: &str| (schema == "*" || schema == s) && (table == "*" || table == t);
            let words = if is("public", old) {
                ("public".to_owned(), old.to_owned())
            } else if schema != "*" && is(new_schema, new_name) {
                (new_schema.to_owned(), new_name.to_owned())
            } else {
                continue;
            };
            let id = listed["id"].as_u64().unwrap();
            match heard.iter_mut().find(|(known, _)| *known == words) {
                Some((_, ids)) => {
                    ids.insert(id);
                }
                None => heard.push((words, [id].into())),
            }
        }
        heard
    }

    fn check(&mut self) {
        self.deliver_all();
        for reference in &self.asked {
            assert_eq!(self.replies.get(reference), Some(&1), "answers to {reference}");
        }
        for (topic, wanted) in &self.wanted {
            let listed = wanted.joined.as_ref().unwrap_or_else(|| panic!("{topic} was not joined"));
            let mut plain = listed.clone();
            for entry in plain.as_array_mut().unwrap() {
                entry.as_object_mut().unwrap().remove("id");
            }
            assert_eq!(plain, wanted.asked, "the reply lists what was asked");
        }
        assert!(!self.session.has_to_move(&mut self.world));
        for row in 0..TABLES.len() {
            self.heard.clear();
            self.change(row);
            self.deliver_all();
            for (topic, wanted) in &self.wanted {
                let mut expected = Self::expected(wanted, row);
                for (_, payload) in self.heard.iter().filter(|(heard, _)| heard == topic) {
                    let word = |name: &str| payload["data"][name].as_str().unwrap().to_owned();
                    let words = (word("schema"), word("table"));
                    let ids = payload["ids"].as_array().unwrap().iter();
                    let ids: HashSet<u64> = ids.map(|id| id.as_u64().unwrap()).collect();
                    let at =
                        expected.iter().position(|known| *known == (words.clone(), ids.clone()));
                    let at = at.unwrap_or_else(|| panic!("{topic} did not ask for {payload}"));
                    expected.remove(at);
                }
                assert!(expected.is_empty(), "{topic} did not hear {expected:?}");
            }
        }
        // Nothing is kept of what is over.
        let topics: Vec<String> = self.wanted.keys().cloned().collect();
        for topic in topics {
            self.say(&topic, "phx_leave", json!({}));
        }
        self.deliver_all();
        assert!(self.session.channels.is_empty());
        // `OPENINGS` are more than a script of this length can need.
        assert!(!(self.open.old && self.open.new), "one side is shut");
    }
}

fn step() -> impl Strategy<Value = Step> {
    let topic = 0..TOPICS.len();
    let user = 0..USERS.len();
    prop_oneof![
        3 => (topic.clone(), user.clone(), 0..7_usize).prop_map(|(t, u, b)| Step::Join(t, u, b)),
        1 => topic.clone().prop_map(Step::Leave),
        1 => topic.clone().prop_map(Step::LateLeave),
        3 => (topic.clone(), user).prop_map(|(t, u)| Step::Token(t, u)),
        1 => topic.prop_map(Step::Presence),
        1 => Just(Step::Beat),
        5 => (any::<bool>(), 1..6_u8).prop_map(|(new, count)| Step::Deliver(new, count)),
        1 => (0..TABLES.len()).prop_map(Step::Change),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every request gets exactly one reply, no room is on two sides, changes reach exactly the bindings that asked.
    #[test]
    fn a_socket_keeps_its_promises(
        v2 in any::<bool>(),
        rooms_on_new in any::<bool>(),
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let rooms = if rooms_on_new { Side::New } else { Side::Old };
        let mut play = Play::new(version, rooms);
        for step in &steps {
            play.step(step);
        }
        play.check();
    }
}
