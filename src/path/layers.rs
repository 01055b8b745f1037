//! What is the same for every request and not a phase: a panic in one request is that request's 500, and the others go on.

use std::any::Any;
use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Method, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::body::{AnswerBody, Source};
use super::refusal::Refusal;
use crate::observe::ErrorCode;

/// Turns panics into `CUT500`.
#[derive(Clone, Copy, Debug)]
pub struct CatchPanic;

/// The service below [`CatchPanic`].
#[derive(Clone, Debug)]
pub struct PanicCaught<S> {
    inner: S,
}

impl<S> Layer<S> for CatchPanic {
    type Service = PanicCaught<S>;

    fn layer(&self, inner: S) -> PanicCaught<S> {
        PanicCaught { inner }
    }
}

impl<S, B> Service<Request<B>> for PanicCaught<S>
where
    S: Service<Request<B>, Response = Response<AnswerBody>, Error = Infallible>,
    S::Future: 'static,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Caught<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let is_head = request.method() == Method::HEAD;
        Caught { answering: Box::pin(self.inner.call(request)), is_head }
    }
}

/// An answer to come, whatever happens to the one who makes it. In memory of its own, so that a connection that waits for a request does
/// not hold the room for one.
#[derive(Debug)]
pub struct Caught<F> {
    answering: Pin<Box<F>>,
    is_head: bool,
}

impl<F> Future for Caught<F>
where
    F: Future<Output = Result<Response<AnswerBody>, Infallible>>,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let is_head = self.is_head;
        let answering = self.answering.as_mut();
        match catch_unwind(AssertUnwindSafe(|| answering.poll(cx))) {
            Ok(answer) => answer,
            // It is never polled again.
            Err(panic) => Poll::Ready(Ok(answer_for(&*panic, is_head))),
        }
    }
}

fn answer_for(panic: &(dyn Any + Send), is_head: bool) -> Response<AnswerBody> {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(
        panic = what.unwrap_or("?"),
        "a request panicked; this is a defect of cutover, please report it"
    );
    let (mut parts, body) = Refusal::of(ErrorCode::Panic).response();
    let source = Source::Own(body);
    let source = if is_head { source.for_head(&mut parts.headers) } else { source };
    Response::from_parts(parts, AnswerBody::new(source, None))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use tower::{ServiceBuilder, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_is_one_requests_500() {
        let service = ServiceBuilder::new().layer(CatchPanic).service(service_fn(
            |request: Request<()>| async move {
                assert!(request.uri().path() != "/panic", "boom");
                Ok::<_, Infallible>(Response::new(AnswerBody::new(
                    Source::Own("fine".into()),
                    None,
                )))
            },
        ));
        let ask = |path: &str| service.clone().oneshot(Request::get(path).body(()).unwrap());
        let answer = ask("/panic").await.unwrap();
        assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.headers()["content-type"], "application/json; charset=utf-8");
        assert_eq!(ask("/").await.unwrap().status(), StatusCode::OK, "the next one goes on");
        let length = http_body::Body::size_hint(answer.body()).exact().unwrap();
        let answer =
            service.clone().oneshot(Request::head("/panic").body(()).unwrap()).await.unwrap();
        assert!(http_body::Body::is_end_stream(answer.body()), "HEAD");
        assert_eq!(answer.headers()["content-length"], length.to_string());
    }
}
