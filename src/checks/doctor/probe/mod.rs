//! The shell: asks both projects, a bounded number of questions at a time, and hands the answers to `judge`.

mod database;
mod keys;
mod reach;
mod realtime;
mod rest;
mod services;
mod storage;
mod tokens;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use super::finding::Finding;
use super::judge::answer::{Rest, rest};
use super::judge::shape::Inventory;
use super::{Options, Progress};
use crate::checks::catalogue::Catalogue;
use crate::checks::http::{Answer, As, Ask, Http, NoAnswer};
use crate::config::Report;
use crate::identify::keyring::Role;
use crate::side::{Pair, Side};
use crate::snapshot::Snapshot;
use crate::tokens::Project;

/// An OpenAPI document of a schema with a thousand tables has some megabytes.
const BODY_BYTES: usize = 32 * 1024 * 1024;

/// A name that no table and no argument has.
const NOBODYS_NAME: &str = "cutover_doctor";

/// Everything that a question needs.
struct Probe<'a> {
    snapshot: &'a Snapshot,
    /// What tokens are signed with, whatever `tokens.mode` is.
    keys: &'a Pair<Project>,
    http: Http,
    gate: Semaphore,
    timeout: Duration,
    options: &'a Options,
    progress: &'a dyn Progress,
}

/// Which keys each side accepts.
type Accepted = Pair<Vec<Role>>;

/// What is known before the questions about single tables are asked.
struct Known {
    accepted: Accepted,
    /// What PostgREST shows.
    shown: Pair<Inventory>,
    /// What the databases say.
    catalogues: Pair<Option<Catalogue>>,
}

/// Asks everything that is wanted.
pub(super) async fn all(
    report: &Report,
    options: &Options,
    progress: &dyn Progress,
) -> Vec<Finding> {
    let probe = Probe {
        snapshot: &report.snapshot,
        keys: &report.keys,
        http: Http::new(&report.snapshot, options.timeout, BODY_BYTES),
        gate: Semaphore::new(options.concurrency.max(1)),
        timeout: options.timeout,
        options,
        progress,
    };
    progress.about("both projects");
    let (mut findings, up) = reach::both(&probe).await;
    progress.about("keys");
    let (more, accepted) = Box::pin(keys::both(&probe, up)).await;
    findings.extend(more);
    progress.about("schemas and databases");
    let (databases, shown) =
        futures_util::join!(database::read(&probe, report), rest::inventories(&probe, &accepted));
    let ((more, catalogues), (also, shown)) = (databases, shown);
    findings.extend(more.into_iter().chain(also));
    let known = Known { accepted, shown, catalogues };
    progress.about("tables, tokens, storage, realtime");
    let (a, b, c, d, e, f) = futures_util::join!(
        rest::all(&probe, &known),
        tokens::all(&probe, &known),
        services::all(&probe, &known),
        storage::all(&probe, &known),
        realtime::all(&probe, &known),
        database::all(&probe, report, &known),
    );
    findings.extend([a, b, c, d, e, f].into_iter().flatten());
    findings
}

impl Probe<'_> {
    /// One question, when its turn has come.
    async fn ask(&self, side: Side, who: As<'_>, ask: Ask) -> Result<Answer, NoAnswer> {
        self.progress.more(1);
        let turn = self.gate.acquire().await;
        // Boxed: hundreds of these are on their way at once, inside each other.
        let answer = Box::pin(self.http.ask(side, who, ask)).await;
        drop(turn);
        self.progress.done();
        answer
    }

    /// Reads no row of a table, to see whether it could.
    async fn read(&self, side: Side, who: As<'_>, schema: &str, table: &str) -> Rest {
        let name = crate::rewrite::query::encode_segment(table);
        let target = format!("/rest/v1/{name}?select=*&limit=0");
        let ask = Ask::get(target).header("accept-profile", schema);
        rest(&self.ask(side, who, ask).await)
    }

    /// The side's URL, as people know it.
    fn url(&self, side: Side) -> String {
        let project = &self.snapshot.forward.projects[side];
        let scheme = if project.tls { "https" } else { "http" };
        let host = match project.dial_host.contains(':') {
            true => format!("[{}]", project.dial_host),
            false => project.dial_host.clone(),
        };
        let port = match (project.tls, project.dial_port) {
            (true, 443) | (false, 80) => String::new(),
            (_, port) => format!(":{port}"),
        };
        format!("{scheme}://{host}{port}{}", project.path_prefix)
    }
}

/// The key that opens most on a side: the service key if it is accepted.
fn best(accepted: &Accepted, side: Side) -> Option<Role> {
    let has = |role: Role| accepted[side].contains(&role).then_some(role);
    has(Role::Service).or_else(|| has(Role::Anon))
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "shell: the room that asks also knows the time")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
