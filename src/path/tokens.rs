//! Users' tokens on the path: the worker's memory of exchanged ones, and the one wait that the path knows, for keys that a project
//! published since they were last fetched.

use super::worker::Worker;
use crate::secret::Secret;
use crate::side::Side;
use crate::snapshot::Snapshot;

impl Worker {
    /// The token as `side` accepts it; `None` when it goes as it is: nothing is exchanged, the side trusts it already, or it can't be
    /// verified and the side itself shall answer 401. Waits for published keys, at most `tokens.jwks_wait`.
    #[expect(clippy::unused_async, reason = "waits for keys once they are fetched")]
    pub(super) async fn token_for(
        &self,
        snapshot: &Snapshot,
        token: &str,
        side: Side,
    ) -> Option<Secret> {
        self.token_now(snapshot, token, side)
    }

    /// The same with the keys that are known now.
    #[expect(clippy::unused_self, reason = "asks the worker's memory once there is one")]
    pub(super) fn token_now(
        &self,
        _snapshot: &Snapshot,
        _token: &str,
        _side: Side,
    ) -> Option<Secret> {
        None
    }
}
