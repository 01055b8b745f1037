//! One client's socket: which side hears which of its frames, and what it hears of them. A state machine: frames in, [`Action`]s out.
//! Whoever runs it does the actions in their order, one after the other, so that nothing is queued here.

use std::fmt;

use foldhash::HashMap;
use tungstenite::{Bytes, Utf8Bytes};

use super::Settings;
use super::binary;
use super::channel::Channel;
use super::frame::{Message, Refs};
use super::join::Join;
use super::requests::{Left, Requests};
use crate::identify::Identity;
use crate::identify::keyring::Role;
use crate::rewrite::schema::SchemaMap;
use crate::side::{Pair, Side};

/// How messages are written on a connection, fixed by `vsn` when it is opened (`supabase-wire.md` 4.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// Objects; also where `vsn` is missing.
    #[default]
    V1,
    /// Arrays, and binary frames.
    V2,
}

/// A whole WebSocket message. Its `Debug` shows its length only: tokens are in it.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// Text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
}

impl Frame {
    /// Its length in bytes.
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

/// Whose token a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Holder {
    /// An API key of either project.
    Key(Role),
    /// A token that names somebody, or a service.
    Token(Identity),
    /// Neither: nobody that we know.
    Nobody,
}

/// What a session asks of the world around it: the settings of this moment, never those of its beginning.
pub trait Ground {
    /// Whose token this is; not verified, as for any request.
    fn holder(&mut self, token: &str) -> Holder;
    /// Where this identity's database changes come from.
    fn side_of(&mut self, identity: &Identity) -> Side;
    /// Where all rooms are.
    fn rooms(&self) -> Side;
    /// A key or token as `side` accepts it; `None` when it goes as it is.
    fn say_token(&mut self, token: &str, side: Side) -> Option<String>;
    /// The schema map.
    fn map(&self) -> &SchemaMap;
    /// Limits.
    fn settings(&self) -> &Settings;
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Opens a socket to a side. It is open when the next action is done, or the session is over.
    Open(Side),
    /// Sends to a side that was opened.
    ToSide(Side, Frame),
    /// Sends to the client.
    ToClient(Frame),
    /// Closes a side's socket that has no channel left.
    Shut(Side),
    /// Closes everything, with a code for the client.
    Close {
        /// The close code (RFC 6455 7.4).
        code: u16,
        /// What the client is told.
        reason: &'static str,
    },
}

/// One client's socket.
pub struct Session {
    pub(super) version: Version,
    pub(super) open: Pair<bool>,
    /// How often each side was opened.
    opened: Pair<u8>,
    /// By the client's topic; at most `realtime.channels`.
    pub(super) channels: HashMap<Box<str>, Channel>,
    /// Heartbeats on their way.
    pub(super) beats: Requests,
    /// Requests that several sides answer, or whose channel is gone.
    pub(super) requests: Requests,
    pub(super) left: Left,
    pub(super) refs: Refs,
    /// Who spoke last: decides where a socket without channels is.
    pub(super) last: Identity,
    /// Something was left or answered: a side may have become idle.
    pub(super) stale: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("version", &self.version)
            .field("open", &self.open)
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}

/// What a session asks while it works on one frame, and what it answers.
pub(super) struct Turn<'t> {
    pub(super) ground: &'t mut dyn Ground,
    pub(super) actions: &'t mut Vec<Action>,
}

impl Turn<'_> {
    pub(super) fn tell_client(&mut self, text: Utf8Bytes) {
        self.actions.push(Action::ToClient(Frame::Text(text)));
    }

    pub(super) fn close(&mut self, reason: &'static str) {
        self.actions.push(Action::Close { code: SERVICE_RESTART, reason });
    }

    /// How many requests are remembered: several for each channel, because a channel can be left and joined again before the first
    /// answer comes.
    pub(super) fn memory(&self) -> usize {
        self.ground.settings().channels.saturating_mul(8)
    }
}

/// Messages, and bytes of them, that wait for the answer to a channel's join.
const EARLY: usize = 256;
const EARLY_BYTES: usize = 256 * 1024;
/// How often a side is opened at most: it stays open the last time, because a client that comes and goes for ever would have us dial
/// for ever.
pub(super) const OPENINGS: u8 = 8;
/// "Service restart": clients come back (trap 25).
const SERVICE_RESTART: u16 = 1012;

/// The tokens that a client's frame brings: `user_token` and `access_token` of a join or a refresh (`supabase-wire.md` 4.1). Other
/// frames are not looked into, however much they look like it.
#[must_use]
pub fn tokens_in(version: Version, text: &str) -> Vec<String> {
    if !text.contains("_token\"") {
        return Vec::new();
    }
    let Some(message) = Message::read(version, text) else { return Vec::new() };
    match &*message.event() {
        "phx_join" | "access_token" => Join::read(message.payload()).tokens(),
        _ => Vec::new(),
    }
}

