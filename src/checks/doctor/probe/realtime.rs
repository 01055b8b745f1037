//! Joins one channel on each side, follows one mapped table, and leaves.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tungstenite::Message;
use tungstenite::protocol::Role as End;

use super::{Known, Probe, best};
use crate::checks::doctor::finding::{Finding, Status};
use crate::checks::doctor::judge::realtime::{self as judge, Heard};
use crate::checks::doctor::judge::rest::Mapped;
use crate::http1::stream::Stream;
use crate::http1::upgraded::Upgraded;
use crate::identify::keyring::Role;
use crate::side::Side;

/// The publication that says which tables can be followed.
const REALTIME: &str = "supabase_realtime";

/// Every line about realtime.
pub(super) async fn all(probe: &Probe<'_>, known: &Known) -> Vec<Finding> {
    if !probe.options.wants_any("realtime.") {
        return Vec::new();
    }
    let (tables, _) = super::rest::tables(probe, known);
    let table = followed(known, &tables);
    let (old, new) = futures_util::join!(
        one(probe, known, Side::Old, table),
        one(probe, known, Side::New, table),
    );
    let mut findings: Vec<Finding> = old.into_iter().chain(new).collect();
    let is_lost = |side: Side| {
        let lost = |it: &&Finding| it.id == "realtime.changes" && it.status == Status::Fail;
        findings.iter().filter(lost).any(|it| it.side == Some(side))
    };
    // A table that old does not publish either was a bad choice, no fault: which ones it publishes, only the database knows.
    if is_lost(Side::Old) {
        findings.retain(|it| it.id != "realtime.changes");
        let seen = "the table that was tried can't be followed on old either";
        let fix = "set projects.*.database_url: then one that is published is tried";
        findings.push(Finding::skip("realtime.changes", None, "changes", seen, fix));
    }
    findings
}

/// A table that old publishes; without its database the first one of the map.
fn followed<'m>(known: &Known, tables: &'m [Mapped]) -> Option<&'m Mapped> {
    let publication = known.catalogues.old.as_ref().map(|it| it.publication(REALTIME));
    match publication {
        Some(publication) => {
            let publication = publication?;
            tables.iter().find(|it| publication.has(&it.legacy, &it.old))
        }
        None => tables.first(),
    }
}

async fn one(probe: &Probe<'_>, known: &Known, side: Side, table: Option<&Mapped>) -> Vec<Finding> {
    let Some(role) = best(&known.accepted, side) else { return Vec::new() };
    probe.progress.more(1);
    let place = table.map(|it| it.place(side));
    let heard = heard(probe, side, role, place).await;
    probe.progress.done();
    judge::judged(side, &heard, table.map(|it| it.on(side)).as_deref())
}

async fn heard(probe: &Probe<'_>, side: Side, role: Role, table: Option<(&str, &str)>) -> Heard {
    let mut heard = Heard::default();
    let opening = probe.http.socket(side, role, "/realtime/v1/websocket?vsn=2.0.0");
    let io = match tokio::time::timeout(probe.timeout, opening).await {
        Ok(Ok(io)) => io,
        Ok(Err(none)) => {
            heard.ended = Some(none.to_string());
            return heard;
        }
        Err(_) => {
            heard.ended = Some(format!("no WebSocket within {:?}", probe.timeout));
            return heard;
        }
    };
    let mut socket = WebSocketStream::from_raw_socket(io, End::Client, None).await;
    let talk = talk(&mut socket, &mut heard, table);
    if tokio::time::timeout(probe.timeout, talk).await.is_ok_and(|said| said.is_err())
        && heard.ended.is_none()
    {
        heard.ended = Some("the WebSocket broke".to_owned());
    }
    // Whoever does not read the goodbye has it end with the connection.
    let goodbye = async {
        socket.send(Message::text(judge::leave())).await.ok();
        socket.close(None).await.ok();
    };
    tokio::time::timeout(Duration::from_secs(1), goodbye).await.ok();
    heard
}

async fn talk(
    socket: &mut WebSocketStream<Upgraded<Stream>>,
    heard: &mut Heard,
    table: Option<(&str, &str)>,
) -> Result<(), tungstenite::Error> {
    socket.send(Message::text(judge::join(table, None))).await?;
    socket.send(Message::text(judge::heartbeat())).await?;
    while !heard.is_done(table.is_some()) {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => heard.hear(text.as_str()),
            Some(Ok(Message::Close(frame))) => {
                let why =
                    frame.map_or_else(String::new, |it| format!(": {} {}", it.code, it.reason));
                heard.ended = Some(format!("the project closed the WebSocket{why}"));
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
            None => heard.ended = Some("the WebSocket ended".to_owned()),
        }
    }
    Ok(())
}
