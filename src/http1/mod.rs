//! HTTP/1.1 messages on a byte stream: what both ends of the proxy share. `accept` reads requests with it, `forward` responses.
//!
//! Why not hyper's, which speaks HTTP/2 here: it runs each connection to a side as a task of its own and hands every message over
//! by a channel, which costs more than the whole of the proxy's job (docs/performance.md). Here a request and its response are
//! one task from socket to socket: a message is read into memory of the worker's, and written with one call.

pub mod chunks;
pub mod decoder;
pub mod encoder;
pub mod field;
pub mod fuzz;
pub mod incoming;
pub mod link;
pub mod names;
pub mod reading;
pub mod response;
mod spare;
pub mod stream;
pub mod upgraded;
