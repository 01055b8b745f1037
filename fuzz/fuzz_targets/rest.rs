//! Any bytes as a request to PostgREST and an error that comes back: said there and back again it means the same, and no byte is lost that
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
