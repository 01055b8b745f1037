//! What operators ask before and after users move: are both projects ready (`doctor`), do their data agree (`verify`), how
//! does new become what the map says (`plan`), and is old needed any more (`ready`).
//!
//! Shell: it speaks with both projects, through the proxy's own client, so that an answer here is the answer that the proxy would
//! get, and with their databases where the settings name them. It is started by `cli` alone and is no part of the path.

pub mod catalogue;
pub mod database;
pub mod doctor;
pub mod http;
pub mod plan;
mod quote;
pub mod ready;
pub mod verify;
