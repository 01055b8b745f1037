//! One immutable version of all live settings. A request takes one at its start and keeps it to its
//! end, so that a change never catches a request half-way.

use crate::counted::Slots;
use crate::identify::keyring::Keyring;
use crate::trace::Sampler;
use crate::{accept, decide, forward, identify, realtime, restore, rewrite, tokens};

/// Everything that a request needs to know, checked and ready to use. Built by `config`, never changed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The number of this snapshot; grows by one with every change.
    pub epoch: u64,
    /// Limits, trusted proxies, debug headers.
    pub accept: accept::Settings,
    /// Where identities come from.
    pub identify: identify::Settings,
    /// The keys of both projects.
    pub keyring: Keyring,
    /// How users' tokens are verified, and signed again for the other side.
    pub tokens: tokens::Settings,
    /// The rollout and the owners of the routes.
    pub decide: decide::Settings,
    /// The schema map and what to do at its edges.
    pub rewrite: rewrite::Settings,
    /// How a WebSocket of realtime is served.
    pub realtime: realtime::Settings,
    /// Both projects' addresses, and how long to wait for them.
    pub forward: forward::Settings,
    /// Where the requests for each table and function of the map are counted.
    pub counted: Slots,
    /// Which of the traces that begin here are recorded, where any are.
    pub sampler: Sampler,
    /// CORS and how much of an error body is read.
    pub restore: restore::Settings,
}
