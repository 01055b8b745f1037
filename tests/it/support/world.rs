//! A running proxy between two recording upstreams, with a configuration file of its own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cutover::app::Proxy;
use cutover::config::live::Sources;
use cutover::forward::names::Resolver;
use cutover::observe::log::Dropped;
use cutover::side::Side;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::conn::{Answer, Conn, ask_admin};
use super::upstream::Upstream;
use super::{eventually, sum};

pub const ANON_OLD: &str = "anon.old.key-a1";
pub const ANON_NEW: &str = "anon.new.key-a2";
pub const SERVICE_OLD: &str = "service.old.key-s1";
pub const SERVICE_NEW: &str = "service.new.key-s2";
pub const OVERRIDE_TOKEN: &str = "override-token-0123456789";

/// What a world is made of. Awaiting it starts it.
pub struct Setup {
    /// Dotted key, TOML value.
    keys: BTreeMap<String, String>,
    /// Files next to the configuration.
    files: Vec<(String, String)>,
    resolver: Resolver,
}

/// A running proxy.
pub struct World {
    pub old: Upstream,
    pub new: Upstream,
    pub address: SocketAddr,
    pub tls_address: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub folder: TempDir,
    keys: std::sync::Mutex<BTreeMap<String, String>>,
    proxy: Option<Proxy>,
}

impl World {
    /// Everybody on old; `todos` is `app.todos` on new, `vendor_api_keys` is `vendors.api_keys`.
    pub fn start() -> Setup {
        let setup =
            Setup { keys: BTreeMap::new(), files: Vec::new(), resolver: Resolver::default() };
        setup
            .set("listen", "\"127.0.0.1:0\"")
            .set("workers", "1")
            .set("debug_headers", "true")
            .set("drain_timeout", "\"5s\"")
            .set("admin.listen", "\"127.0.0.1:0\"")
            .set("projects.old.anon_key", &format!("{ANON_OLD:?}"))
            .set("projects.new.anon_key", &format!("{ANON_NEW:?}"))
            .set("projects.old.service_role_key", &format!("{SERVICE_OLD:?}"))
            .set("projects.new.service_role_key", &format!("{SERVICE_NEW:?}"))
            .set("rollout.salt", "\"cutover\"")
            .set("rollout.override_token", &format!("{OVERRIDE_TOKEN:?}"))
            .set("realtime.drain", "\"200ms\"")
            .set("schema.tables.todos", "\"app\"")
            .set("schema.tables.vendor_api_keys", "\"vendors.api_keys\"")
            .set("schema.functions.match_memories", "\"security_service\"")
            .set("log.access", "false")
    }

    /// A client of the public address.
    pub fn client(&self) -> Client {
        Client { address: self.address, headers: vec![("apikey".into(), ANON_OLD.into())] }
    }

    /// A signed-in user.
    pub fn as_user(&self, sub: &str) -> Client {
        self.client().with("authorization", &format!("Bearer {}", token(sub)))
    }

    /// A connection for bytes of all kinds.
    pub async fn raw(&self) -> Conn {
        Conn::open(self.address).await
    }

    pub fn side(&self, side: Side) -> &Upstream {
        match side {
            Side::Old => &self.old,
            Side::New => &self.new,
        }
    }

