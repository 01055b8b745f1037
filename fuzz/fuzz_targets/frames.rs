//! Any bytes as one direction of a tunnelled WebSocket: frames end where another reader sees them end, in whatever pieces they come.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::forward::frames::fuzz::laws(bytes) {
        panic!("{law}");
    }
});