impl Session {
    /// A socket on which nothing was said yet.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self {
            version,
            open: Pair::default(),
            opened: Pair::default(),
            channels: HashMap::default(),
            beats: Requests::default(),
            requests: Requests::default(),
            left: Left::default(),
            refs: Refs::default(),
            last: Identity::Anonymous,
            stale: false,
        }
    }

    /// The client said something.
    pub fn from_client(
        &mut self,
        frame: Frame,
        ground: &mut dyn Ground,
        actions: &mut Vec<Action>,
    ) {
        let mut turn = Turn { ground, actions };
        match &frame {
            Frame::Text(text) => match Message::read(self.version, text) {
                Some(message) => self.client_said(&message, text, &mut turn),
                None => {
                    let side = self.anywhere(&mut turn);
                    self.send(side, frame, &mut turn);
                }
            },
            Frame::Binary(bytes) => {
                let topic = binary::from_client(bytes).map(|header| header.topic);
                let side = topic.and_then(|topic| self.room_side(topic));
                let side = side.unwrap_or_else(|| self.anywhere(&mut turn));
                self.send(side, frame, &mut turn);
            }
        }
        self.shut_idle(&mut turn);
    }

    /// A side said something.
    pub fn from_side(
        &mut self,
        side: Side,
        frame: Frame,
        ground: &mut dyn Ground,
        actions: &mut Vec<Action>,
    ) {
        if !self.open[side] {
            // It was shut, and said this before it heard of that.
            return;
        }
        let mut turn = Turn { ground, actions };
        match &frame {
            Frame::Text(text) => match Message::read(self.version, text) {
                Some(message) => self.side_said(side, &message, text, &mut turn),
                None => turn.actions.push(Action::ToClient(frame)),
            },
            Frame::Binary(bytes) => {
                let header = binary::from_server(bytes);
                if header.is_none_or(|header| self.hears_binary(side, header)) {
                    let topic = header.map(|header| header.topic.to_owned());
                    self.tell(topic.as_deref().unwrap_or_default(), frame, &mut turn);
                }
            }
        }
        self.shut_idle(&mut turn);
    }

    /// `realtime.identify_timeout` is over and no side is open: the socket is served as nobody's.
    pub fn nobody_spoke(&mut self, ground: &mut dyn Ground, actions: &mut Vec<Action>) {
        let side = ground.side_of(&self.last);
        self.open(side, actions);
    }

    /// Whether, by the settings of this moment, something of this socket belongs to another side than the one that serves it.
    #[must_use]
    pub fn has_to_move(&self, ground: &mut dyn Ground) -> bool {
        self.channels.values().any(|channel| {
            let rooms = channel.side_where(|leg| leg.rooms && !channel.is_old_api);
            let changes = channel.moving.or_else(|| channel.side_where(|leg| leg.changes));
            rooms.is_some_and(|side| side != ground.rooms())
                || changes.is_some_and(|side| {
                    side != ground.side_of(&channel.identity) || !channel.is_said(side, ground)
                })
        })
    }

    /// How messages are written.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Tells the client of something on its channel: behind the answer to its join, which one of two sides may still owe. What
    /// would be too much to keep is told at once.
    pub(super) fn tell(&mut self, own: &str, frame: Frame, turn: &mut Turn<'_>) {
        let owes = |channel: &&mut Channel| channel.joining && channel.sides().count() == 2;
        let Some(channel) = self.channels.get_mut(own).filter(owes) else {
            return turn.actions.push(Action::ToClient(frame));
        };
        channel.early.push(frame);
        let bytes: usize = channel.early.iter().map(Frame::len).sum();
        if channel.early.len() > EARLY || bytes > EARLY_BYTES {
            turn.actions.extend(channel.early.drain(..).map(Action::ToClient));
        }
    }

    fn open(&mut self, side: Side, actions: &mut Vec<Action>) {
        if !self.open[side] {
            self.open[side] = true;
            self.opened[side] = self.opened[side].saturating_add(1);
            actions.push(Action::Open(side));
        }
    }

    /// Sends to a side, which is opened if it is not.
    pub(super) fn send(&mut self, side: Side, frame: Frame, turn: &mut Turn<'_>) {
        self.open(side, turn.actions);
        turn.actions.push(Action::ToSide(side, frame));
    }

    /// What belongs to no channel goes to one side, whose answer is the only one: where the rooms are, or whichever is open.
    pub(super) fn anywhere(&self, turn: &mut Turn<'_>) -> Side {
        let rooms = turn.ground.rooms();
        match (self.open[rooms], self.open[rooms.other()]) {
            (true, _) => rooms,
            (false, true) => rooms.other(),
            (false, false) => turn.ground.side_of(&self.last),
        }
    }

    /// Where a channel's room is joined.
    pub(super) fn room_side(&self, topic: &str) -> Option<Side> {
        self.channels.get(topic)?.side_where(|leg| leg.rooms)
    }

    /// Closes a side that nothing is joined or awaited on, as long as the other one stays.
    fn shut_idle(&mut self, turn: &mut Turn<'_>) {
        if !self.stale {
            return;
        }
        self.stale = false;
        let rooms = turn.ground.rooms();
        for side in [rooms.other(), rooms] {
            let serves = |side| self.channels.values().any(|channel| channel.legs[side].is_some());
            let is_idle = !serves(side)
                && !self.requests.wait_for(side)
                && !self.beats.wait_for(side)
                && !self.left.wait_for(side);
            // The rooms' side is the one to keep, unless only channels of the old API are left, which have no room.
            let is_idle = is_idle && (side != rooms || serves(rooms.other()));
            let is_shut = is_idle && self.opened[side] < OPENINGS;
            if is_shut && self.open.old && self.open.new {
                self.open[side] = false;
                self.left.forget(side);
                turn.actions.push(Action::Shut(side));
            }
        }
    }
}
