//! Channels that change hands, channels of the old API, refusals, limits.

use super::fixture::{Socket, socket};
use crate::realtime::session::Version;
use crate::rewrite::schema::SchemaMap;
use crate::side::Side;

fn join(topic: &str, reference: u32, bindings: &str, token: &str) -> String {
    format!(
        r#"["{reference}","{reference}","{topic}","phx_join",{{"config":{{"broadcast":{{"ack":false,"self":false}},"presence":{{"key":"","enabled":false}},"postgres_changes":[{bindings}],"private":false}},"access_token":"{token}"}}]"#
    )
}

fn ok(join_ref: &str, reference: &str, topic: &str, list: &str) -> String {
    format!(
        r#"["{join_ref}","{reference}","{topic}","phx_reply",{{"status":"ok","response":{{"postgres_changes":[{list}]}}}}]"#
    )
}

fn event(topic: &str, id: u32, schema: &str, table: &str) -> String {
    format!(
        r#"[null,null,"{topic}","postgres_changes",{{"ids":[{id}],"data":{{"schema":"{schema}","table":"{table}","type":"INSERT","record":{{}}}}}}]"#
    )
}

fn token(topic: &str, token: &str) -> String {
    format!(r#"["1","9","{topic}","access_token",{{"access_token":"{token}"}}]"#)
}

fn system(topic: &str, extension: &str, message: &str) -> String {
    format!(
        r#"["1",null,"{topic}","system",{{"extension":"{extension}","status":"ok","message":"{message}","channel":"a"}}]"#
    )
}

const A: &str = "realtime:a";
const KEYS: &str = r#"{"event":"*","schema":"public","table":"vendor_api_keys"}"#;
const KEYS_NEW: &str = r#"{"event":"*","schema":"vendors","table":"api_keys"}"#;

fn with_id(binding: &str, id: u32) -> String {
    format!("{},\"id\":{id}}}", binding.trim_end_matches('}'))
}

/// Joined on old with the anon key, as supabase-js 2.49 begins.
fn anonymous() -> Socket {
    let mut socket = socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "old-anon"));
    let answer = socket.old_says(&ok("1", "1", A, &with_id(KEYS, 50)));
    assert_eq!(answer, [format!("client < {}", ok("1", "1", A, &with_id(KEYS, 1)))]);
    socket
}