    pub fn config(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Replaces the file as an editor does: at once.
    pub fn write_config(&self, text: &str) {
        let beside = self.folder.path().join("config.toml.new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, self.config()).unwrap();
    }

    /// Changes one key in the file and waits until it is live.
    pub async fn change(&self, key: &str, value: &str) {
        let before = self.status().await["epoch"].as_u64().unwrap();
        let text = {
            let mut keys = self.keys.lock().unwrap();
            keys.insert(key.to_owned(), value.to_owned());
            written(&keys)
        };
        self.write_config(&text);
        eventually("a new epoch", async || self.status().await["epoch"].as_u64() > Some(before))
            .await;
    }

    pub async fn ask_admin(&self, method: &str, path: &str, body: &str) -> Answer {
        ask_admin(self.admin, method, path, body).await
    }

    pub async fn status(&self) -> Value {
        self.ask_admin("GET", "/status", "").await.json()
    }

    pub async fn metrics(&self) -> String {
        self.ask_admin("GET", "/metrics", "").await.text()
    }

    /// The sum over every series of a metric whose labels hold `labels`.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        sum(&self.metrics().await, name, labels)
    }

    /// Waits until nothing is in flight any more.
    pub async fn is_quiet(&self) {
        for gauge in [
            "cutover_requests_in_flight",
            "cutover_websockets_open",
            "cutover_client_connections_open",
        ] {
            eventually(gauge, async || self.metric(gauge, "").await == 0.0).await;
        }
    }

    /// Stops the proxy; answers how long that took.
    pub fn begin_stop(&mut self) -> impl Future<Output = Duration> + use<> {
        let proxy = self.proxy.take().unwrap();
        let begun = std::time::Instant::now();
        let stopping = tokio::task::spawn_blocking(move || proxy.stop());
        async move {
            stopping.await.unwrap();
            begun.elapsed()
        }
    }
}

impl Drop for World {
    /// A runtime can't be dropped inside of one, and a test need not wait for the end.
    fn drop(&mut self) {
        if let Some(proxy) = self.proxy.take() {
            std::thread::spawn(move || proxy.stop());
        }
    }
}

fn written(keys: &BTreeMap<String, String>) -> String {
    keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

impl Setup {
    /// Sets one key: dotted name, TOML value.
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.keys.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Puts a file next to the configuration.
    pub fn file(mut self, name: &str, text: &str) -> Self {
        self.files.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Asks this for the addresses of names.
    pub fn names(
        mut self,
        ask: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        self.resolver = Resolver::new(ask);
        self
    }

    pub fn rollout(self, percentage: u8) -> Self {
        self.set("rollout.percentage", &percentage.to_string())
    }

    /// Writes folder and file, without starting a proxy.
    pub fn write(mut self, old: &Upstream, new: &Upstream) -> (TempDir, BTreeMap<String, String>) {
        let folder = tempfile::tempdir().unwrap();
        for (name, upstream) in [("projects.old.url", old), ("projects.new.url", new)] {
            self.keys
                .entry(name.to_owned())
                .or_insert_with(|| format!("\"http://{}\"", upstream.address));
        }
        for (name, text) in &self.files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        fs::write(folder.path().join("config.toml"), written(&self.keys)).unwrap();
        (folder, self.keys)
    }

    async fn begin(self) -> World {
        let resolver = self.resolver.clone();
        let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
        let (folder, keys) = self.write(&old, &new);
        let sources =
            Sources { file: Some(folder.path().join("config.toml")), environment: BTreeMap::new() };
        // It may wait for a Kubernetes API that this very runtime serves.
        let start = move || cutover::k8s::start(sources);
        let (control, startup, _warnings) =
            tokio::task::spawn_blocking(start).await.unwrap().unwrap();
        let proxy = Proxy::start(control, &startup, Dropped::default(), resolver).unwrap();
        World {
            old,
            new,
            address: proxy.address,
            tls_address: proxy.tls_address,
            admin: proxy.admin_address,
            folder,
            keys: std::sync::Mutex::new(keys),
            proxy: Some(proxy),
        }
    }
}

impl IntoFuture for Setup {
    type Output = World;
    type IntoFuture = Pin<Box<dyn Future<Output = World>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.begin())
    }
}

/// A user's token, as far as the proxy reads it.
pub fn token(sub: &str) -> String {
    token_of(&json!({ "sub": sub, "role": "authenticated", "exp": 4_000_000_000_u64 }))
}

pub fn token_of(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(claims))
}

/// Somebody who asks, with a connection for each request.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    headers: Vec<(String, String)>,
}

impl Client {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self
    }

    /// A request's bytes.
    pub fn says(&self, method: &str, target: &str, body: Option<&str>) -> String {
        let mut text = format!("{method} {target} HTTP/1.1\r\nhost: proxy.example\r\n");
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        match body {
            None => text + "\r\n",
            Some(body) => format!("{text}content-length: {}\r\n\r\n{body}", body.len()),
        }
    }

    pub async fn ask(&self, method: &str, target: &str, body: Option<&str>) -> Answer {
        let mut conn = Conn::open(self.address).await;
        conn.send(self.says(method, target, body)).await;
        conn.answer_to(method).await
    }

    pub async fn get(&self, target: &str) -> Answer {
        self.ask("GET", target, None).await
    }

    pub async fn post(&self, target: &str, body: &str) -> Answer {
        self.ask("POST", target, Some(body)).await
    }
}
