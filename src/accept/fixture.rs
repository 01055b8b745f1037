//! What the tests of a connection are served with.

use std::time::Duration;

use super::Limits;
use super::addresses::Pace;

const HEADER: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(75);
const SEND: Duration = Duration::from_secs(60);

pub(super) fn limits() -> Limits {
    Limits {
        connections: 1,
        connections_per_address: 0,
        pace: Pace { per_second: 0, burst: 0 },
        header_bytes: 512,
        body_bytes: 0,
        frame_bytes: 0,
        header_timeout: HEADER,
        body_idle_timeout: IDLE,
        idle_timeout: IDLE,
        send_timeout: SEND,
        http2_streams: 1,
        http2_resets: 2,
        http2_frames: 10,
    }
}
