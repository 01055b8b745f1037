//! Asks the admin listener of a running proxy.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::config;
use crate::config::fault::Faults;
use crate::config::live::Sources;
use crate::outbound::innermost;
use crate::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A change is written and synced before it is answered; even a slow disk is faster.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A thousand audit records with the longest reasons, and room.
const BODY_BYTES: usize = 16 * 1024 * 1024;
/// Where a proxy listens whose settings can't be read.
const DEFAULT_URL: &str = "http://127.0.0.1:8001";

/// Where the admin listener is, and what to present to it.
#[derive(Debug)]
pub(super) struct AdminClient {
    /// Without a slash at its end.
    url: String,
    token: Option<Secret>,
    /// Whether the settings of this machine name it, so that its sources are ours to write. Never with an address
    /// of the environment: a tunnel that is gone must not look like a roll back that worked.
    pub(super) is_local: bool,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, good or bad.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("no proxy answers at {url}: {cause}")]
    NotRunning { url: String, cause: String },
    #[error("{0:#}")]
    Failed(anyhow::Error),
}

/// What the settings say about the admin listener; the faults when they can't be read.
pub(super) struct Address {
    pub(super) client: AdminClient,
    pub(super) faults: Option<Faults>,
}

/// Finds the admin listener: `CUTOVER_ADMIN_URL`, else the settings, else the default. Settings with faults are
/// no reason to give up: the proxy still runs on its last good ones, and abort must work.
pub(super) fn find(sources: &Sources) -> anyhow::Result<Address> {
    let variable = |name: &str| sources.environment.get(name).filter(|value| !value.is_empty());
    let token = variable("CUTOVER_ADMIN_TOKEN").map(|token| Secret::new(token));
    if let Some(url) = variable("CUTOVER_ADMIN_URL") {
        let token = token.or_else(|| config::check(sources).ok()?.startup.admin_token);
        return Ok(Address { client: AdminClient::new(url, token)?, faults: None });
    }
    match config::check(sources) {
        Ok(report) => {
            let token = token.or(report.startup.admin_token);
            let mut address = report.startup.admin;
            if address.ip().is_unspecified() {
                address.set_ip(if address.is_ipv4() {
                    [127, 0, 0, 1].into()
                } else {
                    std::net::Ipv6Addr::LOCALHOST.into()
                });
            }
            let mut client = AdminClient::new(&format!("http://{address}"), token)?;
            client.is_local = true;
            Ok(Address { client, faults: None })
        }
        Err(faults) => {
            Ok(Address { client: AdminClient::new(DEFAULT_URL, token)?, faults: Some(faults) })
        }
    }
}

impl AdminClient {
    fn new(url: &str, token: Option<Secret>) -> anyhow::Result<Self> {
        let uri: Uri =
            url.parse().with_context(|| format!("CUTOVER_ADMIN_URL: {url} is no URL"))?;
        anyhow::ensure!(
            uri.scheme_str() == Some("http") && uri.host().is_some() && uri.query().is_none(),
            "CUTOVER_ADMIN_URL: found {url}, allowed: http://host:port. The admin listener speaks plain HTTP; \
             reach another machine's through a tunnel (kubectl port-forward, ssh -L)"
        );
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            token,
            is_local: false,
            http: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends one request and reads the whole answer.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, NoAnswer> {
        self.ask_if(None, method, path, body).await
    }

    /// The same, if the epoch still is `epoch` (If-Match).
    pub(super) async fn ask_if(
        &self,
        epoch: Option<u64>,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer, NoAnswer> {
        let mut request = self.request(method, path, body).map_err(NoAnswer::Failed)?;
        if let Some(tag) = epoch.and_then(|n| http::HeaderValue::try_from(format!("\"{n}\"")).ok())
        {
            request.headers_mut().insert(header::IF_MATCH, tag);
        }
        let (status, bytes) = self.exchange(request).await?;
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let ours = if status.is_success() {
            body.get("epoch").is_some_and(Value::is_u64)
                || body["records"].is_array()
                || body["replicas"].is_array()
        } else {
            body["code"].is_string()
        };
        if !ours {
            // Some other program may have the port: its "200 OK" must not look like a roll back that worked.
            let url = &self.url;
            return Err(NoAnswer::Failed(anyhow::anyhow!(
                "{url} answered {status}, but not as the admin listener of Cutover does"
            )));
        }
        Ok(Answer { status, body })
    }

    /// What stands on a page that is no JSON.
    pub(super) async fn text(&self, path: &str) -> Result<String, NoAnswer> {
        let request = self.request(Method::GET, path, None).map_err(NoAnswer::Failed)?;
        let (status, bytes) = self.exchange(request).await?;
        if status.is_success() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        let url = &self.url;
        Err(NoAnswer::Failed(anyhow::anyhow!("{url}{path} answered {status}")))
    }

    /// Sends a request, and reads the whole answer in time.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Bytes), NoAnswer> {
        let asking = async {
            let response = self.http.request(request).await;
            let (head, body) = response.map_err(|error| self.no_answer(&error))?.into_parts();
            let whole = Limited::new(body, BODY_BYTES).collect().await;
            let whole = whole.map_err(|error| {
                NoAnswer::Failed(anyhow::anyhow!("the answer was cut: {error}"))
            })?;
            Ok((head.status, whole.to_bytes()))
        };
        tokio::time::timeout(TIMEOUT, asking).await.unwrap_or_else(|_| {
            let seconds = TIMEOUT.as_secs();
            Err(NoAnswer::Failed(anyhow::anyhow!("{} did not answer in {seconds} s", self.url)))
        })
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            let value = token
                .bearer()
                .context("the admin token has characters that no header can carry")?;
            request = request.header(header::AUTHORIZATION, value);
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        Ok(request.body(Full::new(bytes))?)
    }

    fn no_answer(&self, error: &hyper_util::client::legacy::Error) -> NoAnswer {
        let cause = innermost(error);
        if error.is_connect() {
            NoAnswer::NotRunning { url: self.url.clone(), cause }
        } else {
            NoAnswer::Failed(anyhow::anyhow!("{}: {cause}", self.url))
        }
    }
}
