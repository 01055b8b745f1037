//! Phase 5: the request on its way to its side, and the three things that can happen instead of an answer: the other side
//! (reads only, if allowed), a WebSocket, a refusal.

use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, Response, header};
use tokio::time::Instant;

use super::body::Source;
use super::refusal::Refusal;
use super::rewrite::{Said, Undo, may_fall_back};
use super::worker::Worker;
use super::{Asked, Caller, Client, Path};
use crate::accept::Limits;
use crate::chance;
use crate::decide::{Belongs, Decision, Question, Reason, decide};
use crate::forward::OnNewUnavailable;
use crate::forward::error::ForwardError;
use crate::forward::request_body::{BodyFault, Gate, RequestBody, Uploaded};
use crate::forward::send::{Answer, Outgoing};
use crate::forward::tunnel::{self, TunnelEnd};
use crate::http1::incoming::OnUpgrade;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::identify::Identity;
use crate::observe::{Counter, Ending, Gauge};
use crate::rewrite::storage::Elsewhere;
use crate::route::Route;
use crate::side::Side;

/// A side's answer and what is needed to restore it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) side: Side,
    pub(super) response: Response<Source>,
    pub(super) undo: Undo,
    pub(super) timeout: Duration,
    /// The client still holds its body back: whether it comes is its choice, so nothing can follow on its connection.
    pub(super) closes: bool,
}

/// What is needed to ask the other side for a read: its headers, before they were rewritten for the first one.
#[derive(Debug)]
pub(super) struct Spare {
    headers: HeaderMap,
    /// Old is asked when new can't be reached.
    for_old: bool,
    /// The other side is asked for what the first one doesn't have.
    elsewhere: Option<Elsewhere>,
}

impl Path {
    /// Keeps what is needed to ask the other side. Only where a setting says so: it costs a copy.
    pub(super) fn spare(&self, asked: &Asked, decision: Decision) -> Option<Spare> {
        let is_issued = || matches!(asked.belongs(&self.snapshot), Belongs::ToIssuer(_));
        let for_old = self.snapshot.forward.on_new_unavailable == OnNewUnavailable::OldForReads
            && decision.side == Side::New
            && may_fall_back(&asked.method, asked.route)
            && !is_issued();
        let elsewhere = self.elsewhere(asked);
        let is_bare = asked.body.as_ref().is_none_or(http_body::Body::is_end_stream);
        let may = (for_old || elsewhere.is_some()) && is_bare;
        may.then(|| Spare { headers: asked.headers.clone(), for_old, elsewhere })
    }

    /// Phase 5.
    pub(super) async fn forward(
        &mut self,
        mut asked: Asked,
        caller: &Caller,
        decision: Decision,
        mut said: Said,
        spare: Option<Spare>,
    ) -> Result<Answered, Refusal> {
        self.record.finished.left_alone = said.left_alone;
        self.record.finished.counted = said.counted;
        if let Some(upgrade) = asked.upgrade.take() {
            let opening = self.open_websocket(upgrade, asked, caller, decision, said);
            return Box::pin(opening).await;
        }
        let limits = self.snapshot.accept.limits;
        let timeout = match asked.route {
            Route::Functions => self.snapshot.forward.functions_timeout,
            _ => self.snapshot.forward.timeout,
        };
        let expects = said
            .headers
            .get(header::EXPECT)
            .is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let (gate, continued) = expects.then(Gate::new).unzip();
        self.begin_try(decision.side, &mut said);
        let Said { method, target, headers, body, undo, .. } = said;
        let body = match (body, asked.body.take()) {
            (Some(body), _) => RequestBody::Read(body),
            (None, Some(body)) => {
                RequestBody::new(body, limits.body_bytes, limits.body_idle_timeout, gate)
            }
            (None, None) => RequestBody::Empty,
        };
        let is_repeatable = may_repeat(asked.route);
        let outgoing = Outgoing { method, target, headers, body, continued, is_repeatable };
        let settings = &self.snapshot.forward;
        let sent = self.worker.pool.send(decision.side, settings, timeout, outgoing).await;
        match (sent, spare) {
            (Ok(answer), spare) => {
                let first = self.answered(decision.side, answer, undo, timeout);
                match spare.and_then(|spare| Some((spare.elsewhere?, spare.headers))) {
                    None => Ok(first),
                    Some((elsewhere, headers)) => {
                        let asked = Asked { headers, ..asked };
                        Box::pin(self.look_elsewhere(first, elsewhere, asked, caller)).await
                    }
                }
            }
            (Err(error @ ForwardError::Connect(_)), Some(Spare { headers, for_old: true, .. })) => {
                tracing::warn!(%error, "new can't be reached; old answers this read");
                self.try_unreachable();
                self.record.finished.side = Some(Side::Old);
                self.record.finished.fell_back = true;
                Box::pin(self.ask(Asked { headers, ..asked }, caller, Side::Old, timeout)).await
            }
            (Err(error), _) => Err(self.failed(decision.side, &error)),
        }
    }

    /// Asks a side for a read that was meant for the other one.
    pub(super) async fn ask(
        &mut self,
        mut asked: Asked,
        caller: &Caller,
        side: Side,
        timeout: Duration,
    ) -> Result<Answered, Refusal> {
        let mut said = self.rewrite(&mut asked, caller, side).await?;
        self.begin_try(side, &mut said);
        let Said { method, target, headers, undo, .. } = said;
        let body = RequestBody::Empty;
        let is_repeatable = may_repeat(asked.route);
        let outgoing = Outgoing { method, target, headers, body, continued: None, is_repeatable };
        match self.worker.pool.send(side, &self.snapshot.forward, timeout, outgoing).await {
            Ok(answer) => Ok(self.answered(side, answer, undo, timeout)),
            Err(error) => Err(self.failed(side, &error)),
        }
    }

