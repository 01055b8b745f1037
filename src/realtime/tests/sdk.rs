//! Frames as the SDKs and the server write them (`upstreams.md` 4; realtime-js 2.9.3, 2.11.10, 2.119; realtime-py 2.34).

use super::fixture::socket;
use crate::realtime::session::Version;
use crate::side::Side;

/// realtime-js 2.119, vsn 2.0.0, with one binding and a token.
fn join_v2(topic: &str, reference: &str, bindings: &str, token: &str) -> String {
    format!(
        r#"["{reference}","{reference}","realtime:{topic}","phx_join",{{"config":{{"broadcast":{{"ack":false,"self":true}},"presence":{{"key":"","enabled":false}},"postgres_changes":[{bindings}],"private":false}},"access_token":"{token}"}}]"#
    )
}

const MEMORY: &str = r#"{"event":"*","schema":"public","table":"memory_entries"}"#;
const KEYS: &str =
    r#"{"event":"INSERT","schema":"public","table":"vendor_api_keys","filter":"user_id=eq.7"}"#;

#[test]
fn a_user_of_old_is_served_with_the_very_same_bytes() {
    let mut socket = socket(Version::V2);
    let join = join_v2("room1", "6", MEMORY, "u:bob");
    assert_eq!(socket.client(&join), ["open old".to_owned(), format!("old < {join}")]);
    let reply = r#"["6","6","realtime:room1","phx_reply",{"status":"ok","response":{"postgres_changes":[{"id":7781,"event":"*","schema":"public","table":"memory_entries"}]}}]"#;
    assert_eq!(
        socket.old_says(reply),
        [
            r#"client < ["6","6","realtime:room1","phx_reply",{"status":"ok","response":{"postgres_changes":[{"event":"*","schema":"public","table":"memory_entries","id":1}]}}]"#
        ]
    );
    let event = r#"[null,null,"realtime:room1","postgres_changes",{"ids":[7781],"data":{"schema":"public","table":"memory_entries","commit_timestamp":"2026-11-21T10:00:00Z","type":"INSERT","columns":[{"name":"id","type":"int8"}],"record":{"id":9007199254740993.50},"errors":null}}]"#;
    assert_eq!(socket.old_says(event), [format!("client < {}", event.replace("7781", "1"))]);
}

#[test]
fn trap_22_the_side_is_chosen_by_the_token_of_the_first_join() {
    let mut socket = socket(Version::V2);
    let join = join_v2("room1", "1", KEYS, "u:ada");
    let actions = socket.client(&join);
    assert_eq!(
        actions,
        [
            "open old",
            // The room is where all rooms are, the changes where the user is.
            r#"old < ["1","1","realtime:room1","phx_join",{"config":{"broadcast":{"ack":false,"self":true},"presence":{"key":"","enabled":false},"postgres_changes":[],"private":false},"access_token":"u:ada"}]"#,
            "open new",
            r#"new < ["1","1","realtime:room1","phx_join",{"config":{"broadcast":{"ack":false,"self":false},"presence":{"key":"","enabled":false},"postgres_changes":[{"event":"INSERT","schema":"vendors","table":"api_keys","filter":"user_id=eq.7"}],"private":false},"access_token":"u:ada"}]"#,
        ]
    );
}

#[test]
fn trap_23_the_reply_lists_the_bindings_as_the_client_wrote_them() {
    for (binding, there) in [
        (
            KEYS,
            r#"{"event":"INSERT","schema":"vendors","table":"api_keys","filter":"user_id=eq.7"}"#,
        ),
        // Absent stays absent, whatever the side's words have.
        (r#"{"event":"*","schema":"public"}"#, r#"{"event":"*","schema":"*"}"#),
        (
            r#"{"event":"*","table":"invoices"}"#,
            r#"{"schema":"billing","event":"*","table":"invoices"}"#,
        ),
        (
            r#"{"event":"*","schema":"vendors","table":"api_keys","select":["id"]}"#,
            r#"{"event":"*","schema":"vendors","table":"api_keys","select":["id"]}"#,
        ),
        (
            r#"{"event":"*","schema":"public","table":null}"#,
            r#"{"event":"*","schema":"public","table":null}"#,
        ),
    ] {
        let mut socket = socket(Version::V2).with(|world| world.settings.rooms = Side::New);
        let actions = socket.client(&join_v2("a", "1", binding, "u:ada"));
        let expected = format!("new < {}", join_v2("a", "1", there, "u:ada"));
        assert_eq!(actions, ["open new".to_owned(), expected]);
        let reply = |list: &str| {
            format!(
                r#"["1","1","realtime:a","phx_reply",{{"status":"ok","response":{{"postgres_changes":[{list}]}}}}]"#
            )
        };
        let with_id =
            |binding: &str, id| format!("{},\"id\":{id}}}", binding.trim_end_matches('}'));
        assert_eq!(
            socket.new_says(&reply(&with_id(there, 99))),
            [format!("client < {}", reply(&with_id(binding, 1)))]
        );
    }
}

/// realtime-py and realtime-js up to 2.86: vsn 1.0.0; the server's frames have no `join_ref`.
#[test]
fn trap_24_vsn_1_joins_are_split_and_answered_once() {
    let mut socket = socket(Version::V1);
    let join = format!(
        r#"{{"topic":"realtime:room1","event":"phx_join","payload":{{"config":{{"broadcast":{{"ack":false,"self":false}},"presence":{{"key":""}},"postgres_changes":[{MEMORY}],"private":false}},"access_token":"u:ada"}},"ref":"1","join_ref":"1"}}"#
    );
    let actions = socket.client(&join);
    assert_eq!(actions.len(), 4, "{actions:?}");
    let reply = |list: &str| {
        format!(
            r#"{{"topic":"realtime:room1","event":"phx_reply","payload":{{"response":{{"postgres_changes":[{list}]}},"status":"ok"}},"ref":"1"}}"#
        )
    };
    assert!(socket.old_says(&reply("")).is_empty(), "the changes are not joined yet");
    let there = r#"{"id":5,"event":"*","schema":"security_service","table":"memory_entries"}"#;
    let here = r#"{"event":"*","schema":"public","table":"memory_entries","id":1}"#;
    assert_eq!(socket.new_says(&reply(there)), [format!("client < {}", reply(here))]);

    let event = |schema: &str, id: u32| {
        format!(
            r#"{{"topic":"realtime:room1","event":"postgres_changes","payload":{{"data":{{"table":"memory_entries","type":"INSERT","schema":"{schema}","record":{{"id":1}}}},"ids":[{id}]}},"ref":null}}"#
        )
    };
    assert_eq!(
        socket.new_says(&event("security_service", 5)),
        [format!("client < {}", event("public", 1))]
    );
}
