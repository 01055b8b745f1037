//! A ConfigMap that three replicas follow through an API server of ours, which can be away, silent, forgetful and rude.

use std::process::Command;

use cutover::side::Side;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::support::conn::Answer;
use crate::support::kubernetes::{Kubernetes, Mode, NAME, NAMESPACE, TOKEN};
use crate::support::tls::{Authority, Pair};
use crate::support::upstream::Upstream;
use crate::support::world::{Setup, World};
use crate::support::{Nobody, eventually};

const NUMBER: &str = "V2_ROLLOUT_PERCENTAGE";
const FORCE: &str = "SUPABASE_ENV";
const EPOCH: &str = "cutover/epoch";

/// A world that follows the ConfigMap.
fn following(api: &Kubernetes) -> Setup {
    World::start()
        .file("token", TOKEN)
        .set("rollout.env_file", "\"local.env\"")
        .file("local.env", "# for the worst case\n")
        .set("kubernetes.configmap", &format!("\"{NAMESPACE}/{NAME}\""))
        .set("kubernetes.api_url", &format!("{:?}", api.url()))
        .set("kubernetes.token_file", "\"token\"")
        .set("kubernetes.watch_timeout", "\"1s\"")
        .set("kubernetes.write_timeout", "\"5s\"")
        .set("kubernetes.start_timeout", "\"5s\"")
}

/// Three replicas, each watching.
async fn three(api: &Kubernetes) -> [World; 3] {
    let replicas = [following(api).await, following(api).await, following(api).await];
    api.is_watched_by(3).await;
    replicas
}

async fn set(world: &World, percentage: u8) -> Answer {
    let change = format!("{{\"percentage\":{percentage},\"reason\":\"week {percentage}\"}}");
    world.ask_admin("PUT", "/rollout", &change).await
}

async fn abort(world: &World) -> Answer {
    world.ask_admin("POST", "/rollout/abort", "{\"reason\":\"it burns\"}").await
}

async fn rollout(world: &World) -> Value {
    world.ask_admin("GET", "/rollout", "").await.json()
}

/// Waits until all show this percentage and force, under one epoch that the ConfigMap tells too.
async fn all_show(api: &Kubernetes, replicas: &[World], percentage: u8, force: Value) -> u64 {
    let mut epoch = 0;
    eventually(&format!("{percentage} %, {force}, one epoch"), async || {
        let mut shown = Vec::new();
        for replica in replicas {
            shown.push(rollout(replica).await);
        }
        epoch = shown[0]["epoch"].as_u64().unwrap();
        shown.iter().all(|one| {
            one["percentage"] == percentage && one["force"] == force && one["epoch"] == epoch
        }) && api.annotation(EPOCH) == Some(epoch.to_string())
    })
    .await;
    epoch
}

