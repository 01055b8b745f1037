//! Phase 6: the answer in the client's own words.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body;

use super::Path;
use super::body::Source;
use super::forward::Answered;
use super::refusal::Refusal;
use super::rewrite::Undo;
use crate::forward::response_body::ResponseBody;
use crate::observe::ErrorCode;
use crate::restore::encoding::decode;
use crate::restore::headers::{restore_cookies, restore_location};
use crate::restore::{Settings, cors};
use crate::rewrite::headers::{REQUEST_ID, remove_where, strip_hop_by_hop};
use crate::rewrite::rest::RestRestore;
use crate::route::Route;

const DEBUG_SIDE: HeaderName = HeaderName::from_static("x-cutover-side");
const DEBUG_REASON: HeaderName = HeaderName::from_static("x-cutover-reason");
const DEBUG_BUCKET: HeaderName = HeaderName::from_static("x-cutover-bucket");
const DEBUG_EPOCH: HeaderName = HeaderName::from_static("x-cutover-epoch");

impl Path {
    /// Phase 6.
    pub(super) async fn restore(&mut self, answered: Answered) -> (Parts, Source) {
        let Answered { side, response, undo, timeout, closes } = answered;
        let (mut parts, source) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            // Its hop-by-hop headers are the handshake.
            return (parts, source);
        }
        strip_hop_by_hop(&mut parts.headers);
        if closes {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if parts.headers.contains_key(header::LOCATION) {
            let project = &self.snapshot.forward.projects[side].authority;
            restore_location(&mut parts.headers, project, &self.about.reached.public());
        }
        restore_cookies(&mut parts.headers);
        if self.record.finished.route == Some(Route::Auth) && is_not_auths_own(&parts) {
            return self.auth_unavailable(&parts);
        }
        match undo {
            Undo { rest: Some(rest), .. } => self.restore_rest(parts, source, &rest, timeout).await,
            Undo { storage: Some(storage), .. } => {
                Box::pin(self.restore_storage(parts, source, &storage, timeout)).await
            }
            Undo { rest: None, storage: None } => (parts, source),
        }
    }

    /// Reads an error body, bounded in bytes and time, and says it in the client's dialect. Whole or not at all.
    async fn restore_rest(
        &mut self,
        mut parts: Parts,
        source: Source,
        rest: &RestRestore,
        timeout: Duration,
    ) -> (Parts, Source) {
        rest.headers(&mut parts.headers);
        if self.about.method == Method::HEAD || !rest.wants_body(parts.status, &parts.headers) {
            return (parts, source);
        }
        let Settings { error_body_bytes, .. } = self.snapshot.restore;
        let bytes = match Box::pin(read(source, error_body_bytes, timeout)).await {
            Read::Whole(bytes) => bytes,
            Read::TooLong(source) => return (parts, source),
            Read::Broken(code) => return self.broken(code),
        };
        let restored = match parts.headers.get(header::CONTENT_ENCODING) {
            None => rest.body(&bytes),
            Some(encoding) => {
                let encoding = encoding.to_str().unwrap_or_default();
                decode(encoding, &bytes, error_body_bytes).and_then(|plain| rest.body(&plain))
            }
        };
        let Some(restored) = restored else { return (parts, Source::Own(bytes)) };
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(restored.len()));
        (parts, Source::Own(Bytes::from(restored)))
    }

    /// An answer of our own instead of the side's.
    pub(super) fn broken(&mut self, code: ErrorCode) -> (Parts, Source) {
        self.record.finished.code = Some(code);
        let (parts, body) = Refusal::of(code).response();
        (parts, Source::Own(body))
    }

    /// A page of whatever stands before the auth service: libraries would take some of these for the end of a session
    /// (trap 19, `supabase-wire.md` 3.3).
    fn auth_unavailable(&mut self, theirs: &Parts) -> (Parts, Source) {
        let (mut parts, source) = self.broken(ErrorCode::AuthUnavailable);
        if let Some(wait) = theirs.headers.get(header::RETRY_AFTER) {
            parts.headers.insert(header::RETRY_AFTER, wait.clone());
        }
        (parts, source)
    }

    /// What every answer gets, whoever made it.
    pub(super) fn restore_common(&self, parts: &mut Parts) {
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return;
        }
        let headers = &mut parts.headers;
        // Our own answer to a preflight has them already; a side's 204 has only what is to be replaced.
        let is_preflight =
            parts.status == StatusCode::NO_CONTENT && self.record.finished.side.is_none();
        if !is_preflight {
            cors::apply(&self.snapshot.restore.cors, self.about.origin.as_ref(), headers);
        }
        headers.insert(REQUEST_ID, self.about.request_id.clone());
        self.debug_headers(headers);
    }

    /// `x-cutover-*`: only ever ours, and only when asked for.
    fn debug_headers(&self, headers: &mut HeaderMap) {
        let ours = [DEBUG_SIDE, DEBUG_REASON, DEBUG_BUCKET, DEBUG_EPOCH];
        let is_ours = |name: &str| {
            name.starts_with("x-cutover-") && ours.iter().any(|ours| ours.as_str() == name)
        };
        remove_where(headers, is_ours, |_, _| {});
        if !self.snapshot.accept.debug_headers {
            return;
        }
        let finished = &self.record.finished;
        headers.insert(DEBUG_EPOCH, HeaderValue::from(self.snapshot.epoch));
        if let (Some(side), Some(reason)) = (finished.side, finished.reason) {
            headers.insert(DEBUG_SIDE, HeaderValue::from_static(side.as_str()));
            headers.insert(DEBUG_REASON, HeaderValue::from_static(reason.as_str()));
        }
        if let Some(bucket) = finished.bucket {
            headers.insert(DEBUG_BUCKET, HeaderValue::from(bucket.number()));
        }
    }
}

