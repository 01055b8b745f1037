//! May the old project be switched off? What the settings, the running proxy and its counters say for and against it. Pure: the command
//! that asks for it looks at the proxy twice and hands in what it saw.
//!
//! What no proxy can see is said as well: who goes past it, links that were signed for longer than it was looked at, backups.

use serde_json::Value;

use super::doctor::finding::Finding;
use crate::decide::percentage::Percentage;
use crate::decide::{Anonymous, Owner};
use crate::route::Route;
use crate::side::Side;
use crate::snapshot::Snapshot;

/// Every question, in the order of the report. The ids are a contract: scripts match on them.
pub const CHECKS: [(&str, &str); 9] = [
    ("ready.number", "Is everybody on new?"),
    ("ready.owners", "Does old own nothing any more?"),
    ("ready.exceptions", "Is nobody kept on old by a pin, a rule, a cap or a key?"),
    ("ready.proxy", "Does the running proxy serve these settings?"),
    ("ready.traffic", "Was old asked nothing, and new something?"),
    ("ready.sockets", "Is no WebSocket open to old?"),
    ("ready.elsewhere", "Was nothing found on old that new lacks?"),
    ("ready.probes", "Does new pass the doctor?"),
    ("ready.unseen", "What can't be seen from here"),
];

/// The proxy's own words, at the beginning and at the end of the look.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// `/status`, at the end.
    pub status: Value,
    /// `/metrics`, at the beginning.
    pub before: String,
    /// `/metrics`, at the end.
    pub after: String,
    /// Seconds between them.
    pub seconds: u64,
}

/// Judges everything but the probes.
#[must_use]
pub fn judge(settings: &Snapshot, look: &Look) -> Vec<Finding> {
    let mut findings = vec![number(settings)];
    findings.extend(owners(settings));
    findings.extend(exceptions(settings));
    findings.extend(proxy(settings, &look.status));
    findings.extend(traffic(look));
    findings.push(sockets(look));
    findings.extend(elsewhere(look));
    findings.extend(unseen());
    findings
}

fn number(settings: &Snapshot) -> Finding {
    let id = "ready.number";
    let (percentage, force) = (settings.decide.percentage, settings.decide.force);
    match force {
        Some(Side::Old) => {
            let fix = "cutover rollout set 100 --resume --reason …, when new is well again";
            Finding::fail(id, None, "force", "everybody is forced to old", fix)
        }
        _ if percentage != Percentage::HUNDRED => {
            let seen = format!("{percentage} % of the users");
            Finding::fail(id, None, "percentage", seen, "cutover rollout set 100 --reason …")
        }
        Some(Side::New) => {
            let fix = "take rollout.force out, and look again: without it the percentage and the owners below decide";
            Finding::warn(id, None, "force", "everybody is forced to new", fix)
        }
        None => Finding::pass(id, None, "percentage", "100 % of the users"),
    }
}

/// A setting that gives something to old.
fn kept(id: &'static str, subject: &str, seen: impl Into<String>, fix: &str) -> Finding {
    Finding::fail(id, Side::Old, subject, seen, fix)
}

fn owners(settings: &Snapshot) -> Vec<Finding> {
    let id = "ready.owners";
    let mut findings = Vec::new();
    for route in Route::ALL {
        if settings.decide.owners.of(route) == Owner::Side(Side::Old) {
            let fix =
                format!("routes.{} = \"new\" (docs/runbook.md, weeks 4 and 5)", route.as_str());
            findings.push(kept(id, route.as_str(), "old serves it for everybody", &fix));
        }
    }
    if settings.realtime.rooms == Side::Old {
        findings.push(kept(
            id,
            "realtime.rooms",
            "old holds all rooms",
            "realtime.rooms = \"new\"",
        ));
    }
    let storage = &settings.rewrite.storage;
    if storage.s3 == Some(Side::Old) {
        findings.push(kept(
            id,
            "storage.s3",
            "old serves S3",
            "storage.s3 = \"new\", or \"refuse\"",
        ));
    }
    let buckets = storage.owners.iter().filter(|(_, side)| **side == Side::Old);
    let buckets = buckets.map(|(name, _)| ("storage.owners", name.as_str()));
    let functions = settings.rewrite.functions.owned_by(Side::Old);
    let functions = functions.into_iter().map(|name| ("functions.owners", name));
    for (table, name) in buckets.chain(functions) {
        let fix = format!("take {name} out of {table}, when it is on new");
        findings.push(kept(id, &format!("{table}.{name}"), "old serves it for everybody", &fix));
    }
    if findings.is_empty() {
        findings.push(Finding::pass(id, None, "owners", "nothing is owned by old"));
    }
    findings
}