async fn faults(world: &World) -> Vec<Value> {
    world.status().await["reload"]["faults"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_change_through_one_replica_reaches_all_under_one_epoch() {
    let api = Kubernetes::start(&[(NUMBER, "5"), ("unrelated", "kept")]).await;
    let replicas = three(&api).await;
    assert_eq!(rollout(&replicas[2]).await["percentage"], 5);
    let answer = set(&replicas[0], 100).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!(answer["source"], format!("configmap {NAMESPACE}/{NAME}"));
    // At the writer it is live with the answer.
    replicas[0].as_user("ada").get("/rest/v1/todos").await.served_by(Side::New);
    assert_eq!(
        all_show(&api, &replicas, 100, Value::Null).await,
        answer["epoch"].as_u64().unwrap()
    );
    for replica in &replicas {
        replica.as_user("ada").get("/rest/v1/todos").await.served_by(Side::New);
        let records = replica.ask_admin("GET", "/audit?limit=1", "").await.json();
        let record = &records["records"][0];
        assert_eq!(
            (&record["reason"], &record["to"]),
            (&json!("week 100"), &json!("100")),
            "{records}"
        );
        assert!(record["actor"].as_str().unwrap().starts_with("admin:"), "{records}");
    }
    assert_eq!(api.data("unrelated").as_deref(), Some("kept"));
    assert_eq!(api.annotation("somebody/else").as_deref(), Some("stays"));

    // An abort is one write, and so is leaving it.
    assert_eq!(abort(&replicas[1]).await.status, 200);
    all_show(&api, &replicas, 0, json!("old")).await;
    assert_eq!(
        (api.data(NUMBER).unwrap(), api.data(FORCE).unwrap()),
        ("0".into(), "production".into())
    );
    assert_eq!(set(&replicas[2], 10).await.status, 409, "forced");
    let resume = "{\"percentage\":10,\"resume\":true,\"reason\":\"mended\"}";
    assert_eq!(replicas[2].ask_admin("PUT", "/rollout", resume).await.status, 200);
    all_show(&api, &replicas, 10, Value::Null).await;

    // A replica that comes late begins where the others are.
    let fresh = following(&api).await;
    assert_eq!(rollout(&fresh).await["epoch"], rollout(&replicas[0]).await["epoch"]);
}

#[tokio::test]
async fn epochs_meet_at_the_highest_whoever_changes_what() {
    let api = Kubernetes::start(&[(NUMBER, "5")]).await;
    let replicas = three(&api).await;
    all_show(&api, &replicas, 5, Value::Null).await;
    // One is ahead by changes of its own, which are not the number.
    for _ in 0..2 {
        replicas[1].change("debug_headers", "false").await;
        replicas[1].change("debug_headers", "true").await;
    }
    let before = all_show(&api, &replicas, 5, Value::Null).await;
    assert!(before > 3, "{before}");
    let audited = async || {
        let audit = replicas[0].ask_admin("GET", "/audit?limit=1000", "").await.json();
        audit["records"].as_array().unwrap().len()
    };
    assert_eq!(audited().await, 0, "an epoch that is only adopted is no change");

    // A change by hand knows of no annotation.
    api.set(NUMBER, "20");
    let after = all_show(&api, &replicas, 20, Value::Null).await;
    assert!(after > before, "{after}");
    assert_eq!(audited().await, 1);
    // Nonsense in the annotation is none of ours.
    api.annotate(EPOCH, "many");
    assert_eq!(all_show(&api, &replicas, 20, Value::Null).await, after);
    // Somebody's higher number is adopted, and never undone.
    api.annotate(EPOCH, "1000");
    assert_eq!(all_show(&api, &replicas, 20, Value::Null).await, 1000);
    assert_eq!(set(&replicas[2], 30).await.json()["epoch"], 1001);
    all_show(&api, &replicas, 30, Value::Null).await;
}

#[tokio::test]
async fn while_the_api_is_away_nothing_changes_and_an_abort_by_a_local_file_works() {
    let api = Kubernetes::start(&[(NUMBER, "100"), (FORCE, "")]).await;
    let replicas = three(&api).await;
    let before = all_show(&api, &replicas, 100, Value::Null).await;
    api.is(Mode::Away);
    let ada = replicas[0].as_user("ada");
    for replica in &replicas {
        eventually("a warning", async || {
            let status = replica.status().await;
            status["warnings"].to_string().contains("is not heard")
                && status["kubernetes"]["connected"] == false
        })
        .await;
        assert_eq!(rollout(replica).await["epoch"], before);
    }
    ada.get("/rest/v1/todos").await.served_by(Side::New);
    let refused = set(&replicas[0], 50).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("CUTA503")), "{refused:?}");
    assert_eq!(rollout(&replicas[0]).await["percentage"], 100);
    assert!(
        replicas[0].metric("cutover_kubernetes_watch_failures_total", "unreachable").await > 0.0
    );

    std::fs::write(replicas[0].folder.path().join("local.env"), "SUPABASE_ENV=production\n")
        .unwrap();
    eventually("everybody on old", async || rollout(&replicas[0]).await["force"] == "old").await;
    ada.get("/rest/v1/todos").await.served_by(Side::Old);

    // The API comes back, and says nothing of force: the file counts, here and nowhere else.
    api.is(Mode::Up);
    eventually("connected", async || replicas[0].status().await["kubernetes"]["connected"] == true)
        .await;
    all_show(&api, &replicas[1..], 100, Value::Null).await;
    assert_eq!(rollout(&replicas[0]).await["force"], "old");
    let refused = replicas[0]
        .ask_admin("PUT", "/rollout", "{\"percentage\":10,\"resume\":true,\"reason\":\"x\"}")
        .await;
    assert_eq!(refused.status, 200, "the file is ours to write: {refused:?}");
    all_show(&api, &replicas, 10, Value::Null).await;
}

