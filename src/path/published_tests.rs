//! Who begins a fetch, who joins it, and what stays known.

use std::time::{Duration, Instant};

use super::published::PublishedKeys;
use crate::observe::published::{KeyFacts, KeyFetch};
use crate::side::{Pair, Side};
use crate::tokens::Fetched;

const COOLDOWN: Duration = Duration::from_secs(3600);

fn fetched(url: &str) -> Fetched {
    Fetched { url: url.to_owned(), keys: Vec::new() }
}

#[test]
fn of_all_who_ask_one_begins_a_fetch_and_all_join_it() {
    let keys = PublishedKeys::default();
    assert!(keys.join(Side::Old).is_some(), "begins it");
    assert!(keys.join(Side::Old).is_some(), "joins it");
    let ended = keys.join(Side::Old).unwrap();
    assert!(keys.end(Side::Old, Ok(fetched("a")), Instant::now(), COOLDOWN));
    assert!(ended.has_changed().unwrap());
    assert!(keys.join(Side::Old).is_none(), "the pause");
    assert!(keys.join(Side::New).is_some(), "each side has its own");
    keys.begin(Side::Old);
    assert!(keys.join(Side::Old).is_some(), "the regular fetch is joined too");
    keys.end(Side::Old, Err(KeyFetch::Refused), Instant::now(), Duration::ZERO);
    assert!(keys.join(Side::Old).is_some(), "without a pause the next one begins");
}

#[test]
fn what_is_known_stays_until_something_else_is() {
    let keys = PublishedKeys::default();
    let end = |fetched| keys.end(Side::New, fetched, Instant::now(), COOLDOWN);
    assert_eq!(keys.facts(Side::New), KeyFacts::default());
    assert!(end(Ok(fetched("a"))));
    assert!(!end(Ok(fetched("a"))), "the same again");
    assert!(!end(Err(KeyFetch::Unreachable)));
    assert_eq!(keys.load().version, 1);
    assert_eq!(keys.load().sides.new.as_ref().unwrap().url, "a");
    assert!(keys.load().sides.old.is_none());
    assert!(end(Ok(fetched("b"))));
    assert_eq!(keys.load().version, 2);
    let facts = keys.facts(Side::New);
    assert_eq!(facts.fetches, [3, 1, 0, 0]);
    assert!(facts.age.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_was_made_meanwhile_is_not_made_again() {
    let keys = PublishedKeys::default();
    assert!(keys.join(Side::Old).is_some());
    keys.begin(Side::Old);
    keys.end(Side::Old, Ok(fetched("a")), Instant::now(), COOLDOWN);
    let asked = tokio::time::timeout(Duration::from_secs(1), keys.asked(Side::Old));
    assert!(asked.await.is_err());
    assert!(keys.join(Side::New).is_some());
    keys.asked(Side::New).await;
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_with_the_fetch_or_with_its_time() {
    let keys = PublishedKeys::default();
    let old = Pair { old: true, new: false };
    let begun = tokio::time::Instant::now();
    keys.wait(old, Duration::from_secs(2)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2), "nobody fetches here");
    tokio::join!(keys.wait(old, Duration::from_secs(2)), async {
        keys.end(Side::Old, Ok(fetched("a")), Instant::now(), COOLDOWN);
    });
    keys.wait(old, Duration::from_secs(2)).await;
    keys.wait(Pair::default(), Duration::from_secs(2)).await;
    assert_eq!(begun.elapsed(), Duration::from_secs(2), "neither of these waits");
}
