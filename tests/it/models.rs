//! The fuzzers' workspace beside ours: what is built for the tests is built for it too, as long as both agree; and every target has what it
//! needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

fn text(path: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Names and versions of a lock file.
fn locked(path: &str) -> BTreeSet<(String, String)> {
    let value = |line: Option<&str>, key: &str| {
        line?.strip_prefix(key)?.strip_suffix('"').map(str::to_owned)
    };
    let text = text(path);
    let packages = text.split("[[package]]\n").skip(1).filter_map(|package| {
        let mut lines = package.lines();
        Some((value(lines.next(), "name = \"")?, value(lines.next(), "version = \"")?))
    });
    packages.collect()
}

/// Another version of a library, or another feature of it, and the fuzzers' build compiles it a second time: minutes, for nothing.
#[test]
fn the_fuzzers_are_built_of_what_the_tests_are_built_of() {
    let own = ["cutover-fuzz", "libfuzzer-sys", "arbitrary"];
    let (ours, theirs) = (locked("Cargo.lock"), locked("fuzz/Cargo.lock"));
    let others: Vec<_> =
        theirs.difference(&ours).filter(|(name, _)| !own.contains(&name.as_str())).collect();
    assert!(others.is_empty(), "cp Cargo.lock fuzz/Cargo.lock, and build there: {others:?}");
    let (manifest, fuzz) = (text("Cargo.toml"), text("fuzz/Cargo.toml"));
    let section = |name: &str| {
        let (_, rest) = manifest.split_once(name).unwrap();
        let section = rest.split("\n[").next().unwrap();
        let lines = section.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    for name in ["[dev-dependencies]\n", "[profile.dev]\n", "[profile.dev.package.\"*\"]\n"] {
        for line in section(name) {
            assert!(fuzz.contains(&line), "fuzz/Cargo.toml lacks {line} of {name}");
        }
    }
}

#[test]
fn every_fuzz_target_is_built_and_has_a_corpus() {
    let manifest = text("fuzz/Cargo.toml");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    for entry in fs::read_dir(root.join("fuzz_targets")).unwrap() {
        let name = entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned();
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "no [[bin]] for {name}");
        let inputs = fs::read_dir(root.join("corpus").join(&name)).map_or(0, Iterator::count);
        assert!(inputs > 0, "fuzz/corpus/{name} is empty: fuzz/corpus.py");
    }
}
