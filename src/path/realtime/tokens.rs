//! The one wait for keys: a token in a client's frame may be signed with a key that was published a moment ago.

use super::socket::Socket;
use crate::realtime::session::{Frame, tokens_in};
use crate::tokens::Mode;

impl Socket {
    /// Waits, bounded, for the keys of the tokens in this frame, before the session asks how they are said. Whether they came or
    /// not, the frame goes on.
    pub(super) async fn wait_for_keys(&self, frame: &Frame) {
        let snapshot = self.worker.snapshot();
        if snapshot.tokens.mode != Mode::Exchange {
            return;
        }
        let Frame::Text(text) = frame else { return };
        for token in tokens_in(self.session.version(), text) {
            self.worker.keys_for(&snapshot, &token).await;
        }
    }
}
