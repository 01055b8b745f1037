//! Any text as config.toml: it is good or refused as a whole, and an edit changes one value and no other byte.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::config::fuzz::file(bytes) {
        panic!("{law}");
    }
});
