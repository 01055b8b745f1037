//! A recording realtime server (`supabase-wire.md` 4), and what its clients say. It follows the wire to the letter, keeps every frame and
//! every handshake, and does on order what a real one does only when it is ill.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::conn::Conn;
use super::upstream::{Seen, Upstream};
use super::websocket::{Socket, accept};
use super::{eventually, within};

/// What a test orders.
#[derive(Clone, Debug)]
pub enum Order {
    /// Says this on every open socket.
    Say(Message),
    /// Closes every open socket, with a code or without.
    Close(Option<u16>),
    /// Drops every open connection.
    Vanish,
}

/// One side's realtime.
#[derive(Clone)]
pub struct Realtime {
    inner: Arc<Inner>,
}

struct Inner {
    heard: Mutex<Vec<Message>>,
    /// The codes with which clients closed; `None` without one.
    closed: Mutex<Vec<Option<u16>>>,
    /// Sockets that have ended, in whatever way.
    ended: Mutex<usize>,
    is_deaf: AtomicBool,
    orders: broadcast::Sender<Order>,
}

/// The five parts of a message, in either version.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    pub join_ref: Value,
    pub reference: Value,
    pub topic: String,
    pub event: String,
    pub payload: Value,
}

impl Said {
    pub fn new(topic: &str, event: &str, payload: Value, reference: &str) -> Self {
        let (topic, event) = (topic.to_owned(), event.to_owned());
        Self { join_ref: json!(reference), reference: json!(reference), topic, event, payload }
    }

    pub fn read(text: &str) -> Option<(Self, u8)> {
        let of = |value: &Value| value.as_str().map(str::to_owned);
        match serde_json::from_str(text).ok()? {
            Value::Array(parts) => {
                let [join_ref, reference, topic, event, payload] =
                    <[Value; 5]>::try_from(parts).ok()?;
                let (topic, event) = (of(&topic)?, of(&event)?);
                Some((Self { join_ref, reference, topic, event, payload }, 2))
            }
            value => {
                let part = |name: &str| value.get(name).cloned().unwrap_or_default();
                let (topic, event) = (of(&part("topic"))?, of(&part("event"))?);
                let (join_ref, reference) = (part("join_ref"), part("ref"));
                Some((Self { join_ref, reference, topic, event, payload: part("payload") }, 1))
            }
        }
    }

    pub fn text(&self, version: u8) -> Message {
        let Self { join_ref, reference, topic, event, payload } = self;
        let value = match version {
            1 => {
                json!({ "topic": topic, "event": event, "payload": payload, "ref": reference, "join_ref": join_ref })
            }
            _ => json!([join_ref, reference, topic, event, payload]),
        };
        Message::text(value.to_string())
    }
}

/// A join as supabase-js says it: with its bindings and its token.
pub fn join(topic: &str, bindings: &Value, token: Option<&str>, reference: &str) -> Said {
    let config = json!({
        "broadcast": { "ack": false, "self": false },
        "presence": { "key": "", "enabled": false },
        "postgres_changes": bindings,
        "private": false,
    });
    let mut payload = json!({ "config": config });
    if let Some(token) = token {
        payload["access_token"] = json!(token);
    }
    Said::new(&format!("realtime:{topic}"), "phx_join", payload, reference)
}

/// One binding to every change of a table of old's.
pub fn changes(table: &str) -> Value {
    json!([{ "event": "*", "schema": "public", "table": table }])
}

impl Realtime {
    /// From now on this upstream is a realtime server.
    pub fn on(upstream: &Upstream) -> Self {
        let inner = Arc::new(Inner {
            heard: Mutex::default(),
            closed: Mutex::default(),
            ended: Mutex::default(),
            is_deaf: AtomicBool::new(false),
            orders: broadcast::channel(1024).0,
        });
        let serving = Arc::clone(&inner);
        upstream.does(move |seen, conn| {
            let inner = Arc::clone(&serving);
            async move {
                inner.serve(seen, conn).await;
                *inner.ended.lock().unwrap() += 1;
                None
            }
        });
        Self { inner }
    }

    /// From now on sockets are opened, and nothing on them is read.
    pub fn is_deaf(&self) {
        self.inner.is_deaf.store(true, SeqCst);
    }

    pub fn orders(&self, order: Order) {
        self.inner.orders.send(order).unwrap();
    }

    /// Every message that came, whatever its socket.
    pub fn heard(&self) -> Vec<Message> {
        self.inner.heard.lock().unwrap().clone()
    }