#[tokio::test]
async fn an_abort_while_the_api_is_away_is_held_and_written_when_it_is_back() {
    let api = Kubernetes::start(&[(NUMBER, "100")]).await;
    let replicas = three(&api).await;
    all_show(&api, &replicas, 100, Value::Null).await;
    api.is(Mode::Away);
    let answer = abort(&replicas[1]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    assert_eq!((&answer["held"], &answer["force"]), (&json!(true), &json!("old")), "{answer}");
    assert!(answer["held_because"].as_str().unwrap().contains("abort every replica"), "{answer}");
    replicas[1].as_user("ada").get("/rest/v1/todos").await.served_by(Side::Old);
    // A change of something else does not lose it.
    replicas[1].change("debug_headers", "false").await;
    assert_eq!(rollout(&replicas[1]).await["force"], "old");
    assert!(replicas[1].status().await["warnings"].to_string().contains("held in the memory"));
    assert_eq!(rollout(&replicas[0]).await["force"], Value::Null);

    api.is(Mode::Up);
    all_show(&api, &replicas, 0, json!("old")).await;
    assert_eq!(rollout(&replicas[1]).await["held"], Value::Null, "no longer held");
}

/// The watch goes on all the time, and nothing happens to the ConfigMap that it could tell of.
#[tokio::test]
async fn an_abort_that_the_api_would_not_write_is_written_when_it_does() {
    let api = Kubernetes::start(&[(NUMBER, "100")]).await;
    // One watch is enough for the test: the list behind a failed one would do it by chance.
    let replica = following(&api)
        .set("kubernetes.watch_timeout", "\"60s\"")
        .set("kubernetes.write_timeout", "\"1s\"")
        .await;
    api.is_watched_by(1).await;
    all_show(&api, std::slice::from_ref(&replica), 100, Value::Null).await;
    api.is(Mode::ReadOnly);
    assert_eq!(abort(&replica).await.json()["held"], true);
    // By the answer, once more at once, and the epoch.
    eventually("it is tried again", async || api.requests("PATCH 500") >= 3).await;
    api.is(Mode::Up);
    all_show(&api, &[replica], 0, json!("old")).await;
    assert_eq!(api.data(FORCE).as_deref(), Some("production"));
}

#[tokio::test]
async fn a_held_abort_does_not_write_over_what_somebody_decided_meanwhile() {
    let api = Kubernetes::start(&[(NUMBER, "100")]).await;
    let replica = following(&api).await;
    api.is_watched_by(1).await;
    api.is(Mode::Away);
    assert_eq!(abort(&replica).await.json()["held"], true);
    api.set(NUMBER, "20");
    api.is(Mode::Up);
    eventually("the new number", async || rollout(&replica).await["percentage"] == 20).await;
    let shown = rollout(&replica).await;
    assert_eq!(
        (&shown["held"], &shown["force"]),
        (&json!(true), &json!("old")),
        "never lost silently"
    );
    assert_eq!(api.data(NUMBER).as_deref(), Some("20"));
    assert_eq!(abort(&replica).await.json()["held"], Value::Null);
    assert_eq!(api.data(NUMBER).as_deref(), Some("0"));
}

#[tokio::test]
async fn a_silent_watch_a_cut_one_and_a_forgotten_revision_lose_no_change() {
    let api = Kubernetes::start(&[(NUMBER, "1")]).await;
    let replicas = three(&api).await;
    api.cuts();
    api.set(NUMBER, "2");
    all_show(&api, &replicas, 2, Value::Null).await;
    api.is_watched_by(3).await;
    // Half-dead: the connection stands, and nothing comes, not even its end.
    api.is(Mode::Silent);
    api.set(NUMBER, "3");
    for replica in &replicas {
        let name = "cutover_kubernetes_watch_failures_total";
        eventually("silence is noticed", async || replica.metric(name, "silent").await > 0.0).await;
        assert_eq!(rollout(replica).await["percentage"], 2, "the last number stands");
    }
    api.is(Mode::Up);
    all_show(&api, &replicas, 3, Value::Null).await;
    api.is_watched_by(3).await;
    let lists = api.requests("LIST");
    api.forgets();
    api.cuts();
    eventually("each lists again", async || api.requests("LIST") >= lists + 3).await;
    api.set(NUMBER, "4");
    all_show(&api, &replicas, 4, Value::Null).await;
    for replica in &replicas {
        assert!(replica.metric("cutover_kubernetes_watch_failures_total", "gone").await > 0.0);
        assert!(replica.metric("cutover_kubernetes_resyncs_total", "").await >= 2.0);
    }
    // A bookmark is a word of the API, and moves the revision behind what is forgotten.
    api.is_watched_by(3).await;
    api.sends_bookmarks();
    api.set(NUMBER, "5");
    all_show(&api, &replicas, 5, Value::Null).await;
    eventually("a word of a moment ago", async || {
        replicas[0].metric("cutover_kubernetes_last_heard_seconds", "").await < 2.0
    })
    .await;
}

#[tokio::test]
async fn a_cluster_restored_from_a_backup_is_believed() {
    let api = Kubernetes::start(&[(NUMBER, "50")]).await;
    let replica = following(&api).await;
    api.is_watched_by(1).await;
    let before = rollout(&replica).await["epoch"].as_u64().unwrap();
    api.is_restored(&[(NUMBER, "40")]);
    // Whoever watches from a revision of the future hears of nothing; a cut makes nobody list.
    api.is(Mode::Silent);
    let name = "cutover_kubernetes_watch_failures_total";
    eventually("silence", async || replica.metric(name, "silent").await > 0.0).await;
    api.is(Mode::Up);
    eventually("the older version", async || rollout(&replica).await["percentage"] == 40).await;
    assert!(rollout(&replica).await["epoch"].as_u64().unwrap() > before, "epochs never go down");
}

#[tokio::test]
async fn of_two_simultaneous_changes_one_is_made_and_one_refused() {
    let api = Kubernetes::start(&[(NUMBER, "5")]).await;
    let replicas = three(&api).await;
    all_show(&api, &replicas, 5, Value::Null).await;
    api.holds_patches(2);
    let (one, two) = tokio::join!(set(&replicas[0], 10), set(&replicas[1], 20));
    let (won, lost) = if one.status == 200 { (one, two) } else { (two, one) };
    assert_eq!((won.status, lost.status), (200, 409), "{won:?} {lost:?}");
    let (won, lost) = (won.json(), lost.json());
    assert_eq!(lost["code"], "CUTA4093");
    let number = won["percentage"].as_u64().unwrap();
    let said = format!("it says {number} (epoch ");
    assert!(lost["message"].as_str().unwrap().contains(&said), "{lost}");
    all_show(&api, &replicas, u8::try_from(number).unwrap(), Value::Null).await;
    assert_eq!(api.data(NUMBER), Some(number.to_string()));

    // An abort is not refused because somebody else was faster.
    api.holds_patches(2);
    let (change, aborted) = tokio::join!(set(&replicas[0], 30), abort(&replicas[1]));
    assert_eq!(aborted.status, 200, "{change:?} {aborted:?}");
    assert_eq!(aborted.json()["held"], Value::Null);
    all_show(&api, &replicas, 0, json!("old")).await;
}

/// The same by two operators' commands.
#[tokio::test]
async fn two_simultaneous_commands_end_with_0_and_3() {
    let api = Kubernetes::start(&[(NUMBER, "5")]).await;
    let replicas = three(&api).await;
    all_show(&api, &replicas, 5, Value::Null).await;
    api.holds_patches(2);
    let first = cutover(&replicas[0], &["rollout", "set", "10", "--reason", "a"]);
    let second = cutover(&replicas[1], &["rollout", "set", "20", "--reason", "b"]);
    let ((one, said_one), (two, said_two)) = tokio::join!(first, second);
    let mut exits = [one, two];
    exits.sort_unstable();
    assert_eq!(exits, [0, 3], "{said_one}{said_two}");
    let refusal = if one == 3 { said_one } else { said_two };
    assert!(refusal.contains("changed by somebody else at the same moment"), "{refusal}");
}

/// A resource version moves with every annotation; that alone is nobody's decision, and no reason to refuse one.
#[tokio::test]
async fn a_change_of_annotations_alone_is_no_lost_race() {
    let api = Kubernetes::start(&[(NUMBER, "5")]).await;
    let replica = following(&api).await;
    eventually("the epoch", async || api.annotation(EPOCH).is_some()).await;
    let patches = api.requests("PATCH");
    api.holds_patches(2);
    let changing = set(&replica, 10);
    let meddling = async {
        eventually("a patch that waits", async || api.waiting() == 1).await;
        api.annotate("somebody/else", "changed");
        api.holds_patches(0);
    };
    let (changed, ()) = tokio::join!(changing, meddling);
    assert_eq!(changed.status, 200, "{changed:?}");
    assert!(api.requests("PATCH") >= patches + 2);
    assert_eq!(api.data(NUMBER).as_deref(), Some("10"));
    assert_eq!(api.annotation("somebody/else").as_deref(), Some("changed"));
}

#[tokio::test]
async fn a_bad_value_a_vanished_key_and_a_deleted_configmap_change_nothing_and_are_shown() {
    let api = Kubernetes::start(&[(NUMBER, "30"), (FORCE, "")]).await;
    let replica = following(&api).set("rollout.percentage", "1").await;
    api.is_watched_by(1).await;
    let source = format!("configmap {NAMESPACE}/{NAME}");
    let shows = async |word: &str| {
        eventually(word, async || {
            let faults = faults(&replica).await;
            faults.iter().any(|fault| {
                fault["source"].as_str().unwrap().starts_with(&source)
                    && fault.to_string().contains(word)
            })
        })
        .await;
        assert_eq!(rollout(&replica).await["percentage"], 30, "{word}");
        assert!(replica.metric("cutover_config_faults", "").await > 0.0, "{word}");
    };
    for bad in ["abc", "-1", "101", "NaN", ""] {
        api.set(NUMBER, bad);
        shows(&format!("{bad:?}").replace('"', "")).await;
    }
    // A local abort works while the ConfigMap is bad.
    let local = replica.folder.path().join("local.env");
    std::fs::write(&local, "SUPABASE_ENV=production\n").unwrap();
    eventually("the local abort", async || rollout(&replica).await["force"] == "old").await;
    std::fs::write(&local, "# over\n").unwrap();
    eventually("its end", async || rollout(&replica).await["force"] == Value::Null).await;
    shows("").await;

    api.remove(NUMBER);
    shows("nothing, where a value was").await;
    api.delete();
    shows("it was deleted").await;
    let refused = set(&replica, 40).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    let held = abort(&replica).await.json();
    assert_eq!((&held["held"], &held["force"]), (&json!(true), &json!("old")));

    // Made again, it counts again; the hold stays until somebody resumes.
    api.set(NUMBER, "60");
    eventually("the new one", async || rollout(&replica).await["percentage"] == 60).await;
    eventually("no fault", async || faults(&replica).await.is_empty()).await;
    assert_eq!(rollout(&replica).await["force"], "old");
    let resume = "{\"percentage\":70,\"resume\":true,\"reason\":\"x\"}";
    assert_eq!(replica.ask_admin("PUT", "/rollout", resume).await.status, 200);
    assert_eq!(api.data(NUMBER).as_deref(), Some("70"));
    // A good number over a bad one mends it.
    api.set(NUMBER, "abc");
    shows_fault(&replica).await;
    assert_eq!(set(&replica, 70).await.status, 200);
    assert_eq!((api.data(NUMBER).as_deref(), faults(&replica).await.len()), (Some("70"), 0));
}

async fn shows_fault(replica: &World) {
    eventually("a fault", async || !faults(replica).await.is_empty()).await;
}

#[tokio::test]
async fn without_the_api_a_start_goes_by_the_mounted_volume_and_follows_later() {
    let api = Kubernetes::start(&[(NUMBER, "40"), (FORCE, "")]).await;
    api.is(Mode::Away);
    let begun = std::time::Instant::now();
    let replica = following(&api)
        .set("rollout.watch_dir", "\"mount\"")
        .set("kubernetes.start_timeout", "\"300ms\"")
        .file("mount/V2_ROLLOUT_PERCENTAGE", "30")
        .await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "a start is not held up");
    let status = replica.status().await;
    assert_eq!(status["percentage"], 30);
    assert!(status["warnings"].to_string().contains("such as the mounted volume"), "{status}");
    assert_eq!(status["kubernetes"]["revision"], Value::Null);
    let refused = set(&replica, 50).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("CUTA503")));
    api.is(Mode::Up);
    eventually("the API's word", async || rollout(&replica).await["percentage"] == 40).await;
    // From now on the volume is an older copy, whatever it says.
    std::fs::write(replica.folder.path().join("mount").join(NUMBER), "20").unwrap();
    replica.change("debug_headers", "false").await;
    assert_eq!(rollout(&replica).await["percentage"], 40);
}

