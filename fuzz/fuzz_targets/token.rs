//! Any bytes as a user's token, as published keys, as a private key: nothing panics, and no law breaks.
#![no_main]

use cutover::identify::claims::{Wanted, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let wanted = Wanted::new(vec![vec!["app_metadata".to_owned(), "beta".to_owned()]]);
        assert_eq!(read(text, &wanted), read(text, &wanted));
    }
    if let Err(law) = cutover::tokens::fuzz::laws(bytes) {
        panic!("{law}");
    }
});
