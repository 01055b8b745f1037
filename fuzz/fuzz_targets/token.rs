//! Any bytes as a user's token: reading its claims never panics, and says the same twice.
#![no_main]

use cutover::identify::claims::{Wanted, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let wanted = Wanted::new(vec![vec!["app_metadata".to_owned(), "beta".to_owned()]]);
    assert_eq!(read(text, &wanted), read(text, &wanted));
});
