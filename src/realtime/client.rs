//! What the client says, and which legs hear it.

use tungstenite::Utf8Bytes;

use super::bindings::{Binding, Upstream};
use super::channel::{Channel, Leg};
use super::frame::{Message, unquoted};
use super::join::{self, Join};
use super::reply;
use super::session::{Action, Frame, Ground, Holder, Session, Turn};
use crate::identify::Identity;
use crate::identify::keyring::Role;
use crate::side::{Pair, Side};

/// Heartbeats on their way; clients have one.
const BEATS: usize = 16;
/// The longest token that is taken in: no server takes as much in a header.
const TOKEN_BYTES: usize = 16 * 1024;
/// The longest `track` that is kept to be said again.
const TRACK_BYTES: usize = 64 * 1024;
/// The topic of the socket itself.
pub(super) const SOCKET_TOPIC: &str = "phoenix";

/// What a join asks for, before it is joined.
struct Asked<'a> {
    join: Join<'a>,
    bindings: Vec<Binding>,
    is_old_api: bool,
    identity: Identity,
}

impl Session {
    pub(super) fn client_said(
        &mut self,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let (topic, event) = (message.topic(), message.event());
        if topic == SOCKET_TOPIC {
            return self.beat(message, text, turn);
        }
        if event == "phx_join" {
            return self.join(message, text, turn);
        }
        if !self.channels.contains_key(&*topic) {
            return self.stray(message, text, turn);
        }
        match &*event {
            "phx_leave" if self.is_left_by(&topic, message) => self.leave(message, text, turn),
            "access_token" => self.token(message, text, turn),
            "presence" => {
                self.keep_track(message, text);
                self.push(message, text, turn);
            }
            _ => self.push(message, text, turn),
        }
    }

    fn is_left_by(&self, topic: &str, message: &Message<'_>) -> bool {
        self.channels.get(topic).is_some_and(|channel| channel.is_left_by(message.join_ref()))
    }

    /// A heartbeat goes wherever the client is served; it is alive when all of these are.
    fn beat(&mut self, message: &Message<'_>, text: &Utf8Bytes, turn: &mut Turn<'_>) {
        let mut sides = self.open;
        if !sides.old && !sides.new {
            sides[self.anywhere(turn)] = true;
        }
        if let Some(reference) = message.reference() {
            self.beats.expect(reference, SOCKET_TOPIC, sides, false, BEATS);
        }
        for side in Side::ALL.into_iter().filter(|side| sides[*side]) {
            self.send(side, Frame::Text(text.clone()), turn);
        }
    }

    /// A request on a topic that is not joined: the server says so, once. Its side stays open until then.
    fn stray(&mut self, message: &Message<'_>, text: &Utf8Bytes, turn: &mut Turn<'_>) {
        let side = self.anywhere(turn);
        if let Some(reference) = message.reference() {
            let mut waiting = Pair::default();
            waiting[side] = true;
            self.requests.expect(reference, &message.topic(), waiting, false, turn.memory());
        }
        self.send(side, Frame::Text(text.clone()), turn);
    }

    fn join(&mut self, message: &Message<'_>, text: &Utf8Bytes, turn: &mut Turn<'_>) {
        let topic = message.topic();
        let planned = self.asked(message, text, turn).and_then(|asked| {
            self.last = asked.identity.clone();
            let legs = self.plan(message, &asked, turn)?;
            Ok((asked, legs))
        });
        let (asked, legs) = match planned {
            Ok(planned) => planned,
            Err(reason) => {
                self.abandon(&topic, Pair::default(), turn);
                return turn.tell_client(reply::refusal(self.version, message, reason));
            }
        };
        self.abandon(&topic, Pair { old: legs.old.is_some(), new: legs.new.is_some() }, turn);
        for side in Side::ALL {
            let Some(leg) = &legs[side] else { continue };
            let mut edits = message.edits();
            if let Some(there) = &leg.topic {
                message.retopic(&mut edits, there);
            }
            let part = Leg::part(leg.rooms, leg.changes);
            asked.join.say(part, &leg.upstream, None, side, turn.ground, &mut edits);
            self.send(side, Frame::Text(edits.frame(text)), turn);
        }
        let channel = Channel {
            join: text.as_str().into(),
            join_ref: message.raw_join_ref().map(Into::into),
            token: None,
            identity: asked.identity,
            bindings: asked.bindings,
            is_old_api: asked.is_old_api,
            legs,
            joining: true,
            held: None,
            early: Vec::new(),
            moves: 0,
            moving: None,
            track: None,
        };
        self.channels.insert(topic.into(), channel);
    }

