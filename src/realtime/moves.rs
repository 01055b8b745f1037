//! A channel's changes move to another side while it is joined: make before break. supabase-js 2.49 joins with the anon key and
//! sends the user's token after the ok reply, so this is how its every channel begins (`upstreams.md` 4).

use super::channel::{Channel, Leg};
use super::client::spread;
use super::frame::{Message, compose, quoted};
use super::join::Join;
use super::session::{Frame, Session, Turn};
use crate::side::Side;

/// How a move begins.
enum Move {
    /// The side has these bindings already.
    Done(Side),
    /// It has to be joined first.
    Join(Side),
    /// It can't be: the client has to come again.
    Impossible,
}

impl Session {
    /// Begins to move a channel's changes where its identity belongs, if they are elsewhere and nothing else is under way.
    pub(super) fn settle(&mut self, topic: &str, turn: &mut Turn<'_>) {
        let Some(channel) = self.channels.get(topic) else { return };
        if channel.bindings.is_empty() || channel.is_waiting() {
            return;
        }
        let to = turn.ground.side_of(&channel.identity);
        let Some(from) = channel.side_where(|leg| leg.changes).filter(|from| *from != to) else {
            return;
        };
        match self.begin(topic, to, turn) {
            Move::Done(to) => self.switch(topic, from, to, turn),
            Move::Join(to) => self.join_again(topic, to, turn),
            Move::Impossible => turn.close("this channel moved"),
        }
    }

    /// Prepares the leg on `to`.
    fn begin(&mut self, topic: &str, to: Side, turn: &Turn<'_>) -> Move {
        let Some(channel) = self.channels.get(topic) else { return Move::Impossible };
        let upstream = spread(&channel.bindings, to, turn.ground);
        let is_old_api = channel.is_old_api;
        let there = match is_old_api.then(|| self.topic_there(topic, to, &upstream)) {
            Some(Ok(there)) => Some(there),
            Some(Err(_)) => return Move::Impossible,
            None => None,
        };
        let Some(channel) = self.channels.get_mut(topic) else { return Move::Impossible };
        match &mut channel.legs[to] {
            // It was there before, and was never told to stop.
            Some(leg) if !leg.ids.is_empty() && leg.upstream == upstream => return Move::Done(to),
            Some(leg) => {
                leg.upstream = upstream;
                leg.ids.clear();
                leg.closings += 1;
            }
            leg @ None => {
                *leg = Some(Leg { topic: there, rooms: is_old_api, upstream, ..Leg::default() });
            }
        }
        channel.moving = Some(to);
        Move::Join(to)
    }

    /// Says the client's join again on `to`, with a ref of ours and the client's last token.
    fn join_again(&mut self, topic: &str, to: Side, turn: &mut Turn<'_>) {
        let reference = self.refs.next();
        let version = self.version;
        let Some(channel) = self.channels.get_mut(topic) else { return };
        let Some(leg) = &mut channel.legs[to] else { return };
        leg.pending = Some(reference.clone());
        let Some(kept) = Message::read(version, &channel.join) else { return };
        let payload = Join::again(
            kept.payload(),
            Leg::part(leg.rooms, true),
            &leg.upstream,
            channel.token.as_deref(),
            to,
            turn.ground,
        );
        let there = leg.topic.as_deref().unwrap_or(topic);
        let reference = quoted(&reference);
        let join_ref = channel.join_ref.as_deref();
        let join = compose(version, join_ref, Some(&reference), there, "phx_join", &payload);
        // The server forgot with the first join who was there.
        let track = channel.track.clone().filter(|_| leg.rooms && !channel.is_old_api);
        self.send(to, Frame::Text(join), turn);
        if let Some(track) = track {
            self.track_again(to, topic, &track, turn);
        }
    }

    fn track_again(&mut self, to: Side, topic: &str, track: &str, turn: &mut Turn<'_>) {
        let reference = quoted(&self.refs.next());
        let Some(kept) = Message::read(self.version, track) else { return };
        let payload = kept.payload().map_or("{}", |payload| payload.get());
        let join_ref = kept.raw_join_ref();
        let frame = compose(self.version, join_ref, Some(&reference), topic, "presence", payload);
        self.send(to, Frame::Text(frame), turn);
    }

    /// From now on the client hears the changes of `to`.
    pub(super) fn switch(&mut self, topic: &str, from: Side, to: Side, turn: &mut Turn<'_>) {
        let Some(mut channel) = self.channels.remove(topic) else { return };
        channel.moving = None;
        if let Some(leg) = &mut channel.legs[to] {
            leg.changes = true;
        }
        let stays = channel.legs[from].as_mut().is_some_and(|leg| {
            leg.changes = false;
            // A room stays where it is. Its bindings stay as well, unheard: to be rid of them it would have to be joined again,
            // and everybody in it would see the client leave.
            leg.rooms && !channel.is_old_api
        });
        if !stays {
            self.leave_leg(from, topic, &mut channel, turn);
        }
        self.channels.insert(topic.into(), channel);
        // Meanwhile it may have become somebody else's.
        self.settle(topic, turn);
    }

    /// Leaves one leg of a channel, without the client hearing of it.
    pub(super) fn leave_leg(
        &mut self,
        side: Side,
        topic: &str,
        channel: &mut Channel,
        turn: &mut Turn<'_>,
    ) {
        let Some(leg) = channel.legs[side].take() else { return };
        let there = leg.topic.as_deref().unwrap_or(topic);
        let reference = self.refs.next();
        let join_ref = channel.join_ref.as_deref();
        let written = quoted(&reference);
        let leave = compose(self.version, join_ref, Some(&written), there, "phx_leave", "{}");
        let join_ref = channel.plain_join_ref();
        self.left.push(side, there, join_ref, reference, turn.memory());
        self.left.closing(side, there, join_ref, leg.closings, turn.memory());
        self.send(side, Frame::Text(leave), turn);
        self.stale = true;
    }
}