fn exceptions(settings: &Snapshot) -> Vec<Finding> {
    let id = "ready.exceptions";
    let decide = &settings.decide;
    let mut findings = Vec::new();
    if decide.service_role == Side::Old {
        let fix = "rollout.service_role = \"new\"";
        findings.push(kept(id, "rollout.service_role", "service keys go to old", fix));
    }
    if decide.anonymous == Anonymous::Old {
        let fix = "rollout.anonymous = \"sticky\" or \"new\"";
        findings.push(kept(id, "rollout.anonymous", "requests without a user go to old", fix));
    }
    let pinned = decide.pins.values().filter(|side| **side == Side::Old).count();
    if pinned > 0 {
        let seen = format!("{pinned} users are pinned to old");
        findings.push(kept(id, "rollout.pins.old", seen, "take them out"));
    }
    for rule in decide.rules.iter().filter(|rule| rule.side == Side::Old) {
        let seen = format!("a rule on {} sends users to old", rule.claim.join("."));
        findings.push(kept(id, "rollout.rules", seen, "take it out"));
    }
    let mut capped: Vec<_> =
        decide.domains.iter().filter(|(_, cap)| **cap != Percentage::HUNDRED).collect();
    capped.sort_by_key(|(domain, _)| *domain);
    for (domain, cap) in capped {
        let seen = format!("capped at {cap} %");
        let subject = format!("rollout.domains.{domain}");
        findings.push(kept(id, &subject, seen, "take the cap out"));
    }
    if findings.is_empty() {
        findings.push(Finding::pass(id, None, "exceptions", "nobody is kept on old"));
    }
    findings
}

fn proxy(settings: &Snapshot, status: &Value) -> Vec<Finding> {
    let id = "ready.proxy";
    let mut findings = Vec::new();
    let phase = status["phase"].as_str().unwrap_or("unknown");
    if phase != "serving" {
        let fix = "ask one that serves (CUTOVER_ADMIN_URL)";
        findings.push(Finding::fail(id, None, "phase", format!("it is {phase}"), fix));
    }
    let faults = status["reload"]["faults"].as_array().map_or(0, Vec::len);
    if faults > 0 {
        let seen = format!("its sources have {faults} faults, and it serves older settings");
        findings.push(Finding::fail(id, None, "settings", seen, "cutover check, and mend them"));
    }
    let percentage = settings.decide.percentage.to_string();
    let force = settings.decide.force.map(Side::as_str);
    let served = status["percentage"].to_string();
    if served != percentage || status["force"].as_str() != force {
        let seen = format!(
            "it serves {served} %, force {}; the settings here say {percentage} %, force {}",
            status["force"].as_str().unwrap_or("none"),
            force.unwrap_or("none")
        );
        let fix = "run this with the settings that the proxy runs with";
        findings.push(Finding::fail(id, None, "percentage", seen, fix));
    }
    let others = status["replicas"].as_array().map_or(0, Vec::len);
    if others > 1 {
        let seen = format!("one of {others} replicas was asked");
        let fix = "ask each (CUTOVER_ADMIN_URL), or all by Prometheus: sum(rate(cutover_requests_total{side=\"old\"}[1h]))";
        findings.push(Finding::warn(id, None, "replicas", seen, fix));
    }
    if findings.is_empty() {
        findings.push(Finding::pass(id, None, "proxy", "it serves these settings, without faults"));
    }
    findings
}