    /// Reads a join; the reason of a refusal otherwise.
    fn asked<'a>(
        &self,
        message: &Message<'a>,
        text: &str,
        turn: &mut Turn<'_>,
    ) -> Result<Asked<'a>, &'static str> {
        let topic = message.topic();
        if !self.channels.contains_key(&*topic)
            && self.channels.len() >= turn.ground.settings().channels
        {
            return Err(reply::TOO_MANY_CHANNELS);
        }
        let others = self.channels.iter().filter(|(name, _)| ***name != *topic);
        let kept: usize = others.map(|(_, channel)| channel.join.len()).sum();
        let settings = turn.ground.settings();
        if kept + text.len() > settings.channels.saturating_mul(settings.join_bytes) {
            return Err(reply::JOINS_TOO_LONG);
        }
        let join = Join::read(message.payload());
        let identity = whose(turn.ground, join.token().as_deref());
        let of_topic = join.is_old_api().then(|| old_api(&topic, turn.ground)).flatten();
        let is_old_api = of_topic.is_some();
        let bindings = match of_topic {
            Some(binding) => vec![binding],
            None => join.bindings(turn.ground.settings().bindings)?,
        };
        Ok(Asked { join, bindings, is_old_api, identity })
    }

    /// The legs that a join needs.
    fn plan(
        &self,
        message: &Message<'_>,
        asked: &Asked<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<Pair<Option<Leg>>, &'static str> {
        let topic = &*message.topic();
        let rooms = turn.ground.rooms();
        let changes = match asked.bindings.is_empty() {
            true => None,
            false => Some(turn.ground.side_of(&asked.identity)),
        };
        let mut legs: Pair<Option<Leg>> = Pair::default();
        if !asked.is_old_api {
            legs[rooms].get_or_insert_default().rooms = true;
        }
        if let Some(side) = changes {
            let leg = legs[side].get_or_insert_default();
            leg.changes = true;
            leg.rooms |= asked.is_old_api;
            leg.upstream = spread(&asked.bindings, side, turn.ground);
            if asked.is_old_api {
                leg.topic = Some(self.topic_there(topic, side, &leg.upstream)?);
            }
        }
        for side in Side::ALL {
            let Some(leg) = &mut legs[side] else { continue };
            leg.pending = Some(message.reference().unwrap_or_default().to_owned());
            let there = leg.topic.as_deref().unwrap_or(topic);
            if self.is_taken(side, there, topic) {
                return Err(reply::TOPIC_TAKEN);
            }
        }
        Ok(legs)
    }

    /// The topic of an old-API channel on a side.
    pub(super) fn topic_there(
        &self,
        topic: &str,
        side: Side,
        upstream: &[Upstream],
    ) -> Result<Box<str>, &'static str> {
        let said = match upstream {
            [one] => one.topic(),
            _ => None,
        };
        let said = said.ok_or(reply::NO_SUCH_TOPIC)?;
        if self.is_taken(side, &said, topic) {
            return Err(reply::TOPIC_TAKEN);
        }
        Ok(said.into())
    }

    /// Whether another channel than `own` has this topic on a side: a socket can join a topic once.
    fn is_taken(&self, side: Side, topic: &str, own: &str) -> bool {
        self.channels
            .iter()
            .any(|(name, other)| &**name != own && other.topic_on(side, name) == Some(topic))
    }

    /// The room answers a leave, and closes. The other leg is left by us: were its answer waited for, the closing could come first,
    /// and supabase-js, which then forgets the channel, would wait for the answer until its timeout.
    fn leave(&mut self, message: &Message<'_>, text: &Utf8Bytes, turn: &mut Turn<'_>) {
        let topic = message.topic();
        let Some(mut channel) = self.channels.remove(&*topic) else { return };
        let limit = turn.memory();
        self.forget_join(&topic, &channel, limit);
        let told = channel.side_where(|leg| leg.rooms);
        for side in Side::ALL.into_iter().filter(|side| told != Some(*side)) {
            self.leave_leg(side, &topic, &mut channel, turn);
        }
        let Some((side, leg)) = told.and_then(|side| Some((side, channel.legs[side].as_ref()?)))
        else {
            return;
        };
        if let Some(reference) = message.reference() {
            let mut waiting = Pair::default();
            waiting[side] = true;
            self.requests.expect(reference, &topic, waiting, false, limit);
        }
        let there = leg.topic.as_deref().unwrap_or(&topic);
        self.left.closing(side, there, channel.plain_join_ref(), leg.closings, limit);
        self.send(side, Frame::Text(message.on_topic(there, text)), turn);
        self.stale = true;
    }

    /// The answer of a join whose channel is gone is passed once, as it comes.
    fn forget_join(&mut self, topic: &str, channel: &Channel, limit: usize) {
        let pending = Pair::from_fn(|side| {
            channel.legs[side].as_ref().is_some_and(|leg| leg.pending.is_some())
        });
        let reference = Message::read(self.version, &channel.join);
        let reference = reference.as_ref().and_then(Message::reference);
        if let (true, true, Some(reference)) =
            (channel.joining, pending.old || pending.new, reference)
        {
            self.requests.expect(reference, topic, pending, false, limit);
        }
    }

    /// The client joins a topic again, or may not: what it had there is left, but where the new join replaces it.
    pub(super) fn abandon(&mut self, topic: &str, replaced: Pair<bool>, turn: &mut Turn<'_>) {
        let Some(mut channel) = self.channels.remove(topic) else { return };
        self.forget_join(topic, &channel, turn.memory());
        for side in Side::ALL {
            if !replaced[side] {
                self.leave_leg(side, topic, &mut channel, turn);
            } else if let Some(leg) = &channel.legs[side] {
                // Every join that is replaced is closed. The client had one of them: that of the room.
                let closings = leg.closings + usize::from(!leg.rooms);
                let there = leg.topic.as_deref().unwrap_or(topic);
                let join_ref = channel.plain_join_ref();
                self.left.closing(side, there, join_ref, closings, turn.memory());
            }
        }
    }

    /// The client's token, for all legs; then it may be somebody else's channel.
    fn token(&mut self, message: &Message<'_>, text: &Utf8Bytes, turn: &mut Turn<'_>) {
        let topic = message.topic();
        let raw = join::event_token(message.payload());
        let Some(channel) = self.channels.get_mut(&*topic) else { return };
        // The server ignores an opaque key: the channel stays whose it was.
        let is_taken = |token: &str| !token.starts_with("sb_") && token.len() <= TOKEN_BYTES;
        if let Some(token) = raw.and_then(unquoted).filter(|token| is_taken(token)) {
            channel.identity = whose(turn.ground, Some(&token));
            channel.token = Some((*token).into());
            self.last = channel.identity.clone();
        }
        let there = Pair::from_fn(|side| channel.topic_on(side, &topic).map(str::to_owned));
        for side in Side::ALL {
            let Some(there) = &there[side] else { continue };
            let mut edits = message.edits();
            message.retopic(&mut edits, there);
            if let Some(raw) = raw {
                join::say_token(raw, None, side, turn.ground, &mut edits);
            }
            self.send(side, Frame::Text(edits.frame(text)), turn);
        }
        self.settle(&topic, turn);
    }

    /// Whatever else belongs to the room.
    fn push(&mut self, message: &Message<'_>, text: &Utf8Bytes, turn: &mut Turn<'_>) {
        let topic = message.topic();
        let there = self.channels.get(&*topic).and_then(|channel| {
            let side = channel.side_where(|leg| leg.rooms)?;
            Some((side, channel.topic_on(side, &topic)?))
        });
        let Some((side, there)) = there else { return self.stray(message, text, turn) };
        self.send(side, Frame::Text(message.on_topic(there, text)), turn);
    }

    fn keep_track(&mut self, message: &Message<'_>, text: &Utf8Bytes) {
        let Some(channel) = self.channels.get_mut(&*message.topic()) else { return };
        if channel.bindings.is_empty() {
            return;
        }
        match reply::presence_event(message.payload()).as_deref() {
            Some("track") if text.len() <= TRACK_BYTES => {
                channel.track = Some(text.as_str().into());
            }
            Some("track" | "untrack") => channel.track = None,
            _ => {}
        }
    }
}

