//! What the house promises, checked: who may import whom, which files are pure, what may not be in any file.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room, and the rooms that it may import. The vocabulary (`side`, `route`, `secret`, `counted`, `trace`, `chance`) is everybody's. Rooms are in the order of
/// the path: imports point back along it, never forward.
const IMPORTS: &[(&str, &[&str])] = &[
    ("chance", &[]),
    ("counted", &[]),
    ("file", &[]),
    ("trace", &[]),
    ("side", &[]),
    ("route", &[]),
    ("secret", &[]),
    ("sync", &[]),
    // What is live: `config` publishes, workers look.
    ("live", &["sync"]),
    ("local", &[]),
    ("outbound", &[]),
    ("http1", &[]),
    ("accept", &["file", "local", "http1"]),
    ("identify", &[]),
    ("tokens", &["identify"]),
    ("decide", &["identify"]),
    ("rewrite", &["decide", "identify"]),
    ("realtime", &["decide", "identify", "rewrite"]),
    // A leaf, like a vocabulary of events: it knows what a decision is called and nothing of how it is made.
    ("observe", &["decide"]),
    // Says in OpenTelemetry's words what `observe` has been told.
    ("telemetry", &["outbound", "decide", "observe"]),
    ("forward", &["local", "outbound", "http1", "observe"]),
    ("restore", &["rewrite"]),
    (
        "snapshot",
        &["accept", "identify", "tokens", "decide", "rewrite", "realtime", "forward", "restore"],
    ),
    (
        "path",
        &[
            "accept", "identify", "tokens", "decide", "rewrite", "realtime", "forward", "restore",
            "observe", "snapshot", "http1", "live", "sync",
        ],
    ),
    (
        "config",
        &[
            "file",
            "live",
            "accept",
            "identify",
            "tokens",
            "decide",
            "rewrite",
            "realtime",
            "telemetry",
            "forward",
            "restore",
            "observe",
            "snapshot",
        ],
    ),
    ("k8s", &["outbound", "config", "observe"]),
    // What operators ask: both projects through the proxy's own client, and their databases.
    (
        "checks",
        &[
            "outbound", "http1", "identify", "tokens", "decide", "rewrite", "realtime", "forward",
            "observe", "snapshot", "path", "config",
        ],
    ),
    ("admin", &["accept", "identify", "config", "decide", "observe", "path", "snapshot"]),
    (
        "app",
        &[
            "accept",
            "admin",
            "config",
            "forward",
            "http1",
            "k8s",
            "observe",
            "outbound",
            "path",
            "snapshot",
            "telemetry",
            "tokens",
        ],
    ),
];

/// `cli` is the operator's end: it may use all but the phases themselves.
const CLI_IMPORTS: &[&str] =
    &["admin", "app", "checks", "config", "decide", "file", "k8s", "observe", "outbound", "path"];

const VOCABULARY: [&str; 6] = ["side", "route", "secret", "counted", "trace", "chance"];

/// Pure rooms and files: the decision, the translation, the codecs.
const PURE: &[&str] = &[
    "src/http1/chunks.rs",
    "src/http1/decoder.rs",
    "src/http1/encoder.rs",
    "src/http1/field.rs",
    "src/http1/names.rs",
    "src/http1/fuzz.rs",
    "src/http1/response.rs",
    "src/side.rs",
    "src/route.rs",
    "src/secret.rs",
    "src/trace.rs",
    "src/snapshot.rs",
    "src/accept/addresses.rs",
    "src/accept/framing.rs",
    "src/accept/meter.rs",
    "src/accept/request.rs",
    "src/identify",
    "src/tokens",
    "src/decide",
    "src/rewrite",
    "src/realtime",
    "src/forward/frames.rs",
    "src/restore",
    "src/path/explain.rs",
    "src/path/pure.rs",
    "src/path/rewrite.rs",
    "src/path/refusal.rs",
    "src/path/realtime/farewell.rs",
    "src/path/realtime/handshake.rs",
    "src/config/edit.rs",
    "src/checks/plan/bodies.rs",
    "src/checks/plan/compat.rs",
    "src/checks/plan/findings.rs",
    "src/checks/plan/functions.rs",
    "src/checks/plan/grants.rs",
    "src/checks/plan/moves.rs",
    "src/checks/quote.rs",
    "src/checks/ready.rs",
    "src/checks/plan/realtime.rs",
    "src/checks/plan/step.rs",
    "src/checks/plan/tables.rs",
    "src/observe/code.rs",
    "src/observe/facts.rs",
    "src/observe/redact.rs",
    "src/checks/catalogue/mod.rs",
    "src/checks/doctor/judge",
    "src/telemetry/metrics.rs",
    "src/telemetry/spans.rs",
    "src/telemetry/value.rs",
    "src/checks/verify/compare.rs",
    "src/checks/verify/openapi.rs",
    "src/checks/verify/report.rs",
    "src/checks/verify/sql.rs",
    "src/checks/verify/state.rs",
    "src/checks/verify/tally.rs",
    "src/checks/verify/targets.rs",
    "src/checks/verify/walk.rs",
];

/// What would make a file depend on more than its arguments.
const IMPURE: [&str; 11] = [
    "tokio::",
    "hyper::",
    "std::fs",
    "std::env",
    "std::process",
    "TcpStream",
    "UdpSocket",
    "Instant::now",
    "SystemTime::now",
    "rand::",
    "tracing::",
];

