//! As much of a Kubernetes API server as one ConfigMap needs: list, watch, get and merge patch over real HTTP, with resource versions,
//! bookmarks, and everything that goes wrong on the way. Nothing of the test support is imported: the bench includes this file too.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub const NAMESPACE: &str = "cutover";
pub const NAME: &str = "cutover-rollout";
pub const TOKEN: &str = "service-account-token";

/// How the server behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Up,
    /// Every connection is closed at once, open ones too.
    Away,
    /// Connections stay open, and nothing is said on them any more.
    Silent,
    /// What is written is refused as by a server in trouble; all else goes well.
    ReadOnly,
    /// Every request gets this status.
    Refusing(u16),
}

/// The server. Dropping it leaves it running; it ends with its runtime.
#[derive(Clone)]
pub struct Kubernetes {
    pub address: SocketAddr,
    inner: Arc<Inner>,
}

struct Inner {
    cluster: Mutex<Cluster>,
    mode: watch::Sender<Mode>,
    /// Grows with every event.
    news: watch::Sender<u64>,
    /// Grows when all watches are cut in the middle of a line.
    cuts: watch::Sender<u64>,
    /// Grows when every watch gets a bookmark.
    bookmarks: watch::Sender<u64>,
    watches: watch::Sender<usize>,
    /// Patches that wait, and how many there have to be before any is looked at.
    gate: watch::Sender<(usize, usize)>,
}

#[derive(Default)]
struct Cluster {
    revision: u64,
    map: Option<Map>,
    /// Revision and event.
    log: Vec<(u64, Value)>,
    /// Revisions up to this are forgotten.
    forgotten: u64,
    requests: Vec<String>,
}

#[derive(Clone, Default, PartialEq)]
struct Map {
    revision: u64,
    data: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Kubernetes {
    /// A server with this data in its ConfigMap.
    pub async fn start(data: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            cluster: Mutex::default(),
            mode: watch::Sender::new(Mode::Up),
            news: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            bookmarks: watch::Sender::new(0),
            watches: watch::Sender::new(0),
            gate: watch::Sender::new((0, 0)),
        });
        inner.cluster().revision = 100;
        let server = Self { address, inner };
        server.change(|map| {
            map.annotations.insert("somebody/else".into(), "stays".into());
            map.data.extend(data.iter().map(|(k, v)| (k.to_string(), v.to_string())));
        });
        let accepting = Arc::clone(&server.inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = Arc::clone(&accepting);
                tokio::spawn(async move {
                    let mut mode = inner.mode.subscribe();
                    let away = mode.wait_for(|mode| *mode == Mode::Away);
                    tokio::select! {
                        biased;
                        _ = away => {}
                        () = inner.serve(stream) => {}
                    }
                });
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn is(&self, mode: Mode) {
        self.inner.mode.send_replace(mode);
    }

    /// Changes the ConfigMap by hand; annotations of Cutover stay as they are.
    pub fn set(&self, name: &str, value: &str) {
        self.change(|map| _ = map.data.insert(name.into(), value.into()));
    }

    pub fn remove(&self, name: &str) {
        self.change(|map| _ = map.data.remove(name));
    }

    pub fn annotate(&self, name: &str, value: &str) {
        self.change(|map| _ = map.annotations.insert(name.into(), value.into()));
    }

    pub fn delete(&self) {
        let mut cluster = self.inner.cluster();
        cluster.revision += 1;
        let Some(mut map) = cluster.map.take() else { return };
        map.revision = cluster.revision;
        let event = (map.revision, json!({ "type": "DELETED", "object": map.object() }));
        cluster.log.push(event);
        drop(cluster);
        self.inner.tell();
    }

    /// Every revision so far is forgotten: a watch from there is answered 410.
    pub fn forgets(&self) {
        let mut cluster = self.inner.cluster();
        cluster.revision += 1;
        cluster.forgotten = cluster.revision;
    }

    /// As after a backup: the revisions begin again, lower than any that was seen.
    pub fn is_restored(&self, data: &[(&str, &str)]) {
        let mut cluster = self.inner.cluster();
        cluster.revision = 1;
        cluster.forgotten = 0;
        cluster.log.clear();
        let data = data.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        cluster.map = Some(Map { revision: 1, data, annotations: BTreeMap::new() });
    }

    /// Closes every watch in the middle of a line.
    pub fn cuts(&self) {
        self.inner.cuts.send_modify(|cut| *cut += 1);
    }

    pub fn sends_bookmarks(&self) {
        self.inner.bookmarks.send_modify(|bookmark| *bookmark += 1);
    }

    /// From now on patches wait until there are so many of them.
    pub fn holds_patches(&self, count: usize) {
        self.inner.gate.send_replace((0, count));
    }

    /// How many patches have come since [`Kubernetes::holds_patches`].
    pub fn waiting(&self) -> usize {
        self.inner.gate.borrow().0
    }

    /// Waits until so many watches are open.
    pub async fn is_watched_by(&self, count: usize) {
        self.inner.watches.subscribe().wait_for(|open| *open >= count).await.unwrap();
    }

    pub fn data(&self, name: &str) -> Option<String> {
        self.inner.cluster().map.as_ref()?.data.get(name).cloned()
    }

    pub fn annotation(&self, name: &str) -> Option<String> {
        self.inner.cluster().map.as_ref()?.annotations.get(name).cloned()
    }

    /// `LIST`, `WATCH`, `GET` and `PATCH`, with the status of the answer.
    pub fn requests(&self, verb: &str) -> usize {
        self.inner.cluster().requests.iter().filter(|line| line.starts_with(verb)).count()
    }

    fn change(&self, change: impl FnOnce(&mut Map)) {
        self.inner.change(&mut self.inner.cluster(), change);
        self.inner.tell();
    }
}

impl Map {
    fn object(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "resourceVersion": self.revision.to_string(),
                "annotations": self.annotations,
            },
            "data": self.data,
        })
    }
}

