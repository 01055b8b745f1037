//! What storage needs of the path besides words: bodies that name buckets are read before the decision, a read that one side doesn't
//! have is asked of the other, and short answers are read to be said back.

use std::time::Duration;

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use http_body::Body as _;

use super::body::Source;
use super::forward::Answered;
use super::refusal::Refusal;
use super::restore::{Read, read};
use super::{Asked, Caller, Names, Path};
use crate::forward::request_body::{BodyFault, Share, collect};
use crate::observe::ErrorCode;
use crate::restore::encoding::decode;
use crate::rewrite::storage::{self, Elsewhere, Endpoint, Restore};
use crate::route::Route;
use crate::snapshot::Snapshot;

impl Path {
    /// Reads a body that names what the bucket map renames or an owner has, bounded in bytes and time. All others stay where they are.
    pub(super) async fn read_names(
        &mut self,
        asked: &mut Asked,
        caller: &Caller,
    ) -> Result<(), Refusal> {
        let settings = &self.snapshot.rewrite.storage;
        if asked.route != Route::Storage || !asked.needs_names(settings) {
            return Ok(());
        }
        // A stranger is about to be refused, and shall not take the room of those who aren't.
        caller.keys.check(&self.snapshot.keyring)?;
        let Some(mut body) = asked.body.take().filter(|body| !body.is_end_stream()) else {
            return Ok(());
        };
        let limits = self.snapshot.accept.limits;
        let any_body = usize::try_from(limits.body_bytes).ok().filter(|limit| *limit > 0);
        let limit = any_body.map_or(settings.body_bytes, |limit| limit.min(settings.body_bytes));
        let most = settings.bodies_bytes.max(settings.body_bytes);
        let mut share = Share::new(&self.worker.bodies, most);
        let collecting = collect(&mut body, limit, limits.body_idle_timeout, &mut share);
        // A few names are soon said: whoever says them byte by byte holds a share of what all have.
        let bytes = tokio::time::timeout(self.snapshot.forward.timeout, collecting).await;
        let bytes = bytes.unwrap_or(Err(BodyFault::Idle)).map_err(|fault| match fault {
            BodyFault::TooLarge if limit == settings.body_bytes => Refusal::too_many_names(limit),
            fault => {
                if fault == BodyFault::Broken {
                    self.record.finished.ending = crate::observe::Ending::RequestCut;
                }
                Refusal::from(fault)
            }
        })?;
        asked.names = Some(Names { bytes, _share: share });
        // All of it is here: nothing of it is in the way of a refusal.
        self.about.has_body = false;
        Ok(())
    }

    /// Whether a read may be asked of the other side too. Not when everybody is forced: force is the switch above all others, also for
    /// a signed URL that it doesn't move.
    pub(super) fn elsewhere(&self, asked: &Asked) -> Option<Elsewhere> {
        let is_forced = self.snapshot.decide.force.is_some();
        (!is_forced).then(|| asked.elsewhere(&self.snapshot)).flatten()
    }

    /// Asks the other side for what the first one doesn't have. Whatever goes wrong there, the client gets the first answer.
    pub(super) async fn look_elsewhere(
        &mut self,
        first: Answered,
        elsewhere: Elsewhere,
        asked: Asked,
        caller: &Caller,
    ) -> Result<Answered, Refusal> {
        let status = first.response.status();
        if !elsewhere.may_be(status) {
            return Ok(first);
        }
        let (first, body) = self.read_error(first).await?;
        if !elsewhere.is(&asked.method, status, &body) {
            return Ok(first);
        }
        let side = first.side.other();
        let (elapsed, retried) =
            (self.record.finished.upstream_elapsed, self.record.finished.retried);
        let found = self.ask(asked, caller, side, first.timeout).await.ok();
        let Some(found) = found.filter(|found| is_found(found.response.status())) else {
            self.record.finished.upstream_elapsed = elapsed;
            self.record.finished.retried = retried;
            return Ok(first);
        };
        self.record.finished.side = Some(side);
        self.record.finished.found_elsewhere = true;
        Ok(found)
    }