/// The mounted copy still says what was aborted a minute ago; what the ConfigMap itself says is newer.
#[tokio::test]
async fn a_stale_mount_does_not_bring_a_force_back() {
    let api = Kubernetes::start(&[(NUMBER, "40"), (FORCE, "production")]).await;
    let replica = following(&api)
        .set("rollout.watch_dir", "\"mount\"")
        .file("mount/..data/SUPABASE_ENV", "production")
        .file("mount/SUPABASE_ENV", "production")
        .await;
    api.is_watched_by(1).await;
    assert_eq!(rollout(&replica).await["force"], "old");
    let resume = "{\"percentage\":10,\"resume\":true,\"reason\":\"x\"}";
    let answer = replica.ask_admin("PUT", "/rollout", resume).await;
    assert_eq!((answer.status, &answer.json()["force"]), (200, &Value::Null), "{answer:?}");
    assert_eq!(api.data(FORCE).as_deref(), Some(""));

    // What was bad in the ConfigMap for a moment comes into the copy a minute later, and stays there as long.
    let mount = replica.folder.path().join("mount");
    api.set(NUMBER, "abc");
    api.set("CUTOVER_LIMITS__CONECTIONS", "5");
    shows_fault(&replica).await;
    std::fs::write(mount.join(NUMBER), "abc").unwrap();
    std::fs::write(mount.join("CUTOVER_LIMITS__CONECTIONS"), "5").unwrap();
    std::fs::write(replica.folder.path().join("local.env"), "SUPABASE_ENV=production\n").unwrap();
    eventually("a local abort", async || rollout(&replica).await["force"] == "old").await;
    std::fs::write(replica.folder.path().join("local.env"), "# over\n").unwrap();
    api.remove("CUTOVER_LIMITS__CONECTIONS");
    api.set(NUMBER, "20");
    eventually("the mended one", async || rollout(&replica).await["percentage"] == 20).await;
}

