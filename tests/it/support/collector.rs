//! An OpenTelemetry collector: OTLP over gRPC (the server that OpenTelemetry's own definitions make) and over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};
use tower::ServiceExt;

use super::eventually;

/// What the collector does with an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Takes,
    /// Takes some of it: so many spans are refused.
    TakesAllBut(i64),
    /// Never answers.
    Hangs,
    /// Answers that it can't now.
    IsBusy,
    /// Answers that it never will.
    Refuses,
}

#[derive(Default)]
struct Got {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    headers: Vec<HeaderMap>,
    /// Exports that came, whatever became of them.
    asked: usize,
}

#[derive(Clone)]
pub struct Collector {
    pub address: SocketAddr,
    got: Arc<Mutex<Got>>,
    mood: Arc<Mutex<Mood>>,
}

impl Collector {
    /// Speaks gRPC (HTTP/2 without negotiation).
    pub async fn grpc() -> Self {
        Self::start(true, None).await
    }

    /// Speaks HTTP/1.1.
    pub async fn http() -> Self {
        Self::start(false, None).await
    }

    /// gRPC over TLS.
    pub async fn tls(acceptor: TlsAcceptor) -> Self {
        Self::start(true, Some(acceptor)).await
    }

    async fn start(is_grpc: bool, acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = Arc::new(Mutex::new(Mood::Takes));
        let collector = Self { address, got: Arc::default(), mood };
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (collector, acceptor) = (serving.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => collector.serve(stream, is_grpc).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                collector.serve(stream, is_grpc).await;
                            }
                        }
                    }
                });
            }
        });
        collector
    }

    async fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        is_grpc: bool,
    ) {
        let stream = TokioIo::new(stream);
        let collector = self.clone();
        if is_grpc {
            let service = service_fn(move |request| collector.clone().answer_grpc(request));
            http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await.ok();
        } else {
            let service = service_fn(move |request| collector.clone().answer_http(request));
            http1::Builder::new().serve_connection(stream, service).await.ok();
        }
    }

    async fn answer_grpc(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<tonic::body::Body>, Infallible> {
        self.note(request.headers());
        if request.uri().path().contains("TraceService") {
            TraceServiceServer::new(self).oneshot(request).await
        } else {
            MetricsServiceServer::new(self).oneshot(request).await
        }
    }

    async fn answer_http(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        self.note(request.headers());
        assert_eq!(request.headers()["content-type"], "application/x-protobuf");
        let path = request.uri().path().to_owned();
        let bytes = request.into_body().collect().await.unwrap().to_bytes();
        let status = match self.mood().await {
            Mood::IsBusy => 503,
            Mood::Refuses => 400,
            _ => 200,
        };
        let mut answer = Bytes::new();
        if status == 200 && path.ends_with("/v1/traces") {
            let request = ExportTraceServiceRequest::decode(bytes).unwrap();
            self.got.lock().unwrap().traces.push(request);
            answer = self.taken().encode_to_vec().into();
        } else if status == 200 {
            assert!(path.ends_with("/v1/metrics"), "{path}");
            let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
            self.got.lock().unwrap().metrics.push(request);
        }
        let mut response = Response::new(Full::from(answer));
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
        Ok(response)
    }

    fn note(&self, headers: &HeaderMap) {
        let mut got = self.got.lock().unwrap();
        got.headers.push(headers.clone());
        got.asked += 1;
    }

    async fn mood(&self) -> Mood {
        let mood = *self.mood.lock().unwrap();
        if mood == Mood::Hangs {
            std::future::pending::<()>().await;
        }
        mood
    }

    fn taken(&self) -> ExportTraceServiceResponse {
        let refused = match *self.mood.lock().unwrap() {
            Mood::TakesAllBut(refused) => refused,
            _ => 0,
        };
        let partial =
            ExportTracePartialSuccess { rejected_spans: refused, error_message: String::new() };
        ExportTraceServiceResponse { partial_success: (refused > 0).then_some(partial) }
    }

    /// From now on.
    pub fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn asked(&self) -> usize {
        self.got.lock().unwrap().asked
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.got.lock().unwrap().headers.clone()
    }

    /// All spans, in the order in which they came.
    pub fn spans(&self) -> Vec<Span> {
        let got = self.got.lock().unwrap();
        let resources = got.traces.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|r| &r.scope_spans).flat_map(|s| &s.spans).cloned().collect()
    }

    /// Waits for so many spans.
    pub async fn has_spans(&self, count: usize) -> Vec<Span> {
        eventually("the spans", async || self.spans().len() >= count).await;
        let spans = self.spans();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }

    /// The metrics of the newest export.
    pub fn metrics(&self) -> Vec<Metric> {
        let got = self.got.lock().unwrap();
        let newest = got.metrics.last().into_iter().flat_map(|request| &request.resource_metrics);
        newest.flat_map(|r| &r.scope_metrics).flat_map(|s| &s.metrics).cloned().collect()
    }

    /// The resource's attributes of every export.
    pub fn resources(&self) -> Vec<Vec<KeyValue>> {
        let got = self.got.lock().unwrap();
        let traces = got.traces.iter().flat_map(|r| &r.resource_spans).map(|r| &r.resource);
        let metrics = got.metrics.iter().flat_map(|r| &r.resource_metrics).map(|r| &r.resource);
        traces.chain(metrics).map(|r| r.clone().unwrap().attributes).collect()
    }
}

/// What a mood says over gRPC.
fn status(mood: Mood) -> Result<(), Status> {
    match mood {
        Mood::IsBusy => Err(Status::new(Code::Unavailable, "busy")),
        Mood::Refuses => Err(Status::new(Code::InvalidArgument, "never")),
        _ => Ok(()),
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        status(self.mood().await)?;
        self.got.lock().unwrap().traces.push(request.into_inner());
        Ok(tonic::Response::new(self.taken()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        status(self.mood().await)?;
        self.got.lock().unwrap().metrics.push(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// An attribute as text.
pub fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => panic!("{other:?}"),
    })
}
