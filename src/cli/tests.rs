//! The command line, as an operator types it: arguments in, text and exit code out.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use clap::CommandFactory;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::*;
use crate::admin::{self, Lifecycle, Phase};
use crate::config::live::Control;
use crate::observe::Metrics;
use crate::secret::Secret;

const CONFIG: &str = r#"
[projects.old]
url = "https://old.example"
anon_key = "anon-of-old-hush"
[projects.new]
url = "https://new.example"
anon_key = "anon-of-new-hush"
[rollout]
percentage = 5
salt = "onasis-core-v2"
"#;

/// A directory with settings, and an environment.
struct World {
    dir: tempfile::TempDir,
    /// Has the port of the settings' admin listener and never listens, so that no other test can.
    nobody: socket2::Socket,
    environment: Vec<(String, String)>,
}

/// A proxy that is only its admin listener; stops when it is dropped.
struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Ran {
    exit: Exit,
    out: String,
    err: String,
}

impl World {
    fn new(config: &str) -> Self {
        use socket2::{Domain, Socket, Type};
        let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        nobody.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let free = nobody.local_addr().unwrap().as_socket().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = format!("{config}\n[admin]\nlisten = \"{free}\"\n");
        fs::write(dir.path().join("config.toml"), config).unwrap();
        Self { dir, nobody, environment: Vec::new() }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn file(&self) -> String {
        fs::read_to_string(self.path().join("config.toml")).unwrap()
    }

    fn sources(&self) -> Sources {
        Sources {
            file: Some(self.path().join("config.toml")),
            environment: self.environment.iter().cloned().collect(),
        }
    }

    fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the admin listener, and points the command line to it.
    fn start(&mut self, token: Option<&str>) -> Running {
        let (control, ..) = Control::start(self.sources()).unwrap();
        let lifecycle = Arc::new(Lifecycle::default());
        lifecycle.enter(Phase::Serving);
        let mut state = admin::State::new(control, Arc::new(Metrics::new(1)), lifecycle);
        state.token = token.map(Secret::new);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        self.set("CUTOVER_ADMIN_URL", &format!("http://{}", listener.local_addr().unwrap()));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let shutdown = async {
                    stopped.await.ok();
                };
                admin::serve(listener, state, shutdown).await;
            });
        });
        Running { stop: Some(stop), thread: Some(thread) }
    }

    fn run(&self, line: &[&str]) -> Ran {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let arguments = std::iter::once("cutover").chain(line.iter().copied()).map(OsString::from);
        let exit = match parse(arguments, &mut out, &mut err) {
            Ok(cli) => {
                let screen = Screen {
                    out: &mut out,
                    err: &mut err,
                    json: cli.json,
                    terminal: false,
                    colour: false,
                };
                run(cli.verb, Context { sources: self.sources(), screen })
            }
            Err(exit) => exit,
        };
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { exit, out: text(out), err: text(err) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Ran {
    #[track_caller]
    fn json(&self, exit: Exit) -> Value {
        assert_eq!(self.exit, exit, "{self:?}");
        assert_eq!(self.out.lines().count(), 1, "one document on one line: {self:?}");
        serde_json::from_str(&self.out).unwrap()
    }
}

#[test]
fn the_tree_of_commands_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn a_wrong_argument_is_an_error_and_help_is_not() {
    let world = World::new(CONFIG);
    for line in [
        &["rollout", "set", "101", "--reason", "x"][..],
        &["rollout", "set", "abc", "--reason", "x"],
        &["rollout", "set", "10"],
        &["explain"],
        &["explain", "--user", "a", "--method", "GET"],
        &["fly"],
        &[],
    ] {
        let ran = world.run(line);
        assert_eq!(ran.exit, Exit::Error, "{line:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{line:?}: {ran:?}");
    }
    let help = world.run(&["--help"]);
    assert_eq!(help.exit, Exit::Done);
    for verb in ["serve", "check", "explain", "rollout"] {
        assert!(help.out.contains(verb), "{verb}");
    }
}

#[test]
fn check_lists_every_fault_at_once() {
    let good = World::new(CONFIG).run(&["check", "--json"]).json(Exit::Done);
    assert_eq!((&good["ok"], &good["faults"]), (&json!(true), &json!([])));
    let bad = CONFIG.replace("percentage = 5", "percentage = 101\nforce = \"both\"\ncolour = 1");
    let world = World::new(&bad);
    let faults = world.run(&["check", "--json"]).json(Exit::Faults);
    assert_eq!(faults["faults"].as_array().unwrap().len(), 3, "{faults}");
    let ran = world.run(&["check"]);
    assert_eq!(ran.exit, Exit::Faults);
    for text in ["rollout.percentage", "101", "rollout.force", "rollout.colour", "3 faults"] {
        assert!(ran.out.contains(text), "{text}: {}", ran.out);
    }
}

#[test]
fn plan_needs_olds_database_and_never_shows_its_url() {
    let mut world = World::new(CONFIG);
    let ran = world.run(&["plan"]);
    assert_eq!(ran.exit, Exit::Error);
    assert!(ran.err.contains("SUPABASE_DB_URL_OLD"), "{ran:?}");
    world.set("SUPABASE_DB_URL_OLD", "postgres://a:hush@127.0.0.1:1/app?connect_timeout=1");
    for line in [&["plan"][..], &["plan", "--json"], &["plan", "--apply", "--yes"]] {
        let ran = world.run(line);
        assert_eq!(ran.exit, Exit::Error);
        assert!(format!("{}{}", ran.out, ran.err).contains("old's database"), "{ran:?}");
        assert!(!format!("{ran:?}").contains("hush"), "{ran:?}");
    }
    for line in [
        &["plan", "--yes"][..],
        &["plan", "--force"],
        &["plan", "--out", "x", "--apply"],
        &["plan", "--apply", "--dry-run", "--yes"],
        &["plan", "--lock-timeout", "0"],
    ] {
        assert_eq!(world.run(line).exit, Exit::Error, "{line:?}");
    }
    let faults = World::new("[schema]\nnonsense = 1\n").run(&["plan"]);
    assert_eq!(faults.exit, Exit::Faults);
}

#[test]
fn explain_needs_no_proxy() {
    let world = World::new(CONFIG);
    let user = "5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11";
    let answer = world.run(&["explain", "--json", "--user", user]).json(Exit::Done);
    let want = json!({ "side": "old", "bucket": 711, "reason": "percentage", "moves_at": 7.12 });
    assert_eq!(answer, want);
    let ran = world.run(&["explain", "--user", user]);
    assert_eq!(ran.exit, Exit::Done);
    for line in
        ["side      old", "reason    percentage", "bucket    711 of 10000", "moves at  7.12 %"]
    {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    let denied = world.run(&["explain", "--user", user, "--path", "/pg/tables"]);
    assert_eq!(denied.exit, Exit::Error);
    assert_eq!(world.run(&["explain", "--user", user, "--claims", "{"]).exit, Exit::Error);
}

#[test]
fn rollout_goes_through_the_running_proxy() {
    let mut world = World::new(CONFIG);
    let _proxy = world.start(None);
    let set = world.run(&["rollout", "set", "10", "--reason", "week 1", "--json"]).json(Exit::Done);
    assert_eq!((&set["percentage"], &set["force"]), (&json!(10), &Value::Null));
    let abort = world.run(&["rollout", "abort", "--reason", "fire"]);
    assert_eq!(abort.exit, Exit::Done, "{abort:?}");
    assert!(
        abort.out.starts_with("percentage 0 %, everybody is forced to old (epoch 3"),
        "{abort:?}"
    );
    assert!(world.file().contains("percentage = 0\n"));

    let refused =
        world.run(&["rollout", "set", "10", "--reason", "x", "--json"]).json(Exit::Refused);
    assert_eq!(refused["code"], "CUTA4091");
    let refused = world.run(&["rollout", "set", "10", "--reason", "x"]);
    assert!(refused.exit == Exit::Refused && refused.err.contains("--resume"), "{refused:?}");
    let resumed = world.run(&["rollout", "set", "10", "--reason", "x", "--resume"]);
    assert_eq!(resumed.exit, Exit::Done, "{resumed:?}");

    let status = world.run(&["rollout", "status", "--json"]).json(Exit::Done);
    assert_eq!((&status["percentage"], &status["phase"]), (&json!(10), &json!("serving")));
    let ran = world.run(&["rollout", "status"]);
    assert!(ran.out.starts_with("percentage  10 %\nforce       none\n"), "{ran:?}");
    let history = world.run(&["rollout", "history", "--json", "--limit", "2"]).json(Exit::Done);
    let reasons: Vec<&Value> =
        history["records"].as_array().unwrap().iter().map(|record| &record["reason"]).collect();
    assert_eq!(reasons, [&json!("fire"), &json!("x")]);
    let history = world.run(&["rollout", "history"]);
    assert!(
        history.out.contains("admin:127.0.0.1") && history.out.contains("week 1"),
        "{history:?}"
    );
}

#[test]
fn the_token_is_presented_and_never_shown() {
    let mut world = World::new(CONFIG);
    let _proxy = world.start(Some("token-hush"));
    let ran = world.run(&["rollout", "status"]);
    assert!(ran.exit == Exit::Error && ran.err.contains("CUTA401"), "{ran:?}");
    world.set("CUTOVER_ADMIN_TOKEN", "token-hush");
    let ran = world.run(&["rollout", "status"]);
    assert_eq!(ran.exit, Exit::Done, "{ran:?}");
    assert!(!format!("{ran:?}").contains("hush"));
}

#[test]
fn a_roll_back_works_without_a_proxy() {
    let mut world = World::new(CONFIG);
    world.set("USER", "ada");
    let abort = world.run(&["rollout", "abort", "--json"]);
    let state = abort.json(Exit::Done);
    assert_eq!((&state["percentage"], &state["force"]), (&json!(0), &json!("old")));
    assert!(abort.err.contains("writing to the source itself"), "{abort:?}");
    assert!(world.file().contains("percentage = 0\n") && world.file().contains("force = \"old\""));
    let set = world.run(&["rollout", "set", "7", "--reason", "x", "--json"]).json(Exit::Refused);
    assert_eq!(set["code"], "CUTA4091");
    let history = world.run(&["rollout", "history", "--json"]).json(Exit::Done);
    assert_eq!(history["records"][0]["actor"], "cli:ada", "{history}");
    let status = world.run(&["rollout", "status"]);
    assert!(status.exit == Exit::Error && status.err.contains("not running"), "{status:?}");
}

#[test]
fn another_machines_proxy_is_never_replaced_by_the_files_of_this_one() {
    let mut world = World::new(CONFIG);
    // Reserved for documentation: nobody answers there, and no name is asked for.
    // A tunnel that is gone.
    let gone = world.nobody.local_addr().unwrap().as_socket().unwrap();
    world.set("CUTOVER_ADMIN_URL", &format!("http://{gone}"));
    let before = world.file();
    let ran = world.run(&["rollout", "abort"]);
    assert_eq!((ran.exit, world.file()), (Exit::Error, before), "{ran:?}");
    assert!(ran.err.contains("nothing was changed"), "{ran:?}");
    world.set("CUTOVER_ADMIN_URL", "https://cutover.example");
    let ran = world.run(&["rollout", "abort"]);
    assert!(ran.exit == Exit::Error && ran.err.contains("plain HTTP"), "{ran:?}");
}

#[test]
fn another_programs_ok_is_no_roll_back() {
    use std::io::Read;
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::new(CONFIG);
    world.set("CUTOVER_ADMIN_URL", &format!("http://{}", stranger.local_addr().unwrap()));
    let thread = std::thread::spawn(move || {
        for answer in ["HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"] {
            let (mut socket, _) = stranger.accept().unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
            let text = format!(
                "{answer}\r\ncontent-length: 15\r\nconnection: close\r\n\r\n{{\"status\":\"ok\"}}"
            );
            socket.write_all(text.as_bytes()).unwrap();
        }
    });
    for _ in 0..2 {
        let ran = world.run(&["rollout", "abort"]);
        assert!(
            ran.exit == Exit::Error && ran.err.contains("not as the admin listener"),
            "{ran:?}"
        );
    }
    thread.join().unwrap();
}

#[test]
fn a_number_in_the_environment_is_refused_by_name() {
    let mut world = World::new(CONFIG);
    world.set("V2_ROLLOUT_PERCENTAGE", "30");
    let ran = world.run(&["rollout", "set", "40", "--reason", "x"]);
    assert!(ran.exit == Exit::Refused && ran.err.contains("V2_ROLLOUT_PERCENTAGE"), "{ran:?}");
}

#[test]
fn settings_with_faults_do_not_hide_the_proxy() {
    let mut world = World::new(CONFIG);
    let _proxy = world.start(None);
    fs::write(world.path().join("config.toml"), "percentage = ").unwrap();
    let ran = world.run(&["rollout", "status", "--json"]);
    assert_eq!(ran.json(Exit::Done)["percentage"], 5, "the last good settings");
}
