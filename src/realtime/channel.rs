//! One topic that the client joined, and its legs: the joins that serve it on the sides.

use foldhash::HashMap;
use tungstenite::Utf8Bytes;

use super::bindings::{Binding, Upstream};
use super::client::spread;
use super::join::Part;
use super::session::{Frame, Ground};
use crate::identify::Identity;
use crate::side::{Pair, Side};

/// A channel of the client's.
pub(super) struct Channel {
    /// The client's join, kept to join again elsewhere; a copy, as all that is kept of a client's frame: a slice would hold the whole
    /// buffer that it was read into.
    pub(super) join: Box<str>,
    /// `join_ref` as the client wrote it.
    pub(super) join_ref: Option<Box<str>>,
    /// A token that came after the join.
    pub(super) token: Option<Box<str>>,
    /// Whose changes it hears.
    pub(super) identity: Identity,
    /// What it asked of `postgres_changes`.
    pub(super) bindings: Vec<Binding>,
    /// A join of the old API: its topic is translated, and it has one leg, which is no room.
    pub(super) is_old_api: bool,
    /// At most one join a side: a socket has one channel a topic.
    pub(super) legs: Pair<Option<Leg>>,
    /// The client's join is not answered yet.
    pub(super) joining: bool,
    /// The answer of the rooms' leg, kept until the other has answered as well.
    pub(super) held: Option<Utf8Bytes>,
    /// What came after that, in the client's words, to be told behind the answer.
    pub(super) early: Vec<Frame>,
    /// Where its changes are being moved.
    pub(super) moving: Option<Side>,
    /// The client's last `track`, to be said again where we join its room again.
    pub(super) track: Option<Box<str>>,
}

/// A join on a side.
#[derive(Default)]
pub(super) struct Leg {
    /// The topic there, where it differs from the client's.
    pub(super) topic: Option<Box<str>>,
    /// The client hears broadcast, presence and whatever else we do not know from here.
    pub(super) rooms: bool,
    /// The client hears database changes from here.
    pub(super) changes: bool,
    /// The ref of the join that is not answered yet, as it is compared.
    pub(super) pending: Option<String>,
    /// Closings to come of earlier joins of this leg, which joins of ours replaced: they have its `join_ref`, and come after the
    /// answer (Phoenix sends itself the closing of a join that a second one ends). The client hears none of them.
    pub(super) closings: usize,
    /// The bindings as they were said.
    pub(super) upstream: Vec<Upstream>,
    /// The side's ids: which of `upstream` each stands for.
    pub(super) ids: HashMap<Box<str>, Vec<usize>>,
}

impl Channel {
    /// The sides on which it has legs.
    pub(super) fn sides(&self) -> impl Iterator<Item = Side> + '_ {
        Side::ALL.into_iter().filter(|side| self.legs[*side].is_some())
    }

    /// The side whose leg is chosen by `is_it`.
    pub(super) fn side_where(&self, is_it: impl Fn(&Leg) -> bool) -> Option<Side> {
        self.sides().find(|side| self.legs[*side].as_ref().is_some_and(&is_it))
    }

    /// Its topic on a side where it has a leg.
    pub(super) fn topic_on<'a>(&'a self, side: Side, own: &'a str) -> Option<&'a str> {
        self.legs[side].as_ref().map(|leg| leg.topic.as_deref().unwrap_or(own))
    }

    /// `join_ref` as it is compared.
    pub(super) fn plain_join_ref(&self) -> Option<&str> {
        let text = self.join_ref.as_deref()?;
        Some(text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text))
    }

    /// Whether a `phx_leave` is of this join. The server does not answer one of an earlier join: React's strict mode sends such,
    /// when a component has joined the topic again before its first copy leaves it.
    pub(super) fn is_left_by(&self, join_ref: Option<&str>) -> bool {
        self.join_ref.is_none() || self.plain_join_ref() == join_ref
    }

    /// Whether a side was asked for its changes in the words of this moment's map.
    pub(super) fn is_said(&self, side: Side, ground: &dyn Ground) -> bool {
        let leg = self.legs[side].as_ref();
        leg.is_some_and(|leg| leg.upstream == spread(&self.bindings, side, ground))
    }

    /// Whether a request is waiting for an answer of either side.
    pub(super) fn is_waiting(&self) -> bool {
        self.joining || self.moving.is_some()
    }
}

impl Leg {
    /// What its join says.
    pub(super) const fn part(rooms: bool, changes: bool) -> Part {
        match (rooms, changes) {
            (true, true) => Part::Whole,
            (false, _) => Part::Changes,
            (true, false) => Part::Rooms,
        }
    }
}
