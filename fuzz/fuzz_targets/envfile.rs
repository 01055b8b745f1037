//! Any text as an env file: every line is read or named, and an edit changes one value and no other byte.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::config::fuzz::env_file(bytes) {
        panic!("{law}");
    }
});
