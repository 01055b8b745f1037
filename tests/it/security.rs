//! What docs/security.md promises: that the tests which it names exist, and what holds for all of the code at once.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/security.md")).unwrap()
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Where the test of this name may be: a module of this binary, or a room's unit tests.
fn places(modules: &[&str]) -> Vec<PathBuf> {
    let modules: Vec<&str> = modules.iter().copied().filter(|name| *name != "tests").collect();
    let room = root().join("src").join(modules.join("/"));
    let mut places = vec![room.with_extension("rs"), room.join("mod.rs"), room.join("tests.rs")];
    if let [only] = modules.as_slice() {
        places.push(root().join("tests/it").join(only).with_extension("rs"));
    }
    // A file of its own below the room's tests.
    if let Some((last, room)) = modules.split_last() {
        places.push(
            root().join("src").join(room.join("/")).join("tests").join(last).with_extension("rs"),
        );
    }
    places
}

fn holds(path: &Path, what: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(what))
}

/// Whether a test, a test of the end-to-end suite, or a target of make is there.
fn exists(name: &str) -> bool {
    if let Some(target) = name.strip_prefix("make ") {
        return holds(&root().join("Makefile"), &format!("\n{target}:"));
    }
    if let Some((file, title)) = name.split_once(".test.mjs: ") {
        let file = root().join(format!("tests/e2e/suite/{file}.test.mjs"));
        return holds(&file, &format!("test('{title}"));
    }
    let path: Vec<&str> = name.split("::").collect();
    let Some((test, modules)) = path.split_last() else { return false };
    let is_test = |place: &PathBuf| holds(place, &format!("fn {test}("));
    !modules.is_empty() && places(modules).iter().any(is_test)
}

#[test]
fn every_row_of_the_threats_names_tests_that_exist() {
    let page = page();
    let (_, threats) = page.split_once("\n## Who, how, and what stops them\n").unwrap();
    let (threats, _) = threats.split_once("\n## ").unwrap();
    let rows =
        threats.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| how |"));
    let (mut named, mut faults) = (0, Vec::new());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 3, "{row}");
        let shown_by = quoted(cells[2]);
        if shown_by.is_empty() {
            faults.push(format!("nothing shows: {}", cells[0]));
        }
        named += shown_by.len();
        faults.extend(
            shown_by.into_iter().filter(|name| !exists(name)).map(|name| format!("no test {name}")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(named > 60, "the table was not read: {named}");
    assert!(!exists("access::no_such_test") && !exists("make nothing") && !exists("nothing"));
}

/// The code, without comments and unit tests, line by line.
fn lines() -> Vec<(String, String)> {
    let (mut folders, mut lines) = (vec![root().join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.contains("tests") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod ").next().unwrap();
                let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                lines.extend(code.map(|line| (name.clone(), line.to_owned())));
            }
        }
    }
    assert!(lines.len() > 10_000, "the code was not read");
    lines
}

/// What a caller presents meets a secret in `Secret::is`, or in the MAC of a mark, and nowhere else.
#[test]
fn secrets_are_compared_by_secret_alone() {
    let mut faults = Vec::new();
    for (name, line) in lines() {
        let compares = [" == ", " != ", ".eq(", ".contains(", "starts_with(", ".get("];
        // A role inside a key of the settings is compared with the place that it stands in: nobody presents it.
        let is_own = name == "src/config/checks.rs" && line.contains("role_in(");
        let is_compared = compares.iter().any(|word| line.contains(word));
        if line.contains("expose()") && is_compared && !is_own {
            faults.push(format!("{name}: {}", line.trim()));
        }
        let is_place = ["src/secret.rs", "src/rewrite/storage/mark.rs"].contains(&name.as_str());
        if line.contains("ct_eq") && !is_place {
            faults.push(format!("{name}: {} (Secret::is does that)", line.trim()));
        }
        // A map of secrets is asked by a hash and then by a comparison that stops at the first difference.
        if line.contains("HashMap<Secret")
            || line.contains("HashSet<Secret")
            || line.contains("BTreeMap<Secret")
        {
            faults.push(format!("{name}: {}", line.trim()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// There is a setting for a CA of one's own, and none to believe everybody.
#[test]
fn nothing_turns_the_verification_of_certificates_off() {
    let words = [
        "dangerous()",
        "ServerCertVerifier",
        "with_custom_certificate_verifier",
        "accept_invalid_certs",
        "danger_accept",
        "insecure",
        "SslVerifyMode",
    ];
    for (name, line) in lines() {
        assert!(!words.iter().any(|word| line.contains(word)), "{name}: {line}");
    }
    // The page lists every key (a test of the settings compares them).
    let page = fs::read_to_string(root().join("docs/configuration.md")).unwrap();
    let keys = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let keys: Vec<&str> = keys.filter(|key| key.contains('.') || key.contains('_')).collect();
    assert!(keys.contains(&"projects.old.ca") && keys.contains(&"trusted_proxies"), "{keys:?}");
    for key in keys {
        for word in ["verify", "insecure", "skip", "tls_check", "unsafe"] {
            assert!(!key.contains(word), "{key}");
        }
    }
}

/// Both lock files are held to one policy.
#[test]
fn the_policy_of_dependencies_bans_what_the_page_says() {
    let policy = fs::read_to_string(root().join("deny.toml")).unwrap();
    for part in [
        "unknown-registry = \"deny\"",
        "unknown-git = \"deny\"",
        "multiple-versions = \"deny\"",
        "\"openssl-sys\"",
        "\"native-tls\"",
        "\"ring\"",
        "yanked = \"deny\"",
    ] {
        assert!(policy.contains(part), "deny.toml: {part}");
    }
    assert!(holds(&root().join("Makefile"), "tests/deny/run.sh"));
}
