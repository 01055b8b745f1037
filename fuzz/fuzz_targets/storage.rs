//! Any bytes as storage's paths, bodies, marks and metadata: rewriting never panics, and restoring undoes it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::rewrite::storage::fuzz::laws(bytes) {
        panic!("{law}");
    }
});
