//! What a side says, and what the client hears of it.

use tungstenite::Utf8Bytes;

use super::binary::Header;
use super::client::SOCKET_TOPIC;
use super::events::{self, System};
use super::frame::{Message, is_own};
use super::reply::Answer;
use super::requests;
use super::session::{Action, Frame, Session, Turn};
use crate::side::{Pair, Side};

impl Session {
    pub(super) fn side_said(
        &mut self,
        side: Side,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let (topic, event) = (message.topic(), message.event());
        if topic == SOCKET_TOPIC {
            return self.beat_answered(side, message, text, turn);
        }
        if event == "phx_reply" && self.is_settled(side, message, text, turn) {
            return;
        }
        let is_end = matches!(&*event, "phx_close" | "phx_error");
        // In vsn 1.0.0 the end of a channel has its join's ref as its own.
        let join_ref = match is_end {
            true => message.join_ref().or_else(|| message.reference()),
            false => message.join_ref(),
        };
        let own = self.name_of(side, &topic);
        if is_end && self.left.closed(side, &topic, join_ref) {
            return;
        }
        let Some(own) = own else {
            // A channel that the client left, or one that only one of its legs left.
            if !self.channels.contains_key(&*topic) {
                turn.pass(text);
            }
            return;
        };
        let Some(channel) = self.channels.get(&*own) else { return };
        if join_ref.is_some() && join_ref != channel.plain_join_ref() {
            return turn.pass(text);
        }
        match &*event {
            "phx_reply" => self.answered(side, &own, message, text, turn),
            "phx_close" | "phx_error" => self.ended(side, &own, message, text, turn),
            _ => self.told(side, &own, message, text, turn),
        }
    }

    /// The client's name of a topic on a side where it has a leg.
    fn name_of(&self, side: Side, topic: &str) -> Option<Box<str>> {
        let is_it = |own: &str| {
            self.channels.get(own).is_some_and(|one| one.topic_on(side, own) == Some(topic))
        };
        if is_it(topic) {
            return Some(topic.into());
        }
        // Only channels of the old API have other topics there.
        let mut renamed = self.channels.iter().filter(|(_, channel)| channel.is_old_api);
        renamed.find(|(own, _)| is_it(own)).map(|(own, _)| own.clone())
    }

    fn beat_answered(
        &mut self,
        side: Side,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let answer = self.beats.answered(side, message.reference().unwrap_or_default());
        self.stale = true;
        if answer != requests::Answer::Swallow {
            turn.pass(text);
        }
    }

    /// Answers to requests of ours, to requests that two sides answer, and to joins of channels that are gone.
    fn is_settled(
        &mut self,
        side: Side,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) -> bool {
        let Some(reference) = message.reference() else { return false };
        if is_own(Some(reference)) {
            self.left.answered(side, reference);
            self.stale = true;
            self.joined_again(side, message, reference, turn);
            return true;
        }
        match self.requests.answered(side, reference) {
            requests::Answer::Unknown => false,
            requests::Answer::Swallow => {
                self.stale = true;
                true
            }
            requests::Answer::Pass(topic) => {
                self.stale = true;
                turn.tell_client(message.on_topic(&topic, text));
                true
            }
        }
    }

    /// A join of ours was answered.
    fn joined_again(
        &mut self,
        side: Side,
        message: &Message<'_>,
        reference: &str,
        turn: &mut Turn<'_>,
    ) {
        let Some(own) = self.name_of(side, &message.topic()) else { return };
        let Some(channel) = self.channels.get_mut(&*own) else { return };
        let from = channel.side_where(|leg| leg.changes);
        let Some(leg) = &mut channel.legs[side] else { return };
        if leg.pending.as_deref() != Some(reference) {
            return;
        }
        leg.pending = None;
        let answer = Answer::read(message.payload());
        let ids = answer.is_ok().then(|| answer.ids(&leg.upstream)).flatten();
        let (Some(ids), Some(from)) = (ids, from) else {
            return turn.close("a channel could not be moved");
        };
        leg.ids = ids;
        self.switch(&own, from, side, turn);
    }

