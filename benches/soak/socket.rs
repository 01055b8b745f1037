//! Sockets: a function's, tunnelled, and realtime's, which end at the proxy. Each lives for a while, talks once a second, and comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::Soak;
use crate::client::{PATIENCE, user};
use crate::process::DRAIN;
use crate::support::websocket::Socket;
use crate::support::world::{ANON_OLD, token};

/// Why a socket ended before its time.
enum Ended {
    Refused(String),
    /// With this close code.
    Closed(Option<u16>),
    /// Without a goodbye.
    Gone(String),
    Silent,
}

pub async fn lives(soak: Arc<Soak>, is_realtime: bool, until: Instant) {
    let kind = if is_realtime { "realtime socket" } else { "tunnel" };
    while Instant::now() < until {
        let lifetime = Duration::from_secs(rand::random_range(5..60));
        let end = until.min(Instant::now() + lifetime);
        let Err(ended) = live(&soak, is_realtime, end).await else {
            soak.tally.count(format!("{kind}: closed by its client"));
            continue;
        };
        let (is_silent, said) = match ended {
            Ended::Refused(why) => (false, format!("refused: {why}")),
            Ended::Closed(code) => (false, format!("closed with {code:?}")),
            Ended::Gone(why) => (false, format!("gone: {why}")),
            Ended::Silent => (true, "silent".to_owned()),
        };
        match soak.history.was_restless(Instant::now(), DRAIN) && !is_silent {
            true => soak.tally.count(format!("{kind}: {said}, around a change or an outage")),
            false => soak.tally.unexplained(format!("a {kind}: {said}")),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn live(soak: &Soak, is_realtime: bool, until: Instant) -> Result<(), Ended> {
    let user = user();
    let mut socket = open(soak, is_realtime, &user).await?;
    if is_realtime {
        say(&mut socket, join(&user)).await?;
        hear(&mut socket, |text| text.contains("phx_reply") && text.contains("\"ref\":\"join\""))
            .await?;
    }
    while Instant::now() < until {
        let number = soak.tally.number().to_string();
        let reference = format!("\"ref\":\"{number}\"");
        if is_realtime {
            let beat =
                json!({ "topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": number });
            say(&mut socket, beat.to_string()).await?;
            hear(&mut socket, |text| text.contains(&reference)).await?;
        } else {
            say(&mut socket, number.clone()).await?;
            hear(&mut socket, |text| text == number).await?;
        }
        soak.tally.message();
        // Whoever says something while nobody listens to him is heard now.
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            ended = hear_forever(&mut socket) => return Err(ended),
        }
    }
    socket.close(None).await.ok();
    let _end = timeout(PATIENCE, hear_forever(&mut socket)).await;
    Ok(())
}

async fn open(soak: &Soak, is_realtime: bool, user: &str) -> Result<Socket, Ended> {
    let path = match is_realtime {
        true => "/realtime/v1/websocket",
        false => "/functions/v1/chat",
    };
    let address = format!("ws://{}{path}?apikey={ANON_OLD}&vsn=1.0.0", soak.proxy.address);
    let mut request = address.into_client_request().unwrap();
    if !is_realtime {
        let bearer = format!("Bearer {}", token(user));
        request.headers_mut().insert("authorization", bearer.parse().unwrap());
    }
    match timeout(PATIENCE, tokio_tungstenite::connect_async(request)).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(why)) => Err(Ended::Refused(why.to_string())),
        Err(_) => Err(Ended::Silent),
    }
}

fn join(user: &str) -> String {
    let changes = json!([{ "event": "*", "schema": "public", "table": "todos" }]);
    let config = json!({ "broadcast": {}, "presence": {}, "postgres_changes": changes });
    let payload = json!({ "config": config, "access_token": token(user) });
    json!({ "topic": "realtime:soak", "event": "phx_join", "payload": payload, "ref": "join", "join_ref": "join" }).to_string()
}

async fn say(socket: &mut Socket, text: String) -> Result<(), Ended> {
    match timeout(PATIENCE, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        // Its goodbye may have come first.
        Ok(Err(why)) => match timeout(PATIENCE, hear_forever(socket)).await {
            Ok(Ended::Closed(code)) => Err(Ended::Closed(code)),
            _ => Err(Ended::Gone(why.to_string())),
        },
        Err(_) => Err(Ended::Silent),
    }
}

/// Waits for the message that is meant.
async fn hear(socket: &mut Socket, is_it: impl Fn(&str) -> bool) -> Result<(), Ended> {
    let hearing = async {
        loop {
            let text = next(socket).await?;
            if is_it(&text) {
                return Ok(());
            }
        }
    };
    match timeout(PATIENCE, hearing).await {
        Ok(heard) => heard,
        Err(_) => Err(Ended::Silent),
    }
}

async fn hear_forever(socket: &mut Socket) -> Ended {
    loop {
        if let Err(ended) = next(socket).await {
            return ended;
        }
    }
}

async fn next(socket: &mut Socket) -> Result<String, Ended> {
    match socket.next().await {
        Some(Ok(Message::Close(frame))) => Err(Ended::Closed(frame.map(|frame| frame.code.into()))),
        Some(Ok(message)) => {
            Ok(message.into_text().map(|text| text.to_string()).unwrap_or_default())
        }
        Some(Err(why)) => Err(Ended::Gone(why.to_string())),
        None => Err(Ended::Closed(None)),
    }
}
