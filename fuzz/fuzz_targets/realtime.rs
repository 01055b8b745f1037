//! Any frames from a client and from two sides, in any order: the codec and the session keep their laws.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| {
    if let Err(law) = cutover::realtime::fuzz::script(script) {
        panic!("{law}");
    }
});
