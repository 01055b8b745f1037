//! OTLP on the wire: gRPC or POSTs of protobuf, over one HTTP client. Shell: talks to the collector.
//!
//! One export is one request with one answer; what may be tried again is as the protocol says (OTLP 1.7: "Failures" of either transport).

use std::error::Error as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::{Protocol, Settings};
use crate::outbound::{self, AGENT, innermost};

/// Bytes of an answer that are read: it says no more than how many items were refused.
const ANSWER_BYTES: usize = 64 * 1024;

/// How long a connection that nothing is sent on is kept; longer than the usual interval of metrics.
const IDLE: Duration = Duration::from_secs(90);

type Http = Client<HttpsConnector<HttpConnector>, Body>;

/// The collector.
#[derive(Debug)]
pub(super) struct Collector {
    connector: HttpsConnector<HttpConnector>,
    /// Made anew after a silence.
    http: Mutex<Http>,
    protocol: Protocol,
    endpoint: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// Why an export was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotTaken {
    /// For the log, and to tell one reason from another: it holds nothing that changes from try to try.
    pub(super) why: String,
    /// Whether the same may be taken later.
    pub(super) is_transient: bool,
}

impl NotTaken {
    fn later(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_transient: true }
    }
}

impl Collector {
    /// A collector; nothing is sent yet.
    ///
    /// # Errors
    /// When the private CA can't be used, in words for the log.
    pub(super) fn new(settings: &Settings) -> Result<Self, String> {
        let tls = outbound::tls(settings.ca_pem.as_deref().map(str::as_bytes))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = match settings.protocol {
            Protocol::Grpc => connector.enable_http2().build(),
            Protocol::Http => connector.enable_http1().enable_http2().build(),
        };
        let http = Mutex::new(client(settings.protocol, connector.clone()));
        let mut headers = settings.headers.clone();
        headers.insert(USER_AGENT, AGENT);
        let (protocol, endpoint) = (settings.protocol, settings.endpoint.clone());
        Ok(Self { connector, http, protocol, endpoint, headers, timeout: settings.timeout })
    }

    fn http(&self) -> Http {
        self.http.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends spans. Answers how many of them the collector refused.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(super) async fn traces(&self, request: ExportTraceServiceRequest) -> Result<u64, NotTaken> {
        let answer = self.bounded(async {
            match self.protocol {
                Protocol::Http => {
                    self.post::<ExportTraceServiceResponse>("/v1/traces", &request).await
                }
                Protocol::Grpc => {
                    let mut client =
                        TraceServiceClient::with_origin(self.http(), self.endpoint.clone());
                    let answer = client.export(self.grpc(request)).await;
                    answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
                }
            }
        });
        let refused = answer.await?.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(refused).unwrap_or(0))
    }

    /// Sends numbers.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub(super) async fn metrics(
        &self,
        request: ExportMetricsServiceRequest,
    ) -> Result<(), NotTaken> {
        let answer = self.bounded(async {
            match self.protocol {
                Protocol::Http => {
                    self.post::<ExportMetricsServiceResponse>("/v1/metrics", &request).await
                }
                Protocol::Grpc => {
                    let mut client =
                        MetricsServiceClient::with_origin(self.http(), self.endpoint.clone());
                    let answer = client.export(self.grpc(request)).await;
                    answer.map(tonic::Response::into_inner).map_err(|status| refused(&status))
                }
            }
        });
        answer.await.map(drop)
    }

    async fn bounded<T>(
        &self,
        export: impl Future<Output = Result<T, NotTaken>>,
    ) -> Result<T, NotTaken> {
        match tokio::time::timeout(self.timeout, export).await {
            Ok(answer) => answer,
            Err(_) => {
                // Over HTTP/2 all exports share one connection. If the machine behind it is gone without a word, the kernel notices
                // after a quarter of an hour.
                let fresh = client(self.protocol, self.connector.clone());
                *self.http.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                Err(NotTaken::later("no answer in time"))
            }
        }
    }

    fn grpc<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        request
    }

    async fn post<A: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
    ) -> Result<A, NotTaken> {
        let body = Body::new(Full::from(message.encode_to_vec()));
        let mut request = Request::post(below(&self.endpoint, path));
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        }
        let request = request.body(body).map_err(|error| NotTaken::later(error.to_string()))?;
        let answer = self.http().request(request).await;
        let answer = answer.map_err(|error| NotTaken::later(innermost(&error)))?;
        read(answer).await
    }
}

/// A client without connections.
fn client(protocol: Protocol, connector: HttpsConnector<HttpConnector>) -> Http {
    let mut http = Client::builder(TokioExecutor::new());
    http.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE);
    http.http2_only(protocol == Protocol::Grpc).build(connector)
}

async fn read<A: Message + Default>(answer: Response<Incoming>) -> Result<A, NotTaken> {
    let (parts, body) = answer.into_parts();
    let status = parts.status;
    if !status.is_success() {
        let is_transient = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        return Err(NotTaken { why: format!("the collector answered {status}"), is_transient });
    }
    let body = Limited::new(body, ANSWER_BYTES).collect().await;
    let body = body.map_err(|_| NotTaken::later("the collector's answer broke off"))?;
    // It was taken: an answer that can't be read is no reason to send it again.
    Ok(A::decode(body.to_bytes()).unwrap_or_default())
}

/// gRPC's codes, as OTLP sorts them. What the connection itself made is `Unknown`, and may be tried again.
fn refused(status: &Status) -> NotTaken {
    let is_transient = matches!(
        status.code(),
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unknown
    );
    let why = match status.source() {
        Some(cause) => innermost(cause),
        // Not its message: that is the collector's text, and may change each time.
        None => format!("the collector answered {:?}", status.code()),
    };
    NotTaken { why, is_transient }
}

/// A signal's path below the endpoint's own.
fn below(endpoint: &Uri, path: &str) -> Uri {
    let target = format!("{}{path}", endpoint.path().trim_end_matches('/'));
    let mut parts = endpoint.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    Uri::from_parts(parts).unwrap_or_else(|_| endpoint.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_its_path_below_the_endpoints() {
        for (endpoint, want) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://otlp.example/otlp", "https://otlp.example/otlp/v1/traces"),
        ] {
            assert_eq!(below(&endpoint.parse().unwrap(), "/v1/traces"), *want, "{endpoint}");
        }
    }

    #[test]
    fn what_the_protocol_calls_permanent_is_not_tried_again() {
        for (code, is_transient) in [
            (Code::Unavailable, true),
            (Code::ResourceExhausted, true),
            (Code::InvalidArgument, false),
            (Code::Unauthenticated, false),
            (Code::PermissionDenied, false),
            (Code::Unimplemented, false),
        ] {
            assert_eq!(refused(&Status::new(code, "text")).is_transient, is_transient, "{code:?}");
        }
    }
}
