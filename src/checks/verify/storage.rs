//! How many objects each mapped bucket or folder holds on both sides.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join;
use http::Method;
use serde_json::{Value, json};

use super::databases::Databases;
use super::report::{Bucket, Verdict};
use super::walk::Failure;
use crate::checks::http::{As, Ask, Http};
use crate::checks::quote::literal;
use crate::identify::keyring::Role;
use crate::rewrite::storage::Settings;
use crate::side::{Pair, Side};

/// Entries of a folder that are asked for at once.
const PAGE: usize = 1000;

/// Objects and bytes; no bytes where the side does not say them.
type Held = (u64, Option<u64>);

/// A bucket, and the folder in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    bucket: String,
    /// Without a slash at its end; empty: the whole bucket.
    folder: String,
}

impl Place {
    fn shown(&self) -> String {
        match self.folder.is_empty() {
            true => self.bucket.clone(),
            false => format!("{}/{}", self.bucket, self.folder),
        }
    }
}

/// What is read for counting.
#[derive(Debug)]
pub enum Through<'a> {
    /// The storage API, folder by folder.
    Api(&'a Http),
    /// `storage.objects`.
    Databases(&'a Databases),
}

/// Counts every bucket that the map names and every other one that old has.
///
/// # Errors
/// [`Failure`] when a side's buckets can't be listed.
pub async fn compare(through: &Through<'_>, settings: &Settings) -> Result<Vec<Bucket>, Failure> {
    let there =
        Pair { old: through.buckets(Side::Old).await?, new: through.buckets(Side::New).await? };
    let mut compared = Vec::new();
    for (places, owner) in places(settings, &there.old) {
        let mut bucket =
            Bucket { old: places.old.shown(), new: places.new.shown(), ..Bucket::default() };
        let (old, new) =
            join(through.held(Side::Old, &places.old), through.held(Side::New, &places.new)).await;
        for (side, held) in [(Side::Old, old), (Side::New, new)] {
            match held {
                Ok((objects, bytes)) => {
                    (bucket.objects[side], bucket.bytes[side]) = (Some(objects), bytes);
                }
                Err(failure) => bucket.note = Some(failure.to_string()),
            }
        }
        if let Some(owner) = owner {
            bucket.verdict = Verdict::Owned;
            bucket.note = Some(format!("{owner} serves it for everybody"));
        }
        bucket.judge();
        compared.push(bucket);
    }
    Ok(compared)
}

/// The place of each bucket on both sides, and the side that owns it.
fn places(settings: &Settings, old: &BTreeSet<String>) -> Vec<(Pair<Place>, Option<Side>)> {
    let whole = |bucket: &str| Place { bucket: bucket.to_owned(), folder: String::new() };
    let lines = settings.map.lines().iter().map(|line| {
        let new = Place { bucket: line.bucket.clone(), folder: line.prefix.clone() };
        (line.old.clone(), Pair { old: whole(&line.old), new })
    });
    let mut places: BTreeMap<String, Pair<Place>> = lines.collect();
    for bucket in old {
        let same = || Pair { old: whole(bucket), new: whole(bucket) };
        places.entry(bucket.clone()).or_insert_with(same);
    }
    let owner = |place: &Pair<Place>| {
        let named = [&place.old.bucket, &place.new.bucket];
        let own = named.iter().find_map(|name| settings.owners.get(*name).copied());
        own.or(settings.owner)
    };
    places.into_values().map(|place| (place.clone(), owner(&place))).collect()
}

impl Through<'_> {
    async fn buckets(&self, side: Side) -> Result<BTreeSet<String>, Failure> {
        match self {
            Self::Api(http) => {
                let answer = api(http, side, Ask::get("/storage/v1/bucket")).await?;
                let buckets = answer.as_array().into_iter().flatten();
                let names = buckets.filter_map(|bucket| bucket.get("id")?.as_str());
                Ok(names.map(str::to_owned).collect())
            }
            Self::Databases(databases) => {
                let is_there = "SELECT pg_catalog.to_regclass('storage.buckets') IS NOT NULL \
                    AND pg_catalog.to_regclass('storage.objects') IS NOT NULL";
                let rows = databases.ask(side, is_there).await?;
                if rows.first().and_then(|row| row.get(0)) != Some("t") {
                    return Ok(BTreeSet::new());
                }
                let rows = databases.ask(side, "SELECT id FROM storage.buckets").await?;
                Ok(rows.iter().filter_map(|row| row.get(0)).map(str::to_owned).collect())
            }
        }
    }

    async fn held(&self, side: Side, place: &Place) -> Result<Held, Failure> {
        match self {
            Self::Api(http) => listed(http, side, place).await,
            Self::Databases(databases) => {
                let rows = databases.ask(side, &count(place)).await?;
                let number = |column| rows.first()?.get(column)?.parse().ok();
                match number(0) {
                    Some(objects) => Ok((objects, number(1))),
                    None => Err(Failure(side, "storage.objects could not be counted".into())),
                }
            }
        }
    }
}

