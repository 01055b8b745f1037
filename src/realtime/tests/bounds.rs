//! What a socket keeps, and how often it dials, whoever is at its other end.

use super::fixture::{Socket, socket};
use crate::realtime::session::{Frame, Version, tokens_in};
use crate::side::Side;

const KEYS: &str = r#"{"event":"*","schema":"public","table":"vendor_api_keys"}"#;
const KEYS_NEW: &str = r#"{"event":"*","schema":"vendors","table":"api_keys","id":60}"#;

fn frame(version: Version, reference: &str, topic: &str, event: &str, payload: &str) -> String {
    match version {
        Version::V2 => format!(r#"["{reference}","{reference}","{topic}","{event}",{payload}]"#),
        Version::V1 => format!(
            r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":"{reference}","join_ref":"{reference}"}}"#
        ),
    }
}

/// A join of so many bytes.
fn join_of(version: Version, bytes: usize, topic: &str) -> String {
    let payload = |pad: usize| {
        let pad = "x".repeat(pad);
        format!(
            r#"{{"config":{{"postgres_changes":[{KEYS}]}},"access_token":"u:ada","p":"{pad}"}}"#
        )
    };
    let short = frame(version, "1", topic, "phx_join", &payload(0)).len();
    frame(version, "1", topic, "phx_join", &payload(bytes - short))
}

fn reply(reference: &str, topic: &str, list: &str) -> String {
    let payload = format!(r#"{{"status":"ok","response":{{"postgres_changes":[{list}]}}}}"#);
    frame(Version::V2, reference, topic, "phx_reply", &payload)
}

/// 16 KiB for each of the four channels that are allowed: one may be long, if the others are short.
#[test]
fn what_is_kept_of_joins_is_bounded_in_both_versions() {
    const ALL: usize = 4 * 16 * 1024;
    for version in [Version::V1, Version::V2] {
        for (second, allowed) in [(1000, true), (1001, false)] {
            let mut socket = socket(version);
            let first = socket.client(&join_of(version, ALL - 1000, "realtime:a"));
            assert!(first[0].starts_with("open "), "{}", first[0]);
            let actions = socket.client(&join_of(version, second, "realtime:b"));
            assert_eq!(!actions[0].contains("\"error\""), allowed, "{}", actions[0]);
            // What it replaces does not count.
            let again = socket.client(&join_of(version, ALL - 1000, "realtime:a"));
            assert!(again.iter().all(|action| !action.contains("\"error\"")));
        }
        let mut socket = socket(version);
        let actions = socket.client(&join_of(version, ALL + 1, "realtime:a"));
        assert!(actions[0].contains("InvalidJoinPayload"), "{}", &actions[0][..200]);
    }
}

/// A slice of a read buffer would keep all of the buffer, which a large message before it may have made as large.
#[test]
fn what_is_kept_holds_no_read_buffer() {
    let mut socket = socket(Version::V2);
    let bytes = tungstenite::Bytes::from(join_of(Version::V2, 500, "realtime:a"));
    let mut actions = Vec::new();
    let text = tungstenite::Utf8Bytes::try_from(bytes.clone()).unwrap();
    socket.session.from_client(Frame::Text(text), &mut socket.world, &mut actions);
    actions.clear();
    assert!(bytes.is_unique(), "the session keeps the buffer");
}

#[test]
fn a_token_too_long_for_any_server_is_not_kept_and_decides_nothing() {
    for (bytes, is_kept) in [(16 * 1024, true), (16 * 1024 + 1, false)] {
        let mut socket = socket(Version::V2);
        socket.client(&join_of(Version::V2, 500, "realtime:a").replace("u:ada", "u:bob"));
        let list = KEYS.replace('}', ",\"id\":5}");
        socket.old_says(&reply("1", "realtime:a", &list));
        let token = format!("u:ada@{}", "x".repeat(bytes - 6));
        let payload = format!(r#"{{"access_token":"{token}"}}"#);
        let said = frame(Version::V2, "1", "realtime:a", "access_token", &payload);
        let actions = socket.client(&said);
        assert_eq!(actions[0], format!("old < {said}"));
        assert_eq!(actions.len() > 1, is_kept);
    }
}

#[test]
fn requests_with_refs_and_topics_without_end_are_not_remembered() {
    for (bytes, is_remembered) in [(1024, true), (1025, false)] {
        let mut socket = socket(Version::V2);
        socket.client(&join_of(Version::V2, 500, "realtime:a"));
        let reference = "1".repeat(bytes - "phoenix".len());
        let beat = frame(Version::V2, &reference, "phoenix", "heartbeat", "{}");
        assert_eq!(socket.client(&beat).len(), 2);
        let answer = frame(Version::V2, &reference, "phoenix", "phx_reply", "{}");
        assert_eq!(socket.old_says(&answer).is_empty(), is_remembered);
    }
}

/// Joins and leaves a channel that needs both sides, as an app that goes from page to page.
fn come_and_go(socket: &mut Socket) -> Vec<String> {
    let mut done = socket.client(&join_of(Version::V2, 500, "realtime:a"));
    done.extend(socket.old_says(&reply("1", "realtime:a", "")));
    done.extend(socket.new_says(&reply("1", "realtime:a", KEYS_NEW)));
    let left = socket.client(&frame(Version::V2, "1", "realtime:a", "phx_leave", "{}"));
    let ours = left[0].split('"').nth(3).unwrap().to_owned();
    done.extend(left);
    done.extend(socket.old_says(&reply("1", "realtime:a", "")));
    done.extend(socket.new_says(&reply(&ours, "realtime:a", "")));
    done
}

#[test]
fn a_storm_of_joins_and_leaves_dials_a_side_so_many_times_and_no_more() {
    let mut socket = socket(Version::V2);
    let done: Vec<String> = (0..50).flat_map(|_| come_and_go(&mut socket)).collect();
    let count = |what: &str| done.iter().filter(|action| *action == what).count();
    assert_eq!((count("open old"), count("open new"), count("shut new")), (1, 8, 7));
}

/// Phoenix answers a join before it says anything else of the channel; with two sides one may be faster than the other.
#[test]
fn nothing_of_a_channel_is_told_before_its_join_is_answered() {
    let state = frame(Version::V2, "1", "realtime:a", "presence_state", "{}");
    let payload = r#"{"extension":"postgres_changes","status":"ok","message":"Subscribed"}"#;
    let system = frame(Version::V2, "1", "realtime:a", "system", payload);
    for first in [Side::Old, Side::New] {
        let mut socket = socket(Version::V2);
        socket.client(&join_of(Version::V2, 500, "realtime:a"));
        let list = |side| if side == Side::New { KEYS_NEW } else { "" };
        assert!(socket.side(first, &reply("1", "realtime:a", list(first))).is_empty());
        let early = if first == Side::New { &system } else { &state };
        assert!(socket.side(first, early).is_empty());
        let told = socket.side(first.other(), &reply("1", "realtime:a", list(first.other())));
        assert!(told[0].contains("phx_reply"));
        assert_eq!(told[1..], [format!("client < {early}")]);
    }
}

/// Order is worth less than memory: more than 256 KiB are told at once.
#[test]
fn what_waits_for_the_answer_to_a_join_is_bounded() {
    let mut socket = socket(Version::V2);
    socket.client(&join_of(Version::V2, 500, "realtime:a"));
    socket.old_says(&reply("1", "realtime:a", ""));
    let of = |bytes: usize| {
        let payload = |pad: usize| format!(r#""{}""#, "x".repeat(pad));
        let short = frame(Version::V2, "1", "realtime:a", "broadcast", &payload(0)).len();
        frame(Version::V2, "1", "realtime:a", "broadcast", &payload(bytes - short))
    };
    assert!(socket.old_says(&of(100)).is_empty());
    assert!(socket.old_says(&of(256 * 1024 - 100)).is_empty());
    assert_eq!(socket.old_says(&of(100)).len(), 3);
    for _ in 0..256 {
        assert!(socket.old_says(&of(100)).is_empty());
    }
    assert_eq!(socket.old_says(&of(100)).len(), 257);
}

#[test]
fn the_reason_of_a_channels_end_is_heard_from_the_side_that_ends_it() {
    let mut socket = socket(Version::V2);
    socket.client(&join_of(Version::V2, 500, "realtime:a"));
    socket.old_says(&reply("1", "realtime:a", ""));
    socket.new_says(&reply("1", "realtime:a", KEYS_NEW));
    let payload = r#"{"extension":"system","status":"error","message":"Token has expired"}"#;
    let system = frame(Version::V2, "1", "realtime:a", "system", payload);
    assert_eq!(socket.new_says(&system), [format!("client < {system}")]);
}

#[test]
fn tokens_are_found_in_both_versions_and_only_where_they_count() {
    let both = r#"{"access_token":"t","user_token":"u"}"#;
    for (event, payload, want) in [
        ("phx_join", r#"{"access_token":"t"}"#, &["t"][..]),
        ("phx_join", both, &["u", "t"]),
        ("phx_join", r#"{"access_token":null}"#, &[]),
        ("phx_join", r#"{"access_\u0074oken":"t","p":"_token"}"#, &["t"]),
        ("phx_join", "{}", &[]),
        ("access_token", r#"{"access_token":"t"}"#, &["t"]),
        ("access_token", "7", &[]),
        ("broadcast", both, &[]),
    ] {
        for version in [Version::V1, Version::V2] {
            let text = frame(version, "1", "realtime:a", event, payload);
            assert_eq!(tokens_in(version, &text), want, "{text}");
        }
    }
    let text = frame(Version::V1, "1", "realtime:a", "phx_join", both);
    assert!(tokens_in(Version::V2, &text).is_empty());
}
