//! Any bytes as what a side answers over HTTP/1: nothing panics, and the pieces in which they come change nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::http1::fuzz::laws(bytes) {
        panic!("{law}");
    }
});
