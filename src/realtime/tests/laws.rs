//! What holds for every input.

use proptest::prelude::*;

use super::fixture::{map, world};
use crate::realtime::bindings;
use crate::realtime::fuzz;
use crate::realtime::session::{Action, Frame, Session, Version};
use crate::side::Side;

/// Frames that look like frames.
fn frame() -> impl Strategy<Value = String> {
    let topic = prop_oneof![
        Just("realtime:a"),
        Just("phoenix"),
        Just("realtime:public:invoices"),
        Just("realtime:vendors:api_keys:id=eq.1"),
        Just("realtime:*"),
        Just("x\\u0041\\\"")
    ];
    let event = prop_oneof![
        Just("phx_join"),
        Just("phx_leave"),
        Just("phx_reply"),
        Just("phx_close"),
        Just("system"),
        Just("postgres_changes"),
        Just("access_token"),
        Just("broadcast"),
        Just("INSERT")
    ];
    let payload = prop_oneof![
        Just("{}"),
        Just("null"),
        Just("[]"),
        Just("7"),
        Just(
            r#"{"config":{"postgres_changes":[{"event":"*","schema":"public"}]},"access_token":"u:ada"}"#
        ),
        Just(r#"{"config":{"postgres_changes":[null,{},{"schema":"*","table":"smart_x"}]}}"#),
        Just(r#"{"config":{"postgres_changes":["x"]}}"#),
        Just(r#"{"access_token":"u:bob"}"#),
        Just(r#"{"status":"ok","response":{"postgres_changes":[{"id":1}]}}"#),
        Just(r#"{"status":"ok","response":{"postgres_changes":[{"id":1},{"id":2}]}}"#),
        Just(r#"{"status":"error","response":{}}"#),
        Just(r#"{"ids":[1,2],"data":{"schema":"public","table":"invoices"}}"#),
        Just(r#"{"extension":"postgres_changes","message":"schema: billing, table: invoices"}"#)
    ];
    let reference = prop_oneof![Just("\"1\""), Just("1"), Just("null"), Just("\"cutover:1\"")];
    (topic, event, payload, reference.clone(), reference, any::<bool>()).prop_map(
        |(topic, event, payload, reference, join_ref, v2)| {
            if v2 {
                format!(r#"[{join_ref},{reference},"{topic}","{event}",{payload}]"#)
            } else {
                format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":{reference},"join_ref":{join_ref}}}"#)
            }
        },
    )
}

proptest! {
    #[test]
    fn no_bytes_break_a_session(data in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(fuzz::script(&data), Ok(()));
    }

    #[test]
    fn no_frames_break_a_session(frames in prop::collection::vec((frame(), 0..3_u8), 0..20), v2 in any::<bool>()) {
        let mut data = vec![u8::from(v2)];
        for (frame, from) in frames {
            data.push(from);
            data.extend_from_slice(&u16::try_from(frame.len()).unwrap().to_le_bytes());
            data.extend_from_slice(frame.as_bytes());
        }
        prop_assert_eq!(fuzz::script(&data), Ok(()));
    }

    /// What is of a room, and what we do not know, is passed as the very same bytes, both ways.
    #[test]
    fn what_needs_no_rewriting_is_the_same_bytes(payload in "[ -~]{0,40}", space in " {0,2}") {
        let payload = serde_json::Value::from(payload);
        let mut world = world();
        let mut session = Session::new(Version::V2);
        let mut actions = Vec::new();
        let join = r#"["1","1","realtime:a","phx_join",{"config":{}}]"#;
        session.from_client(Frame::Text(join.into()), &mut world, &mut actions);
        let frames = ["broadcast", "whatever", "presence_diff"].map(|event| {
            format!(r#"[{space}null,null,"realtime:a", "{event}",{space}{{"p":{payload}}} ]"#)
        });
        for frame in frames {
            let frame = Frame::Text(frame.into());
            actions.clear();
            session.from_client(frame.clone(), &mut world, &mut actions);
            prop_assert_eq!(&actions, &[Action::ToSide(Side::Old, frame.clone())]);
            actions.clear();
            session.from_side(Side::Old, frame.clone(), &mut world, &mut actions);
            prop_assert_eq!(&actions, &[Action::ToClient(frame)]);
        }
    }

    /// Whatever was asked, on whichever side: an event of what the side was asked for reads as the client asked.
    #[test]
    fn words_said_and_restored_are_the_clients(
        schema in prop_oneof![Just("public"), Just("vendors"), Just("billing"), Just("else")],
        table in prop_oneof![
            Just("memory_entries"), Just("vendor_api_keys"), Just("api_keys"), Just("invoices"),
            Just("smart_x"), Just("plain"), Just("other_keys"), Just("merged")
        ],
        new in any::<bool>(),
    ) {
        let map = map();
        let side = if new { Side::New } else { Side::Old };
        let text = serde_json::json!([{"event": "*", "schema": schema, "table": table}]).to_string();
        let list: Vec<&serde_json::value::RawValue> = serde_json::from_str(&text).unwrap();
        let asked = bindings::read(&list).unwrap();
        let mut upstream = Vec::new();
        asked[0].spread(0, side, &map, &mut upstream);
        prop_assert_eq!(upstream.len(), 1);
        let said: serde_json::Value = serde_json::from_str(&upstream[0].text).unwrap();
        let event = (said["schema"].as_str().unwrap(), said["table"].as_str().unwrap());
        let words = asked[0].words(&upstream[0], side, &map, event).unwrap();
        prop_assert_eq!((&*words.0, &*words.1), (schema, table));
        // Trap 48: what the side's LIKE finds beside it is not theirs.
        prop_assert!(asked[0].words(&upstream[0], side, &map, (event.0, "stray")).is_none());
    }

    #[test]
    fn ids_are_one_for_each_different_binding(names in prop::collection::vec("[ab]", 0..6)) {
        let texts: Vec<String> = names.iter().map(|name| format!(r#"[{{"schema":"{name}"}}]"#)).collect();
        let list = format!("[{}]", texts.iter().map(|text| &text[1..text.len() - 1]).collect::<Vec<_>>().join(","));
        let list: Vec<&serde_json::value::RawValue> = serde_json::from_str(&list).unwrap();
        let read = bindings::read(&list).unwrap();
        for one in &read {
            prop_assert!(one.id > 0);
            for other in &read {
                prop_assert_eq!(one.text == other.text, one.id == other.id);
            }
        }
    }
}
