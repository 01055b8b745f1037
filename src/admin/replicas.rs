//! `/replicas`: what every replica serves. The names of `kubernetes.peers` are resolved anew each time, and each address is asked for
//! its number and whether it is ready, all at once and within one deadline.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::Json;
use axum::extract::State as Extract;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::{AdminError, Phase, State, ask};
use crate::config::live::Control;
use crate::secret::Secret;

/// Bytes of a replica's answer; it has a few hundred.
const ANSWER_BYTES: usize = 64 * 1024;
/// More addresses than this are no replicas of one deployment.
const MOST: usize = 1_000;

/// One replica. What it did not answer is `None`, and then `error` says why.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Replica {
    address: String,
    name: Option<String>,
    epoch: Option<u64>,
    percentage: Value,
    force: Option<String>,
    ready: Option<bool>,
    error: Option<String>,
}

/// All of them.
#[derive(Debug, Serialize)]
struct Replicas {
    replicas: Vec<Replica>,
    /// Everybody answered, with the same epoch, percentage and force.
    agreed: bool,
}

pub(super) async fn show(Extract(state): Extract<State>) -> Result<Response, AdminError> {
    let replicas = if state.peers.hosts.is_empty() {
        vec![this_one(&state).await?]
    } else {
        ask_all(&state).await
    };
    let agreed = is_agreed(&replicas);
    Ok(Json(Replicas { replicas, agreed }).into_response())
}

fn is_agreed(replicas: &[Replica]) -> bool {
    let says = |replica: &Replica| {
        (replica.epoch, replica.percentage.clone(), replica.force.clone(), replica.error.is_none())
    };
    let first = replicas.first().map(says);
    first.is_some_and(|first| first.3 && replicas.iter().all(|replica| says(replica) == first))
}

async fn this_one(state: &State) -> Result<Replica, AdminError> {
    let rollout = ask(state, Control::rollout).await?;
    Ok(Replica {
        address: "this process".to_owned(),
        name: state.name.clone(),
        epoch: Some(rollout.epoch),
        percentage: serde_json::to_value(rollout.percentage).unwrap_or_default(),
        force: rollout.force.map(|side| side.to_string()),
        ready: Some(state.lifecycle.phase() == Phase::Serving),
        error: None,
    })
}

async fn ask_all(state: &State) -> Vec<Replica> {
    let deadline = Instant::now() + state.peers.timeout;
    let resolved = join_all(state.peers.hosts.iter().map(|host| resolve(host, deadline))).await;
    let mut unknown = Vec::new();
    let mut addresses = BTreeSet::new();
    for found in resolved {
        match found {
            Ok(found) => addresses.extend(found),
            Err(replica) => unknown.push(replica),
        }
    }
    let asked = addresses.into_iter().take(MOST);
    let mut replicas =
        join_all(asked.map(|address| ask_one(address, state.token.as_ref(), deadline))).await;
    replicas.append(&mut unknown);
    replicas
}

async fn resolve(host: &str, deadline: Instant) -> Result<Vec<SocketAddr>, Replica> {
    let failed = |why: String| Replica {
        address: host.to_owned(),
        error: Some(format!("the name has no address: {why}")),
        ..Replica::default()
    };
    match timeout_at(deadline, tokio::net::lookup_host(host)).await {
        Ok(Ok(found)) => {
            let found: Vec<_> = found.collect();
            if found.is_empty() { Err(failed("none was found".to_owned())) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("no answer in time".to_owned())),
    }
}

/// Asks one replica for its number and whether it is ready.
async fn ask_one(address: SocketAddr, token: Option<&Secret>, deadline: Instant) -> Replica {
    let asked = timeout_at(deadline, async {
        tokio::try_join!(get(address, "/rollout", token), get(address, "/readyz", None))
    });
    let answered = match asked.await {
        Ok(answered) => answered,
        Err(_) => Err("no answer in time".to_owned()),
    };
    let address = address.to_string();
    match answered {
        Ok(((StatusCode::OK, rollout), (ready, _))) if rollout["epoch"].is_u64() => Replica {
            address,
            name: rollout["name"].as_str().map(str::to_owned),
            epoch: rollout["epoch"].as_u64(),
            percentage: rollout["percentage"].clone(),
            force: rollout["force"].as_str().map(str::to_owned),
            ready: Some(ready == StatusCode::OK),
            error: None,
        },
        Ok(((status, body), _)) => {
            let code = body["code"].as_str().unwrap_or("no answer of Cutover's");
            let why = format!("status {}: {code}", status.as_u16());
            Replica { address, error: Some(why), ..Replica::default() }
        }
        Err(why) => Replica { address, error: Some(why), ..Replica::default() },
    }
}

/// One question on a connection of its own: a kept one could belong to a pod that is gone.
async fn get(
    address: SocketAddr,
    path: &str,
    token: Option<&Secret>,
) -> Result<(StatusCode, Value), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close");
    if let Some(token) = token {
        let bearer = token.bearer().map_err(|error| error.to_string())?;
        request = request.header(header::AUTHORIZATION, bearer);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let asking = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok((head.status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    let mut asking = std::pin::pin!(asking);
    tokio::select! {
        // The connection is driven here: it ends with the question, whatever becomes of it.
        driven = connection => match driven {
            Ok(()) => asking.await,
            Err(error) => Err(error.to_string()),
        },
        answer = &mut asking => answer,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replica(epoch: u64, percentage: u64) -> Replica {
        Replica { epoch: Some(epoch), percentage: json!(percentage), ..Replica::default() }
    }

    #[test]
    fn they_agree_when_all_say_the_same_and_nobody_is_silent() {
        let silent = Replica { error: Some("gone".into()), ..Replica::default() };
        let forced = Replica { force: Some("old".into()), ..replica(3, 10) };
        for (replicas, want) in [
            (vec![replica(3, 10)], true),
            (vec![replica(3, 10), replica(3, 10)], true),
            (vec![replica(3, 10), replica(4, 10)], false),
            (vec![replica(3, 10), replica(3, 20)], false),
            (vec![replica(3, 10), forced], false),
            (vec![replica(3, 10), silent.clone()], false),
            (vec![silent], false),
            (vec![], false),
        ] {
            assert_eq!(is_agreed(&replicas), want, "{replicas:?}");
        }
    }
}