/// Longest file, tests aside.
const LONGEST_FILE: usize = 450;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        if folder.is_file() {
            found.push(folder);
            continue;
        }
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() || path.extension().is_some_and(|extension| extension == "rs") {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The text of a file up to its unit tests; nothing for a file that holds tests only.
fn code(path: &Path) -> String {
    let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    if ["tests", "fixture", "laws"].iter().any(|word| name.contains(word)) {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    match text.find("#[cfg(test)]\nmod ") {
        Some(tests) => text[..tests].to_owned(),
        None => text,
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The room that a file belongs to.
fn room(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).unwrap();
    inside.iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// Rooms named behind `crate::` in a line.
fn imported(line: &str) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices("crate::")
        .flat_map(|(at, word)| {
            let rest = &line[at + word.len()..];
            let list =
                rest.strip_prefix('{').and_then(|list| list.split('}').next()).unwrap_or(rest);
            let several = rest.starts_with('{');
            let names = if several { list.split(',').collect() } else { vec![list] };
            names.into_iter().map(move |name| {
                name.trim().chars().take_while(|c| is_name(*c)).collect::<String>()
            })
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn imports_point_one_way() {
    let mut faults = Vec::new();
    for path in rust_files("src") {
        let room = room(&path);
        // `models` is of the tests: it tries what others made.
        if matches!(room.as_str(), "lib" | "main" | "models") {
            continue;
        }
        let table = IMPORTS.iter().find(|(name, _)| *name == room);
        let allowed = match (table, room.as_str()) {
            (Some((_, allowed)), _) => *allowed,
            (None, "cli") => CLI_IMPORTS,
            (None, _) => panic!("{room} is a new room: say in tidy.rs what it may import"),
        };
        for line in code(&path).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for name in imported(line) {
                if name != room
                    && !VOCABULARY.contains(&name.as_str())
                    && !allowed.contains(&name.as_str())
                {
                    faults.push(format!("{}: {room} may not import {name}", shown(&path)));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The table itself has no circle: each room imports only rooms that stand before it.
#[test]
fn the_table_of_imports_is_in_order() {
    for (index, (room, allowed)) in IMPORTS.iter().enumerate() {
        for name in *allowed {
            let place = IMPORTS.iter().position(|(other, _)| other == name);
            assert!(
                place.is_some_and(|place| place < index),
                "{room} imports {name}, which comes after it"
            );
        }
    }
}

#[test]
fn pure_files_are_pure() {
    let mut faults = Vec::new();
    for path in PURE.iter().flat_map(|folder| rust_files(folder)) {
        for (number, line) in code(&path).lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn files_are_short_enough_to_read() {
    let long: Vec<String> = rust_files("src")
        .iter()
        .map(|path| (shown(path), code(path).lines().count()))
        .filter(|(_, lines)| *lines > LONGEST_FILE)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Every file in the repository, as git sees it; where there is none (a source archive) there is nothing to check.
fn tracked() -> Vec<PathBuf> {
    if !root().join(".git").exists() {
        return Vec::new();
    }
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let names = listed.split('\0').filter(|name| !name.is_empty());
    let paths: Vec<_> = names.map(|name| root().join(name)).collect();
    assert!(paths.len() > 100, "git names {} files", paths.len());
    paths
}

#[test]
fn no_leftovers_and_nothing_of_one_machine() {
    // Put together here so that this file does not find itself.
    let words: Vec<String> = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["#[igno", "re"],
        ["/ro", "ot/"],
        ["/wo", "rk/"],
        ["/ho", "me/"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    let mut faults = Vec::new();
    for path in tracked() {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                faults.push(format!("{}:{}: {word}", shown(&path), number + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_test_file_is_forgotten() {
    let main = fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module =
            path.is_dir() || path.extension().is_some_and(|extension| extension == "rs");
        if is_module && name != "main" && name != "fixtures" {
            assert!(
                main.contains(&format!("mod {name};")),
                "tests/it/main.rs does not name {name}"
            );
        }
    }
}

/// One crypto provider, and no OpenSSL, in anything that is compiled into the binary.
#[test]
fn dependencies_keep_to_the_policy() {
    let listed = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--format",
            "{p} {l}",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).unwrap();
    let packages: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(packages.contains("aws-lc-rs") && packages.contains("rustls"), "the list was not read");
    for banned in ["ring", "openssl", "openssl-sys", "native-tls"] {
        assert!(!packages.contains(banned), "{banned} is compiled in");
    }
    let licences = ["Apache-2.0", "MIT", "BSD", "ISC", "Zlib", "Unlicense", "CC0", "Unicode"];
    for line in listed.lines().filter(|line| !line.is_empty()) {
        assert!(licences.iter().any(|licence| line.contains(licence)), "licence of {line}");
    }
}

/// Trap 32 is the operator's: the session's key follows the host. The page has to say what to do about it.
#[test]
fn trap_32_the_page_of_auth_says_how_sessions_survive_a_new_url() {
    let page = fs::read_to_string(root().join("docs/auth.md")).unwrap();
    for part in [
        "storageKey: 'sb-<old-ref>-auth-token'",
        "cookieOptions",
        "first label is the old project's ref",
    ] {
        assert!(page.contains(part), "{part}");
    }
}
