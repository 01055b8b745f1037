//! Changes while requests are in flight: none fails, each ends where it began.

use cutover::side::Side;
use tokio::sync::watch;

use crate::support::conn::Conn;
use crate::support::eventually;
use crate::support::process::Process;
use crate::support::upstream::Upstream;
use crate::support::world::{ANON_OLD, World};

#[tokio::test]
async fn requests_in_flight_finish_where_they_began() {
    let world = World::start().await;
    let user = world.as_user("ada");
    let release = world.old.holds();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let mut conn = Conn::open(world.address).await;
        conn.send(user.says("POST", "/rest/v1/todos", Some("{}"))).await;
        waiting.push(conn);
    }
    world.old.has_seen(10).await;
    world.change("rollout.percentage", "100").await;
    user.get("/rest/v1/todos").await.served_by(Side::New);
    release.send_replace(true);
    for conn in &mut waiting {
        conn.answer().await.served_by(Side::Old);
    }
    // The same connections, the next request: the new number holds.
    for conn in &mut waiting {
        conn.send(user.says("GET", "/rest/v1/todos", None)).await;
        conn.answer().await.served_by(Side::New);
    }
}

#[tokio::test]
async fn the_admin_api_flips_at_once_and_the_file_says_so() {
    let world = World::start().await;
    let user = world.as_user("ada");
    for (percentage, side) in [(100, Side::New), (0, Side::Old), (34, Side::New), (33, Side::Old)] {
        let change = format!("{{\"percentage\":{percentage},\"reason\":\"test\"}}");
        let answer = world.ask_admin("PUT", "/rollout", &change).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // From this answer on, nobody is decided by the old number.
        user.get("/rest/v1/todos").await.served_by(side);
        let text = std::fs::read_to_string(world.config()).unwrap();
        assert!(text.contains(&format!("rollout.percentage = {percentage}\n")), "{text}");
    }
    let answer = world.ask_admin("POST", "/rollout/abort", "{\"reason\":\"test\"}").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = user.get("/rest/v1/todos").await;
    assert_eq!((answer.side(), answer.header("x-cutover-reason")), (Side::Old, Some("forced")));
}

#[tokio::test]
async fn no_request_fails_and_nobody_is_on_two_sides_while_the_number_jumps() {
    let world = std::sync::Arc::new(World::start().rollout(0).set("workers", "2").await);
    let (stop, stopped) = watch::channel(false);
    let mut users = Vec::new();
    for name in ["ada", "bob", "cat", "dan"] {
        let (user, address, stopped) = (world.as_user(name), world.address, stopped.clone());
        users.push(tokio::spawn(async move {
            let mut conn = Conn::open(address).await;
            let mut count = 0_usize;
            let mut sides: std::collections::HashMap<String, Side> =
                std::collections::HashMap::new();
            while !*stopped.borrow() {
                conn.send(user.says("GET", "/rest/v1/todos", None)).await;
                let answer = conn.answer().await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let epoch = answer.header("x-cutover-epoch").unwrap().to_owned();
                let known = *sides.entry(epoch).or_insert_with(|| answer.side());
                assert_eq!(known, answer.side(), "two sides in one epoch");
                count += 1;
            }
            count
        }));
    }
    for round in 0..10 {
        let percentage = [0, 100, 30, 70, 50][round % 5];
        if round % 2 == 0 {
            let change = format!("{{\"percentage\":{percentage},\"reason\":\"test\"}}");
            assert_eq!(world.ask_admin("PUT", "/rollout", &change).await.status, 200);
        } else {
            let text = std::fs::read_to_string(world.config()).unwrap();
            let lines = text.lines().map(|line| {
                let is_it = line.starts_with("rollout.percentage");
                if is_it {
                    format!("rollout.percentage = {percentage}\n")
                } else {
                    format!("{line}\n")
                }
            });
            world.write_config(&lines.collect::<String>());
            eventually("the file's number", async || {
                world.status().await["percentage"].as_f64() == Some(f64::from(percentage))
            })
            .await;
        }
    }
    stop.send_replace(true);
    for user in users {
        assert!(user.await.unwrap() > 10);
    }
}

#[tokio::test]
async fn garbage_in_the_file_changes_nothing_and_is_shown() {
    let world = World::start().rollout(100).await;
    let user = world.as_user("ada");
    let good = std::fs::read_to_string(world.config()).unwrap();
    for garbage in [
        good.replace("rollout.percentage = 100", "rollout.percentage = 101"),
        good.replace("rollout.percentage = 100", "rollout.percentage = \"abc\""),
        "}}} not toml".to_owned(),
        good.clone() + "rollout.precentage = 3\n",
    ] {
        world.write_config(&garbage);
        eventually("the fault", async || {
            !world.status().await["reload"]["faults"].as_array().unwrap().is_empty()
        })
        .await;
        user.get("/rest/v1/todos").await.served_by(Side::New);
        assert!(world.metric("cutover_config_faults", "").await > 0.0);
        world.write_config(&good);
        eventually("no fault", async || {
            world.status().await["reload"]["faults"].as_array().unwrap().is_empty()
        })
        .await;
    }
    assert_eq!(world.status().await["epoch"], 1, "nothing was ever swapped in");
}

/// SIGHUP reads everything again, and says again what is wrong, however often it was said.
#[tokio::test]
async fn sighup_reports_a_bad_file_again_and_ends_nothing() {
    let (old, new) = (Upstream::start(Side::Old).await, Upstream::start(Side::New).await);
    let (folder, _) = World::start().set("log.format", "\"json\"").write(&old, &new);
    let process = Process::serve(folder.path()).await;
    let refusals = || process.output().matches("settings refused").count();
    std::fs::write(folder.path().join("config.toml"), "[rollout]\npercentage = 101\n").unwrap();
    eventually("the first report", async || refusals() > 0).await;
    let before = refusals();
    process.hang_up();
    eventually("the second report", async || refusals() > before).await;
    let mut conn = Conn::open(process.address).await;
    conn.send(format!("GET /rest/v1/todos HTTP/1.1\r\nhost: a\r\napikey: {ANON_OLD}\r\n\r\n"))
        .await;
    conn.answer().await.served_by(Side::Old);
}