fn count(place: &Place) -> String {
    let folder = match place.folder.as_str() {
        "" => String::new(),
        folder => format!(" AND starts_with(name, {})", literal(&format!("{folder}/"))),
    };
    // What is no number is no size: the column is free JSON.
    format!(
        "SELECT count(*), COALESCE(sum(CASE WHEN metadata->>'size' ~ '^[0-9]{{1,18}}$' \
           THEN (metadata->>'size')::bigint END), 0) \
         FROM storage.objects WHERE bucket_id = {}{folder}",
        literal(&place.bucket)
    )
}

/// Goes through the folders of a place, page by page.
async fn listed(http: &Http, side: Side, place: &Place) -> Result<Held, Failure> {
    let (mut objects, mut bytes) = (0_u64, Some(0_u64));
    let mut folders = vec![place.folder.clone()];
    while let Some(folder) = folders.pop() {
        let mut offset = 0;
        loop {
            let body = json!({
                "prefix": folder, "limit": PAGE, "offset": offset,
                "sortBy": { "column": "name", "order": "asc" },
            });
            let target = format!("/storage/v1/object/list/{}", encoded(&place.bucket));
            let ask =
                Ask { method: Method::POST, body: body.to_string().into(), ..Ask::get(target) };
            let ask = ask.header("content-type", "application/json");
            let answer = api(http, side, ask).await?;
            let Some(entries) = answer.as_array() else {
                return Err(Failure(side, "storage's list is no list".into()));
            };
            for entry in entries {
                let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
                if name.is_empty() {
                    return Err(Failure(side, "storage's list has an entry without a name".into()));
                }
                // A folder is an entry without an id.
                if entry.get("id").is_none_or(Value::is_null) {
                    folders.push(if folder.is_empty() {
                        name.into()
                    } else {
                        format!("{folder}/{name}")
                    });
                } else {
                    objects += 1;
                    let size = entry.pointer("/metadata/size").and_then(Value::as_u64);
                    bytes = bytes.zip(size).map(|(sum, size)| sum.saturating_add(size));
                }
            }
            if entries.len() < PAGE {
                break;
            }
            offset += entries.len();
        }
    }
    Ok((objects, bytes))
}

async fn api(http: &Http, side: Side, ask: Ask) -> Result<Value, Failure> {
    let answer = http.ask(side, As::Key(Role::Service), ask).await;
    let answer = answer.map_err(|error| Failure(side, format!("storage: {error}")))?;
    if !answer.status.is_success() {
        let json = answer.json();
        let message = json.get("message").and_then(Value::as_str).unwrap_or_default();
        return Err(Failure(side, format!("storage: HTTP {} {message}", answer.status.as_u16())));
    }
    Ok(answer.json())
}

fn encoded(name: &str) -> String {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite::storage::Folder;
    use crate::rewrite::storage::buckets::BucketMap;

    fn settings(owner: Option<Side>) -> Settings {
        let line = |old: &str, bucket: &str, prefix: &str| Folder {
            old: old.into(),
            bucket: bucket.into(),
            prefix: prefix.into(),
        };
        let lines =
            vec![line("artifacts", "artifacts", "growth"), line("reports", "documents", "")];
        let owners = BTreeMap::from([
            ("avatars".to_owned(), Side::Old),
            ("documents".to_owned(), Side::New),
        ]);
        Settings { map: BucketMap::build(lines).unwrap(), owners, owner, ..Settings::default() }
    }

    #[test]
    fn buckets_are_where_the_map_says_else_where_they_were() {
        let old = ["artifacts", "avatars", "pictures"].map(str::to_owned).into();
        let shown = |owner| {
            let places = places(&settings(owner), &old).into_iter();
            let line = |(place, owner): (Pair<Place>, Option<Side>)| {
                format!("{} {} {owner:?}", place.old.shown(), place.new.shown())
            };
            places.map(line).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(None),
            [
                "artifacts artifacts/growth None",
                "avatars avatars Some(Old)",
                "pictures pictures None",
                "reports documents Some(New)",
            ]
        );
        assert!(shown(Some(Side::Old)).iter().all(|line| line.contains("Some(")));
    }

    #[test]
    fn a_folder_is_quoted_and_ends_in_a_slash() {
        let place = Place { bucket: "a'b".into(), folder: "it's".into() };
        let sql = count(&place);
        assert!(sql.ends_with("WHERE bucket_id = 'a''b' AND starts_with(name, 'it''s/')"), "{sql}");
    }
}
