//! Both storages: the list of buckets, and the first page of each mapped folder.

use bytes::Bytes;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use super::{Known, Probe};
use crate::checks::doctor::finding::Finding;
use crate::checks::doctor::judge::storage as judge;
use crate::checks::http::{Answer, As, Ask, NoAnswer};
use crate::identify::keyring::Role;
use crate::rewrite::query::encode_segment;
use crate::rewrite::storage::Folder;
use crate::side::{Pair, Side};

const SERVICE: As<'_> = As::Key(Role::Service);

/// Every line about storage.
pub(super) async fn all(probe: &Probe<'_>, known: &Known) -> Vec<Finding> {
    const ID: &str = "storage.bucket";
    let settings = &probe.snapshot.rewrite.storage;
    if !probe.options.wants_any("storage.") {
        return Vec::new();
    }
    if let Some(owner) = settings.owner {
        let seen = format!("routes.storage is {owner}: there is nothing to compare");
        return vec![Finding::pass(ID, None, "buckets", seen)];
    }
    let has_key = |side: Side| known.accepted[side].contains(&Role::Service);
    if !has_key(Side::Old) || !has_key(Side::New) {
        let fix =
            "set both projects' service_role_key: without one, row level security hides buckets";
        return vec![Finding::skip(
            ID,
            None,
            "buckets",
            "not compared: a service key is missing",
            fix,
        )];
    }
    let (old, new) = futures_util::join!(list(probe, Side::Old), list(probe, Side::New));
    let (old, new) = (judge::buckets(Side::Old, &old), judge::buckets(Side::New, &new));
    let sides = match (old, new) {
        (Ok(old), Ok(new)) => Pair { old, new },
        (old, new) => return [old.err(), new.err()].into_iter().flatten().map(|it| *it).collect(),
    };
    let lines = settings.map.lines();
    let mut findings = judge::compare(lines, &settings.owners, &sides);
    let there = lines
        .iter()
        .filter(|it| sides.old.contains_key(&it.old) && sides.new.contains_key(&it.bucket));
    findings.extend(join_all(there.map(|line| folder(probe, line))).await);
    findings
}

async fn list(probe: &Probe<'_>, side: Side) -> Result<Answer, NoAnswer> {
    probe.ask(side, SERVICE, Ask::get("/storage/v1/bucket")).await
}

async fn folder(probe: &Probe<'_>, line: &Folder) -> Finding {
    let (old, new) = futures_util::join!(
        first(probe, Side::Old, &line.old, ""),
        first(probe, Side::New, &line.bucket, &line.prefix),
    );
    judge::folder(line, &old, &new)
}

/// Listing is a read, although it is sent as a POST.
async fn first(
    probe: &Probe<'_>,
    side: Side,
    bucket: &str,
    prefix: &str,
) -> Result<Answer, NoAnswer> {
    let target = format!("/storage/v1/object/list/{}", encode_segment(bucket));
    let mut ask = Ask::get(target).header("content-type", "application/json");
    ask.method = Method::POST;
    ask.body = Bytes::from(json!({"prefix": prefix, "limit": 1, "offset": 0}).to_string());
    probe.ask(side, SERVICE, ask).await
}
