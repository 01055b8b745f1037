//! The page is parsed back: a scraper that is stricter than Prometheus reads what `render` wrote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::counted::{Kind, Names};
use crate::decide::percentage::Percentage;
use crate::observe::Finished;
use crate::observe::process::Process;
use crate::observe::watching::WatchFacts;
use crate::side::Pair;

/// Name with labels, and value.
type Samples = BTreeMap<String, f64>;

/// Reads a page: every sample belongs to the family that was declared last, and nothing comes twice.
fn parse(page: &str) -> (BTreeSet<String>, Samples) {
    let (mut families, mut samples) = (BTreeSet::new(), Samples::new());
    let (mut family, mut kind) = (String::new(), String::new());
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(families.insert(name.to_owned()), "{name} twice");
            assert!(text.ends_with('.'), "{name}: help is a sentence");
            family = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, found) = rest.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&found));
            assert_eq!(found == "counter", name.ends_with("_total"), "{name}");
            kind = found.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let base = if kind == "histogram" {
            name.strip_suffix("_bucket")
                .or_else(|| name.strip_suffix("_sum"))
                .or_else(|| name.strip_suffix("_count"))
                .unwrap()
        } else {
            name
        };
        assert_eq!(base, family, "{line}");
        let value = value.parse().unwrap();
        assert!(samples.insert(series.to_owned(), value).is_none(), "{series} twice");
    }
    (families, samples)
}

fn finished(side: Option<Side>, method: MethodClass, status: u16, millis: u64) -> Finished {
    Finished {
        side,
        status,
        route: Some(Route::Rest),
        elapsed: Duration::from_millis(millis),
        ..Finished::new(method, 1)
    }
}

fn gauges() -> Gauges {
    Gauges {
        percentage: Percentage::from_hundredths(1_050).unwrap(),
        force: Some(Side::Old),
        epoch: 7,
        config_last_success: Some(1_700_000_000.5),
        kubernetes: Some(WatchFacts { heard_seconds: Some(1.5), ..WatchFacts::default() }),
        process: Some(Process { cpu_seconds: 1.5, ..Process::default() }),
        ..Gauges::default()
    }
}

#[test]
fn shards_are_added_up_by_side_route_method_and_status_class() {
    let metrics = Metrics::new(2);
    metrics.shard(0).finish(&finished(Some(Side::New), MethodClass::Get, 200, 3));
    metrics.shard(1).finish(&finished(Some(Side::New), MethodClass::Get, 206, 70_000));
    metrics.shard(1).finish(&finished(None, MethodClass::Post, 404, 1));
    let (_, samples) = parse(&metrics.render(&gauges()));

    let new = "side=\"new\",route=\"rest\",method=\"GET\",status=\"2xx\"";
    let none = "side=\"none\",route=\"rest\",method=\"POST\",status=\"4xx\"";
    assert_eq!(samples[&format!("cutover_requests_total{{{new}}}")], 2.0);
    assert_eq!(samples[&format!("cutover_requests_total{{{none}}}")], 1.0);
    let name = "cutover_request_duration_seconds";
    assert_eq!(samples[&format!("{name}_bucket{{{new},le=\"0.0025\"}}")], 0.0);
    assert_eq!(samples[&format!("{name}_bucket{{{new},le=\"0.005\"}}")], 1.0);
    assert_eq!(samples[&format!("{name}_bucket{{{new},le=\"60\"}}")], 1.0);
    assert_eq!(samples[&format!("{name}_bucket{{{new},le=\"+Inf\"}}")], 2.0);
    assert_eq!(samples[&format!("{name}_count{{{new}}}")], 2.0);
    assert_eq!(samples[&format!("{name}_sum{{{new}}}")], 70.003);
    // A request that ends exactly at a bound is within it.
    assert_eq!(samples[&format!("{name}_bucket{{{none},le=\"0.001\"}}")], 1.0);
    let series = samples.keys().filter(|key| key.starts_with("cutover_requests_total")).count();
    assert_eq!(series, 2, "series that were never counted are left out");
}

