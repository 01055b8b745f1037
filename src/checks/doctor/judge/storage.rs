//! Buckets and folders of both storages, as `[storage.buckets]` maps them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::said_by;
use super::sql::literal;
use crate::checks::doctor::finding::Finding;
use crate::checks::http::{Answer, NoAnswer};
use crate::rewrite::storage::Folder;
use crate::side::{Pair, Side};

const BUCKET: &str = "storage.bucket";
const FOLDER: &str = "storage.folder";

/// A bucket as `GET /storage/v1/bucket` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Whether anybody may read it.
    pub(crate) public: bool,
    /// Bytes of the largest object; `None`: the project's own limit.
    pub(crate) limit: Option<u64>,
    /// The types that it takes, sorted; empty: all.
    pub(crate) types: Vec<String>,
}

/// One side's buckets by name.
pub(crate) type Buckets = BTreeMap<String, Bucket>;

/// Reads the list of buckets.
///
/// # Errors
/// The line that says why there is none.
pub(crate) fn buckets(
    side: Side,
    answer: &Result<Answer, NoAnswer>,
) -> Result<Buckets, Box<Finding>> {
    let failed = |seen: String| {
        let fix = "is Storage on in this project? The list needs projects.*.service_role_key";
        Box::new(Finding::fail(BUCKET, side, "buckets", seen, fix))
    };
    let answer = answer.as_ref().map_err(|none| failed(none.to_string()))?;
    let list = answer.json();
    let list = match list.as_array() {
        Some(list) if answer.status.is_success() => list,
        _ => return Err(failed(format!("no list of buckets: {}", said_by(answer)))),
    };
    let text = |bucket: &Value, key: &str| bucket.get(key)?.as_str().map(str::to_owned);
    let buckets = list.iter().filter_map(|bucket| {
        let types = bucket.get("allowed_mime_types").and_then(Value::as_array);
        let mut types: Vec<String> =
            types.into_iter().flatten().filter_map(|it| it.as_str().map(str::to_owned)).collect();
        types.sort();
        let public = bucket.get("public").and_then(Value::as_bool).unwrap_or(false);
        let limit = bucket.get("file_size_limit").and_then(Value::as_u64);
        Some((text(bucket, "id")?, Bucket { public, limit, types }))
    });
    Ok(buckets.collect())
}

/// Compares both sides' buckets. `owners` has the buckets that one side serves for everybody: the other need not have them.
pub(crate) fn compare(
    map: &[Folder],
    owners: &BTreeMap<String, Side>,
    sides: &Pair<Buckets>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for line in map.iter().filter(|line| !sides.old.contains_key(&line.old)) {
        let seen = "the map names it, and old has no such bucket";
        let fix = "correct the name in [storage.buckets], or take the line out";
        findings.push(Finding::fail(BUCKET, Side::Old, &line.old, seen, fix));
    }
    for (old, bucket) in &sides.old {
        let lines: Vec<&Folder> = map.iter().filter(|line| line.old == *old).collect();
        let names = match lines.is_empty() {
            true => vec![old.as_str()],
            false => lines.iter().map(|line| line.bucket.as_str()).collect(),
        };
        for name in names {
            let owner = owners.get(old).or_else(|| owners.get(name));
            findings.extend(one(old, bucket, name, sides.new.get(name), owner));
        }
    }
    findings
}