/// Whose changes a token lets hear. The server reads an absent token as the socket's key, and so does whoever answers for nobody.
fn whose(ground: &mut dyn Ground, token: Option<&str>) -> Identity {
    match token.map(|token| ground.holder(token)) {
        Some(Holder::Token(identity)) => identity,
        Some(Holder::Key(Role::Service)) => Identity::Service,
        Some(Holder::Key(Role::Anon) | Holder::Nobody) | None => Identity::Anonymous,
    }
}

/// What the topic of an old-API channel asks for; `None` for a topic that names no schema we know: it is a room.
fn old_api(topic: &str, ground: &dyn Ground) -> Option<Binding> {
    let mut words = topic.strip_prefix("realtime:")?.splitn(3, ':');
    let schema = words.next()?;
    let map = ground.map();
    let is_schema = schema == "*" || schema == map.legacy() || map.domain(schema).is_some();
    is_schema.then(|| Binding::of_topic(schema, words.next(), words.next()))
}

/// What a side has to hear for these bindings.
pub(super) fn spread(bindings: &[Binding], side: Side, ground: &dyn Ground) -> Vec<Upstream> {
    let mut upstream = Vec::with_capacity(bindings.len());
    for (serves, binding) in bindings.iter().enumerate() {
        binding.spread(serves, side, ground.map(), &mut upstream);
    }
    upstream
}

impl Turn<'_> {
    /// Passes a frame of a side's.
    pub(super) fn pass(&mut self, text: &Utf8Bytes) {
        self.actions.push(Action::ToClient(Frame::Text(text.clone())));
    }
}
