//! The binary as an operator meets it: what it prints, and its exit codes.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration, in an environment of its own.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { folder }
    }

    fn good(rollout: &str) -> Self {
        Self::with(&format!(
            "[projects.old]\nurl = \"http://127.0.0.1:1\"\n[projects.new]\nurl = \"http://127.0.0.1:2\"\n\
             [rollout]\n{rollout}\n\
             [schema.tables]\nmemory_entries = \"security_service\"\nvendor_api_keys = \"vendors.api_keys\"\n"
        ))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env_clear()
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// The vectors of the design, section 3, through the binary.
#[test]
fn explain_gives_the_buckets_of_the_design() {
    for (key, cutover, onasis, md5) in [
        ("5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11", 8885, 711, 59),
        ("00000000-0000-0000-0000-000000000000", 719, 3265, 50),
        ("8f14e45f-ceea-467f-a9b4-1d2f3c4b5a69", 1686, 5739, 9),
        ("ada", 3375, 5300, 7),
        ("Ünïcødé-Ω", 8894, 429, 5),
    ] {
        for (rollout, bucket, moves_at) in [
            ("salt = \"cutover\"", cutover, f64::from(cutover + 1) / 100.0),
            ("salt = \"onasis-core-v2\"", onasis, f64::from(onasis + 1) / 100.0),
            ("hash = \"md5\"", md5 * 100, f64::from(md5 + 1)),
        ] {
            let explained = Desk::good(rollout).json(&["explain", "--json", "--user", key]);
            assert_eq!(explained["side"], "old", "{key}");
            assert_eq!(explained["reason"], "percentage");
            assert_eq!(explained["bucket"], bucket, "{key} {rollout}");
            assert_eq!(explained["moves_at"].as_f64().unwrap(), moves_at, "{key} {rollout}");
        }
    }
}

#[test]
fn explain_shows_the_request_as_its_side_receives_it() {
    let desk = Desk::good("percentage = 100\ndomains = { security_service = 0 }");
    let path = "/rest/v1/vendor_api_keys?select=id&key=eq.%2F";
    let explained = desk.json(&["explain", "--json", "--user", "ada", "--path", path]);
    assert_eq!(explained["side"], "new");
    assert_eq!(explained["rewritten"]["path"], "/rest/v1/api_keys?select=id&key=eq.%2F");
    assert_eq!(explained["rewritten"]["profile"], "vendors");
    let capped =
        desk.json(&["explain", "--json", "--user", "ada", "--path", "/rest/v1/memory_entries"]);
    assert_eq!((&capped["side"], &capped["reason"]), (&"old".into(), &"domain_cap".into()));
    let back = Desk::good("percentage = 0");
    let arguments =
        ["explain", "--json", "--user", "ada", "--method", "POST", "--path", "/rest/v1/api_keys"];
    let explained = back.json(&[&arguments[..], &["--profile", "vendors"]].concat());
    assert_eq!(explained["rewritten"]["path"], "/rest/v1/vendor_api_keys");
    assert_eq!(explained["rewritten"]["headers"]["content-profile"], "public");
    assert_eq!(back.run(&["explain", "--user", "ada", "--path", "/pg/x"]).status.code(), Some(1));
}

#[test]
fn check_names_all_seven_faults_of_a_file_and_exits_2() {
    let desk = Desk::with(
        "listen = \"nowhere\"\nworkerz = 4\n\
         [projects.old]\nurl = \"ftp://old\"\n\
         [rollout]\npercentage = 101\nhash = \"sha1\"\nanonymous = \"maybe\"\n\
         [limits]\nheader_timeout = \"soon\"\n[projects.new]\nurl = \"https://new.example\"\n",
    );
    let output = desk.run(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(text).unwrap();
    let keys = [
        "listen",
        "workerz",
        "projects.old.url",
        "rollout.percentage",
        "rollout.hash",
        "rollout.anonymous",
        "limits.header_timeout",
    ];
    for key in keys {
        assert!(text.contains(key), "{key} is not named in:\n{text}");
    }
    let output = desk.run(&["check", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let faults = report["faults"].as_array().unwrap();
    assert_eq!(faults.len(), 7, "{report}");
    for fault in faults {
        for field in ["source", "key", "found", "allowed"] {
            assert!(fault[field].as_str().is_some_and(|text| !text.is_empty()), "{fault}");
        }
        assert!(fault["source"].as_str().unwrap().contains("config.toml"), "{fault}");
    }
    assert_eq!(desk.run(&["serve"]).status.code(), Some(2));
}

#[test]
fn the_shipped_configuration_is_good() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");
    let desk = Desk::good("");
    let output = desk.run(&["check", "--config", shipped]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let explained = desk.json(&[
        "explain",
        "--json",
        "--config",
        shipped,
        "--user",
        "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11",
    ]);
    assert_eq!(explained["bucket"], 711);
    assert_eq!(explained["moves_at"].as_f64(), Some(7.12));
}

/// The settings of every kustomization in `k8s/`, as its pods read them: the file, the number in the mounted directory, and the
/// variables that the example of a Secret names.
#[test]
fn what_the_manifests_set_is_known() {
    let manifest = |path: &str| {
        fs::read_to_string(format!("{}/k8s/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let values = |text: &str, section: &str| -> Vec<(String, String)> {
        let (_, block) = text.split_once(&format!("\n{section}:\n")).unwrap();
        block
            .lines()
            .map_while(|line| line.strip_prefix("  ")?.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect()
    };
    let number = values(&manifest("rollout/configmap.yaml"), "data");
    let secrets = values(&manifest("overlays/example/secret.example.yaml"), "stringData");
    assert!(number.len() == 1 && secrets.len() >= 4, "{number:?} {secrets:?}");
    for config in ["base/config.toml", "overlays/example/config.toml"] {
        let desk = Desk::with(&manifest(config).replace("/etc/cutover/rollout", "rollout"));
        fs::create_dir(desk.folder.path().join("rollout")).unwrap();
        for (name, value) in &number {
            fs::write(desk.folder.path().join("rollout").join(name), value).unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_cutover"))
            .args(["check", "--json"])
            .current_dir(desk.folder.path())
            .env_clear()
            .envs(secrets.iter().map(|(name, value)| (name, value)))
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{config}: {report}");
        let sources = report["sources"].to_string();
        for (name, _) in number.iter().chain(&secrets) {
            assert!(sources.contains(name), "{config}: {name} sets nothing: {report}");
        }
    }
}
