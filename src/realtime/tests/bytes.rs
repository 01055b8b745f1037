//! What is said in other words loses nothing but the words: whatever else a join or an event holds arrives as the bytes that it was.

use proptest::prelude::*;
use proptest::sample::select;

use super::fixture::{Socket, socket};
use crate::realtime::session::Version;
use crate::side::Side;

/// Values that a reader and writer of JSON would not give back as they were, and some that look like what is said in other words.
const VALUES: [&str; 14] = [
    "1.50",
    "12345678901234567890.1234567890",
    "-0",
    "1E400",
    "\"\\u0041\\/\\n\"",
    "\"\u{fc}\u{1f600}\"",
    "[1 , 2,\t3]",
    "{ }",
    "{\"schema\":\"vendors\",\"table\":\"api_keys\"}",
    "{\"a\":{\"ids\":[7],\"access_token\":\"old-anon\"}}",
    "\"public\"",
    "\"u:bob\"",
    "null",
    "true",
];

/// More fields, none of which means anything to us.
fn fields() -> impl Strategy<Value = String> {
    let field = (
        select(vec!["x", "record", "old_record", "sch\\u0065ma_", "columns"]),
        select(VALUES.to_vec()),
        " {0,2}",
    );
    prop::collection::vec(field, 0..4).prop_map(|fields| {
        let said = |(at, (name, value, space)): (usize, (&str, &str, String))| {
            format!(",{space}\"{name}{at}\"{space}:{space}{value}")
        };
        fields.into_iter().enumerate().map(said).collect()
    })
}

/// A socket of a user of new, and of rooms that are there too: one side has all of it.
fn of_new(version: Version) -> Socket {
    socket(version).with(|world| {
        world.settings.rooms = Side::New;
        world.anonymous = Side::New;
    })
}

fn framed(version: Version, event: &str, payload: &str) -> String {
    match version {
        Version::V2 => format!("[\"1\", \"1\",\"realtime:a\",\"{event}\",{payload}]"),
        Version::V1 => {
            format!(
                "{{\"topic\":\"realtime:a\", \"event\":\"{event}\",\"payload\":{payload},\"ref\":\"1\",\"join_ref\":\"1\"}}"
            )
        }
    }
}

fn join(version: Version, (table, extra): (&str, &[String; 3])) -> String {
    let [binding, config, payload] = extra;
    let binding = format!("{{\"event\":\"*\",{table}{binding}}}");
    let config = format!("{{\"postgres_changes\":[{binding}]{config}}}");
    framed(
        version,
        "phx_join",
        &format!("{{\"config\":{config},\"access_token\":\"u:ada\"{payload}}}"),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_join_and_its_events_are_the_same_bytes_but_for_their_words(
        v2 in any::<bool>(),
        extra in [fields(), fields(), fields()],
        event in [fields(), fields(), fields()],
    ) {
        let version = if v2 { Version::V2 } else { Version::V1 };
        let mut socket = of_new(version);
        let (old, new) = ("\"schema\":\"public\",\"table\":\"vendor_api_keys\"", "\"schema\":\"vendors\",\"table\":\"api_keys\"");
        let said = socket.client(&join(version, (old, &extra)));
        prop_assert_eq!(said, ["open new".to_owned(), format!("new < {}", join(version, (new, &extra)))]);
        let bindings = |words: &str, id| format!("{{\"event\":\"*\",{words}{},\"id\":{id}}}", extra[0]);
        let reply = |words: &str, id| {
            let response = format!("{{\"postgres_changes\":[{}]}}", bindings(words, id));
            framed(version, "phx_reply", &format!("{{\"status\":\"ok\",\"response\":{response}}}"))
        };
        let heard = socket.new_says(&reply(new, 4711));
        prop_assert_eq!(heard, [format!("client < {}", reply(old, 1))]);
        let [data, payload, _] = &event;
        let change = |words: &str, id: u32| {
            framed(version, "postgres_changes", &format!("{{\"ids\":[{id}],\"data\":{{{words}{data}}}{payload}}}"))
        };
        let heard = socket.new_says(&change(new, 4711));
        prop_assert_eq!(heard, [format!("client < {}", change(old, 1))]);
    }
}
