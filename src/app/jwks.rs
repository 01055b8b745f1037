//! Fetches what both projects publish as their keys: at the start, every `tokens.jwks_refresh`, and sooner when a token names a kid that
//! nobody knows. On a thread of its own, so that no request pays for it; while tokens are not exchanged it does nothing.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::header::{ACCEPT, ACCEPT_ENCODING, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::forward;
use crate::forward::names::Resolver;
use crate::forward::pool::Pool;
use crate::forward::request_body::RequestBody;
use crate::forward::send::Outgoing;
use crate::observe::published::KeyFetch;
use crate::observe::{Metrics, Shard};
use crate::outbound::AGENT;
use crate::path::published::PublishedKeys;
use crate::path::worker::Shared;
use crate::side::Side;
use crate::snapshot::Snapshot;
use crate::tokens::key::VerifyingKey;
use crate::tokens::{Fetched, Mode, jwk};

/// Bytes of a set of keys. A project has a handful, of less than 1 KB each.
const SET_BYTES: usize = 256 * 1024;

/// From the first packet to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The one who fetches.
pub(super) struct Fetcher {
    live: Arc<ArcSwap<Snapshot>>,
    /// Changes after each swap.
    epochs: watch::Receiver<u64>,
    /// Turns true when the proxy stops.
    drain: watch::Receiver<bool>,
    keys: Arc<PublishedKeys>,
    resolver: Resolver,
    /// Not a worker's.
    shard: Arc<Shard>,
}

/// Why a fetch failed, for the log; how, for the metrics.
struct Failed {
    kind: KeyFetch,
    why: String,
}

impl Fetcher {
    /// A fetcher for the workers that share this.
    pub(super) fn of(shared: &Shared, metrics: &Metrics) -> Self {
        Self {
            live: Arc::clone(&shared.live),
            epochs: shared.epochs.clone(),
            drain: shared.drain.clone(),
            keys: Arc::clone(&shared.published),
            resolver: shared.resolver.clone(),
            shard: metrics.shard(usize::MAX),
        }
    }

    /// Begins on a thread of its own, which ends with the drain.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("cutover-jwks".to_owned()).spawn(move || self.run())
    }

    fn run(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => return tracing::error!(%error, "published keys can't be fetched"),
        };
        let mut drain = self.drain.clone();
        LocalSet::new().block_on(&runtime, async {
            let pool = Pool::new(Arc::clone(&self.shard), self.resolver.clone());
            let follow = |side| Follow::new(&self, &pool, side).run();
            tokio::select! {
                _ = drain.wait_for(|stop| *stop) => {}
                () = follow(Side::Old) => {}
                () = follow(Side::New) => {}
            }
        });
    }
}

/// One side's keys, through all changes of the settings.
struct Follow<'a> {
    fetcher: &'a Fetcher,
    pool: &'a Rc<Pool>,
    side: Side,
    epochs: watch::Receiver<u64>,
    /// Where the last fetch went, when it began, and whether it was good.
    last: Option<(String, Instant, bool)>,
    /// What was said last, so that it is said once.
    said: Option<Result<(), String>>,
}

impl<'a> Follow<'a> {
    fn new(fetcher: &'a Fetcher, pool: &'a Rc<Pool>, side: Side) -> Self {
        let epochs = fetcher.epochs.clone();
        Self { fetcher, pool, side, epochs, last: None, said: None }
    }

