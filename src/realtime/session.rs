//! One client's socket: which side hears which of its frames, and what it hears of them. A state machine: frames in, [`Action`]s out.
//! Whoever runs it does the actions in their order, one after the other, so that nothing is queued here.

use tungstenite::{Bytes, Utf8Bytes};

use super::Settings;
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

/// A whole WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Text.
    Text(Utf8Bytes),
    /// Bytes.
    Binary(Bytes),
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
#[derive(Debug, Default)]
pub struct Session {
    version: Version,
    open: Pair<bool>,
}

impl Session {
    /// A socket on which nothing was said yet.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self { version, ..Self::default() }
    }

    /// The client said something.
    pub fn from_client(
        &mut self,
        frame: Frame,
        ground: &mut dyn Ground,
        actions: &mut Vec<Action>,
    ) {
        let side = ground.side_of(&Identity::Anonymous);
        if !self.open[side] {
            self.open[side] = true;
            actions.push(Action::Open(side));
        }
        actions.push(Action::ToSide(side, frame));
    }

    /// A side said something.
    pub fn from_side(
        &mut self,
        _side: Side,
        frame: Frame,
        _ground: &mut dyn Ground,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::ToClient(frame));
    }

    /// `realtime.identify_timeout` is over and no side is open: the socket is served as nobody's.
    pub fn nobody_spoke(&mut self, ground: &mut dyn Ground, actions: &mut Vec<Action>) {
        let side = ground.side_of(&Identity::Anonymous);
        self.open[side] = true;
        actions.push(Action::Open(side));
    }

    /// Whether, by the settings of this moment, something of this socket belongs to another side than the one that serves it.
    #[must_use]
    pub fn has_to_move(&self, ground: &mut dyn Ground) -> bool {
        let side = ground.side_of(&Identity::Anonymous);
        self.open.old != self.open.new && !self.open[side]
    }

    /// How messages are written.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }
}
