//! What a Realtime server answers, as far as the bench asks: joins and heartbeats get an ok reply, a broadcast comes back to its
//! sender (`self: true`), anything else is silence. Frames of vsn 1.0.0 are objects, those of 2.0.0 arrays.
use crate::net::find;

/// The answer to a text frame, if it gets one.
pub fn answer(text: &[u8]) -> Option<Vec<u8>> {
    let is_array = text.first() == Some(&b'[');
    let [join_ref, reference, topic, event] = match is_array {
        true => array(text)?,
        false => {
            [None, field(text, b"\"ref\":"), field(text, b"\"topic\":"), field(text, b"\"event\":")]
        }
    };
    let (topic, event) = (topic?, event?);
    let response: &[u8] = match event {
        b"\"phx_join\"" => br#"{"status":"ok","response":{"postgres_changes":[]}}"#,
        b"\"heartbeat\"" => br#"{"status":"ok","response":{}}"#,
        b"\"broadcast\"" => return Some(text.to_vec()),
        _ => return None,
    };
    let null: &[u8] = b"null";
    let (join_ref, reference) = (join_ref.unwrap_or(null), reference.unwrap_or(null));
    let parts: [&[u8]; 9] = match is_array {
        true => [b"[", join_ref, b",", reference, b",", topic, b",\"phx_reply\",", response, b"]"],
        false => [
            b"{\"topic\":",
            topic,
            b",\"event\":\"phx_reply\",\"payload\":",
            response,
            b",\"ref\":",
            reference,
            b"}",
            b"",
            b"",
        ],
    };
    Some(parts.concat())
}

/// join_ref, ref, topic and event, which are strings without escapes or null.
fn array(text: &[u8]) -> Option<[Option<&[u8]>; 4]> {
    let mut rest = text.get(1..)?;
    let mut parts = [None; 4];
    for part in &mut parts {
        let end = rest.iter().position(|byte| *byte == b',')?;
        *part = Some(rest[..end].trim_ascii());
        rest = &rest[end + 1..];
    }
    Some(parts)
}

/// The first value behind a name: a string without escapes, or null.
fn field<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = text[find(text, name)? + name.len()..].trim_ascii_start();
    let end = match rest.first()? {
        b'"' => rest.iter().skip(1).position(|byte| *byte == b'"')? + 2,
        _ => rest.iter().position(|byte| matches!(byte, b',' | b'}'))?,
    };
    Some(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn frames_of_both_versions_are_answered() {
        let said =
            |text: &str| answer(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(
            said(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"7"}"#).unwrap(),
            r#"{"topic":"phoenix","event":"phx_reply","payload":{"status":"ok","response":{}},"ref":"7"}"#
        );
        assert_eq!(
            said(r#"["1","2","realtime:a","phx_join",{}]"#).unwrap(),
            r#"["1","2","realtime:a","phx_reply",{"status":"ok","response":{"postgres_changes":[]}}]"#
        );
        let broadcast = r#"["1",null,"realtime:a","broadcast",{"event":"move"}]"#;
        assert_eq!(said(broadcast).unwrap(), broadcast);
        assert_eq!(said(r#"["1",null,"realtime:a","presence",{}]"#), None);
    }
}
