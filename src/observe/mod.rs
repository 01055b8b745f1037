//! Phase 7: what is counted and logged of a request.
//!
//! The path hands over one [`event::Finished`] per request, and of one that is traced a [`span::Traced`] around it: one room decides
//! what that means in counters and in a log line, and `telemetry` in spans. Labels are closed enums, never text of a user; counting takes no lock, no look-up
//! and no allocation. This room never decides anything and can't fail a request.

pub mod code;
pub mod event;
pub mod exported;
pub mod facts;
pub mod metrics;
pub mod published;
pub mod reading;
pub mod span;
pub mod watching;

pub mod redact;

// Shell files: they read the clock's and the system's answers, or write lines.
pub mod log;
pub mod process;

mod render;

pub use code::ErrorCode;
pub use event::{Ending, Finished, MethodClass};
pub use metrics::{Counter, Gauge, Gauges, Metrics, Shard};
pub use reading::Reading;