impl Inner {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap()
    }

    fn tell(&self) {
        self.news.send_modify(|news| *news += 1);
    }

    /// Nothing happens when nothing differs, as with the real one.
    fn change(&self, cluster: &mut Cluster, change: impl FnOnce(&mut Map)) {
        let before = cluster.map.clone();
        let mut map = before.clone().unwrap_or_default();
        change(&mut map);
        if before.as_ref() == Some(&map) {
            return;
        }
        cluster.revision += 1;
        map.revision = cluster.revision;
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        cluster.log.push((map.revision, json!({ "type": kind, "object": map.object() })));
        cluster.map = Some(map);
    }

    async fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).ok();
        let mut buffer = Vec::new();
        loop {
            let Some((head, body)) = request(&mut stream, &mut buffer).await else { return };
            let mut mode = self.mode.subscribe();
            let Ok(mode) = mode.wait_for(|mode| *mode != Mode::Silent).await.map(|mode| *mode)
            else {
                return;
            };
            let (line, _) = head.split_once("\r\n").unwrap();
            let mut words = line.split(' ');
            let (method, target) = (words.next().unwrap(), words.next().unwrap());
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let all = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
            let one = format!("{all}/{NAME}");
            let bearer = format!("authorization: bearer {TOKEN}");
            let selected = query.contains(&format!("fieldSelector=metadata.name%3D{NAME}"));
            let verb = match method {
                "GET" if path == all && query.contains("watch=true") => "WATCH",
                "GET" if path == all => "LIST",
                other => other,
            };
            let (status, answer) = match (verb, mode) {
                (_, Mode::Refusing(status)) => refusal(status, "refused by the test"),
                _ if !head.to_ascii_lowercase().contains(&bearer) => refusal(401, "Unauthorized"),
                // What the Role allows, and nothing else.
                ("WATCH", _) if selected => {
                    self.cluster().requests.push("WATCH 200".to_owned());
                    self.watch(&mut stream, query).await;
                    return;
                }
                ("LIST", _) if selected => self.list(),
                ("GET", _) if path == one => self.get(),
                ("PATCH", Mode::ReadOnly) if path == one => refusal(500, "etcd is read-only"),
                ("PATCH", _) if path == one => self.patch(&body).await,
                _ => refusal(403, "forbidden by the Role"),
            };
            self.cluster().requests.push(format!("{verb} {status}"));
            let text = answer.to_string();
            let length = text.len();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{text}"
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn list(&self) -> (u16, Value) {
        let cluster = self.cluster();
        let items: Vec<Value> = cluster.map.iter().map(Map::object).collect();
        let revision = cluster.revision.to_string();
        let list = json!({
            "apiVersion": "v1", "kind": "ConfigMapList",
            "metadata": { "resourceVersion": revision }, "items": items,
        });
        (200, list)
    }

    fn get(&self) -> (u16, Value) {
        match &self.cluster().map {
            Some(map) => (200, map.object()),
            None => refusal(404, "configmaps \"cutover-rollout\" not found"),
        }
    }

    async fn patch(&self, body: &[u8]) -> (u16, Value) {
        self.gate.send_modify(|(waiting, _)| *waiting += 1);
        let mut gate = self.gate.subscribe();
        gate.wait_for(|(waiting, wanted)| waiting >= wanted).await.unwrap();
        let patch: Value = serde_json::from_slice(body).unwrap();
        let mut cluster = self.cluster();
        let Some(map) = &cluster.map else { return refusal(404, "not found") };
        let asked = patch["metadata"]["resourceVersion"].as_str();
        if asked.is_some_and(|asked| asked != map.revision.to_string()) {
            return refusal(409, "the object has been modified");
        }
        self.change(&mut cluster, |map| {
            merge(&mut map.data, &patch["data"]);
            merge(&mut map.annotations, &patch["metadata"]["annotations"]);
        });
        self.tell();
        (200, cluster.map.as_ref().unwrap().object())
    }

    async fn watch(&self, stream: &mut TcpStream, query: &str) {
        let of = |name: &str| {
            query.split('&').filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name)
        };
        let mut at: u64 = of("resourceVersion").unwrap().1.parse().unwrap();
        let seconds: u64 = of("timeoutSeconds").unwrap().1.parse().unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        if at < self.cluster().forgotten {
            let (_, status) = refusal(410, "too old resource version");
            let line = format!("{}\n", json!({ "type": "ERROR", "object": status }));
            send(stream, &line).await;
            stream.write_all(b"0\r\n\r\n").await.ok();
            return;
        }
        let _open = Open::new(&self.watches);
        let (mut news, mut cuts) = (self.news.subscribe(), self.cuts.subscribe());
        let (mut marks, mut mode) = (self.bookmarks.subscribe(), self.mode.subscribe());
        let end = tokio::time::sleep(Duration::from_secs(seconds));
        tokio::pin!(end);
        loop {
            if *mode.borrow_and_update() == Mode::Silent {
                // Not even the end is said.
                std::future::pending::<()>().await;
            }
            let events: Vec<_> =
                self.cluster().log.iter().filter(|(revision, _)| *revision > at).cloned().collect();
            for (revision, event) in events {
                at = revision;
                if !send(stream, &format!("{event}\n")).await {
                    return;
                }
            }
            tokio::select! {
                () = &mut end => {
                    stream.write_all(b"0\r\n\r\n").await.ok();
                    return;
                }
                _ = news.changed() => {}
                _ = mode.changed() => {}
                _ = cuts.changed() => {
                    send(stream, "{\"type\":\"MODIFIED\",\"object\":{\"metad").await;
                    return;
                }
                _ = marks.changed() => {
                    at = self.cluster().revision;
                    let object = json!({
                        "kind": "ConfigMap", "apiVersion": "v1",
                        "metadata": { "resourceVersion": at.to_string(), "creationTimestamp": null },
                    });
                    let line = json!({ "type": "BOOKMARK", "object": object });
                    if !send(stream, &format!("{line}\n")).await {
                        return;
                    }
                }
            }
        }
    }
}

/// Counts an open watch.
struct Open<'a>(&'a watch::Sender<usize>);

impl<'a> Open<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|open| *open += 1);
        Self(count)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

fn merge(into: &mut BTreeMap<String, String>, patch: &Value) {
    for (name, value) in patch.as_object().into_iter().flatten() {
        match value.as_str() {
            Some(value) => _ = into.insert(name.clone(), value.to_owned()),
            None => _ = into.remove(name),
        }
    }
}

fn refusal(status: u16, message: &str) -> (u16, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Test", "code": status,
    });
    (status, body)
}

async fn send(stream: &mut TcpStream, text: &str) -> bool {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes()).await.is_ok()
}

async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end + 2].to_vec()).unwrap();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, value)| value.trim().parse().unwrap());
            if buffer.len() >= end + 4 + length {
                let body = buffer[end + 4..end + 4 + length].to_vec();
                buffer.drain(..end + 4 + length);
                return Some((head, body));
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
