//! One client's socket, from its 101 to its end: a task that hears the client and up to two sides, asks the session what is to be done,
//! and does it. While something is done nothing is read from anybody, so that nothing queues up: whoever is slow slows its own
//! socket, and after `realtime.send_timeout` ends it.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};

use super::dial::{Opening, dial};
use super::farewell::{End, Farewell, TOO_BIG};
use super::ground::{Facts, Here};
use super::leg::{Heard, Leg, Unsent};
use crate::chance;
use crate::http1::incoming::OnUpgrade;
use crate::observe::{Counter, Ending, Gauge};
use crate::path::Client;
use crate::path::worker::{Taken, Worker};
use crate::realtime::session::{Action, Session};
use crate::side::{Pair, Side};

/// Messages after which what waits is sent, even while there are more to be heard.
const BURST: u8 = 64;

/// What a socket begins with.
pub(super) struct Beginning {
    pub(super) worker: Rc<Worker>,
    /// Keeps the client's place among `limits.connections`: the connection lives on as this socket.
    pub(super) client: Rc<Client>,
    pub(super) opening: Opening,
    pub(super) facts: Facts,
    pub(super) session: Session,
}

/// A socket that is open.
pub(super) struct Socket {
    pub(super) worker: Rc<Worker>,
    opening: Opening,
    pub(super) facts: Facts,
    pub(super) session: Session,
    client: Leg,
    sides: Pair<Option<Leg>>,
    /// What the session wants done; kept for its room.
    actions: Vec<Action>,
    /// Until when the client may say nothing; `None` once a side was open.
    identify_by: Option<Instant>,
    /// When the socket closes because something of it belongs to another side.
    move_at: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
    /// Where this socket stands among those that are closed together, 0 to 1.
    share: f64,
    /// Who is heard first: it goes round, so that nobody is drowned out.
    turn: u8,
    /// Messages heard since what waits was sent.
    burst: u8,
}

/// What happens next.
enum Event {
    Client(Heard),
    Side(Side, Heard),
    /// Nobody says anything at this moment: time to send what waits.
    Quiet,
    /// The settings changed.
    Changed,
    /// The alarm.
    Alarm,
}

impl Beginning {
    /// Runs the socket to its end.
    pub(super) async fn run(self, upgrade: OnUpgrade) {
        let Self { worker, client: place, opening, facts, session } = self;
        // A stop waits for this socket to have said goodbye.
        let _alive = worker.alive.clone();
        let mut drain = worker.shared.drain.clone();
        let mut epochs = worker.shared.epochs.clone();
        epochs.mark_unchanged();
        let Ok(upgraded) = upgrade.await else { return };
        let snapshot = worker.snapshot();
        let open = worker.shard.hold(Gauge::RealtimeSockets);
        let frame_bytes = snapshot.accept.limits.frame_bytes;
        let client = Leg::new(upgraded, Role::Server, frame_bytes, open).await;
        let share = chance::random::<f64>();
        let identify_by = Instant::now() + snapshot.realtime.identify_timeout;
        drop(snapshot);
        let stop_drain = worker.shared.stop_drain;
        let mut socket = Socket {
            worker,
            opening,
            facts,
            session,
            client,
            sides: Pair::default(),
            actions: Vec::new(),
            identify_by: Some(identify_by),
            move_at: None,
            alarm: Box::pin(tokio::time::sleep_until(identify_by)),
            share,
            turn: 0,
            burst: 0,
        };
        let stop = async {
            let _stop = drain.wait_for(|stop| *stop).await;
            tokio::time::sleep(stop_drain.mul_f64(share)).await;
        };
        let end = tokio::select! {
            biased;
            end = socket.serve(&mut epochs) => end,
            () = stop => Farewell::stopped().into(),
        };
        socket.end(end).await;
        drop(place);
    }
}