#[test]
fn one_event_counts_everything_that_is_known_of_the_request() {
    let metrics = Metrics::new(1);
    let shard = metrics.shard(0);
    shard.finish(&Finished {
        reason: Some(Reason::Percentage),
        upstream_elapsed: Some(Duration::from_millis(2)),
        ending: Ending::ResponseCut,
        retried: true,
        fell_back: true,
        left_alone: true,
        ..finished(Some(Side::Old), MethodClass::Get, 200, 3)
    });
    shard.finish(&Finished {
        code: Some(ErrorCode::Unreachable),
        reason: Some(Reason::Pin),
        ..finished(Some(Side::New), MethodClass::Get, 502, 3)
    });
    let (_, samples) = parse(&metrics.render(&gauges()));
    for (series, n) in [
        ("cutover_decisions_total{reason=\"percentage\",side=\"new\"}", 1.0),
        ("cutover_decisions_total{reason=\"pin\",side=\"new\"}", 1.0),
        ("cutover_upstream_duration_seconds_count{side=\"old\",route=\"rest\"}", 1.0),
        ("cutover_errors_total{kind=\"response_cut\",side=\"old\"}", 1.0),
        ("cutover_errors_total{kind=\"unreachable\",side=\"new\"}", 1.0),
        ("cutover_upstream_retries_total{side=\"old\"}", 1.0),
        ("cutover_upstream_retries_total{side=\"new\"}", 0.0),
        ("cutover_fallbacks_total", 1.0),
        ("cutover_translations_left_alone_total", 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&n), "{series}");
    }
}

#[test]
fn requests_are_counted_by_the_names_of_the_operators_map() {
    let names = std::sync::Arc::new(Names::new(2));
    let metrics = Metrics::counting(2, std::sync::Arc::clone(&names));
    let map = [(Kind::Table, "todos"), (Kind::Table, "a\"b\\"), (Kind::Function, "match")];
    let slots = names.assign(map);
    let count = |worker: usize, side, counted| {
        let counted = Some(counted);
        metrics
            .shard(worker)
            .finish(&Finished { counted, ..finished(side, MethodClass::Get, 200, 1) });
    };
    count(0, Some(Side::Old), slots.of(Kind::Table, Some(0)));
    count(1, Some(Side::Old), slots.of(Kind::Table, Some(0)));
    count(1, Some(Side::New), slots.of(Kind::Table, Some(1)));
    count(1, Some(Side::New), slots.of(Kind::Function, Some(2)));
    count(1, None, slots.of(Kind::Table, Some(0)));
    let (_, samples) = parse(&metrics.render(&gauges()));
    for (labels, n) in [
        ("kind=\"table\",name=\"todos\",side=\"old\"", 2.0),
        ("kind=\"table\",name=\"todos\",side=\"new\"", 0.0),
        ("kind=\"table\",name=\"a\\\"b\\\\\",side=\"new\"", 1.0),
        // There was no room for it.
        ("kind=\"function\",name=\"other\",side=\"new\"", 1.0),
    ] {
        let series = format!("cutover_resource_requests_total{{{labels}}}");
        assert_eq!(samples.get(&series), Some(&n), "{series}");
    }
    let listed: Vec<_> = metrics
        .resources()
        .into_iter()
        .map(|(kind, name, n)| (kind, name.to_string(), n))
        .collect();
    assert_eq!(listed[1], (Kind::Table, "todos".to_owned(), Pair { old: 2, new: 0 }));
    assert_eq!(listed.len(), 3, "what was never asked for is left out");
}

#[test]
fn the_state_of_the_rollout_is_on_the_page() {
    let (_, samples) = parse(&Metrics::new(1).render(&gauges()));
    for (series, n) in [
        ("cutover_rollout_percentage", 10.5),
        ("cutover_rollout_forced{side=\"old\"}", 1.0),
        ("cutover_rollout_forced{side=\"new\"}", 0.0),
        ("cutover_config_epoch", 7.0),
        ("cutover_config_last_success_timestamp_seconds", 1_700_000_000.5),
        ("cutover_config_reloads_total{result=\"failure\"}", 0.0),
        ("cutover_kubernetes_last_heard_seconds", 1.5),
        ("cutover_kubernetes_watch_failures_total{kind=\"gone\"}", 0.0),
        ("process_cpu_seconds_total", 1.5),
        ("cutover_requests_in_flight", 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&n), "{series}");
    }
}

#[test]
fn the_operators_page_lists_every_metric_and_no_other() {
    let (families, _) = parse(&Metrics::new(1).render(&gauges()));
    let page = include_str!("../../docs/metrics.md");
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("cutover_") || name.starts_with("process_"))
        .collect();
    assert_eq!(families, listed);
    for kind in ErrorCode::ALL.map(ErrorCode::label).iter().chain(&Ending::ALL.map(Ending::label)) {
        assert!(*kind == "complete" || page.contains(&format!("`{kind}`")), "kind {kind}");
    }
}
