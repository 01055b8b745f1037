//! The smallest Pingora proxy that does the whole job: JWT payload -> sub -> sha256 -> bucket 0-99 ->
//! OLD or NEW, with Host, apikey and profile headers rewritten for NEW. Settings come from BENCH_* variables.
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use pingora::http::RequestHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::*;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

#[derive(serde::Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    sub: std::borrow::Cow<'a, str>,
}

struct Split {
    pct: Arc<AtomicU32>,
    old: (SocketAddr, String),
    new: (SocketAddr, String),
    new_key: String,
    table: HashMap<String, String>,
}

fn bucket(req: &RequestHeader) -> Option<u32> {
    let auth = req.headers.get("authorization")?.to_str().ok()?;
    let payload = auth.strip_prefix("Bearer ")?.split('.').nth(1)?;
    let json = URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Claims = serde_json::from_slice(&json).ok()?;
    let h = Sha256::digest(claims.sub.as_bytes());
    Some(u32::from_be_bytes([h[0], h[1], h[2], h[3]]) % 100)
}

#[async_trait]
impl ProxyHttp for Split {
    type CTX = bool; // true: NEW
    fn new_ctx(&self) -> bool {
        false
    }

    async fn upstream_peer(&self, s: &mut Session, new: &mut bool) -> Result<Box<HttpPeer>> {
        *new = bucket(s.req_header()).is_some_and(|b| b < self.pct.load(Relaxed));
        let to = if *new { &self.new } else { &self.old };
        Ok(Box::new(HttpPeer::new(to.0, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        s: &mut Session,
        up: &mut RequestHeader,
        new: &mut bool,
    ) -> Result<()> {
        if let Some(a) = s.client_addr().and_then(|a| a.as_inet()) {
            up.insert_header("X-Forwarded-For", a.ip().to_string())?;
        }
        if !*new {
            return up.insert_header("Host", &self.old.1);
        }
        up.insert_header("Host", &self.new.1)?;
        up.insert_header("apikey", &self.new_key)?;
        let table = up.uri.path().strip_prefix("/rest/v1/").and_then(|t| self.table.get(t));
        if let Some(schema) = table {
            up.insert_header("Accept-Profile", schema)?;
            up.insert_header("Content-Profile", schema)?;
        }
        Ok(())
    }
}

fn main() {
    let env = |k: &str| {
        std::env::var(format!("BENCH_{k}")).unwrap_or_else(|_| panic!("BENCH_{k} is not set"))
    };
    let addr = |k: &str| -> SocketAddr { format!("127.0.0.1:{}", env(k)).parse().unwrap() };
    let pct = Arc::new(AtomicU32::new(env("PCT").parse().unwrap()));
    let table = env("TABLE")
        .split(',')
        .filter_map(|p| p.split_once('='))
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();

    let mut conf = ServerConf::default();
    conf.threads = env("THREADS").parse().unwrap();
    conf.upstream_keepalive_pool_size = 256;
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let split = Split {
        pct: pct.clone(),
        old: (addr("OLD"), env("OLD_HOST")),
        new: (addr("NEW"), env("NEW_HOST")),
        new_key: env("NEW_APIKEY"),
        table,
    };
    let mut svc = http_proxy_service(&server.configuration, split);
    svc.add_tcp(&addr("HTTP").to_string());
    let mut tls = TlsSettings::intermediate(&env("CERT"), &env("KEY")).unwrap();
    tls.enable_h2();
    svc.add_tls_with_settings(&addr("HTTPS").to_string(), None, tls);
    server.add_service(svc);

    // live change: the percentage is re-read from a file
    let file = env("PCT_FILE");
    std::thread::spawn(move || {
        loop {
            if let Some(v) = std::fs::read_to_string(&file).ok().and_then(|s| s.trim().parse().ok())
            {
                pct.store(v, Relaxed);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    server.run_forever();
}
