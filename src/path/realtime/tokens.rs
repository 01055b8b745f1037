//! The one wait for keys: a token in a client's frame may be signed with a key that was published a moment ago.

use serde_json::Value;

use super::ground::Here;
use super::socket::Socket;
use crate::realtime::session::{Frame, Ground, Holder, Version};
use crate::side::Side;
use crate::tokens::Mode;

impl Socket {
    /// Lets the worker learn how both sides say the token of this frame, if it has one, before the session asks. Whether it could or
    /// not, the frame goes on.
    pub(super) async fn fetch_token(&self, frame: &Frame) {
        let snapshot = self.worker.snapshot();
        if snapshot.tokens.mode != Mode::Exchange {
            return;
        }
        let Some(token) = token_in(frame, self.session.version()) else { return };
        let mut here = Here { facts: &self.facts, worker: &self.worker, snapshot: &snapshot };
        let Holder::Token(identity) = here.holder(&token) else { return };
        let (side, rooms) = (here.side_of(&identity), here.rooms());
        for side in Side::ALL.into_iter().filter(|each| *each == side || *each == rooms) {
            let _token = self.worker.token_for(&snapshot, &token, side).await;
        }
    }
}

/// The token that a frame brings: `access_token` or `user_token` of a join or a refresh (`supabase-wire.md` 4.1). A key that is written
/// with escapes is not seen; such a token is said without the wait.
fn token_in(frame: &Frame, version: Version) -> Option<String> {
    let Frame::Text(text) = frame else { return None };
    if !text.contains("access_token\"") && !text.contains("user_token\"") {
        return None;
    }
    let message: Value = serde_json::from_str(text).ok()?;
    let payload = match version {
        Version::V1 => message.get("payload"),
        Version::V2 => message.get(4),
    }?;
    let token = payload.get("access_token").or_else(|| payload.get("user_token"))?;
    token.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_both_versions() {
        let found = |text: &str, version| token_in(&Frame::Text(text.into()), version);
        let token = Some("t.o.k".to_owned());
        for (text, version, want) in [
            (r#"{"topic":"a","payload":{"access_token":"t.o.k"}}"#, Version::V1, &token),
            (r#"{"topic":"a","payload":{"user_token":"t.o.k"}}"#, Version::V1, &token),
            (r#"["1","1","a","phx_join",{"access_token":"t.o.k"}]"#, Version::V2, &token),
            (r#"["1","1","a","phx_join",{"access_token":null}]"#, Version::V2, &None),
            (r#"["1","1","a","phx_join",{}]"#, Version::V2, &None),
            (r#"{"payload":{"access_token":"t.o.k"}}"#, Version::V2, &None),
            (r#"{"payload":{"access_token":"t.o.k""#, Version::V1, &None),
        ] {
            assert_eq!(found(text, version), *want, "{text}");
        }
    }
}
