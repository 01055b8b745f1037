//! What must not be seen anywhere: keys and tokens, through the real binary with everything it can log.

use cutover::side::Side;
use futures_util::StreamExt as _;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::conn::{Answer, Conn};
use crate::support::process::Process;
use crate::support::realtime::{Order, Realtime, changes, join, joins};
use crate::support::upstream::{Upstream, response};
use crate::support::world::{
    ANON_NEW, ANON_OLD, OVERRIDE_TOKEN, SERVICE_NEW, SERVICE_OLD, World, token,
};
use crate::support::{eventually, http2, within};

const ADMIN_TOKEN: &str = "admin-token-0123456789";
const STRANGER: &str = "sb_secret_strangers0key";
const REFRESH: &str = "refresh-token-value-77";

async fn ask(address: std::net::SocketAddr, request: &str) -> Option<Answer> {
    let mut conn = Conn::open(address).await;
    conn.send(request).await;
    let head = conn.head().await?;
    Some(Answer { head, ..Answer::default() })
}

fn requests() -> Vec<String> {
    let user = token("ada");
    let get =
        |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
    let mut all = Vec::new();
    for key in [ANON_OLD, ANON_NEW, SERVICE_OLD, SERVICE_NEW, STRANGER] {
        all.push(get(
            "/rest/v1/todos",
            &format!("apikey: {key}\r\nauthorization: Bearer {key}\r\n"),
        ));
        all.push(get(&format!("/rest/v1/todos?select=id&apikey={key}"), ""));
        all.push(get(&format!("/nowhere?apikey={key}"), ""));
        all.push(get(&format!("/rest/v1/../x?apikey={key}"), ""));
    }
    let signed = format!("apikey: {ANON_OLD}\r\nauthorization: Bearer {user}\r\n");
    all.push(get("/rest/v1/todos", &signed));
    all.push(get(
        "/rest/v1/todos",
        &format!("{signed}x-cutover-side: new\r\nx-cutover-override-token: {OVERRIDE_TOKEN}\r\n"),
    ));
    all.push(get(&format!("/storage/v1/object/sign/b/a?token={user}"), &signed));
    all.push(get(&format!("/auth/v1/verify?token={REFRESH}&code={REFRESH}&refresh_token={REFRESH}&access_token={user}"), ""));
    all.push(get(
        "/rest/v1/todos",
        &format!("{signed}cookie: sb-access-token={user}\r\nx-api-key: {REFRESH}\r\n"),
    ));
    // Refused heads, with secrets in what is refused.
    all.push(get("/rest/v1/todos", &format!("{signed}x: a\r\n folded {user}\r\n")));
    all.push(get(&format!("/rest/v1/todos?apikey={ANON_OLD} {user}"), &signed));
    all.push(get("/rest/v1/todos", &format!("{signed}x-long: {}{user}\r\n", "y".repeat(70_000))));
    all.push(format!(
        "POST /auth/v1/token?grant_type=refresh_token HTTP/1.1\r\nhost: a\r\n{signed}content-length: {}\r\n\r\n{{\"refresh_token\":\"{REFRESH}\"}}",
        REFRESH.len() + 20
    ));
    all.push(get(
        &format!("/realtime/v1/websocket?apikey={ANON_OLD}&token={user}"),
        "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ));
    all
}

/// Every request, in both protocols, while the side is well and while it fails in every way.
async fn asks_everything(address: std::net::SocketAddr, old: &Upstream) {
    for request in requests() {
        ask(address, &request).await;
    }
    let mut sender = http2::over(tokio::net::TcpStream::connect(address).await.unwrap()).await;
    for key in [ANON_OLD, SERVICE_NEW, STRANGER] {
        let mut request = http2::get(&format!("/rest/v1/todos?apikey={key}"));
        let bearer = format!("Bearer {}", token("ada"));
        for (name, value) in [("apikey", key), ("authorization", &bearer)] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        sender.send_request(request).await.unwrap();
    }
    const BREAKS_OFF: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx";
    for text in ["", "nonsense\r\n\r\n", "wait", BREAKS_OFF, "error"] {
        old.does(move |_, mut conn| async move {
            let json = "content-type: application/json\r\n";
            match text {
                "wait" => while conn.fill().await > 0 {},
                "error" => {
                    conn.send(response("500 Oh", json, "{\"code\":\"XX000\",\"message\":\"x\"}"))
                        .await
                }
                text => conn.send(text).await,
            }
            None
        });
        for request in requests() {
            if text != "wait" || request.contains("refresh_token\":") || request.contains("sign/") {
                ask(address, &request).await;
            }
        }
    }
}

/// What the admin listener shows, with and without its token.
async fn shown_by(admin: std::net::SocketAddr) -> String {
    let mut shown = String::new();
    for (method, path, body) in [
        ("GET", "/metrics", ""),
        ("GET", "/status", ""),
        ("GET", "/explain?user=ada&path=/rest/v1/todos", ""),
        ("PUT", "/rollout", "{\"percentage\":10,\"reason\":\"test\"}"),
        ("GET", "/audit", ""),
    ] {
        for token in ["wrong-token", ADMIN_TOKEN] {
            let mut conn = Conn::open(admin).await;
            conn.send(format!(
                "{method} {path} HTTP/1.1\r\nhost: {admin}\r\nauthorization: Bearer {token}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
            shown += &conn.answer().await.text();
        }
    }
    shown
}

/// A socket on which tokens are said both ways, down to the last byte that a library could log.
#[tokio::test]
async fn trap_43_no_key_or_token_of_a_socket_appears_in_the_log() {
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    let (folder, _) = World::start()
        .set("log.format", "\"json\"")
        .set("log.level", "\"trace,tungstenite=trace\"")
        .set("log.access", "true")
        .write(&old, &new);
    let realtime = Realtime::on(&old);
    let mut process = Process::serve(folder.path()).await;
    let url = format!("ws://{}/realtime/v1/websocket?apikey={ANON_OLD}", process.address);
    let (socket, _) = within("a socket", tokio_tungstenite::connect_async(url)).await.unwrap();
    let mut socket = socket;
    let user = token("ada");
    joins(&mut socket, &join("room", &changes("notes"), Some(&user), "1"), 1).await;
    realtime.orders(Order::Say(Message::text(format!("{{\"echo\":\"{user}\"}}"))));
    within("the echo", socket.next()).await.unwrap().unwrap();
    let frame = CloseFrame { code: 4000.into(), reason: user[..100].to_owned().into() };
    socket.close(Some(frame)).await.unwrap();
    realtime.has_ended(1).await;
    process.terminate();
    process.ends().await;
    let output = process.output();
    assert!(output.contains("/realtime/v1/websocket"), "there is an access log: {output}");
    let hex: String = user.bytes().take(60).map(|byte| format!("{byte:02x}")).collect();
    for secret in [ANON_OLD, &user[..60], &hex] {
        let line = output.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[tokio::test]
async fn no_key_or_token_appears_in_log_metrics_status_or_audit() {
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    let (folder, _) = World::start()
        .set("log.format", "\"json\"")
        .set("log.level", "\"trace\"")
        .set("log.access", "true")
        .set("admin.token", &format!("{ADMIN_TOKEN:?}"))
        .set("upstream.timeout", "\"200ms\"")
        .write(&old, &new);
    let mut process = Process::serve(folder.path()).await;
    asks_everything(process.address, &old).await;
    let mut shown = shown_by(process.admin).await;
    // Garbage that holds a secret must not be quoted.
    let config = folder.path().join("config.toml");
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, good.replace("admin.token = ", "admin.tokem = ")).unwrap();
    eventually("the fault in the log", async || process.output().contains("tokem")).await;
    process.terminate();
    process.ends().await;
    let output = process.output();
    assert!(output.contains("cutover::access"), "there is an access log: {output}");
    assert!(shown.contains("cutover_requests_total") && shown.contains("\"epoch\""), "{shown}");
    shown += &output;
    shown += &std::fs::read_to_string(folder.path().join("cutover-audit.jsonl")).unwrap();
    let user = token("ada");
    let (payload, _) = user.rsplit_once('.').unwrap();
    for secret in [
        ANON_OLD,
        ANON_NEW,
        SERVICE_OLD,
        SERVICE_NEW,
        STRANGER,
        OVERRIDE_TOKEN,
        ADMIN_TOKEN,
        REFRESH,
        payload,
    ] {
        let line = shown.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}