/// The sum over the series of a metric whose labels hold all of `labels`.
fn sum(page: &str, name: &str, labels: &[&str]) -> f64 {
    let lines = page.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// How much a counter grew during the look. One that fell was begun anew, by a restart.
fn growth(look: &Look, name: &str, labels: &[&str]) -> f64 {
    let (before, after) = (sum(&look.before, name, labels), sum(&look.after, name, labels));
    if after < before { after } else { after - before }
}

fn traffic(look: &Look) -> Vec<Finding> {
    let (id, name, seconds) = ("ready.traffic", "cutover_requests_total", look.seconds);
    let mut findings = Vec::new();
    for route in Route::ALL {
        let label = format!("route=\"{}\"", route.as_str());
        let asked = growth(look, name, &["side=\"old\"", &label]);
        if asked > 0.0 {
            let seen = format!("old was asked {asked} times in {seconds} s");
            let fix = "sum by (route, reason) (rate(cutover_decisions_total{side=\"old\"}[1h])), and the access log: each is somebody";
            findings.push(Finding::fail(id, Side::Old, route.as_str(), seen, fix));
        }
    }
    if findings.is_empty() {
        let seen = format!("not one request in {seconds} s");
        findings.push(Finding::pass(id, Side::Old, "requests", seen));
    }
    let served = growth(look, name, &["side=\"new\""]);
    findings.push(if served > 0.0 {
        Finding::pass(id, Side::New, "requests", format!("{served} in {seconds} s"))
    } else {
        let seen = format!("not one request in {seconds} s: the silence of old says nothing");
        Finding::warn(id, Side::New, "requests", seen, "look for longer (--for), at a busy hour")
    });
    findings
}

fn sockets(look: &Look) -> Finding {
    let (id, open) =
        ("ready.sockets", sum(&look.after, "cutover_websockets_open", &["side=\"old\""]));
    if open > 0.0 {
        let fix = "who keeps them there stands above: an owner, rooms, a pin";
        Finding::fail(id, Side::Old, "WebSockets", format!("{open} are open"), fix)
    } else {
        Finding::pass(id, Side::Old, "WebSockets", "none is open")
    }
}

/// What old had and new had not, since the proxy started.
fn elsewhere(look: &Look) -> Vec<Finding> {
    let id = "ready.elsewhere";
    let mut findings = Vec::new();
    for (name, subject, fix) in [
        (
            "cutover_storage_found_elsewhere_total",
            "objects",
            "copy them (docs/storage.md), set storage.fallback = false, and see whether anybody misses one",
        ),
        ("cutover_fallbacks_total", "reads", "new could not be reached then: find out why"),
    ] {
        let labels: &[&str] = if subject == "objects" { &["side=\"old\""] } else { &[] };
        let (grown, all) = (growth(look, name, labels), sum(&look.after, name, labels));
        if grown > 0.0 {
            let seen = format!(
                "{grown} were served by old in {} s because new had no answer",
                look.seconds
            );
            findings.push(Finding::fail(id, Side::Old, subject, seen, fix));
        } else if all > 0.0 {
            let seen = format!("{all} were served by old since the proxy started, none just now");
            findings.push(Finding::warn(id, Side::Old, subject, seen, fix));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::pass(id, Side::Old, "reads", "none had to be asked of old"));
    }
    findings
}

fn unseen() -> Vec<Finding> {
    let skip = |subject: &str, seen: &str, fix: &str| {
        Finding::skip("ready.unseen", Side::Old, subject, seen, fix)
    };
    vec![
        skip(
            "direct clients",
            "who names old's own host goes past the proxy",
            "old's own logs show them",
        ),
        skip(
            "signed URLs, uploads, sessions",
            "they live for longer than this look",
            "look again after the longest of them has expired",
        ),
        skip("data", "this compares no rows", "cutover verify --rows all, until it ends with 0"),
        skip(
            "the way back",
            "there is none without a backup",
            "restore a backup of new, once, somewhere",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::checks::doctor::finding::Status;
    use crate::config;
    use crate::config::live::Sources;

    const DONE: &str = "[projects.old]\nurl = \"https://a.example\"\n[projects.new]\nurl = \"https://b.example\"\n\
        [rollout]\npercentage = 100\nservice_role = \"new\"\n[routes]\nauth = \"new\"\ngraphql = \"new\"\n[realtime]\nrooms = \"new\"\n";

    fn snapshot(text: &str) -> Snapshot {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        config::check(&sources).map_err(|faults| faults.to_string()).unwrap().snapshot
    }

    fn quiet() -> Look {
        let page = |new: u32| {
            format!(
                "cutover_requests_total{{side=\"old\",route=\"rest\",method=\"GET\",status=\"2xx\"}} 7\n\
                 cutover_requests_total{{side=\"new\",route=\"rest\",method=\"GET\",status=\"2xx\"}} {new}\n\
                 cutover_websockets_open{{side=\"old\"}} 0\ncutover_fallbacks_total 0\n"
            )
        };
        Look {
            status: json!({ "phase": "serving", "percentage": 100, "force": null, "reload": { "faults": [] } }),
            before: page(5),
            after: page(90),
            seconds: 60,
        }
    }

    fn bad(settings: &Snapshot, look: &Look) -> Vec<(String, Status)> {
        let findings = judge(settings, look).into_iter();
        let findings = findings.filter(|it| matches!(it.status, Status::Warn | Status::Fail));
        findings.map(|it| (format!("{} {}", it.id, it.subject), it.status)).collect()
    }

    #[test]
    fn when_everything_is_on_new_nothing_speaks_against_it() {
        let found = judge(&snapshot(DONE), &quiet());
        assert_eq!(bad(&snapshot(DONE), &quiet()), []);
        for (id, _) in CHECKS.iter().filter(|(id, _)| *id != "ready.probes") {
            assert!(found.iter().any(|it| it.id == *id), "{id} is not answered");
        }
        assert!(found.iter().all(|it| CHECKS.iter().any(|(id, _)| *id == it.id)));
    }

    #[test]
    fn each_setting_that_needs_old_is_named() {
        for (from, to, want) in [
            ("percentage = 100", "percentage = 99.5", "ready.number percentage"),
            ("percentage = 100", "percentage = 100\nforce = \"old\"", "ready.number force"),
            ("percentage = 100", "percentage = 100\nforce = \"new\"", "ready.number force"),
            ("auth = \"new\"", "auth = \"old\"", "ready.owners auth"),
            ("graphql = \"new\"", "", "ready.owners graphql"),
            ("rooms = \"new\"", "", "ready.owners realtime.rooms"),
            (
                "rooms = \"new\"",
                "rooms = \"new\"\n[storage]\ns3 = \"old\"",
                "ready.owners storage.s3",
            ),
            (
                "rooms = \"new\"",
                "rooms = \"new\"\n[storage.owners]\navatars = \"old\"",
                "ready.owners storage.owners.avatars",
            ),
            (
                "rooms = \"new\"",
                "rooms = \"new\"\n[functions.owners]\nhook = \"old\"",
                "ready.owners functions.owners.hook",
            ),
            ("service_role = \"new\"", "", "ready.exceptions rollout.service_role"),
            ("[routes]", "anonymous = \"old\"\n[routes]", "ready.exceptions rollout.anonymous"),
            (
                "[routes]",
                "pins = { old = [\"ada\"] }\n[routes]",
                "ready.exceptions rollout.pins.old",
            ),
            (
                "[routes]",
                "rules = [{ claim = \"a\", equals = 1, side = \"old\" }]\n[routes]",
                "ready.exceptions rollout.rules",
            ),
            (
                "[routes]",
                "domains = { billing = 50 }\n[schema.tables]\ninvoices = \"billing\"\n[routes]",
                "ready.exceptions rollout.domains.billing",
            ),
        ] {
            let changed = DONE.replace(from, to);
            assert_ne!(changed, DONE, "{from}");
            let found = bad(&snapshot(&changed), &quiet());
            assert!(found.iter().any(|(it, _)| it == want), "{to}: {found:?}");
        }
    }

    #[test]
    fn what_the_proxy_saw_counts() {
        let line = |name: &str, labels: &str, n: u32| format!("{name}{{{labels}}} {n}\n");
        let old = "side=\"old\",route=\"auth\",method=\"POST\",status=\"2xx\"";
        let (asked, more) =
            (line("cutover_requests_total", old, 1), line("cutover_requests_total", old, 9));
        let open = line("cutover_websockets_open", "side=\"old\"", 3);
        let found = line("cutover_storage_found_elsewhere_total", "side=\"old\"", 2);
        for (before, after, want) in [
            ("", &asked, Some(("ready.traffic auth", Status::Fail))),
            (&asked, &asked, None),
            // It was started anew meanwhile.
            (&more, &asked, Some(("ready.traffic auth", Status::Fail))),
            ("", &open, Some(("ready.sockets WebSockets", Status::Fail))),
            ("", &found, Some(("ready.elsewhere objects", Status::Fail))),
            (&found, &found, Some(("ready.elsewhere objects", Status::Warn))),
        ] {
            let mut look = quiet();
            look.before.push_str(before);
            look.after.push_str(after);
            let want: Vec<_> =
                want.iter().map(|(it, status)| ((*it).to_owned(), *status)).collect();
            assert_eq!(bad(&snapshot(DONE), &look), want, "{after}");
        }
        let mut silent = quiet();
        silent.before.clone_from(&silent.after);
        assert_eq!(
            bad(&snapshot(DONE), &silent),
            [("ready.traffic requests".to_owned(), Status::Warn)]
        );
        for (key, value, want) in [
            ("phase", json!("draining"), "ready.proxy phase"),
            ("percentage", json!(50), "ready.proxy percentage"),
            ("force", json!("old"), "ready.proxy percentage"),
            ("reload", json!({ "faults": [{}] }), "ready.proxy settings"),
            ("replicas", json!([{}, {}]), "ready.proxy replicas"),
        ] {
            let mut look = quiet();
            look.status[key] = value;
            let found = bad(&snapshot(DONE), &look);
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].0, want);
        }
    }
}