#[tokio::test]
async fn a_token_or_a_role_that_is_refused_is_counted_and_the_last_number_stands() {
    let api = Kubernetes::start(&[(NUMBER, "40")]).await;
    let replica = following(&api).await;
    api.is_watched_by(1).await;
    for status in [401, 403, 500] {
        api.is(Mode::Refusing(status));
        api.cuts();
        let code = format!("the API answered {status}");
        eventually(&code, async || {
            replica.status().await["kubernetes"]["trouble"].to_string().contains(&code)
        })
        .await;
        assert_eq!(rollout(&replica).await["percentage"], 40);
    }
    assert!(replica.metric("cutover_kubernetes_watch_failures_total", "forbidden").await >= 2.0);
    assert!(!replica.status().await.to_string().contains(TOKEN));
    api.is(Mode::Up);
    api.set(NUMBER, "41");
    eventually("the next number", async || rollout(&replica).await["percentage"] == 41).await;
}

/// A port for admin listeners on several loopback addresses: below those that the system hands out by itself.
fn common_port() -> u16 {
    let bind =
        |host: u8, port: u16| std::net::TcpListener::bind(format!("127.0.0.{host}:{port}")).is_ok();
    let begin = u16::try_from(std::process::id() % 9_000).unwrap();
    let ports = (0..9_000).map(|step| 21_000 + (begin + step) % 9_000);
    ports.into_iter().find(|port| (1..=3).all(|host| bind(host, *port))).unwrap()
}