    /// An answer on a channel that is joined, or being joined.
    fn answered(
        &mut self,
        side: Side,
        own: &str,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let Some(channel) = self.channels.get_mut(own) else { return };
        let Some(leg) = &mut channel.legs[side] else { return };
        let is_join = leg
            .pending
            .as_deref()
            .is_some_and(|one| one == message.reference().unwrap_or_default());
        if !is_join {
            // Only the room was asked anything.
            if leg.rooms {
                turn.tell_client(message.on_topic(own, text));
            }
            return;
        }
        leg.pending = None;
        let is_room = leg.rooms;
        let answer = Answer::read(message.payload());
        let ids = if leg.changes { answer.ids(&leg.upstream) } else { Some(leg.ids.clone()) };
        let (true, Some(ids)) = (answer.is_ok(), ids) else {
            return self.refused(side, own, message, text, turn);
        };
        leg.ids = ids;
        let is_last = channel.legs.old.as_ref().is_none_or(|leg| leg.pending.is_none())
            && channel.legs.new.as_ref().is_none_or(|leg| leg.pending.is_none());
        if is_room {
            channel.held = Some(text.clone());
        }
        if is_last {
            self.joined(own, turn);
        }
    }

    /// All legs are joined: the client hears it, in the words of the room's side and with its own bindings.
    fn joined(&mut self, own: &str, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get_mut(own) else { return };
        channel.joining = false;
        let Some(held) = channel.held.take() else { return };
        let Some(message) = Message::read(self.version, &held) else { return };
        let mut edits = message.edits();
        message.retopic(&mut edits, own);
        Answer::read(message.payload()).restore(&channel.bindings, &mut edits);
        turn.tell_client(edits.frame(&held));
        turn.actions.extend(channel.early.drain(..).map(Action::ToClient));
        self.settle(own, turn);
    }

    /// A side refused the join, or answers in a way that we do not understand: the other leg is left.
    fn refused(
        &mut self,
        side: Side,
        own: &str,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let answer = Answer::read(message.payload());
        if answer.is_ok() {
            return turn.close("a side answered a join with other bindings");
        }
        turn.tell_client(message.on_topic(own, text));
        self.drop_channel(side, own, turn);
    }

    /// The channel is over on `side`, and so on the other.
    fn drop_channel(&mut self, side: Side, own: &str, turn: &mut Turn<'_>) {
        let Some(mut channel) = self.channels.remove(own) else { return };
        channel.legs[side] = None;
        self.stale = true;
        let Some(other) = channel.sides().next() else { return };
        let pending = channel.legs[other].as_ref().and_then(|leg| leg.pending.clone());
        if let Some(reference) = pending.filter(|reference| !is_own(Some(reference))) {
            let mut waiting = Pair::default();
            waiting[other] = true;
            self.requests.expect(&reference, own, waiting, true, turn.memory());
        }
        self.leave_leg(other, own, &mut channel, turn);
    }

    /// `phx_close` or `phx_error`.
    fn ended(
        &mut self,
        side: Side,
        own: &str,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let leg = self.channels.get_mut(own).and_then(|one| one.legs[side].as_mut());
        let Some(leg) = leg else { return };
        if leg.closings > 0 {
            leg.closings -= 1;
            return;
        }
        if !leg.rooms && !leg.changes {
            return turn.close("a channel could not be moved");
        }
        turn.tell_client(message.on_topic(own, text));
        self.drop_channel(side, own, turn);
    }

    /// Anything else that a side tells on its own.
    fn told(
        &mut self,
        side: Side,
        own: &str,
        message: &Message<'_>,
        text: &Utf8Bytes,
        turn: &mut Turn<'_>,
    ) {
        let Some(channel) = self.channels.get(own) else { return };
        let Some(leg) = &channel.legs[side] else { return };
        let map = turn.ground.map();
        let restored = match &*message.event() {
            "postgres_changes" if !leg.changes => return,
            "postgres_changes" => events::change(channel, side, map, message, text),
            "INSERT" | "UPDATE" | "DELETE" if channel.is_old_api => {
                events::old_change(channel, side, map, own, message, text)
            }
            "system" => {
                let system = System::read(message.payload());
                // What a side says before it ends the channel is heard from whichever does.
                let is_heard = match system.is_of_changes() {
                    true => leg.changes,
                    false => leg.rooms || (leg.changes && system.is_error()),
                };
                if !is_heard {
                    return;
                }
                Some(vec![system.restore(channel, leg, own, message, text)])
            }
            _ if !leg.rooms => return,
            _ => None,
        };
        let frames = restored.unwrap_or_else(|| vec![message.on_topic(own, text)]);
        for frame in frames {
            self.tell(own, Frame::Text(frame), turn);
        }
    }

    /// Whether the client hears a binary frame: what is of a room comes from where the room is.
    pub(super) fn hears_binary(&self, side: Side, header: Header<'_>) -> bool {
        if header.is_reply && is_own(Some(header.reference)) {
            return false;
        }
        match self.channels.get(header.topic) {
            Some(channel) => channel.legs[side].as_ref().is_some_and(|leg| leg.rooms),
            None => true,
        }
    }
}
