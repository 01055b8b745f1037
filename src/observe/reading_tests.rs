use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::observe::{Finished, MethodClass};

fn of(cells: &[(usize, u64)]) -> Latencies {
    let mut buckets = [0; BUCKETS];
    for (bucket, n) in cells {
        buckets[*bucket] += n;
    }
    Latencies(buckets)
}

fn finished(side: Option<Side>, status: u16, millis: u64) -> Finished {
    let mut finished = Finished::new(MethodClass::Get, 1);
    finished.side = side;
    finished.route = Some(Route::Rest);
    finished.status = status;
    finished.reason = side.map(|_| Reason::Percentage);
    finished.elapsed = Duration::from_millis(millis);
    finished.upstream_elapsed = side.map(|_| Duration::from_millis(millis));
    finished
}

/// The expected values are what `histogram_quantile` of Prometheus gives for the same cumulative buckets.
#[test]
fn quantiles_are_interpolated_as_prometheus_does() {
    for (cells, q, want) in [
        (of(&[]), 0.5, None),
        (of(&[(0, 10)]), 0.5, Some(0.000_5)),
        (of(&[(0, 1)]), 0.99, Some(0.000_99)),
        (of(&[(3, 100)]), 0.5, Some(0.007_5)),
        (of(&[(3, 100)]), 0.0, Some(0.005)),
        (of(&[(3, 100)]), 1.0, Some(0.01)),
        (of(&[(3, 50), (5, 50)]), 0.5, Some(0.01)),
        (of(&[(3, 50), (5, 50)]), 0.75, Some(0.037_5)),
        (of(&[(3, 98), (9, 2)]), 0.99, Some(0.75)),
        // Above every bound nothing is known but the highest bound.
        (of(&[(BUCKETS - 1, 3)]), 0.5, Some(60.0)),
        (of(&[(0, 1), (BUCKETS - 1, 99)]), 0.99, Some(60.0)),
    ] {
        let got = cells.quantile(q);
        let is_same = match (got, want) {
            (Some(got), Some(want)) => (got - want).abs() < 1e-9,
            (got, want) => got == want,
        };
        assert!(is_same, "{cells:?} at {q}: {got:?}, not {want:?}");
    }
}

proptest! {
    /// The estimate lies in the bucket that holds the true quantile, and grows with the share.
    #[test]
    fn a_quantile_lies_in_the_bucket_of_the_true_one(
        times in prop::collection::vec(0_u64..70_000_000, 1..200),
        q in 0.0..=1.0_f64,
    ) {
        let metrics = Metrics::new(1);
        let mut sorted = times.clone();
        sorted.sort_unstable();
        for micros in times {
            let mut finished = finished(Some(Side::New), 200, 0);
            finished.upstream_elapsed = Some(Duration::from_micros(micros));
            metrics.shard(0).finish(&finished);
        }
        let latency = metrics.reading().sides.new.latency;
        let rank = ((q * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len());
        let truth = Duration::from_micros(sorted[rank - 1]);
        let above = BOUNDS.iter().position(|bound| truth <= *bound);
        let bounds = BOUNDS.map(|bound| bound.as_secs_f64());
        let (lower, upper) = match above {
            Some(0) => (0.0, bounds[0]),
            Some(i) => (bounds[i - 1], bounds[i]),
            None => (bounds[BOUNDS.len() - 1], bounds[BOUNDS.len() - 1]),
        };
        let got = latency.quantile(q).unwrap();
        prop_assert!((lower - 1e-9..=upper + 1e-9).contains(&got), "{got} is not in {lower}..{upper}");
        prop_assert!(latency.quantile((q + 0.1).min(1.0)).unwrap() >= got);
    }
}

#[test]
fn a_reading_adds_up_the_workers_by_side() {
    let metrics = Metrics::new(2);
    metrics.shard(0).finish(&finished(Some(Side::Old), 200, 3));
    metrics.shard(1).finish(&finished(Some(Side::Old), 503, 3));
    metrics.shard(1).finish(&finished(Some(Side::New), 404, 200));
    metrics.shard(2).finish(&finished(None, 503, 1));
    let before = metrics.reading();
    let counts = Pair::from_fn(|side| (before.sides[side].requests, before.sides[side].failures));
    assert_eq!(counts, Pair { old: (2, 1), new: (1, 0) });
    assert_eq!(before.own, 1);
    assert_eq!(before.decisions[Reason::Percentage as usize], Pair { old: 2, new: 1 });
    assert_eq!(before.sides.old.error_share(), Some(0.5));

    metrics.shard(0).finish(&finished(Some(Side::New), 200, 7));
    let since = metrics.reading().since(&before);
    assert_eq!((since.sides.old.requests, since.sides.new.requests, since.own), (0, 1, 0));
    assert_eq!(since.sides.old.error_share(), None, "no requests, no share");
    assert_eq!(since.sides.old.latency.quantile(0.5), None);
    assert_eq!(since.sides.new.latency.quantile(1.0), Some(0.01));
    assert_eq!(
        before.since(&metrics.reading()),
        Reading::default().since(&before),
        "never negative"
    );
}

#[test]
fn a_table_that_is_new_counts_from_nothing() {
    let table = |name: &str, old| TableReading {
        kind: Kind::Table,
        name: name.into(),
        requests: Pair { old, new: 0 },
    };
    let before = Reading { tables: vec![table("b", 2), table("d", 1)], ..Reading::default() };
    let now = ["a", "b", "c", "d"].map(|name| table(name, 5)).to_vec();
    let since = Reading { tables: now, ..Reading::default() }.since(&before);
    let counts: Vec<u64> = since.tables.iter().map(|table| table.requests.old).collect();
    assert_eq!(counts, [5, 3, 5, 4]);
}
