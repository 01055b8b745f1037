//! Realtime: the words of a WebSocket in either dialect, and who hears which (`design.md` 8, `supabase-wire.md` 4). Pure: frames in,
//! frames out; the sockets are `path`'s.

mod binary;
mod bindings;
mod channel;
mod client;
mod events;
mod frame;
pub mod fuzz;
mod join;
mod moves;
mod reply;
mod requests;
pub mod session;
mod sides;

use std::time::Duration;

use crate::decide::Belongs;
use crate::side::Side;

/// How a WebSocket of realtime is served (`[realtime]`).
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The side that holds every room: broadcast and presence are never split by user.
    pub rooms: Side,
    /// From the opening of a socket to its first join or token; after that it is served as nobody's.
    pub identify_timeout: Duration,
    /// How long a peer may take to accept a frame before it is given up as too slow.
    pub send_timeout: Duration,
    /// Channels of one socket.
    pub channels: usize,
    /// `postgres_changes` bindings of one channel.
    pub bindings: usize,
    /// Bytes of a channel's join, which is kept to join it elsewhere. The channels of a socket share what all of them may have.
    pub join_bytes: usize,
}

/// The side of what a path below `/realtime/v1` asks for: the REST API of broadcasts belongs to the rooms' owner.
#[must_use]
pub fn belongs(settings: &Settings, tail: &str) -> Belongs {
    match tail.trim_start_matches('/').split('/').next() {
        Some("api") | Some("longpoll") => Belongs::ToOwner(settings.rooms),
        _ => Belongs::ToRoute,
    }
}

#[cfg(test)]
mod tests;