#[test]
fn trap_22_a_token_after_the_join_moves_the_changes_and_nothing_else() {
    let mut socket = anonymous();
    let actions = socket.client(&token(A, "u:ada"));
    assert_eq!(actions[..2], [format!("old < {}", token(A, "u:ada")), "open new".to_owned()]);
    assert_eq!(actions.len(), 3, "{actions:?}");
    assert!(actions[2].starts_with(r#"new < ["1","cutover:1","realtime:a","phx_join","#));
    assert!(actions[2].contains(KEYS_NEW) && actions[2].contains(r#""access_token":"u:ada""#));

    // Until the new side has it, the old side is heard.
    let heard = [format!("client < {}", event(A, 1, "public", "vendor_api_keys"))];
    assert_eq!(socket.old_says(&event(A, 50, "public", "vendor_api_keys")), heard);
    assert!(socket.new_says(&ok("1", "cutover:1", A, &with_id(KEYS_NEW, 60))).is_empty());
    assert!(socket.old_says(&event(A, 50, "public", "vendor_api_keys")).is_empty());
    assert_eq!(socket.new_says(&event(A, 60, "vendors", "api_keys")), heard);

    // Trap 27: whether the subscription lives is told by `system`, and by the side that has it.
    let said = system(A, "postgres_changes", "Subscribed to PostgreSQL");
    assert_eq!(socket.new_says(&said), [format!("client < {said}")]);
    assert!(socket.old_says(&said).is_empty());
    let said = system(A, "system", "x");
    assert_eq!(socket.old_says(&said), [format!("client < {said}")]);
    assert!(socket.new_says(&said).is_empty());

    // Back to somebody of old: the room's join still has the bindings, so nothing has to be joined.
    let actions = socket.client(&token(A, "u:bob"));
    assert_eq!(actions.len(), 3, "{actions:?}");
    assert_eq!(actions[2], r#"new < ["1","cutover:2","realtime:a","phx_leave",{}]"#);
    assert_eq!(socket.old_says(&event(A, 50, "public", "vendor_api_keys")), heard);
    assert!(socket.new_says(r#"["1","1","realtime:a","phx_close",{}]"#).is_empty());
    let answer = r#"["1","cutover:2","realtime:a","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(socket.new_says(answer), ["shut new"]);
}

#[test]
fn changes_that_come_to_the_rooms_side_join_it_again_and_keep_the_client_present() {
    let mut socket = socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "u:ada"));
    socket.old_says(&ok("1", "1", A, ""));
    assert_eq!(socket.new_says(&ok("1", "1", A, &with_id(KEYS_NEW, 60))).len(), 1);
    let track = r#"["1","4","realtime:a","presence",{"type":"presence","event":"track","payload":{"n":1}}]"#;
    assert_eq!(socket.client(track), [format!("old < {track}")]);

    let actions = socket.client(&token(A, "u:bob"));
    assert_eq!(actions.len(), 4, "{actions:?}");
    assert!(actions[2].starts_with(r#"old < ["1","cutover:1","realtime:a","phx_join""#));
    assert!(actions[2].contains(KEYS));
    assert_eq!(actions[3], format!("old < {}", track.replace("\"4\"", "\"cutover:2\"")));

    // The server closes what it joins again, behind its answer; the client is not told. A second closing is the end.
    let closed = r#"["1","1","realtime:a","phx_close",{}]"#;
    let actions = socket.old_says(&ok("1", "cutover:1", A, &with_id(KEYS, 50)));
    assert_eq!(actions, [r#"new < ["1","cutover:3","realtime:a","phx_leave",{}]"#]);
    assert!(socket.old_says(closed).is_empty());
    let answer = r#"["1","cutover:2","realtime:a","phx_reply",{"status":"ok","response":{}}]"#;
    assert!(socket.old_says(answer).is_empty());
    assert_eq!(socket.old_says(&event(A, 50, "public", "vendor_api_keys")).len(), 1);
    assert_eq!(socket.old_says(closed), [format!("client < {closed}")]);
}

/// React's strict mode: the topic is joined again, and only then the first copy of the component leaves it.
#[test]
fn a_leave_of_an_earlier_join_ends_nothing() {
    let mut socket = anonymous();
    socket.client(&join(A, 2, KEYS, "old-anon"));
    socket.old_says(&ok("2", "2", A, &with_id(KEYS, 50)));
    let late = r#"["1","3","realtime:a","phx_leave",{}]"#;
    assert_eq!(socket.client(late), [format!("old < {late}")]);
    let heard = [format!("client < {}", event(A, 1, "public", "vendor_api_keys"))];
    assert_eq!(socket.old_says(&event(A, 50, "public", "vendor_api_keys")), heard);
}

#[test]
fn a_second_join_closes_the_first_once_however_many_sides_it_has() {
    let closed = r#"["1","1","realtime:a","phx_close",{}]"#;
    for first in [Side::Old, Side::New] {
        let mut socket = socket(Version::V2);
        socket.client(&join(A, 1, KEYS, "u:ada"));
        socket.old_says(&ok("1", "1", A, ""));
        socket.new_says(&ok("1", "1", A, &with_id(KEYS_NEW, 60)));
        socket.client(&join(A, 2, KEYS, "u:ada"));
        let mut told = socket.side(first, closed);
        told.extend(socket.side(first.other(), closed));
        assert_eq!(told, [format!("client < {closed}")]);
    }
}

#[test]
fn a_move_that_fails_ends_the_socket_with_1012() {
    let refused = r#"["1","cutover:1","realtime:a","phx_reply",{"status":"error","response":{"reason":"Unauthorized"}}]"#;
    let other_bindings = &ok("1", "cutover:1", A, "");
    let closed = r#"["1","1","realtime:a","phx_error",{}]"#;
    for answer in [refused, other_bindings, closed] {
        let mut socket = anonymous();
        socket.client(&token(A, "u:ada"));
        assert_eq!(socket.new_says(answer), ["close 1012"], "trap 25: {answer}");
    }
}

#[test]
fn a_key_of_the_new_kind_leaves_the_channel_whose_it_was() {
    let mut socket = anonymous();
    socket.client(&token(A, "u:ada"));
    socket.new_says(&ok("1", "cutover:1", A, &with_id(KEYS_NEW, 60)));
    let key = token(A, "sb_publishable_x");
    assert_eq!(socket.client(&key), [format!("old < {key}"), format!("new < {key}")]);
}

#[test]
fn tokens_and_keys_are_said_as_each_side_accepts_them() {
    let mut socket = anonymous().with(|world| world.exchange = true);
    let actions = socket.client(&token(A, "u:ada"));
    assert_eq!(actions[0], format!("old < {}", token(A, "u:ada@old")));
    assert!(actions[2].contains(r#""access_token":"u:ada@new""#), "{actions:?}");
    let mut socket = socket_on_new_rooms();
    let actions = socket.client(&join("realtime:b", 2, "", "old-anon"));
    assert_eq!(actions[1], format!("new < {}", join("realtime:b", 2, "", "new-anon")));
}

fn socket_on_new_rooms() -> Socket {
    socket(Version::V2).with(|world| {
        world.settings.rooms = Side::New;
        world.anonymous = Side::New;
    })
}

/// 2.119 joins without a token and sends it when the user signs in.
#[test]
fn a_token_that_the_join_did_not_have_is_added_to_the_join_elsewhere() {
    let mut socket = socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "x").replace(r#","access_token":"x""#, ""));
    socket.old_says(&ok("1", "1", A, &with_id(KEYS, 50)));
    let actions = socket.client(&token(A, "u:ada"));
    let payload = r#""phx_join",{"access_token":"u:ada","config":{"#;
    assert!(actions[2].contains(payload), "{actions:?}");
}

#[test]
fn trap_26_a_room_is_on_one_side_whoever_is_in_it() {
    let mut socket = socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "u:ada"));
    socket.old_says(&ok("1", "1", A, ""));
    socket.new_says(&ok("1", "1", A, &with_id(KEYS_NEW, 60)));
    let broadcast =
        r#"["1","3","realtime:a","broadcast",{"type":"broadcast","event":"e","payload":{}}]"#;
    assert_eq!(socket.client(broadcast), [format!("old < {broadcast}")]);
    for event in ["broadcast", "presence_state", "presence_diff", "whatever"] {
        let frame = format!(r#"[null,null,"realtime:a","{event}",{{}}]"#);
        assert_eq!(socket.old_says(&frame), [format!("client < {frame}")]);
        assert!(socket.new_says(&frame).is_empty(), "{event} of a room that is elsewhere");
    }
    // Without changes, the user's side is not asked at all.
    let other = join("realtime:b", 2, "", "u:ada");
    assert_eq!(socket.client(&other), [format!("old < {other}")]);
}

#[test]
fn a_leave_goes_to_both_legs_and_is_answered_by_the_room() {
    let mut socket = socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "u:ada"));
    socket.old_says(&ok("1", "1", A, ""));
    socket.new_says(&ok("1", "1", A, &with_id(KEYS_NEW, 60)));
    let leave = r#"["1","5","realtime:a","phx_leave",{}]"#;
    let ours = r#"["1","cutover:1","realtime:a","phx_leave",{}]"#;
    assert_eq!(socket.client(leave), [format!("new < {ours}"), format!("old < {leave}")]);
    let answer = r#"["1","5","realtime:a","phx_reply",{"status":"ok","response":{}}]"#;
    let close = r#"["1","1","realtime:a","phx_close",{}]"#;
    // The answer is before the closing, as supabase-js needs it, however slow the other side is.
    assert_eq!(socket.old_says(answer), [format!("client < {answer}")]);
    assert_eq!(socket.old_says(close), [format!("client < {close}")]);
    assert!(socket.new_says(close).is_empty());
    assert_eq!(socket.new_says(&answer.replace("\"5\"", "\"cutover:1\"")), ["shut new"]);
}

#[test]
fn an_error_of_either_leg_is_the_clients_and_the_other_leg_is_left() {
    let refused = r#"["1","1","realtime:a","phx_reply",{"status":"error","response":{"reason":"Unauthorized: no"}}]"#;
    for (bad, good) in [(Side::Old, Side::New), (Side::New, Side::Old)] {
        let mut socket = socket(Version::V2);
        socket.client(&join(A, 1, KEYS, "u:ada"));
        let actions = socket.side(bad, refused);
        assert_eq!(actions[0], format!("client < {refused}"));
        assert_eq!(
            actions[1],
            format!(r#"{good} < ["1","cutover:1","realtime:a","phx_leave",{{}}]"#)
        );
        let list = if good == Side::New { with_id(KEYS_NEW, 60) } else { String::new() };
        assert!(socket.side(good, &ok("1", "1", A, &list)).is_empty(), "its answer is nobody's");
    }
}

#[test]
fn a_crash_of_either_leg_is_told_once() {
    for (bad, good) in [(Side::Old, Side::New), (Side::New, Side::Old)] {
        let mut socket = socket(Version::V2);
        socket.client(&join(A, 1, KEYS, "u:ada"));
        socket.old_says(&ok("1", "1", A, ""));
        socket.new_says(&ok("1", "1", A, &with_id(KEYS_NEW, 60)));
        let crash = r#"["1","1","realtime:a","phx_error",{}]"#;
        let actions = socket.side(bad, crash);
        assert_eq!(actions[0], format!("client < {crash}"));
        assert!(actions[1].starts_with(&format!("{good} < ")) && actions[1].contains("phx_leave"));
        let close = r#"["1","1","realtime:a","phx_close",{}]"#;
        assert!(socket.side(good, close).is_empty());
    }
}

#[test]
fn heartbeats_are_answered_when_every_side_is_alive() {
    let mut socket = socket(Version::V2);
    let beat = r#"[null,"7","phoenix","heartbeat",{}]"#;
    let answer = r#"[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
    assert_eq!(socket.client(beat), ["open old".to_owned(), format!("old < {beat}")]);
    assert_eq!(socket.old_says(answer), [format!("client < {answer}")]);
    socket.client(&join(A, 1, KEYS, "u:ada"));
    assert_eq!(socket.client(beat), [format!("old < {beat}"), format!("new < {beat}")]);
    assert!(socket.old_says(answer).is_empty(), "the other side may be dead");
    assert_eq!(socket.new_says(answer), [format!("client < {answer}")]);
}

#[test]
fn limits_are_kept_to_the_number() {
    let mut socket = socket(Version::V2);
    for channel in 1..=4 {
        let actions = socket.client(&join(&format!("realtime:{channel}"), channel, "", "u:bob"));
        assert!(actions.last().unwrap().starts_with("old < "), "{actions:?}");
    }
    let refused = r#"client < ["5","5","realtime:5","phx_reply",{"status":"error","response":{"reason":"ChannelRateLimitReached: Too many channels"}}]"#;
    assert_eq!(socket.client(&join("realtime:5", 5, "", "u:bob")), [refused]);
    // One that is joined may be joined again.
    assert_eq!(socket.client(&join("realtime:4", 6, "", "u:bob")).len(), 1);

    for (bindings, allowed) in [(6, true), (7, false)] {
        let mut socket = socket_on_new_rooms();
        let actions = socket.client(&join(A, 1, &vec![KEYS; bindings].join(","), "u:bob"));
        assert_eq!(!actions[0].contains("TooManyBindings"), allowed);
    }
}

fn old_api(topic: &str) -> String {
    format!(
        r#"{{"topic":"{topic}","event":"phx_join","payload":{{"user_token":"u:ada"}},"ref":"1","join_ref":"1"}}"#
    )
}

#[test]
fn trap_24_the_old_api_names_its_table_in_the_topic() {
    let topic = "realtime:public:vendor_api_keys:user_id=eq.7";
    let there = "realtime:vendors:api_keys:user_id=eq.7";
    let mut socket = socket(Version::V1);
    assert_eq!(
        socket.client(&old_api(topic)),
        ["open new".to_owned(), format!("new < {}", old_api(there))]
    );
    let reply = |topic: &str, binding: &str| {
        format!(
            r#"{{"topic":"{topic}","event":"phx_reply","payload":{{"status":"ok","response":{{"postgres_changes":[{binding}]}}}},"ref":"1"}}"#
        )
    };
    let asked = r#"{"schema":"public","table":"vendor_api_keys","filter":"user_id=eq.7","id":1}"#;
    let listed = r#"{"id":9,"schema":"vendors","table":"api_keys","filter":"user_id=eq.7"}"#;
    assert_eq!(
        socket.new_says(&reply(there, listed)),
        [format!("client < {}", reply(topic, asked))]
    );
    let event = |topic: &str, schema: &str, table: &str| {
        format!(
            r#"{{"topic":"{topic}","event":"INSERT","payload":{{"type":"INSERT","table":"{table}","schema":"{schema}","record":{{"n":1.0}}}},"ref":null}}"#
        )
    };
    assert_eq!(
        socket.new_says(&event(there, "vendors", "api_keys")),
        [format!("client < {}", event(topic, "public", "vendor_api_keys"))]
    );
    assert!(socket.new_says(&event(there, "vendorsX", "api_keys")).is_empty(), "trap 48");
    let leave = |topic: &str| {
        format!(
            r#"{{"topic":"{topic}","event":"phx_leave","payload":{{}},"ref":"2","join_ref":"1"}}"#
        )
    };
    assert_eq!(socket.client(&leave(topic)), [format!("new < {}", leave(there))]);
    let answer = |topic: &str| reply(topic, "").replace("\"ref\":\"1\"", "\"ref\":\"2\"");
    assert_eq!(socket.new_says(&answer(there)), [format!("client < {}", answer(topic))]);
}

#[test]
fn topics_of_the_old_api_that_are_one_on_a_side_are_refused() {
    let mut socket = socket(Version::V1);
    // A renamed table that is asked for anywhere is one table.
    let actions = socket.client(&old_api("realtime:*:vendor_api_keys"));
    assert_eq!(actions[1], format!("new < {}", old_api("realtime:vendors:api_keys")));
    let mut socket = self::socket(Version::V1);
    // The whole of the old schema is everything on new; the rest is dropped.
    let actions = socket.client(&old_api("realtime:public"));
    assert_eq!(actions[1], format!("new < {}", old_api("realtime:*")));
    let twin = old_api("realtime:vendors:api_keys");
    socket.client(&twin);
    let actions = socket.client(&old_api("realtime:public:vendor_api_keys"));
    assert!(actions[0].contains("another channel"), "{actions:?}");
    // A topic that names no schema is a room.
    let room = old_api("realtime:lobby");
    assert_eq!(socket.client(&room), ["open old".to_owned(), format!("old < {room}")]);
}

#[test]
fn trap_48_what_like_finds_beside_is_dropped() {
    let mut socket = anonymous();
    for (schema, table) in [("publicX", "vendor_api_keys"), ("public", "vendorXapi_keys")] {
        assert!(socket.old_says(&event(A, 50, schema, table)).is_empty());
    }
    assert!(
        socket.old_says(&event(A, 51, "public", "vendor_api_keys")).is_empty(),
        "no id of ours"
    );
}

#[test]
fn one_event_is_told_once_for_each_wording() {
    let mut socket = socket_on_new_rooms();
    let list = [KEYS, KEYS_NEW, r#"{"event":"*","schema":"public"}"#, KEYS].join(",");
    socket.client(&join(A, 1, &list, "u:ada"));
    let there = [KEYS_NEW, KEYS_NEW, r#"{"event":"*","schema":"*"}"#, KEYS_NEW];
    let listed: Vec<String> = there
        .iter()
        .map(|binding| with_id(binding, if binding.contains("vendors") { 8 } else { 9 }))
        .collect();
    let answer = socket.new_says(&ok("1", "1", A, &listed.join(",")));
    assert!(answer[0].ends_with(&format!(
        "{},{}]}}}}]",
        r#"{"event":"*","schema":"public","id":3}"#,
        with_id(KEYS, 1)
    )));
    let heard = socket.new_says(&event(A, 8, "vendors", "api_keys").replace("[8]", "[9,8]"));
    let frame = |ids: &str, schema, table| {
        format!("client < {}", event(A, 0, schema, table).replace("[0]", ids))
    };
    assert_eq!(
        heard,
        [frame("[3,1]", "public", "vendor_api_keys"), frame("[2]", "vendors", "api_keys")]
    );
    // A table of new that the map does not know is no part of the old schema.
    assert!(socket.new_says(&event(A, 9, "billing", "unknown")).is_empty());
}

#[test]
fn a_status_names_the_table_as_the_client_does() {
    let mut socket = socket_on_new_rooms();
    socket.client(&join(A, 1, KEYS, "u:ada"));
    socket.new_says(&ok("1", "1", A, &with_id(KEYS_NEW, 8)));
    let status = |words: &str| {
        system(
            A,
            "postgres_changes",
            &format!("Unable to subscribe: [event: *, {words}, filters: []]"),
        )
    };
    assert_eq!(
        socket.new_says(&status("schema: vendors, table: api_keys")),
        [format!("client < {}", status("schema: public, table: vendor_api_keys"))]
    );
}

#[test]
fn frames_that_are_not_understood_are_passed() {
    let mut socket = socket(Version::V2);
    for junk in ["", "{}", "[1,2]", r#"["1","1","realtime:a","phx_join"]"#, "[null,null,7,8,9]"] {
        assert_eq!(socket.client(junk).last().unwrap(), &format!("old < {junk}"));
        assert_eq!(socket.old_says(junk), [format!("client < {junk}")]);
    }
}

#[test]
fn settings_of_this_moment_say_what_has_to_move() {
    let mut socket = socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "u:ada"));
    assert!(!socket.session.has_to_move(&mut socket.world));
    socket.world.users.insert("ada".into(), Side::Old);
    assert!(socket.session.has_to_move(&mut socket.world));
    socket.world.users.insert("ada".into(), Side::New);
    socket.world.settings.rooms = Side::New;
    assert!(socket.session.has_to_move(&mut socket.world));
    // A table that the map sends elsewhere would not be heard there.
    let mut socket = self::socket(Version::V2);
    socket.client(&join(A, 1, KEYS, "u:ada"));
    assert!(!socket.session.has_to_move(&mut socket.world));
    socket.world.map = SchemaMap::build("public", &[], &[]).unwrap();
    assert!(socket.session.has_to_move(&mut socket.world));
    // Somebody without changes is only where the rooms are.
    let mut socket = self::socket(Version::V2);
    socket.client(&join(A, 1, "", "u:ada"));
    socket.world.users.insert("ada".into(), Side::Old);
    assert!(!socket.session.has_to_move(&mut socket.world));
}

#[test]
fn no_token_is_in_a_debug() {
    let socket = anonymous();
    let frame = crate::realtime::session::Frame::Text("u:secret".into());
    assert!(!format!("{:?}{frame:?}", socket.session).contains("u:"));
}