/// What reading a body led to.
pub(super) enum Read {
    /// All of it.
    Whole(Bytes),
    /// More than the limit; nothing of it is lost.
    TooLong(Source),
    /// The side broke off, or took too long.
    Broken(ErrorCode),
}

/// Reads a body that is short enough, bounded in bytes and time.
pub(super) async fn read(source: Source, limit: usize, timeout: Duration) -> Read {
    let mut body = match source {
        Source::Own(bytes) => return Read::Whole(bytes),
        Source::Side(body) if body.size_hint().lower() <= limit as u64 => body,
        Source::Side(_) | Source::Begun(..) => return Read::TooLong(source),
    };
    match tokio::time::timeout(timeout, collect(&mut body, limit)).await {
        Ok(Some(Collected::Whole(bytes))) => Read::Whole(bytes),
        Ok(Some(Collected::Begun(bytes))) => Read::TooLong(Source::Begun(bytes, body)),
        Ok(None) => Read::Broken(ErrorCode::UpstreamBroke),
        Err(_) => Read::Broken(ErrorCode::UpstreamTimeout),
    }
}

/// Whether an answer of the auth route was not made by the auth service, which says everything in JSON.
fn is_not_auths_own(parts: &Parts) -> bool {
    let is_json = |value: &HeaderValue| value.to_str().is_ok_and(|kind| kind.contains("json"));
    parts.status.is_server_error() && !parts.headers.get(header::CONTENT_TYPE).is_some_and(is_json)
}

enum Collected {
    /// All of it.
    Whole(Bytes),
    /// More than the limit; the rest is still in the body.
    Begun(Bytes),
}

/// Reads a body up to a limit; `None` when it breaks off.
async fn collect(body: &mut ResponseBody, limit: usize) -> Option<Collected> {
    let mut bytes = BytesMut::new();
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        match frame {
            None => return Some(Collected::Whole(bytes.freeze())),
            Some(Err(_)) => return None,
            Some(Ok(frame)) => {
                bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data))
            }
        }
        if bytes.len() > limit {
            return Some(Collected::Begun(bytes.freeze()));
        }
    }
}
