//! Requests that went to both sides, and requests of our own: the client hears of the first once, and of the second never.

use std::collections::VecDeque;

use crate::side::{Pair, Side};

/// The longest ref and topic together that are remembered: whoever writes longer ones hears the answers of both sides.
const WORDS: usize = 1024;

/// Requests of the client's that several sides answer. The oldest is forgotten when there are too many: whoever sends so many
/// without an answer hears two of them.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<Request>);

#[derive(Debug)]
struct Request {
    reference: Box<str>,
    topic: Box<str>,
    waiting: Pair<bool>,
    swallow: bool,
}

/// What happens to an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It belongs to no such request.
    Unknown,
    /// Another side still has to answer, or nobody asked.
    Swallow,
    /// It is the last: the client hears it, on this topic.
    Pass(Box<str>),
}

impl Requests {
    /// Remembers a request; at most `limit` of them.
    pub(super) fn expect(
        &mut self,
        reference: &str,
        topic: &str,
        waiting: Pair<bool>,
        swallow: bool,
        limit: usize,
    ) {
        if reference.len() + topic.len() > WORDS {
            return;
        }
        while self.0.len() >= limit.max(1) {
            self.0.pop_front();
        }
        self.0.push_back(Request {
            reference: reference.into(),
            topic: topic.into(),
            waiting,
            swallow,
        });
    }

    /// A side answered `reference`.
    pub(super) fn answered(&mut self, side: Side, reference: &str) -> Answer {
        let Some(at) =
            self.0.iter().position(|one| *one.reference == *reference && one.waiting[side])
        else {
            return Answer::Unknown;
        };
        let Some(request) = self.0.get_mut(at) else { return Answer::Unknown };
        request.waiting[side] = false;
        if request.waiting.old || request.waiting.new {
            return Answer::Swallow;
        }
        match self.0.remove(at) {
            Some(request) if !request.swallow => Answer::Pass(request.topic),
            _ => Answer::Swallow,
        }
    }

    /// Whether a side has something to answer.
    pub(super) fn wait_for(&self, side: Side) -> bool {
        self.0.iter().any(|request| request.waiting[side])
    }
}

/// Joins that are over on a side, by a leave of ours or by another join: the answer and the closing are not the client's.
#[derive(Debug, Default)]
pub(super) struct Left(VecDeque<Leaving>);

#[derive(Debug)]
struct Leaving {
    side: Side,
    topic: Box<str>,
    join_ref: Option<Box<str>>,
    /// The ref of our `phx_leave`; empty when only the closing is to come.
    reference: String,
    answered: bool,
}

impl Left {
    /// Remembers that `topic` was left on `side`; at most `limit` of them.
    pub(super) fn push(
        &mut self,
        side: Side,
        topic: &str,
        join_ref: Option<&str>,
        reference: String,
        limit: usize,
    ) {
        if topic.len() + join_ref.map_or(0, str::len) > WORDS {
            return;
        }
        while self.0.len() >= limit.max(1) {
            self.0.pop_front();
        }
        let answered = reference.is_empty();
        self.0.push_back(Leaving {
            side,
            topic: topic.into(),
            join_ref: join_ref.map(Into::into),
            reference,
            answered,
        });
    }

    /// Remembers that `count` closings of `topic` are to come that nobody of ours asked for by leaving.
    pub(super) fn closing(
        &mut self,
        side: Side,
        topic: &str,
        join_ref: Option<&str>,
        count: usize,
        limit: usize,
    ) {
        for _ in 0..count.min(limit) {
            self.push(side, topic, join_ref, String::new(), limit);
        }
    }

    /// A side answered a `phx_leave` of ours.
    pub(super) fn answered(&mut self, side: Side, reference: &str) {
        let leave = self.0.iter_mut().find(|one| one.side == side && one.reference == reference);
        if let Some(leave) = leave {
            leave.answered = true;
        }
    }

    /// Whether a closing is of a join that was left; it is forgotten with that.
    pub(super) fn closed(&mut self, side: Side, topic: &str, join_ref: Option<&str>) -> bool {
        let is_it = |one: &Leaving| {
            one.side == side && *one.topic == *topic && one.join_ref.as_deref() == join_ref
        };
        match self.0.iter().position(is_it) {
            Some(at) => self.0.remove(at).is_some(),
            None => false,
        }
    }

    /// Whether a side still has to answer.
    pub(super) fn wait_for(&self, side: Side) -> bool {
        self.0.iter().any(|one| one.side == side && !one.answered)
    }

    /// A side's socket is closed: nothing more comes from it.
    pub(super) fn forget(&mut self, side: Side) {
        self.0.retain(|one| one.side != side);
    }
}
