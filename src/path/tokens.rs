//! Users' tokens on the path: the worker's memory of exchanged ones, and the one wait that the path knows, for keys that a project
//! published since they were last fetched.

use std::time::{SystemTime, UNIX_EPOCH};

use super::worker::Worker;
use crate::observe::Counter;
use crate::secret::Secret;
use crate::side::Side;
use crate::snapshot::Snapshot;
use crate::tokens::cache::Answer;
use crate::tokens::{Mode, needed_keys};

impl Worker {
    /// The token as `side` accepts it; `None` when it goes as it is: nothing is exchanged, the side trusts it already, or it can't be
    /// verified and the side itself shall answer 401. Waits for published keys, at most `tokens.jwks_wait`.
    pub(super) async fn token_for(
        &self,
        snapshot: &Snapshot,
        token: &str,
        side: Side,
    ) -> Option<Secret> {
        if snapshot.tokens.mode == Mode::Shared {
            return None;
        }
        let mut answer = self.answer(snapshot, token, side);
        if answer == Answer::Needed {
            self.keys_for(snapshot, token).await;
            answer = self.answer(snapshot, token, side);
        }
        self.counted(answer, side)
    }

    /// The same with the keys that are known now: for frames, where nothing can be waited for.
    pub(super) fn token_now(&self, snapshot: &Snapshot, token: &str, side: Side) -> Option<Secret> {
        if snapshot.tokens.mode == Mode::Shared {
            return None;
        }
        self.counted(self.answer(snapshot, token, side), side)
    }

    fn counted(&self, answer: Answer, side: Side) -> Option<Secret> {
        match answer {
            Answer::Untouched => None,
            Answer::Instead(token) => {
                self.shard.count(Counter::TokenSigned(side));
                Some(token)
            }
            Answer::Unproven | Answer::Needed => {
                self.shard.count(Counter::TokenUnproven(side));
                None
            }
        }
    }

    /// Waits, at most `tokens.jwks_wait`, until the keys that this token may need are known: for those who have to ask
    /// [`Worker::token_now`] afterwards, where nothing can be waited for.
    pub(super) async fn keys_for(&self, snapshot: &Snapshot, token: &str) {
        let needed = {
            let published = self.shared.published.load();
            needed_keys(&snapshot.tokens, &published, token, now())
        };
        if needed.old || needed.new {
            self.shared.published.wait(needed, snapshot.tokens.jwks_wait).await;
        }
    }

    fn answer(&self, snapshot: &Snapshot, token: &str, side: Side) -> Answer {
        let published = self.shared.published.load();
        self.exchanged.answer(&snapshot.tokens, &published, token, side, now())
    }
}

/// Seconds since 1970. A clock before that is as good as none: every token with `nbf` waits.
#[expect(clippy::disallowed_methods, reason = "shell: the path asks the clock, the room is told")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
