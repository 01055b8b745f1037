//! The clients of a simulation: browsers with requests, sockets of realtime, sockets of functions. Each acts by dice of its own, and says
//! at once when it was not served as it should have been.

use std::rc::Rc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep, sleep_until};
use tungstenite::Message;
use tungstenite::protocol::{CloseFrame, Role};

use super::sides::TABLE;
use super::stage::{Kind, SLOW, SOCKET_DRAIN, Socket, Stage, USERS, name};
use super::wire::{End, WebSocket, pattern};
use crate::identify::claims::unsigned_token;
use crate::side::{Pair, Side};

/// Where clients come in.
pub(super) type Door = UnboundedSender<DuplexStream>;

/// What a client needs.
pub(super) struct Client {
    pub(super) stage: Rc<Stage>,
    pub(super) door: Door,
    pub(super) dice: StdRng,
}

fn token(user: usize) -> String {
    unsigned_token(&json!({"sub": name(user), "role": "authenticated"}))
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl Client {
    pub(super) fn new(stage: &Rc<Stage>, door: &Door, seed: u64) -> Self {
        Self { stage: Rc::clone(stage), door: door.clone(), dice: StdRng::seed_from_u64(seed) }
    }

    /// A new connection; `None` when nobody lets it in any more.
    fn connect(&mut self) -> Option<End> {
        let size = [256, 4096, 65_536][self.dice.random_range(0..3)];
        let (mine, theirs) = duplex(size);
        self.door.send(theirs).ok()?;
        Some(End::new(mine))
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        millis(self.dice.random_range(range))
    }

    /// Some requests, one after the other on one connection.
    pub(super) async fn browse(mut self) {
        let Some(mut end) = self.connect() else { return };
        for _ in 0..self.dice.random_range(1..5) {
            let is_over = self.stage.stopped.get().is_some();
            if self.request(&mut end).await.is_none() {
                // Who has not asked before the stop may find the door closed.
                if !is_over && self.stage.stopped.get().is_none() {
                    self.stage.fault("a request got no answer");
                }
                return;
            }
            if self.stage.stopped.get().is_some() {
                return;
            }
            let pause = self.millis(0..2500);
            sleep(pause).await;
        }
    }

    /// Begins an upload and never goes on with it: only the end of a drain gets rid of him, or a long time.
    pub(super) async fn hang(mut self) {
        let Some(mut end) = self.connect() else { return };
        let number = self.stage.number();
        self.stage.say(&format!("request {number} hangs"));
        let head = format!(
            "POST /rest/v1/{TABLE}?n={number} HTTP/1.1\r\nhost: proxy\r\napikey: old-anon\r\ncontent-length: 10\r\n\r\n"
        );
        if end.say(head).await.is_some() {
            let _answer = end.head().await;
        }
    }

    /// `None` when the connection is gone before an answer has begun.
    async fn request(&mut self, end: &mut End) -> Option<()> {
        let (number, user) = (self.stage.number(), self.dice.random_range(0..USERS));
        let from = self.stage.version();
        let begun_in_time = self.stage.stopped.get().is_none();
        let length = if self.dice.random_bool(0.4) { self.dice.random_range(0..20_000) } else { 0 };
        let (wait, pause) = (self.dice.random_range(0..2500), self.dice.random_range(0..700));
        let size = self.dice.random_range(0..30_000_usize);
        let (chunked, close) = (self.dice.random_range(0..2), self.dice.random_range(0..2));
        let method = if length > 0 { "POST" } else { "GET" };
        let framing =
            if length > 0 { format!("content-length: {length}\r\n") } else { String::new() };
        self.stage.say(&format!("request {number} of {}", name(user)));
        end.say(format!(
            "{method} /rest/v1/{TABLE}?n={number}&wait={wait}&size={size}&pause={pause}&chunked={chunked}&close={close} HTTP/1.1\r\n\
             host: proxy\r\napikey: old-anon\r\nauthorization: Bearer {}\r\n{framing}\r\n",
            token(user)
        ))
        .await?;
        for piece in pattern(number, length).chunks((length / 2).max(1)) {
            end.say(piece).await?;
            let pause = self.millis(0..600);
            sleep(pause).await;
        }
        let head = end.head().await?;
        let body = end.body(&head).await;
        let is_whole = body.as_deref() == Some(&pattern(number, size)[..]);
        self.stage.answered.set(self.stage.answered.get() + 1);
        let arrivals = self.stage.requests.borrow().get(&number).cloned().unwrap_or_default();
        let epoch = head.field("x-cutover-epoch").and_then(|epoch| epoch.parse::<u64>().ok());
        let served = head.field("x-served").and_then(Side::parse);
        let what = format!("request {number} of {}: {}", name(user), head.line());
        self.stage.say(&format!("{what}, served by {served:?}"));
        if head.line() != "HTTP/1.1 200 OK" || (begun_in_time && !is_whole) {
            self.stage.fault(&format!("{what}, whole: {is_whole}"));
        }
        match &arrivals[..] {
            [one] if one.body == pattern(number, length) => {
                let allowed = self.stage.allowed(user, from, one.version);
                let epochs: Vec<u64> = self.stage.versions.borrow()[from..=one.version]
                    .iter()
                    .map(|version| version.epoch)
                    .collect();
                if !allowed.contains(&one.side) || served != Some(one.side) {
                    self.stage.fault(&format!(
                        "{what}: on {}, where only {allowed:?} was right",
                        one.side
                    ));
                }
                if !epoch.is_some_and(|epoch| epochs.contains(&epoch)) {
                    self.stage.fault(&format!(
                        "{what}: decided by {epoch:?}, and published were {epochs:?}"
                    ));
                }
            }
            others => {
                self.stage.fault(&format!("{what}: it came {} times, or not whole", others.len()))
            }
        }
        Some(())
    }

    /// A socket, until it is closed by whomever.
    pub(super) async fn socket(mut self, kind: Kind) {
        let Some(end) = self.connect() else { return };
        let (number, user) = (self.stage.number(), self.dice.random_range(0..USERS));
        // 1: the client stands still now and then; 2: the side does.
        let slow = [0, 0, 0, 1, 2][self.dice.random_range(0..5)];
        let wait = if self.dice.random() { 0 } else { self.dice.random_range(1..1500) };
        let now = Instant::now();
        let socket = Socket {
            kind,
            users: vec![(now, user)],
            is_slow: slow > 0,
            is_prompt: wait == 0,
            since: None,
            asked_at: self.stage.version(),
            joined: Pair::default(),
            settled: now,
            sent: Vec::new(),
            arrived: Vec::new(),
            emitted: Vec::new(),
            heard: Vec::new(),
            ended: None,
            is_own_end: false,
        };
        self.stage.sockets.borrow_mut().insert(number, socket);
        self.stage.say(&format!("socket {number} ({kind:?}) of {}, slow {slow}", name(user)));
        let opened = self.open(end, kind, number, user, (slow, wait)).await;
        let Some(socket) = opened else {
            if self.stage.stopped.get().is_none() {
                self.stage.fault(&format!("socket {number} was not opened"));
            }
            self.stage.sockets.borrow_mut().remove(&number);
            return;
        };
        Talk { client: self, kind, number, slow, socket, joins: 0 }.run().await;
    }

    async fn open(
        &self,
        mut end: End,
        kind: Kind,
        number: usize,
        user: usize,
        (slow, wait): (usize, u64),
    ) -> Option<WebSocket> {
        let (path, bearer) = match kind {
            Kind::Realtime => ("/realtime/v1/websocket?apikey=old-anon&vsn=1.0.0&", String::new()),
            Kind::Tunnel => {
                ("/functions/v1/echo?", format!("authorization: Bearer {}\r\n", token(user)))
            }
        };
        end.say(format!(
            "GET {path}n={number}&wait={wait}&slow={slow} HTTP/1.1\r\nhost: proxy\r\napikey: old-anon\r\n{bearer}\
             connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ))
        .await?;
        let head = end.head().await?;
        if !head.line().contains(" 101 ") {
            self.stage.fault(&format!("socket {number}: {}", head.line()));
            return None;
        }
        Some(end.upgraded(Role::Client).await)
    }
}

/// An open socket.
struct Talk {
    client: Client,
    kind: Kind,
    number: usize,
    slow: usize,
    socket: WebSocket,
    joins: usize,
}

impl Talk {
    async fn run(mut self) {
        let life = self.client.millis(500..60_000);
        let until = Instant::now() + life;
        let leaves = self.client.dice.random_bool(0.5);
        if self.kind == Kind::Tunnel {
            self.with(|socket| socket.since = Some(Instant::now()));
        }
        let mut next = Instant::now() + self.client.millis(0..1500);
        loop {
            tokio::select! {
                biased;
                message = self.socket.next() => match message {
                    Some(Ok(Message::Close(frame))) => return self.closed(frame).await,
                    Some(Ok(Message::Text(text))) => self.heard(&text).await,
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return self.gone(&error.to_string()).await,
                    None => return self.gone("no goodbye").await,
                },
                () = sleep_until(next) => {
                    if leaves && Instant::now() >= until {
                        return self.leave().await;
                    }
                    if self.speak().await.is_none() {
                        return self.last_words().await;
                    }
                    next = Instant::now() + self.client.millis(20..2500);
                }
            }
        }
    }

    fn with<R>(&self, change: impl FnOnce(&mut Socket) -> R) -> R {
        self.client.stage.with(self.number, change)
    }

    /// Joins first, then says something; now and then a client of realtime becomes another user.
    async fn speak(&mut self) -> Option<()> {
        let user = self.with(|socket| socket.users.last().unwrap().1);
        if self.kind == Kind::Realtime && self.joins == 0 {
            self.joins = 1;
            let config = json!({"broadcast": {"ack": false, "self": false}, "presence": {"key": ""},
                "postgres_changes": [{"event": "*", "schema": "public", "table": TABLE}]});
            self.with(|socket| socket.since = Some(Instant::now()));
            return self
                .send("phx_join", json!({"config": config, "access_token": token(user)}))
                .await;
        }
        if self.kind == Kind::Realtime && self.client.dice.random_bool(0.05) {
            let user = self.client.dice.random_range(0..USERS);
            self.with(|socket| socket.users.push((Instant::now(), user)));
            self.client.stage.say(&format!("socket {} is now {}'s", self.number, name(user)));
            return self.send("access_token", json!({"access_token": token(user)})).await;
        }
        let n = self.with(|socket| socket.sent.len());
        let sent = match self.kind {
            Kind::Realtime => {
                let payload = json!({"type": "broadcast", "event": "m", "payload": {"n": n}});
                self.send("broadcast", payload).await
            }
            Kind::Tunnel => self.socket.send(Message::text(n.to_string())).await.ok(),
        };
        sent?;
        self.with(|socket| socket.sent.push(Instant::now()));
        Some(())
    }

    async fn send(&mut self, event: &str, payload: Value) -> Option<()> {
        let n = self.with(|socket| socket.sent.len() + socket.users.len() + 100);
        let message = json!({"topic": "realtime:room", "event": event, "payload": payload, "ref": n.to_string(), "join_ref": "1"});
        self.socket.send(Message::text(message.to_string())).await.ok()
    }

    async fn heard(&self, text: &str) {
        let heard = match self.kind {
            Kind::Tunnel => text
                .split_once(' ')
                .map(|(side, row)| (Side::parse(side).unwrap(), row.parse().unwrap())),
            Kind::Realtime => {
                let message: Value = serde_json::from_str(text).unwrap();
                let data = &message["payload"]["data"];
                (message["event"] == "postgres_changes").then(|| {
                    if data["schema"] != "public" || data["table"] != TABLE {
                        self.client.stage.fault(&format!("socket {}: {text}", self.number));
                    }
                    let side = Side::parse(data["record"]["side"].as_str().unwrap()).unwrap();
                    (side, data["record"]["row"].as_u64().unwrap() as usize)
                })
            }
        };
        if let Some((side, row)) = heard {
            self.served_by(side);
            self.with(|socket| socket.heard.push((side, row)));
            if self.slow == 1 && row % 2 == 0 {
                sleep(SLOW).await;
            }
        }
    }

    /// Whose event is it? The user's side, or the one that was it until a short while ago.
    fn served_by(&self, side: Side) {
        let (stage, now) = (&self.client.stage, Instant::now());
        let back = SOCKET_DRAIN + if self.slow > 0 { SLOW * 3 } else { millis(100) };
        let versions = stage.versions.borrow();
        let ends = versions.iter().skip(1).map(|next| Some(next.at)).chain([None]);
        let recent =
            versions.iter().zip(ends).filter(|(_, end)| end.is_none_or(|end| end + back >= now));
        let users = self.with(|socket| {
            let until = socket.users.iter().skip(1).map(|(at, _)| Some(*at)).chain([None]);
            let users = socket.users.iter().zip(until);
            let recent = users.filter(|(_, until)| until.is_none_or(|until| until + back >= now));
            recent.map(|((_, user), _)| *user).collect::<Vec<_>>()
        });
        let mut allowed =
            recent.flat_map(|(version, _)| users.iter().map(|user| version.rollout.side(*user)));
        if !allowed.any(|allowed| allowed == side) {
            stage.fault(&format!(
                "socket {} hears {side}, where its user has not been for long",
                self.number
            ));
        }
    }

    async fn closed(&self, frame: Option<CloseFrame>) {
        let stage = &self.client.stage;
        let (code, reason) = frame
            .map(|frame| (u16::from(frame.code), frame.reason.to_string()))
            .unwrap_or_default();
        stage.say(&format!("socket {} closed: {code} {reason}", self.number));
        let is_stop = stage.stopped.get().is_some();
        let is_right = stage.has_moved(&stage.sockets.borrow()[&self.number]) || is_stop;
        if code != 1012 || !is_right {
            stage.fault(&format!(
                "socket {} was closed with {code} ({reason}) without a reason",
                self.number
            ));
        }
        self.end().await;
    }

    async fn gone(&self, why: &str) {
        let stage = &self.client.stage;
        // Who stands still may not hear the goodbye before it is too late; nobody else is cut.
        let is_over =
            stage.stopped.get().is_some_and(|stopped| stopped + SOCKET_DRAIN <= Instant::now());
        if self.slow == 0 || !is_over {
            stage.fault(&format!("socket {} is gone: {why}", self.number));
        }
        self.end().await;
    }

    async fn end(&self) {
        self.with(|socket| socket.ended = Some(Instant::now()));
        self.account().await;
    }

    /// When the sides have read what came to them in the same moment.
    async fn account(&self) {
        sleep(millis(1)).await;
        self.client.stage.account(self.number);
    }

    /// Nothing can be sent any more: what is there to read says why.
    async fn last_words(mut self) {
        while let Some(Ok(message)) = self.socket.next().await {
            match message {
                Message::Close(frame) => return self.closed(frame).await,
                Message::Text(text) => self.heard(&text).await,
                _ => {}
            }
        }
        self.gone("nothing can be sent").await;
    }

    /// Says goodbye by itself, and hears what is still on its way.
    async fn leave(mut self) {
        self.client.stage.say(&format!("socket {} leaves", self.number));
        self.with(|socket| socket.is_own_end = true);
        let goodbye = CloseFrame { code: 1000.into(), reason: "".into() };
        let _gone = self.socket.send(Message::Close(Some(goodbye))).await;
        let ended = Instant::now();
        while let Some(Ok(message)) = self.socket.next().await {
            if let Message::Text(text) = message {
                self.heard(&text).await;
            }
        }
        self.with(|socket| socket.ended = Some(ended));
        self.account().await;
    }
}
