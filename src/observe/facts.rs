//! What is measured, before anybody says it in a format: the metrics page and the exporter show the same facts.

use std::fmt::Write as _;
use std::time::Duration;

use super::metrics::BOUNDS;

/// A metric and all its series.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// As Prometheus calls it.
    pub name: &'static str,
    /// What its numbers mean.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Its series; those with several labels appear with their first event.
    pub samples: Vec<Sample>,
}

/// What the numbers of a metric mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Now.
    Gauge,
    /// Durations.
    Histogram,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Names and values of the labels.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: Value,
}

/// A number, or a histogram's numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
    /// A distribution.
    Histogram(Totals),
}

/// A histogram, added up over the shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Counts between the bounds, not cumulative; the last is above every bound.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// The sum of all.
    pub sum: Duration,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Totals {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper bounds of all buckets but the last, in seconds.
    pub fn bounds() -> impl Iterator<Item = f64> {
        BOUNDS.iter().map(Duration::as_secs_f64)
    }
}

/// The facts in Prometheus' text format 0.0.4.
pub(super) fn text(families: &[Family]) -> String {
    let mut page = String::with_capacity(16 * 1024);
    for Family { name, kind, help, samples } in families {
        // Writing to a String can't fail, here and below.
        _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {}", kind.as_str());
        for Sample { labels, value } in samples {
            match value {
                Value::Whole(number) => line(&mut page, name, labels, None, number),
                Value::Real(number) => line(&mut page, name, labels, None, number),
                Value::Histogram(totals) => histogram(&mut page, name, labels, totals),
            }
        }
    }
    page
}

fn histogram(page: &mut String, name: &str, labels: &[(&str, String)], totals: &Totals) {
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (bound, n) in Totals::bounds().zip(totals.buckets) {
        below += n;
        line(page, &bucket, labels, Some(&bound.to_string()), &below);
    }
    let count = totals.count();
    line(page, &bucket, labels, Some("+Inf"), &count);
    line(page, &format!("{name}_sum"), labels, None, &totals.sum.as_secs_f64());
    line(page, &format!("{name}_count"), labels, None, &count);
}

fn line(
    page: &mut String,
    name: &str,
    labels: &[(&str, String)],
    bound: Option<&str>,
    value: &dyn std::fmt::Display,
) {
    page.push_str(name);
    let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
    let mut before = '{';
    for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
        page.push(before);
        _ = write!(page, "{name}=\"{}\"", escaped(value));
        before = ',';
    }
    let end = if before == ',' { "}" } else { "" };
    _ = writeln!(page, "{end} {value}");
}

/// A label's value: some of them the operator chose, and a name in quotes may hold anything.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