#[tokio::test]
async fn wait_returns_when_every_replica_serves_the_change_and_names_who_does_not() {
    let api = Kubernetes::start(&[(NUMBER, "5")]).await;
    let port = common_port();
    let at = |host: u8| format!("127.0.0.{host}:{port}");
    let peers = format!("\"{},{},{}\"", at(1), at(2), at(3));
    let replica = |host: u8| {
        following(&api)
            .set("admin.listen", &format!("{:?}", at(host)))
            .set("kubernetes.peers", &peers)
            .set("kubernetes.peers_timeout", "\"5s\"")
    };
    let mut replicas = [replica(1).await, replica(2).await, replica(3).await];
    all_show(&api, &replicas, 5, Value::Null).await;
    let shown = replicas[0].ask_admin("GET", "/replicas", "").await.json();
    assert_eq!(shown["agreed"], true, "{shown}");
    let addresses: Vec<&str> = shown["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|replica| replica["address"].as_str().unwrap())
        .collect();
    assert_eq!(addresses, [at(1), at(2), at(3)]);
    assert_eq!(shown["replicas"][1]["percentage"], 5);
    assert_eq!(
        (&shown["replicas"][1]["ready"], &shown["replicas"][1]["error"]),
        (&json!(true), &Value::Null)
    );

    let (exit, said) =
        cutover(&replicas[0], &["rollout", "set", "10", "--reason", "x", "--wait=20"]).await;
    assert_eq!(exit, 0, "{said}");
    assert!(said.contains("3 replicas serve it"), "{said}");
    for replica in &replicas {
        assert_eq!(rollout(replica).await["percentage"], 10, "not one moment later");
    }
    let (exit, said) = cutover(&replicas[1], &["rollout", "status"]).await;
    assert_eq!((exit, said.matches("\nreplica").count()), (0, 3), "{said}");
    assert!(said.contains("configmap   cutover/cutover-rollout, revision"), "{said}");

    // One is gone, which an abort says as well, and does all the same.
    replicas[2].begin_stop().await;
    let (exit, said) = cutover(&replicas[0], &["rollout", "abort", "--wait=5", "--json"]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains(&format!("{} does not answer", at(3))), "{said}");
    assert!(!said.contains(&format!("{} is behind", at(2))), "{said}");
    all_show(&api, &replicas[..2], 0, json!("old")).await;
}

/// One that follows the same ConfigMap and does not hear of it any more.
#[tokio::test]
async fn wait_names_a_replica_that_is_behind() {
    let (api, other) =
        (Kubernetes::start(&[(NUMBER, "5")]).await, Kubernetes::start(&[(NUMBER, "5")]).await);
    let behind = following(&other).await;
    let peers = format!("\"{}\"", behind.admin);
    let replica = following(&api).set("kubernetes.peers", &peers).await;
    let (exit, said) =
        cutover(&replica, &["rollout", "set", "10", "--reason", "x", "--wait=1"]).await;
    assert_eq!(exit, 1, "{said}");
    assert!(said.contains(&format!("({}) is behind: 5 %", behind.admin)), "{said}");
    let shown = replica.ask_admin("GET", "/replicas", "").await.json();
    assert_eq!(shown["replicas"].as_array().unwrap().len(), 1, "{shown}");
}

#[tokio::test]
async fn without_a_proxy_the_command_writes_the_configmap_itself() {
    let api = Kubernetes::start(&[(NUMBER, "5")]).await;
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    let nobody = Nobody::new();
    let setup = following(&api).set("admin.listen", &format!("\"{}\"", nobody.address));
    let (folder, _) = setup.write(&old, &new);
    let run = async |arguments: &[&str], start_timeout: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        command.args(arguments).env_clear().current_dir(folder.path());
        command.env("CUTOVER_KUBERNETES__START_TIMEOUT", start_timeout);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    };
    let (exit, said) = run(&["rollout", "set", "10", "--reason", "x"], "5s").await;
    assert_eq!((exit, api.data(NUMBER).as_deref()), (0, Some("10")), "{said}");
    // Nothing is held in the memory of a command that ends.
    api.is(Mode::Away);
    let (exit, said) = run(&["rollout", "abort"], "500ms").await;
    assert_eq!(exit, 3, "{said}");
    assert!(said.contains("CUTA503") && !said.contains("memory of this process"), "{said}");
}