    fn answered(&mut self, side: Side, answer: Answer, undo: Undo, timeout: Duration) -> Answered {
        self.try_answered(&answer);
        self.record.finished.upstream_elapsed = Some(answer.sent_at.elapsed());
        self.record.finished.retried = answer.retried;
        if answer.request_body != Uploaded::Whole {
            self.client.wire.answered_early();
        }
        let closes = answer.request_body == Uploaded::HeldBack;
        let response = answer.response.map(Source::Side);
        Answered { side, response, undo, timeout, closes }
    }

    fn failed(&mut self, side: Side, error: &ForwardError) -> Refusal {
        match error {
            ForwardError::Body(BodyFault::Broken) => {
                self.record.finished.ending = Ending::RequestCut;
            }
            ForwardError::Body(_) => {}
            _ => tracing::warn!(%side, %error, "no answer from the side"),
        }
        self.try_failed(error)
    }

    /// Passes a WebSocket's handshake on; the tunnel then lives on its own.
    async fn open_websocket(
        &mut self,
        client: OnUpgrade,
        asked: Asked,
        caller: &Caller,
        decision: Decision,
        mut said: Said,
    ) -> Result<Answered, Refusal> {
        self.begin_try(decision.side, &mut said);
        let Said { method, target, headers, undo, .. } = said;
        let settings = &self.snapshot.forward;
        let sent_at = Instant::now();
        let sent =
            self.worker.pool.send_upgrade(decision.side, settings, method, target, headers).await;
        let (response, upgraded) = sent.map_err(|error| self.failed(decision.side, &error))?;
        let timeout = self.snapshot.forward.timeout;
        if let Some(upgraded) = upgraded {
            let socket = Socket {
                worker: Rc::clone(&self.worker),
                _client: Rc::clone(&self.client),
                side: decision.side,
                reason: decision.reason,
                // A handshake has no body, whatever it says.
                asked: Asked { body: None, ..asked },
                identity: caller.identity.clone(),
                address: caller.address,
                random: self.about.random,
                limits: self.snapshot.accept.limits,
            };
            tokio::task::spawn_local(socket.run(client, upgraded));
        }
        let answer = Answer { response, retried: false, sent_at, request_body: Uploaded::Whole };
        Ok(self.answered(decision.side, answer, undo, timeout))
    }
}

/// Routes on which a GET reads and nothing else. A link in a mail is used up by its first GET, and a function may do anything.
const fn may_repeat(route: Route) -> bool {
    matches!(route, Route::Rest | Route::Storage)
}

/// An open WebSocket that is tunnelled: a function's.
struct Socket {
    worker: Rc<Worker>,
    /// Keeps the client's place among `limits.connections`: the connection lives on as this socket.
    _client: Rc<Client>,
    side: Side,
    reason: Reason,
    asked: Asked,
    identity: Identity,
    address: std::net::IpAddr,
    random: u128,
    limits: Limits,
}

impl Socket {
    async fn run(self, client: OnUpgrade, upstream: Upgraded<Stream>) {
        // A stop waits for this socket to have said goodbye.
        let _alive = self.worker.alive.clone();
        let Ok(client) = client.await else { return };
        let _open = self.worker.shard.hold(Gauge::Websockets(self.side));
        self.worker.shard.count(Counter::WebsocketOpened(self.side));
        let Limits { frame_bytes, send_timeout, .. } = self.limits;
        let restart = self.has_to_restart();
        let end = tunnel::run(client, upstream, frame_bytes, send_timeout, restart).await;
        let (ending, side) = match end {
            TunnelEnd::FrameTooLarge => (Ending::FrameTooLarge, Some(self.side)),
            TunnelEnd::TooSlow => (Ending::TooSlow, None),
            TunnelEnd::Closed | TunnelEnd::Restarted => return,
        };
        self.worker.shard.ended(ending, side);
    }

    /// Resolves when this socket has to close: the proxy stops, or the socket would now be decided for the other side. Spread over
    /// `realtime.drain`, so that the clients do not all come back at once.
    async fn has_to_restart(&self) {
        let share = chance::random::<f64>();
        let shared = &self.worker.shared;
        let mut drain = shared.drain.clone();
        let flip = async {
            self.changes_side().await;
            self.worker.shard.count(Counter::WebsocketClosedForFlip(self.side));
            tokio::time::sleep(shared.socket_drain.mul_f64(share)).await;
        };
        tokio::select! {
            biased;
            () = flip => {}
            _stop = drain.wait_for(|stop| *stop) => {
                tokio::time::sleep(shared.stop_drain.mul_f64(share)).await;
            }
        }
    }

    /// Resolves when this socket would now be decided for the other side.
    async fn changes_side(&self) {
        let mut epochs = self.worker.shared.epochs.clone();
        // Without a writer there are no more changes.
        while epochs.changed().await.is_ok() {
            if self.side_now() != self.side {
                return;
            }
        }
        std::future::pending().await
    }

    fn side_now(&self) -> Side {
        let snapshot = self.worker.snapshot();
        // A tester chose this side by name; only force is above that.
        if self.reason == Reason::Override && snapshot.decide.force.is_none() {
            return self.side;
        }
        let question = Question {
            identity: &self.identity,
            route: self.asked.route,
            belongs: self.asked.belongs(&snapshot),
            domain: None,
            override_ask: None,
            client: self.address,
            random: self.random as u32,
        };
        decide(&question, &snapshot.decide).side
    }
}
