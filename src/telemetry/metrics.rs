//! The facts of the metrics page, said as OTLP: the same numbers under OpenTelemetry's names and units.
//!
//! What the semantic conventions know has their name; everything else begins with `cutover.`, and an ending that is a unit becomes one.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::value::{SCHEMA, scope, text};
use crate::observe::facts::{Family, Kind, Sample, Totals, Value};

/// Metrics that the semantic conventions name; the last word says what is not an ordinary counter or gauge.
const CONVENTIONS: [(&str, &str, &str, Shape); 7] = [
    ("cutover_request_duration_seconds", "http.server.request.duration", "s", Shape::AsItIs),
    ("cutover_upstream_duration_seconds", "http.client.request.duration", "s", Shape::AsItIs),
    ("cutover_requests_in_flight", "http.server.active_requests", "{request}", Shape::UpDown),
    ("process_cpu_seconds_total", "process.cpu.time", "s", Shape::AsItIs),
    ("process_resident_memory_bytes", "process.memory.usage", "By", Shape::UpDown),
    ("process_threads", "process.thread.count", "{thread}", Shape::UpDown),
    ("process_open_fds", "process.unix.file_descriptor.count", "{file_descriptor}", Shape::UpDown),
];

/// Endings of Prometheus' names that are units.
const UNITS: [(&str, &str); 2] = [("_seconds", "s"), ("_bytes", "By")];

#[derive(Clone, Copy)]
enum Shape {
    AsItIs,
    /// What Prometheus calls a gauge, and can be added up over processes.
    UpDown,
}

/// Since when the numbers are counted, and now: nanoseconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) start: u64,
    pub(super) now: u64,
}

/// One export of everything.
pub(super) fn request(
    families: Vec<Family>,
    resource: &Resource,
    times: Times,
) -> ExportMetricsServiceRequest {
    let metrics = families.into_iter().filter(|family| !family.samples.is_empty());
    let scoped = ScopeMetrics {
        scope: Some(scope()),
        metrics: metrics.map(|family| metric(family, times)).collect(),
        schema_url: SCHEMA.to_owned(),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource.clone()),
            scope_metrics: vec![scoped],
            schema_url: SCHEMA.to_owned(),
        }],
    }
}

/// Name, unit and shape of a metric.
fn said(name: &str) -> (String, &'static str, Shape) {
    if let Some((_, name, unit, shape)) = CONVENTIONS.iter().find(|(own, ..)| *own == name) {
        return ((*name).to_owned(), unit, *shape);
    }
    let stem = name.strip_suffix("_total").unwrap_or(name);
    let unit = UNITS.iter().find_map(|(ending, unit)| Some((stem.strip_suffix(ending)?, *unit)));
    let (stem, unit) = unit.unwrap_or((stem, "1"));
    let own = stem.strip_prefix("cutover_").map(|own| format!("cutover.{own}"));
    (own.unwrap_or_else(|| stem.replacen('_', ".", 1)), unit, Shape::AsItIs)
}

fn metric(family: Family, times: Times) -> Metric {
    let (name, unit, shape) = said(family.name);
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let data = match (family.kind, shape) {
        (Kind::Histogram, _) => Data::Histogram(Histogram {
            data_points: family.samples.into_iter().filter_map(|s| histogram(s, times)).collect(),
            aggregation_temporality,
        }),
        (Kind::Gauge, Shape::AsItIs) => {
            Data::Gauge(Gauge { data_points: points(family.samples, times) })
        }
        (kind, _) => Data::Sum(Sum {
            data_points: points(family.samples, times),
            aggregation_temporality,
            is_monotonic: kind == Kind::Counter,
        }),
    };
    Metric {
        name,
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn points(samples: Vec<Sample>, times: Times) -> Vec<NumberDataPoint> {
    let point = |Sample { labels, value }| {
        let value = match value {
            Value::Whole(n) => {
                number_data_point::Value::AsInt(i64::try_from(n).unwrap_or(i64::MAX))
            }
            Value::Real(n) => number_data_point::Value::AsDouble(n),
            Value::Histogram(_) => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(labels),
            start_time_unix_nano: times.start,
            time_unix_nano: times.now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    };
    samples.into_iter().filter_map(point).collect()
}

fn histogram(Sample { labels, value }: Sample, times: Times) -> Option<HistogramDataPoint> {
    let Value::Histogram(totals) = value else { return None };
    Some(HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: totals.count(),
        sum: Some(totals.sum.as_secs_f64()),
        bucket_counts: totals.buckets.to_vec(),
        explicit_bounds: Totals::bounds().collect(),
        ..HistogramDataPoint::default()
    })
}

/// A label becomes an attribute of ours, but for the one that the conventions name.
fn attributes(labels: Vec<(&'static str, String)>) -> Vec<KeyValue> {
    let attribute = |(name, value)| match name {
        "method" => text("http.request.method", value),
        name => text(&format!("cutover.{name}"), value),
    };
    labels.into_iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_conventions_or_ours() {
        for (prometheus, otlp, unit) in [
            ("cutover_request_duration_seconds", "http.server.request.duration", "s"),
            ("cutover_requests_total", "cutover.requests", "1"),
            ("cutover_jwks_age_seconds", "cutover.jwks_age", "s"),
            ("cutover_rollout_percentage", "cutover.rollout_percentage", "1"),
            ("process_resident_memory_bytes", "process.memory.usage", "By"),
            ("process_start_time_seconds", "process.start_time", "s"),
        ] {
            let (name, of, _) = said(prometheus);
            assert_eq!((name.as_str(), of), (otlp, unit), "{prometheus}");
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_page() {
        let families = vec![
            Family {
                name: "cutover_request_duration_seconds",
                kind: Kind::Histogram,
                help: "h",
                samples: vec![Sample {
                    labels: vec![("side", "new".to_owned()), ("method", "GET".to_owned())],
                    value: Value::Histogram(Totals {
                        buckets: std::array::from_fn(|i| i as u64),
                        sum: std::time::Duration::from_millis(1_500),
                    }),
                }],
            },
            Family { name: "cutover_empty", kind: Kind::Gauge, help: "h", samples: Vec::new() },
        ];
        let request = request(families, &Resource::default(), Times { start: 1, now: 2 });
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        assert_eq!(metrics.len(), 1, "what has no numbers is left out");
        let Some(Data::Histogram(histogram)) = &metrics[0].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (105, Some(1.5)));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 2));
        let keys: Vec<&str> = point.attributes.iter().map(|a| a.key.as_str()).collect();
        assert_eq!(keys, ["cutover.side", "http.request.method"]);
    }
}
