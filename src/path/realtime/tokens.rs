//! The one wait for keys: a token in a client's frame may be signed with a key that was published a moment ago.

use serde_json::Value;

use super::socket::Socket;
use crate::realtime::session::{Frame, Version};
use crate::tokens::Mode;

impl Socket {
    /// Waits, bounded, for the keys of the tokens in this frame, before the session asks how they are said. Whether they came or
    /// not, the frame goes on.
    pub(super) async fn wait_for_keys(&self, frame: &Frame) {
        let snapshot = self.worker.snapshot();
        if snapshot.tokens.mode != Mode::Exchange {
            return;
        }
        for token in tokens_in(frame, self.session.version()) {
            self.worker.keys_for(&snapshot, &token).await;
        }
    }
}

/// The tokens that a frame brings: `user_token` and `access_token` of a join or a refresh (`supabase-wire.md` 4.1). A key that is written
/// with escapes is not seen; such a token is said without the wait.
fn tokens_in(frame: &Frame, version: Version) -> Vec<String> {
    let Frame::Text(text) = frame else { return Vec::new() };
    if !text.contains("_token\"") {
        return Vec::new();
    }
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    let payload = match version {
        Version::V1 => message.get("payload"),
        Version::V2 => message.get(4),
    };
    let token = |name: &str| Some(payload?.get(name)?.as_str()?.to_owned());
    ["user_token", "access_token"].into_iter().filter_map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_versions() {
        for (text, version, want) in [
            (r#"{"topic":"a","payload":{"access_token":"t"}}"#, Version::V1, &["t"][..]),
            (r#"{"payload":{"access_token":"t","user_token":"u"}}"#, Version::V1, &["u", "t"]),
            (r#"["1","1","a","phx_join",{"access_token":"t"}]"#, Version::V2, &["t"]),
            (r#"["1","1","a","phx_join",{"access_token":null}]"#, Version::V2, &[]),
            (r#"["1","1","a","phx_join",{}]"#, Version::V2, &[]),
            (r#"{"payload":{"access_token":"t"}}"#, Version::V2, &[]),
            (r#"{"payload":{"access_token":"t""#, Version::V1, &[]),
        ] {
            assert_eq!(tokens_in(&Frame::Text(text.into()), version), want, "{text}");
        }
    }
}
