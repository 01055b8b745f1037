//! What a request that is traced remembers for its spans. Of a request that is not, nothing: one look at an `Option`.

use std::time::SystemTime;

use crate::http1::incoming::Incoming;
use http::Request;
use http::uri::PathAndQuery;

use super::rewrite::Said;
use super::{About, Path};
use crate::forward::error::ForwardError;
use crate::forward::send::Answer;
use crate::observe::ErrorCode;
use crate::observe::span::{Outcome, Traced, Try, copied};
use crate::path::refusal::Refusal;
use crate::side::Side;

impl Path {
    /// Begins to remember, if this request is recorded.
    #[expect(
        clippy::disallowed_methods,
        reason = "a span's beginning is a fact of the clock; asked only for requests that are recorded"
    )]
    pub(super) fn trace(&mut self, request: &Request<Incoming>, target: Option<&PathAndQuery>) {
        let About { trace, public, .. } = &self.about;
        if !trace.own.is_sampled {
            return;
        }
        let finished = self.record.finished;
        let traced = Traced::new(*trace, request.headers(), SystemTime::now(), finished);
        self.record.traced = Some(Box::new(Traced {
            target: target.map(copied),
            authority: public.authority.clone(),
            is_secure: public.is_secure,
            version: request.version(),
            ..traced
        }));
    }

    /// A side is about to be asked: it is told the id of the span that this is.
    pub(super) fn begin_try(&mut self, side: Side, said: &mut Said) {
        let Some((traced, after)) = self.record.traced() else { return };
        let child = traced.trace.own.child(traced.tries.len() as u64);
        said.trace(&traced.trace, child);
        let project = &self.snapshot.forward.projects[side];
        traced.tries.push(Try {
            span: child.span,
            side,
            method: (&said.method).into(),
            target: copied(&said.target),
            authority: project.authority.clone(),
            is_tls: project.tls,
            after,
            end: None,
            is_resent: false,
        });
    }

    /// The side has answered.
    pub(super) fn try_answered(&mut self, answer: &Answer) {
        let (status, version) = (answer.response.status(), answer.response.version());
        self.end_try(Outcome::Answered(status.as_u16(), version), answer.retried);
    }

    /// The side has not answered.
    pub(super) fn try_failed(&mut self, error: &ForwardError) -> Refusal {
        let refusal = Refusal::from(error);
        self.end_try(Outcome::Failed(refusal.code), false);
        refusal
    }

    /// No connection, and so the other side will be asked.
    pub(super) fn try_unreachable(&mut self) {
        self.end_try(Outcome::Failed(ErrorCode::Unreachable), false);
    }

    fn end_try(&mut self, outcome: Outcome, is_resent: bool) {
        let Some((traced, age)) = self.record.traced() else { return };
        if let Some(last) = traced.tries.last_mut() {
            last.end = Some((age.saturating_sub(last.after), outcome));
            last.is_resent = is_resent;
        }
    }
}