fn one(
    old: &str,
    bucket: &Bucket,
    name: &str,
    new: Option<&Bucket>,
    owner: Option<&Side>,
) -> Vec<Finding> {
    let Some(new) = new else {
        if owner == Some(&Side::Old) {
            return vec![Finding::pass(BUCKET, Side::New, name, "old serves it for everybody")];
        }
        let mut values = vec![literal(name), literal(name), bucket.public.to_string()];
        values.push(bucket.limit.map_or_else(|| "null".to_owned(), |limit| limit.to_string()));
        let types = bucket.types.iter().map(|it| literal(it)).collect::<Vec<_>>().join(", ");
        values.push(if types.is_empty() { "null".to_owned() } else { format!("array[{types}]") });
        let fix = format!(
            "on new: dashboard, Storage, New bucket; or:\ninsert into storage.buckets (id, name, public, file_size_limit, allowed_mime_types) values ({});\nthen its policies on storage.objects, and copy the objects",
            values.join(", ")
        );
        let seen = format!("old has the bucket {old}, new has no {name}");
        return vec![Finding::fail(BUCKET, Side::New, name, seen, fix)];
    };
    let mut findings = Vec::new();
    if bucket.public != new.public {
        let word = |public| if public { "public" } else { "private" };
        let seen = format!("{} on old, {} on new", word(bucket.public), word(new.public));
        let fix = format!(
            "on new: update storage.buckets set public = {} where id = {};",
            bucket.public,
            literal(name)
        );
        findings.push(Finding::fail(BUCKET, Side::New, name, seen, fix));
    }
    if (bucket.limit, &bucket.types) != (new.limit, &new.types) {
        let seen = "the limits on size or type of an object differ";
        let fix = "compare both in the dashboard, Storage, Edit bucket";
        findings.push(Finding::warn(BUCKET, Side::New, name, seen, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::pass(BUCKET, Side::New, name, "as on old"));
    }
    findings
}

/// Whether something lies in a mapped place, given the first page of both lists.
pub(crate) fn folder(
    line: &Folder,
    old: &Result<Answer, NoAnswer>,
    new: &Result<Answer, NoAnswer>,
) -> Finding {
    let subject = match line.prefix.is_empty() {
        true => line.bucket.clone(),
        false => format!("{}/{}", line.bucket, line.prefix),
    };
    let is_empty = |answer: &Result<Answer, NoAnswer>| match answer {
        Ok(answer) if answer.status.is_success() => {
            answer.json().as_array().map(Vec::is_empty).ok_or_else(|| said_by(answer))
        }
        Ok(answer) => Err(said_by(answer)),
        Err(none) => Err(none.to_string()),
    };
    match (is_empty(old), is_empty(new)) {
        (Ok(false), Ok(true)) => Finding::warn(
            FOLDER,
            Side::New,
            &subject,
            format!("nothing is there, and {} on old has objects", line.old),
            "copy the objects before users move (storage.fallback = true serves reads from old meanwhile)",
        ),
        (Ok(_), Ok(true)) => Finding::pass(FOLDER, Side::New, &subject, "empty on both sides"),
        (Ok(_), Ok(false)) => Finding::pass(FOLDER, Side::New, &subject, "has objects"),
        (Err(why), _) | (_, Err(why)) => Finding::skip(
            FOLDER,
            Side::New,
            &subject,
            format!("not listed: {why}"),
            "see storage.bucket",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::tests::answered;
    use super::*;
    use crate::checks::doctor::finding::Status;

    const LIST: &str = r#"[{"id":"artifacts","name":"artifacts","public":false,"file_size_limit":null,"allowed_mime_types":null,"owner":""},
        {"id":"avatars","name":"avatars","public":true,"file_size_limit":1048576,"allowed_mime_types":["image/png","image/jpeg"]}]"#;

    fn line(old: &str, bucket: &str, prefix: &str) -> Folder {
        Folder { old: old.to_owned(), bucket: bucket.to_owned(), prefix: prefix.to_owned() }
    }

    fn read() -> Buckets {
        buckets(Side::Old, &Ok(answered(200, LIST))).unwrap()
    }

    #[test]
    fn a_list_is_read_as_storage_writes_it() {
        let read = read();
        assert_eq!(read["artifacts"], Bucket::default());
        assert_eq!(read["avatars"].types, ["image/jpeg", "image/png"]);
        assert_eq!((read["avatars"].public, read["avatars"].limit), (true, Some(1_048_576)));
        let refused = r#"{"statusCode":"403","error":"Unauthorized","message":"jwt malformed"}"#;
        let failed = buckets(Side::New, &Ok(answered(400, refused))).unwrap_err();
        assert!(failed.seen.contains("jwt malformed"), "{failed:?}");
    }

    #[test]
    fn each_bucket_of_old_is_on_new_under_its_name_there() {
        let map = [line("artifacts", "documents", "growth")];
        let none = BTreeMap::new();
        let mut sides = Pair { old: read(), new: read() };
        let found = compare(&map, &none, &sides);
        let failed: Vec<_> = found.iter().filter(|it| it.status == Status::Fail).collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].subject, "documents");
        let statement = "values ('documents', 'documents', false, null, null)";
        assert!(failed[0].fix.contains(statement), "{}", failed[0].fix);
        sides.new.insert("documents".to_owned(), Bucket { public: true, ..Bucket::default() });
        let found = compare(&map, &none, &sides);
        assert!(found.iter().any(|it| it.seen == "private on old, public on new"), "{found:?}");
        let owners = BTreeMap::from([("artifacts".to_owned(), Side::Old)]);
        sides.new.remove("documents");
        assert!(compare(&map, &owners, &sides).iter().all(|it| it.status == Status::Pass));
        let unknown = compare(&[line("x", "x", "")], &none, &sides);
        assert!(unknown.iter().any(|it| it.side == Some(Side::Old) && it.subject == "x"));
        sides.new.get_mut("avatars").unwrap().limit = None;
        assert!(compare(&[], &none, &sides).iter().any(|it| it.status == Status::Warn));
    }

    #[test]
    fn an_empty_folder_is_worth_a_word_only_if_the_old_bucket_is_not() {
        let line = line("artifacts", "artifacts", "growth");
        let (full, empty) = (|| Ok(answered(200, r#"[{"name":"a"}]"#)), || Ok(answered(200, "[]")));
        for (old, new, want) in [
            (full(), full(), Status::Pass),
            (empty(), empty(), Status::Pass),
            (full(), empty(), Status::Warn),
            (full(), Ok(answered(400, "{}")), Status::Skip),
        ] {
            assert_eq!(folder(&line, &old, &new).status, want);
        }
        assert_eq!(folder(&line, &full(), &empty()).subject, "artifacts/growth");
    }
}