    /// The same as far as they are texts that the wire knows.
    pub fn said(&self) -> Vec<Said> {
        let read = |message: &Message| Some(Said::read(message.to_text().ok()?)?.0);
        self.heard().iter().filter_map(read).collect()
    }

    /// The ids that this server gave to the bindings of every join so far.
    pub fn ids(&self) -> Vec<Value> {
        let joins = self.said().into_iter().filter(|said| said.event == "phx_join");
        joins.flat_map(|said| bound(&said.payload)).map(|binding| binding["id"].clone()).collect()
    }

    pub async fn has_heard(&self, count: usize) {
        eventually("frames at the side", async || self.heard().len() >= count).await;
    }

    /// Waits until so many sockets have ended; answers the codes with which they were closed.
    pub async fn has_ended(&self, count: usize) -> Vec<Option<u16>> {
        eventually("the end of sockets", async || *self.inner.ended.lock().unwrap() >= count).await;
        self.inner.closed.lock().unwrap().clone()
    }
}

impl Inner {
    async fn serve(&self, seen: Seen, conn: Conn) {
        let mut orders = self.orders.subscribe();
        let mut socket = accept(seen, conn).await;
        loop {
            let is_deaf = self.is_deaf.load(SeqCst);
            tokio::select! {
                order = orders.recv() => match order.unwrap() {
                    Order::Say(message) => if socket.send(message).await.is_err() { return },
                    Order::Close(code) => {
                        let frame = code.map(|code| CloseFrame { code: code.into(), reason: "ordered".into() });
                        socket.close(frame).await.ok();
                    }
                    Order::Vanish => return,
                },
                message = socket.next(), if !is_deaf => match message {
                    Some(Ok(Message::Close(frame))) => {
                        self.closed.lock().unwrap().push(frame.map(|frame| frame.code.into()));
                    }
                    Some(Ok(message)) => {
                        let answers = answers(&message);
                        if message.is_text() || message.is_binary() {
                            self.heard.lock().unwrap().push(message);
                        }
                        for answer in answers {
                            if socket.send(answer).await.is_err() {
                                return;
                            }
                        }
                    }
                    Some(Err(_)) | None => return,
                },
            }
        }
    }
}

/// What the server says to a message.
fn answers(message: &Message) -> Vec<Message> {
    let Some((said, version)) = message.to_text().ok().and_then(Said::read) else {
        return Vec::new();
    };
    let reply = |response: Value| {
        let payload = json!({ "status": "ok", "response": response });
        Said { event: "phx_reply".into(), payload, ..said.clone() }.text(version)
    };
    match said.event.as_str() {
        "heartbeat" => vec![reply(json!({}))],
        "phx_join" => vec![reply(json!({ "postgres_changes": bound(&said.payload) }))],
        "phx_leave" => {
            let close = Said { event: "phx_close".into(), payload: json!({}), ..said.clone() };
            vec![reply(json!({})), close.text(version)]
        }
        _ => Vec::new(),
    }
}

/// A join's bindings with the ids that the server gives them: equal bindings have equal ids.
fn bound(payload: &Value) -> Vec<Value> {
    let bindings = payload["config"]["postgres_changes"].as_array().cloned().unwrap_or_default();
    let id = |binding: &Value| {
        binding
            .to_string()
            .bytes()
            .fold(7_u64, |id, byte| (id * 31 + u64::from(byte)) % 100_000_007)
    };
    let with_id = |mut binding: Value| {
        binding["id"] = json!(id(&binding));
        binding
    };
    bindings.into_iter().map(with_id).collect()
}

/// The next message of a side that the client sees.
pub async fn next(socket: &mut Socket) -> Said {
    loop {
        match within("a message", socket.next()).await {
            Some(Ok(Message::Text(text))) => return Said::read(&text).unwrap().0,
            Some(Ok(message)) if message.is_ping() || message.is_pong() => {}
            other => panic!("no message: {other:?}"),
        }
    }
}

/// Joins, and waits for the reply.
pub async fn joins(socket: &mut Socket, said: &Said, version: u8) -> Value {
    socket.send(said.text(version)).await.unwrap();
    let reply = next(socket).await;
    assert_eq!((&*reply.event, &reply.reference), ("phx_reply", &said.reference));
    assert_eq!(reply.payload["status"], "ok", "{reply:?}");
    reply.payload["response"].clone()
}

/// A heartbeat, there and back.
pub async fn beats(socket: &mut Socket, version: u8) {
    socket.send(Said::new("phoenix", "heartbeat", json!({}), "hb").text(version)).await.unwrap();
    let reply = next(socket).await;
    assert_eq!((&*reply.topic, &*reply.event), ("phoenix", "phx_reply"));
}