    /// Until the settings' writer is gone.
    async fn run(mut self) {
        let fetcher = self.fetcher;
        loop {
            self.epochs.mark_unchanged();
            let snapshot = fetcher.live.load_full();
            let is_on = snapshot.tokens.mode == Mode::Exchange;
            let due = if is_on { self.due(&snapshot) } else { None };
            if is_on && due.is_none_or(|due| due <= Instant::now()) {
                self.fetch(&snapshot).await;
                continue;
            }
            let regular = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.epochs.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = regular => {}
                () = fetcher.keys.asked(self.side) => {
                    // Asked by a request of another snapshot, perhaps: the live one counts.
                    let snapshot = fetcher.live.load_full();
                    if snapshot.tokens.mode == Mode::Exchange {
                        self.fetch(&snapshot).await;
                    } else {
                        fetcher.keys.give_up(self.side);
                    }
                }
            }
        }
    }

    /// When the next regular fetch begins; `None`: at once, because what is known comes from elsewhere, or nothing is known.
    fn due(&self, snapshot: &Snapshot) -> Option<Instant> {
        let (url, began, was_good) = self.last.as_ref()?;
        let tokens = &snapshot.tokens;
        if *url != tokens.projects[self.side].jwks_url {
            return None;
        }
        let pause = if *was_good {
            tokens.jwks_refresh
        } else {
            tokens.jwks_refresh.min(tokens.jwks_cooldown)
        };
        Some(*began + pause)
    }

    async fn fetch(&mut self, snapshot: &Snapshot) {
        let keys = &self.fetcher.keys;
        let began = Instant::now();
        let url = snapshot.tokens.projects[self.side].jwks_url.clone();
        keys.begin(self.side);
        let fetching = tokio::time::timeout(FETCH_TIMEOUT, self.ask(snapshot));
        let fetched = fetching.await.unwrap_or_else(|_| {
            Err(Failed { kind: KeyFetch::Unreachable, why: "no whole answer in time".to_owned() })
        });
        let (fetched, why) = match fetched {
            Ok(keys) => (Ok(Fetched { url: url.clone(), keys }), None),
            Err(failed) => (Err(failed.kind), Some(failed.why)),
        };
        self.last = Some((url, began, why.is_none()));
        let is_new = keys.end(self.side, fetched, began, snapshot.tokens.jwks_cooldown);
        self.say(why, is_new);
    }

    async fn ask(&self, snapshot: &Snapshot) -> Result<Vec<VerifyingKey>, Failed> {
        let unreachable = |why: String| Failed { kind: KeyFetch::Unreachable, why };
        let url = &snapshot.tokens.projects[self.side].jwks_url;
        let (settings, target) = forward::leading_to(&snapshot.forward, self.side, url)
            .ok_or_else(|| unreachable("jwks_url is no URL".to_owned()))?;
        let outgoing = Outgoing {
            method: Method::GET,
            target,
            headers: headers(),
            continued: None,
            is_repeatable: true,
            body: RequestBody::Empty,
        };
        let answer = self
            .pool
            .send(self.side, &settings, FETCH_TIMEOUT, outgoing)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let (head, body) = answer.response.into_parts();
        if head.status != StatusCode::OK {
            return Err(Failed { kind: KeyFetch::Refused, why: format!("status {}", head.status) });
        }
        let body = Limited::new(body, SET_BYTES).collect().await.map_err(|error| {
            let kind = match error.is::<http_body_util::LengthLimitError>() {
                true => KeyFetch::Unreadable,
                false => KeyFetch::Unreachable,
            };
            Failed { kind, why: error.to_string() }
        })?;
        jwk::published_keys(&body.to_bytes()).ok_or_else(|| Failed {
            kind: KeyFetch::Unreadable,
            why: "the answer is no set of keys".to_owned(),
        })
    }

    /// One line for each change of how it goes.
    fn say(&mut self, why: Option<String>, is_new: bool) {
        let side = self.side;
        let now = why.map_or(Ok(()), Err);
        if let (Err(error), true) = (&now, self.said.as_ref() != Some(&now)) {
            tracing::warn!(%side, error, "published keys not fetched; those known before stay");
        }
        if now.is_ok() && (is_new || matches!(self.said, Some(Err(_)))) {
            let published = self.fetcher.keys.load();
            let known = published.sides[side].iter().flat_map(|fetched| &fetched.keys);
            let kids: Vec<&str> = known.filter_map(|key| key.kid()).collect();
            tracing::info!(%side, ?kids, "published keys fetched");
        }
        self.said = Some(now);
    }
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, AGENT);
    headers
}