/// In a cluster the API is asked over TLS, by the CA of the service account; another's certificate is no API.
#[tokio::test]
async fn over_tls_the_api_is_believed_by_its_ca_alone() {
    let api = Kubernetes::start(&[(NUMBER, "40")]).await;
    let authority = Authority::new();
    let front = front(&api, &authority.issues("localhost")).await;
    let tls = |ca: &str| {
        following(&api)
            .set("kubernetes.api_url", &format!("\"https://localhost:{}\"", front.port()))
            .set("kubernetes.ca", "\"ca.pem\"")
            .set("kubernetes.start_timeout", "\"300ms\"")
            .file("ca.pem", ca)
    };
    let replica = tls(&authority.pem).await;
    eventually("the number", async || rollout(&replica).await["percentage"] == 40).await;
    assert_eq!(set(&replica, 41).await.status, 200);
    assert_eq!(api.data(NUMBER).as_deref(), Some("41"));
    let stranger = tls(&Authority::new().pem).await;
    assert_eq!(rollout(&stranger).await["percentage"], 0);
    eventually("trouble", async || {
        stranger.status().await["kubernetes"]["trouble"].to_string().contains("certificate")
    })
    .await;
}

/// TLS before a server that speaks none.
async fn front(api: &Kubernetes, pair: &Pair) -> std::net::SocketAddr {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![CertificateDer::from_pem_slice(pair.cert.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), api.address);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut client) = acceptor.accept(stream).await else { return };
                let mut server = tokio::net::TcpStream::connect(behind).await.unwrap();
                tokio::io::copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    address
}

/// Runs the binary against a replica; its exit code, and what it said.
async fn cutover(world: &World, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command
        .args(arguments)
        .env_clear()
        .env("CUTOVER_ADMIN_URL", format!("http://{}", world.admin))
        .current_dir(world.folder.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
}
