//! The two projects of a simulation: they answer requests as the request itself says, and speak enough of Phoenix to be joined.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::time::{Instant, sleep};
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;

use super::stage::{Arrival, Kind, SLOW, Stage};
use super::wire::{End, Head, WebSocket, pattern};
use crate::side::Side;

/// The table that everybody listens to.
pub(super) const TABLE: &str = "invoices";

/// Serves a connection of the proxy.
pub(super) async fn serve(stage: Rc<Stage>, side: Side, io: DuplexStream) {
    let mut end = End::new(io);
    while let Some(head) = end.head().await {
        let number = head.number("n").unwrap();
        let wait = Duration::from_millis(head.number("wait").unwrap_or(0) as u64);
        if let Some(key) = head.field("sec-websocket-key") {
            sleep(wait).await;
            let accept = derive_accept_key(key.as_bytes());
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
            );
            if end.say(answer).await.is_some() {
                let socket = end.upgraded(Role::Server).await;
                let is_slow = head.number("slow") == Some(2);
                match stage.with(number, |socket| socket.kind) {
                    Kind::Realtime => Leg::new(stage, side, number, is_slow).run(socket).await,
                    Kind::Tunnel => tunnel(&stage, side, number, is_slow, socket).await,
                }
            }
            return;
        }
        let Some(body) = end.body(&head).await else { return };
        let arrival = Arrival { side, version: stage.version(), body };
        stage.requests.borrow_mut().entry(number).or_default().push(arrival);
        sleep(wait).await;
        if answer(&mut end, side, &head, number).await.is_none() || head.number("close") == Some(1)
        {
            return;
        }
    }
}

async fn answer(end: &mut End, side: Side, head: &Head, number: usize) -> Option<()> {
    let length = head.number("size").unwrap_or(0);
    let pause = Duration::from_millis(head.number("pause").unwrap_or(0) as u64);
    let body = pattern(number, length);
    let is_chunked = head.number("chunked") == Some(1);
    let coding = if is_chunked {
        "transfer-encoding: chunked".to_owned()
    } else {
        format!("content-length: {length}")
    };
    end.say(format!("HTTP/1.1 200 OK\r\nx-served: {side}\r\n{coding}\r\n\r\n")).await?;
    for (index, piece) in body.chunks(length.div_ceil(3).max(1)).enumerate() {
        if index > 0 {
            sleep(pause).await;
        }
        if is_chunked {
            end.say(format!("{:x}\r\n", piece.len())).await?;
        }
        end.say(piece).await?;
        if is_chunked {
            end.say("\r\n").await?;
        }
    }
    if is_chunked { end.say("0\r\n\r\n").await } else { Some(()) }
}

/// A function's socket: what comes is noted, and now and then it says something.
async fn tunnel(stage: &Stage, side: Side, number: usize, is_slow: bool, mut socket: WebSocket) {
    stage.with(number, |socket| {
        socket.joined[side] = Some(true);
        socket.asked_at = stage.version();
    });
    let mut rows = stage.rows[side].subscribe();
    rows.mark_unchanged();
    loop {
        tokio::select! {
            biased;
            message = socket.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let n: usize = text.parse().unwrap();
                    stage.with(number, |socket| socket.arrived.push((side, n)));
                    if is_slow && n % 4 == 1 {
                        sleep(SLOW).await;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
            _changed = rows.changed() => {
                let row = *rows.borrow_and_update();
                stage.with(number, |socket| socket.emitted.push((side, row, Instant::now())));
                if socket.send(Message::text(format!("{side} {row}"))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// One leg of a socket of realtime, at a side. One topic, in objects (vsn 1.0.0).
struct Leg {
    stage: Rc<Stage>,
    side: Side,
    number: usize,
    is_slow: bool,
    /// The ids of the bindings that are joined, and the words that they were asked in.
    bindings: Vec<Value>,
    answers: VecDeque<Value>,
}

impl Leg {
    fn new(stage: Rc<Stage>, side: Side, number: usize, is_slow: bool) -> Self {
        Self { stage, side, number, is_slow, bindings: Vec::new(), answers: VecDeque::new() }
    }

    async fn run(mut self, mut socket: WebSocket) {
        let mut rows = self.stage.rows[self.side].subscribe();
        rows.mark_unchanged();
        loop {
            while let Some(answer) = self.answers.pop_front() {
                if socket.send(Message::text(answer.to_string())).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                biased;
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let message: Value = serde_json::from_str(&text).unwrap();
                        let n = self.heard(&message);
                        if self.is_slow && n.is_some_and(|n| n % 4 == 1) {
                            sleep(SLOW).await;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return,
                },
                _changed = rows.changed() => {
                    let row = *rows.borrow_and_update();
                    self.written(row);
                }
            }
        }
    }

    /// What the proxy says for the client; answers the number of a broadcast.
    fn heard(&mut self, message: &Value) -> Option<usize> {
        let (side, now) = (self.side, Instant::now());
        let reply = |response: Value| {
            json!({"topic": message["topic"], "event": "phx_reply", "ref": message["ref"],
                "payload": {"status": "ok", "response": response}})
        };
        match message["event"].as_str().unwrap() {
            "phx_join" => {
                let asked = message["payload"]["config"]["postgres_changes"].as_array();
                self.bindings = asked.cloned().unwrap_or_default();
                for (index, binding) in self.bindings.iter_mut().enumerate() {
                    binding["id"] = json!(index + 1);
                }
                let is_bound = !self.bindings.is_empty();
                self.stage.with(self.number, |socket| {
                    socket.joined[side] = Some(is_bound);
                    socket.settled = now;
                });
                self.answers.push_back(reply(json!({"postgres_changes": self.bindings})));
                None
            }
            "phx_leave" => {
                self.bindings.clear();
                self.stage.with(self.number, |socket| {
                    socket.joined[side] = None;
                    socket.settled = now;
                });
                self.answers.push_back(reply(json!({})));
                None
            }
            "heartbeat" => {
                self.answers.push_back(reply(json!({})));
                None
            }
            "broadcast" => {
                let n = message["payload"]["payload"]["n"].as_u64().unwrap() as usize;
                self.stage.with(self.number, |socket| socket.arrived.push((side, n)));
                Some(n)
            }
            _ => None,
        }
    }

    /// A row was written: an event for each who listens.
    fn written(&mut self, row: usize) {
        if self.bindings.is_empty() {
            return;
        }
        let side = self.side;
        let binding = &self.bindings[0];
        self.answers.push_back(
            json!({"topic": "realtime:room", "event": "postgres_changes", "ref": null, "payload": {
                "ids": [binding["id"]],
                "data": {"schema": binding["schema"], "table": binding["table"], "type": "INSERT",
                    "commit_timestamp": "2026-11-21T10:00:00Z", "columns": [], "errors": null,
                    "record": {"row": row, "side": side.as_str()}},
            }}),
        );
        self.stage.with(self.number, |socket| socket.emitted.push((side, row, Instant::now())));
    }
}