impl Socket {
    /// Hears and does, until the end. May be dropped at any await: whole messages are sent, or none of them.
    async fn serve(&mut self, epochs: &mut watch::Receiver<u64>) -> End {
        loop {
            let done = match self.next(epochs).await {
                Event::Client(heard) => self.client_said(heard).await,
                Event::Side(side, heard) => self.side_said(side, heard).await,
                Event::Quiet => self.flush().await,
                Event::Changed => {
                    self.settings_changed();
                    Ok(())
                }
                Event::Alarm => self.time_is_up().await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn next(&mut self, epochs: &mut watch::Receiver<u64>) -> Event {
        // One look at what only changes with the settings: a socket that is never quiet sees them too.
        if epochs.has_changed().unwrap_or(false) {
            epochs.mark_unchanged();
            return Event::Changed;
        }
        let changed = async {
            // Without a writer there are no more changes.
            if epochs.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            event = poll_fn(|cx| self.poll_event(cx)) => event,
            () = changed => Event::Changed,
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let is_armed = self.identify_by.is_some() || self.move_at.is_some();
        if is_armed && self.alarm.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Event::Alarm);
        }
        for place in 0..3 {
            if self.burst >= BURST {
                break;
            }
            let heard = match (self.turn + place) % 3 {
                0 => self.client.poll_heard(cx).map(Event::Client),
                1 => self.poll_side(Side::Old, cx),
                _ => self.poll_side(Side::New, cx),
            };
            if heard.is_ready() {
                self.turn = (self.turn + place + 1) % 3;
                self.burst += 1;
                return heard;
            }
        }
        let is_dirty = |leg: &Option<Leg>| leg.as_ref().is_some_and(Leg::is_dirty);
        if self.client.is_dirty()
            || is_dirty(&self.sides.old)
            || is_dirty(&self.sides.new)
            || self.burst >= BURST
        {
            return Poll::Ready(Event::Quiet);
        }
        self.burst = 0;
        Poll::Pending
    }

    fn poll_side(&mut self, side: Side, cx: &mut Context<'_>) -> Poll<Event> {
        match &mut self.sides[side] {
            Some(leg) => leg.poll_heard(cx).map(|heard| Event::Side(side, heard)),
            None => Poll::Pending,
        }
    }

    async fn client_said(&mut self, heard: Heard) -> Result<(), End> {
        match heard {
            Heard::Frame(frame) => {
                self.wait_for_keys(&frame).await;
                self.ask(|session, ground, actions| session.from_client(frame, ground, actions));
                self.act().await
            }
            Heard::Nothing => Ok(()),
            Heard::Close(frame) => Err(End::Closed(frame)),
            Heard::TooLarge => Err(self.too_large(None)),
            Heard::Invalid(code) => Err(Farewell::new(code, "not a WebSocket message").into()),
            Heard::Gone => Err(End::Gone),
        }
    }

    async fn side_said(&mut self, side: Side, heard: Heard) -> Result<(), End> {
        match heard {
            Heard::Frame(frame) => {
                self.ask(|session, ground, actions| {
                    session.from_side(side, frame, ground, actions);
                });
                self.act().await
            }
            Heard::Nothing => Ok(()),
            Heard::Close(frame) => Err(Farewell::of_side(frame).into()),
            Heard::TooLarge => Err(self.too_large(Some(side))),
            Heard::Invalid(_) | Heard::Gone => Err(self.unsent(Some(side), Unsent::Gone)),
        }
    }

    /// Asks the session, by the settings of this moment.
    fn ask(&mut self, ask: impl FnOnce(&mut Session, &mut Here<'_>, &mut Vec<Action>)) {
        let snapshot = self.worker.snapshot();
        let mut here = Here { facts: &self.facts, worker: &self.worker, snapshot: &snapshot };
        ask(&mut self.session, &mut here, &mut self.actions);
    }

    /// Does what the session wants done, in order.
    async fn act(&mut self) -> Result<(), End> {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Open(side) => self.open(side).await?,
                Action::ToSide(side, frame) => {
                    let patience = self.worker.snapshot().realtime.send_timeout;
                    if let Some(leg) = &mut self.sides[side] {
                        let sent = leg.feed(frame, patience).await;
                        sent.map_err(|why| self.unsent(Some(side), why))?;
                    }
                }
                Action::ToClient(frame) => {
                    let patience = self.worker.snapshot().realtime.send_timeout;
                    let sent = self.client.feed(frame, patience).await;
                    sent.map_err(|why| self.unsent(None, why))?;
                }
                Action::Shut(side) => self.shut(side),
                Action::Close { code, reason } => return Err(Farewell::new(code, reason).into()),
            }
        }
        self.actions = actions;
        Ok(())
    }

    async fn open(&mut self, side: Side) -> Result<(), End> {
        let Self { worker, opening, facts, .. } = self;
        let snapshot: Taken = worker.snapshot();
        let io = dial(worker, &snapshot, opening, facts, side).await.map_err(|why| {
            worker.shard.error(why.code, Some(side));
            Farewell::refused(why.code, why.status)
        })?;
        let open = worker.shard.hold(Gauge::Websockets(side));
        worker.shard.count(Counter::WebsocketOpened(side));
        let frame_bytes = snapshot.accept.limits.frame_bytes;
        self.sides[side] = Some(Leg::new(io, Role::Client, frame_bytes, open).await);
        self.identify_by = None;
        Ok(())
    }

    /// Closes a side's socket that has no channel left. The client does not wait for that.
    fn shut(&mut self, side: Side) {
        if let Some(leg) = self.sides[side].take() {
            let alive = self.worker.alive.clone();
            tokio::task::spawn_local(async move {
                leg.leave(Some(going(CloseCode::Normal))).await;
                drop(alive);
            });
        }
    }

    async fn flush(&mut self) -> Result<(), End> {
        self.burst = 0;
        let patience = self.worker.snapshot().realtime.send_timeout;
        if self.client.is_dirty() {
            self.client.flush(patience).await.map_err(|why| self.unsent(None, why))?;
        }
        for side in Side::ALL {
            if let Some(leg) = self.sides[side].as_mut().filter(|leg| leg.is_dirty()) {
                leg.flush(patience).await.map_err(|why| self.unsent(Some(side), why))?;
            }
        }
        Ok(())
    }

    /// Something can't be sent: to the client, where there is no side.
    fn unsent(&self, side: Option<Side>, why: Unsent) -> End {
        match (why, side) {
            (Unsent::TooSlow, _) => {
                self.worker.shard.ended(Ending::TooSlow, side);
                Farewell::too_slow().into()
            }
            (Unsent::Gone, None) => End::Gone,
            (Unsent::Gone, Some(_)) => {
                self.worker.shard.ended(Ending::ResponseCut, side);
                Farewell::lost().into()
            }
        }
    }

    fn too_large(&self, side: Option<Side>) -> End {
        self.worker.shard.ended(Ending::FrameTooLarge, side);
        Farewell::new(TOO_BIG, "the message is longer than limits.frame_bytes").into()
    }

    /// A socket that has to move does so at its turn within `realtime.drain`; one that may stay after all, because the change was taken
    /// back before, stays.
    fn settings_changed(&mut self) {
        self.move_at = match (self.has_to_move(), self.move_at) {
            (true, None) => {
                Some(Instant::now() + self.worker.shared.socket_drain.mul_f64(self.share))
            }
            (true, due) => due,
            (false, _) => None,
        };
        self.set_alarm();
    }

    fn has_to_move(&self) -> bool {
        let snapshot = self.worker.snapshot();
        let mut here = Here { facts: &self.facts, worker: &self.worker, snapshot: &snapshot };
        self.session.has_to_move(&mut here)
    }

    async fn time_is_up(&mut self) -> Result<(), End> {
        let now = Instant::now();
        // Asked again: a token may have moved what had to move, while the socket waited for its turn.
        if self.move_at.take_if(|due| *due <= now).is_some() && self.has_to_move() {
            self.worker.shard.count(Counter::WebsocketClosedForFlip(self.left_side()));
            return Err(Farewell::moved().into());
        }
        if self.identify_by.take_if(|due| *due <= now).is_some() {
            self.ask(|session, ground, actions| session.nobody_spoke(ground, actions));
            self.act().await?;
        }
        self.set_alarm();
        Ok(())
    }

    fn set_alarm(&mut self) {
        if let Some(due) = self.identify_by.into_iter().chain(self.move_at).min() {
            self.alarm.as_mut().reset(due);
        }
    }

    /// The side that a socket which moves is leaving: the one that is open, or of two the one without the rooms.
    fn left_side(&self) -> Side {
        match (&self.sides.old, &self.sides.new) {
            (None, Some(_)) => Side::New,
            (Some(_), Some(_)) if self.worker.snapshot().realtime.rooms == Side::Old => Side::New,
            _ => Side::Old,
        }
    }

    /// Says goodbye to everybody, at once and within a bound.
    async fn end(self, end: End) {
        let Self { client, sides, .. } = self;
        let to_sides = match &end {
            End::Closed(frame) => frame.clone(),
            End::Tell(_) | End::Gone => Some(going(CloseCode::Away)),
        };
        let leave = |leg: Option<Leg>| {
            let frame = to_sides.clone();
            async move {
                if let Some(leg) = leg {
                    leg.leave(frame).await;
                }
            }
        };
        let to_client = async {
            match end {
                End::Tell(farewell) => client.dismiss(Some(farewell.frame())).await,
                End::Closed(frame) => client.dismiss(frame).await,
                End::Gone => drop(client),
            }
        };
        tokio::join!(to_client, leave(sides.old), leave(sides.new));
    }
}

/// What a side is told when its socket is not needed any more.
fn going(code: CloseCode) -> CloseFrame {
    CloseFrame { code, reason: "".into() }
}