    /// Reads the body of an error, and keeps it with the answer.
    async fn read_error(&self, first: Answered) -> Result<(Answered, Vec<u8>), Refusal> {
        let Answered { side, response, undo, timeout, closes } = first;
        let limit = self.snapshot.restore.error_body_bytes;
        let (parts, source) = response.into_parts();
        let source = if self.about.method == Method::HEAD {
            Ok(source)
        } else {
            match read(source, limit, timeout).await {
                Read::Whole(bytes) => Ok(Source::Own(bytes)),
                Read::TooLong(source) => Ok(source),
                Read::Broken(code) => Err(Refusal::of(code)),
            }
        }?;
        let plain = match &source {
            Source::Own(bytes) => decoded(&parts.headers, bytes, limit).unwrap_or_default(),
            Source::Side(_) | Source::Begun(..) => Vec::new(),
        };
        let response = http::Response::from_parts(parts, source);
        Ok((Answered { side, response, undo, timeout, closes }, plain))
    }

    /// Phase 6 for storage.
    pub(super) async fn restore_storage(
        &mut self,
        mut parts: Parts,
        source: Source,
        restore: &Restore,
        timeout: Duration,
    ) -> (Parts, Source) {
        let settings = &self.snapshot.rewrite.storage;
        if parts.headers.contains_key(header::LOCATION) {
            restore.location(settings, &mut parts.headers, &self.about.reached.public());
        }
        let is_wanted = restore.wants_body(settings, parts.status, &parts.headers);
        if self.about.method == Method::HEAD || !is_wanted {
            return (parts, source);
        }
        let bytes = match read(source, settings.body_bytes, timeout).await {
            Read::Whole(bytes) => bytes,
            Read::TooLong(source) => {
                self.record.finished.left_alone = true;
                return (parts, source);
            }
            Read::Broken(code) => return self.broken(code),
        };
        let said = decoded(&parts.headers, &bytes, settings.body_bytes)
            .and_then(|plain| restore.body(settings, parts.status, &plain));
        let Some(said) = said else { return (parts, Source::Own(bytes)) };
        parts.headers.remove(header::CONTENT_ENCODING);
        parts.headers.insert(header::CONTENT_LENGTH, said.len().into());
        (parts, Source::Own(Bytes::from(said)))
    }
}

/// An answer that shows that the side has it, whatever the conditions or the range of the request make of that.
fn is_found(status: StatusCode) -> bool {
    status.is_success()
        || matches!(
            status,
            StatusCode::NOT_MODIFIED
                | StatusCode::PRECONDITION_FAILED
                | StatusCode::RANGE_NOT_SATISFIABLE
        )
}

/// A body without its content encoding.
fn decoded(headers: &HeaderMap, bytes: &[u8], limit: usize) -> Option<Vec<u8>> {
    let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str());
    decode(encoding.unwrap_or(Ok("")).ok()?, bytes, limit)
}

impl Refusal {
    fn too_many_names(limit: usize) -> Self {
        let details = format!(
            "this body names objects that have other names on their side, and limits.storage_body_bytes is {limit}"
        );
        Self::details(ErrorCode::BodyTooLarge, &details).closing()
    }
}

impl Asked {
    pub(super) fn storage(&self) -> storage::Asked<'_> {
        storage::Asked {
            method: &self.method,
            tail: self.route.tail(self.target.path()),
            query: self.target.query(),
            headers: &self.headers,
            body: self.names.as_ref().map(|names| &names.bytes),
        }
    }

    /// Where in storage it leads. Read once, whoever asks first.
    pub(super) fn endpoint(&self) -> &Endpoint {
        let tail = || self.route.tail(self.target.path());
        self.endpoint.get_or_init(|| Endpoint::of(&self.method, tail()))
    }

    fn needs_names(&self, settings: &storage::Settings) -> bool {
        let tail = self.route.tail(self.target.path());
        self.endpoint().needs_body(settings, &self.method, tail)
    }

    pub(super) fn elsewhere(&self, snapshot: &Snapshot) -> Option<Elsewhere> {
        if self.route != Route::Storage {
            return None;
        }
        self.endpoint().elsewhere(&snapshot.rewrite.storage, &self.storage())
    }
}
