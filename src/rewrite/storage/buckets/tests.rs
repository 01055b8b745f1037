use proptest::prelude::*;

use super::*;

pub(in crate::rewrite::storage) fn map(lines: &[(&str, &str)]) -> BucketMap {
    BucketMap::build(folders(lines)).unwrap()
}

fn folders(lines: &[(&str, &str)]) -> Vec<Folder> {
    let line = |(old, new): &(&str, &str)| {
        let (bucket, prefix) = new.split_once('/').unwrap_or((new, ""));
        Folder { old: (*old).to_owned(), bucket: bucket.to_owned(), prefix: prefix.to_owned() }
    };
    lines.iter().map(line).collect()
}

fn read(map: &BucketMap, bucket: &str, names: &[&str]) -> String {
    match map.read(bucket, names, Naming::Object) {
        Reading::Same => "same".to_owned(),
        Reading::Line(line, side) => format!("{} {side}", line.old),
        Reading::Several => "several".to_owned(),
    }
}

#[test]
fn names_say_which_dialect_they_are_in() {
    let map = map(&[
        ("artifacts", "artifacts/growth"),
        ("avatars", "media/avatars"),
        ("thumbs", "media/avatars/thumbs"),
        ("docs", "papers"),
        ("same", "same"),
    ]);
    for (bucket, names, want) in [
        ("artifacts", &["x"][..], "artifacts old"),
        ("artifacts", &["growth/x"], "artifacts new"),
        ("artifacts", &["growthx"], "artifacts old"),
        ("artifacts", &["growth"], "artifacts old"),
        ("artifacts", &["growth/x", "y"], "artifacts old"),
        ("artifacts", &[], "artifacts old"),
        ("media", &["avatars/x"], "avatars new"),
        ("media", &["avatars/thumbs/x"], "thumbs new"),
        ("media", &["avatars/x", "avatars/y"], "avatars new"),
        ("media", &["avatars/x", "avatars/thumbs/y"], "several"),
        ("media", &["avatars/x", "z"], "several"),
        ("media", &["z"], "same"),
        ("docs", &["x"], "docs old"),
        ("papers", &["x"], "docs new"),
        ("same", &["x"], "same old"),
        ("other", &["x"], "same"),
    ] {
        assert_eq!(read(&map, bucket, names), want, "{bucket} {names:?}");
    }
    assert_eq!(map.read("media", &[""], Naming::Folder), Reading::Several);
    assert_eq!(map.read("media", &["avatars"], Naming::Prefix), Reading::Several);
    assert!(matches!(map.read("media", &["avatars"], Naming::Folder), Reading::Line(..)));
    assert_eq!(map.read_bucket("media"), Reading::Several);
}

#[test]
fn a_map_that_can_not_be_read_both_ways_is_refused() {
    for (lines, faults) in [
        (&[("a", "x"), ("b", "x")][..], 1),
        (&[("a", "x/f"), ("b", "x/f")], 1),
        (&[("a", "b"), ("b", "a")], 2),
        (&[("a", "b"), ("b", "c/f")], 1),
        (&[("a", "x/f"), ("b", "x/g"), ("c", "x")], 0),
        (&[("a", "a/f"), ("b", "a/g")], 0),
        (&[("a", "a"), ("b", "b")], 0),
    ] {
        let found = BucketMap::build(folders(lines)).map_or_else(|faults| faults.len(), |_| 0);
        assert_eq!(found, faults, "{lines:?}");
    }
}

#[test]
fn where_two_old_buckets_meet_is_seen() {
    let map = map(&[("all", "media"), ("avatars", "media/avatars")]);
    let line = |old: &str| map.lines().iter().find(|line| line.old == old).unwrap();
    assert!(map.collides(line("all"), "avatars/x"));
    assert!(!map.collides(line("all"), "x"));
    assert!(!map.collides(line("avatars"), "avatars/x"));
}

proptest! {
    /// Whatever a line says on one side is read as the same line on the other, and said back as it was.
    #[test]
    fn there_and_back_is_the_same(
        lines in prop::collection::btree_map("o[a-c]", ("n[a-b]", "(f[a-b](/g[a-b])?)?"), 1..5),
        name in "[fg/ab%é]{1,8}",
    ) {
        let text: Vec<(String, String)> = lines
            .iter()
            .map(|(old, (bucket, prefix))| {
                let place = if prefix.is_empty() { bucket.clone() } else { format!("{bucket}/{prefix}") };
                (old.clone(), place)
            })
            .collect();
        let text: Vec<(&str, &str)> = text.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let Ok(map) = BucketMap::build(folders(&text)) else { return Ok(()) };
        for line in map.lines() {
            let words = Words { from: line.place(Side::Old), to: line.place(Side::New) };
            let said = words.name(&name).unwrap();
            prop_assert_eq!(words.back().name(&said), Some(name.clone()));
            let path = words.path(&format!("{}/{name}", line.old)).unwrap();
            prop_assert_eq!(words.back().path(&path), Some(format!("{}/{name}", line.old)));
            match map.read(&line.bucket, &[&said], Naming::Object) {
                Reading::Line(found, Side::New) => {
                    prop_assert_eq!(found.old != line.old, map.collides(line, &said));
                }
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
