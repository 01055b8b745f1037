//! `[telemetry]`: where the collector is, and what is sent with each export.

use http::uri::{PathAndQuery, Scheme, Uri};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use super::build::ReadFile;
use super::checks;
use super::fault::Fault;
use super::merged::Merged;
use super::project::Url;
use super::value::Typed;
use crate::telemetry::{Protocol, Settings};

/// How `telemetry.headers` is written: as in `OTEL_EXPORTER_OTLP_HEADERS`.
const HEADERS: &str = "name=value,name2=value2, with values percent-encoded where they have to be";

/// The checked settings; `None` without an endpoint, or with faults.
pub(super) fn settings(
    merged: &Merged,
    read: ReadFile<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Settings> {
    let ca_pem = checks::pem(merged, "telemetry.ca", read, faults);
    let key = "telemetry.headers";
    let given = merged.secrets(key).first().map_or("", |secret| secret.expose());
    let headers = headers(given).or_else(|| {
        let found = "something else (not shown)";
        faults.push(Fault::new(merged.source(key), key, found, HEADERS));
        None
    })?;
    let Typed::Url(url) = merged.value("telemetry.endpoint") else { return None };
    Some(Settings {
        endpoint: endpoint(url),
        protocol: match merged.text("telemetry.protocol") {
            "http/protobuf" => Protocol::Http,
            _ => Protocol::Grpc,
        },
        headers,
        ca_pem,
        timeout: merged.duration("telemetry.timeout"),
        traces: merged.truth("telemetry.traces"),
        metrics: merged.truth("telemetry.metrics"),
        metrics_interval: merged.duration("telemetry.metrics_interval"),
        queue: merged.size("telemetry.queue"),
        service_name: merged.text("telemetry.service_name").to_owned(),
    })
}

fn endpoint(url: &Url) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if url.tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(url.authority.clone());
    parts.path_and_query = PathAndQuery::try_from(format!("{}/", url.prefix)).ok();
    Uri::from_parts(parts).unwrap_or_default()
}

/// `name=value,…`; values may be percent-encoded (OTLP exporter specification, after W3C Baggage).
fn headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.append(name.trim().parse::<HeaderName>().ok()?, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_standard_variable_writes_them() {
        let read = headers("api-key=abc, Authorization=Basic%20YTpi==,x-scope-orgid=a b,").unwrap();
        assert_eq!(read.len(), 3);
        for (name, value) in
            [("api-key", "abc"), ("authorization", "Basic YTpi=="), ("x-scope-orgid", "a b")]
        {
            assert_eq!(read[name], value, "{name}");
            assert!(!format!("{read:?}").contains(value), "values are secrets");
        }
        assert!(headers("").unwrap().is_empty());
        for bad in ["abc", "a b=c", "=c", "a=%0A", "a=%FF"] {
            assert!(headers(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_endpoint_may_have_a_path() {
        for (text, want) in [
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317/"),
            ("https://otlp.example/otlp/", "https://otlp.example/otlp/"),
        ] {
            assert_eq!(endpoint(&Url::parse(text).unwrap()), want, "{text}");
        }
    }
}
