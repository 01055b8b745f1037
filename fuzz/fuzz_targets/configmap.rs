//! Any values as a ConfigMap: taken or refused as a whole, and what is refused leaves everything as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(law) = cutover::config::fuzz::configmap(bytes) {
        panic!("{law}");
    }
});
