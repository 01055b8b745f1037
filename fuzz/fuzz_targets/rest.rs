//! Any bytes as a request to PostgREST and an error that comes back: a side is told its own words as they are, and no byte is lost that
//! has no name in it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for laws in [cutover::rewrite::rest::fuzz::laws, cutover::restore::fuzz::laws] {
        if let Err(law) = laws(bytes) {
            panic!("{law}");
        }
    }
});
