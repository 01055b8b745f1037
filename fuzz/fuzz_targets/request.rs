//! Any bytes as what a client sends over HTTP/1: read at once or in pieces it is the same request, and no other parser sees another end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::accept::fuzz::laws(bytes) {
        panic!("{law}");
    }
});
