"""Each alert fires on series made for it, alone, and none fires in health or just below its bound. promtool evaluates them."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

from metrics import ROOT, RULES, faults

GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule}


def series(name, labels, values, replica="a"):
    """One series of promtool: "0+15x80" grows by 15 at each of 80 steps of 15 s, that is one per second for 20 minutes."""
    return name, f'{name}{{job="cutover",instance="{replica}"{"," + labels if labels else ""}}}', values


def requests(side, status, values):
    return series("cutover_requests_total", f'side="{side}",route="rest",method="GET",status="{status}"', values)


def error(kind, side, values):
    return series("cutover_errors_total", f'kind="{kind}",side="{side}"', values)


def replicas(name, labels, values):
    return [series(name, labels, values, "a"), series(name, labels, values, "b")]


def latencies(old, new):
    """Every answer of a side takes as long as one of these bounds."""
    bounds = ("0.05", "0.1", "0.25", "0.5", "1", "+Inf")
    return [
        series("cutover_upstream_duration_seconds_bucket", f'side="{side}",route="rest",le="{le}"', "0+15x80" if float(le) >= top else "0x80")
        for side, top in (("old", old), ("new", new))
        for le in bounds
    ]


# Two replicas at 10 %, ten requests a second to old, one to new.
HEALTH = [
    *replicas("cutover_build_info", 'version="0.1.0"', "1x80"),
    *replicas("up", "", "1x80"),
    *replicas("cutover_rollout_percentage", "", "10x80"),
    *replicas("cutover_config_epoch", "", "3x80"),
    requests("old", "2xx", "0+150x80"),
    requests("new", "2xx", "0+15x80"),
]


def without(*names):
    return [one for one in HEALTH if one[0] not in names]


# What is seen, for how long, and the alerts that fire then, all of them.
CASES = [
    (
        "health",
        HEALTH
        + latencies(0.1, 0.1)
        + replicas("cutover_kubernetes_last_heard_seconds", "", "5x80")
        + replicas("cutover_kubernetes_connected", "", "1x80")
        + [
            series("cutover_config_faults", "", "0x80"),
            series("cutover_config_reloads_total", 'result="failure"', "2x80"),
            series("cutover_fallbacks_total", "", "7x80"),
            series("cutover_tokens_unproven_total", 'side="new"', "3x80"),
            error("panic", "none", "1x80"),
        ],
        "15m",
        [],
    ),
    ("one in a hundred fails on both sides", HEALTH + [requests("old", "5xx", "0+1.5x80"), requests("new", "5xx", "0+0.15x80")], "15m", []),
    ("old fails", HEALTH + [requests("old", "5xx", "0+30x80")], "10m", ["CutoverSideFails"]),
    ("a side fails that is hardly asked", without("cutover_requests_total") + [requests("old", "5xx", "0+1x80"), requests("old", "2xx", "0+1x80")], "10m", []),
    ("new fails a little, old does not at all", HEALTH + [requests("new", "5xx", "0+0.3x80")], "10m", ["CutoverNewWorseThanOld"]),
    (
        "new fails a little, and everybody is on it",
        without("cutover_requests_total") + [requests("new", "2xx", "0+150x80"), requests("new", "5xx", "0+3x80")],
        "10m",
        ["CutoverNewWorseThanOld"],
    ),
    ("new fails a lot, not for two minutes yet", HEALTH + [requests("new", "5xx", "0x40 0+15x40")], "11m", []),
    ("new fails a lot", HEALTH + [requests("new", "5xx", "0x40 0+15x40")], "15m", ["CutoverNewWorseThanOld", "CutoverSideFails"]),
    ("new is slow", HEALTH + latencies(0.1, 0.5), "10m", ["CutoverNewSlowerThanOld"]),
    ("both are slow", HEALTH + latencies(0.5, 0.5), "10m", []),
    ("new can't be reached", HEALTH + [error("unreachable", "new", "0+1x80")], "10m", ["CutoverNewUnreachable"]),
    (
        "new can't be reached, and nobody is on it",
        without("cutover_rollout_percentage") + [series("cutover_rollout_percentage", "", "0x80"), error("unreachable", "new", "0+1x80")],
        "10m",
        [],
    ),
    (
        "new can't be reached, and everybody is forced to it",
        without("cutover_rollout_percentage")
        + [
            series("cutover_rollout_percentage", "", "0x80"),
            series("cutover_rollout_forced", 'side="new"', "1x80"),
            error("upstream_timeout", "new", "0+1x80"),
        ],
        "10m",
        ["CutoverNewUnreachable"],
    ),
    ("old can't be reached", HEALTH + [error("unreachable", "old", "0+1x80")], "10m", ["CutoverOldUnreachable"]),
    ("reads fall back", HEALTH + [series("cutover_fallbacks_total", "", "0+1x80")], "10m", ["CutoverReadsFallBack"]),
    ("new cuts its answers", HEALTH + [error("response_cut", "new", "0+3x80")], "12m", ["CutoverAnswersCut"]),
    ("the settings have a fault", HEALTH + [series("cutover_config_faults", "", "1x80")], "5m", ["CutoverSettingsFaulty"]),
    (
        "the settings had a fault for half a minute",
        HEALTH + [series("cutover_config_faults", "", "0x20 1x2 0x60"), series("cutover_config_reloads_total", 'result="failure"', "0x20 1x60")],
        "8m",
        ["CutoverReloadFailed"],
    ),
    (
        "replicas follow different numbers",
        without("cutover_rollout_percentage") + [series("cutover_rollout_percentage", "", "10x80"), series("cutover_rollout_percentage", "", "50x80", "b")],
        "5m",
        ["CutoverReplicasDisagree"],
    ),
    (
        "a replica is forced",
        HEALTH + [series("cutover_rollout_forced", 'side="old"', "0x80"), series("cutover_rollout_forced", 'side="old"', "1x80", "b")],
        "5m",
        ["CutoverReplicasDisagree"],
    ),
    (
        "replicas follow one after the other",
        without("cutover_rollout_percentage")
        + [series("cutover_rollout_percentage", "", "10x20 50x60"), series("cutover_rollout_percentage", "", "10x22 50x60", "b")],
        "6m",
        [],
    ),
    (
        "a replica stays on an older epoch of the ConfigMap",
        without("cutover_config_epoch")
        + [series("cutover_config_epoch", "", "3x80"), series("cutover_config_epoch", "", "4x80", "b")]
        + replicas("cutover_kubernetes_connected", "", "1x80"),
        "5m",
        ["CutoverEpochsDiffer"],
    ),
    (
        "replicas without a ConfigMap count for themselves",
        without("cutover_config_epoch") + [series("cutover_config_epoch", "", "3x80"), series("cutover_config_epoch", "", "4x80", "b")],
        "5m",
        [],
    ),
    ("the API server is silent", HEALTH + [series("cutover_kubernetes_last_heard_seconds", "", "0+15x80")], "10m", ["CutoverConfigMapSilent"]),
    ("the API server was never there", HEALTH + [series("cutover_kubernetes_connected", "", "0x80")], "10m", ["CutoverConfigMapSilent"]),
    ("the API server is away for a moment", HEALTH + [series("cutover_kubernetes_connected", "", "1x20 0x2 1x60")], "6m", []),
    ("a key of neither project", HEALTH + [error("unknown_key", "none", "0+3x80")], "12m", ["CutoverUnknownKeys"]),
    ("tokens that nobody can verify", HEALTH + [series("cutover_tokens_unproven_total", 'side="new"', "0+3x80")], "12m", ["CutoverTokensUnproven"]),
    ("some users have expired tokens", HEALTH + [series("cutover_tokens_unproven_total", 'side="old"', "0+3x80")], "12m", []),
    (
        "a replica does not answer",
        without("up", "cutover_build_info")
        + [
            series("up", "", "1x20 0x60"),
            series("up", "", "1x80", "b"),
            series("cutover_build_info", 'version="0.1.0"', "1x20"),
            series("cutover_build_info", 'version="0.1.0"', "1x80", "b"),
        ],
        "7m",
        ["CutoverDown"],
    ),
    ("all are gone", [], "5m", ["CutoverGone"]),
    ("the first panic", HEALTH + [error("panic", "new", "_x40 1x40")], "12m", ["CutoverPanics"]),
    ("clients are refused", HEALTH + [error("too_many_connections", "none", "0+1x80")], "10m", ["CutoverConnectionsRefused"]),
    (
        "queries that the translation does not know",
        HEALTH + [series("cutover_translations_left_alone_total", "", "0+1x120")],
        "20m",
        ["CutoverTranslationLeftAlone"],
    ),
    (
        "spans are dropped",
        HEALTH
        + [
            series("cutover_telemetry_dropped_total", 'reason="queue"', "0+1x80"),
            series("cutover_telemetry_exports_total", 'signal="traces",result="failure"', "0x80"),
        ],
        "12m",
        ["CutoverTelemetryDropped"],
    ),
    (
        "no collector takes the metrics",
        HEALTH
        + [
            series("cutover_telemetry_dropped_total", 'reason="queue"', "0x80"),
            series("cutover_telemetry_exports_total", 'signal="metrics",result="failure"', "0+1x80"),
        ],
        "12m",
        ["CutoverTelemetryDropped"],
    ),
    ("log lines are lost", HEALTH + [series("cutover_log_lines_dropped_total", "", "0+1x80")], "12m", ["CutoverLogLinesDropped"]),
]


def as_promtool(case):
    name, seen, when, fired = case
    return {
        "name": name,
        "interval": "15s",
        "input_series": [{"series": text, "values": values} for _, text, values in seen],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": when,
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in fired],
            }
        ],
    }


def promtool(*arguments):
    return subprocess.run([os.environ["PROMTOOL"], *map(str, arguments)], capture_output=True, text=True)


def tested(rules, cases):
    """What promtool says of these cases: empty when all are as expected. (Its files are YAML, which JSON is.)"""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rules.yml").write_text(rules)
        asked = {"rule_files": ["rules.yml"], "evaluation_interval": "15s", "tests": [as_promtool(case) for case in cases]}
        (Path(folder) / "tests.yml").write_text(json.dumps(asked))
        done = promtool("test", "rules", Path(folder) / "tests.yml")
        return "" if done.returncode == 0 else done.stdout + done.stderr


class Alerts(unittest.TestCase):
    def test_promtool_accepts_the_rules(self):
        done = promtool("check", "rules", RULES)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_right_ones_fire_and_no_other(self):
        self.assertEqual(tested(RULES.read_text(), CASES), "")

    def test_each_has_a_case(self):
        self.assertEqual({alert for *_, fired in CASES for alert in fired}, ALERTS.keys())

    def test_a_rule_that_never_fires_is_noticed(self):
        """The cases can fail: each rule in turn asks for something that never is."""
        for alert in ALERTS:
            rules = {"groups": [{**group, "rules": [silenced(rule, alert) for rule in group["rules"]]} for group in GROUPS]}
            cases = [case for case in CASES if alert in case[3]]
            with self.subTest(alert):
                self.assertIn(alert, tested(json.dumps(rules), cases))

    def test_they_name_only_metrics_and_labels_that_exist(self):
        for group in GROUPS:
            for rule in group["rules"]:
                with self.subTest(rule.get("alert") or rule["record"]):
                    self.assertEqual(list(faults(rule["expr"])), [])

    def test_each_says_what_it_means_and_what_to_do(self):
        runbook = (ROOT / "docs" / "runbook.md").read_text()
        headings = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", runbook, re.M)}
        for alert, rule in ALERTS.items():
            with self.subTest(alert):
                self.assertIn(rule["labels"]["severity"], ("critical", "warning", "info"))
                self.assertEqual(rule["annotations"].keys(), {"summary", "description", "runbook_url"})
                file, anchor = rule["annotations"]["runbook_url"].split("#")
                self.assertEqual((file, anchor), ("docs/runbook.md", alert.lower()))
                self.assertIn(anchor, headings)


def silenced(rule, alert):
    return {**rule, "expr": "vector(0) > 1"} if rule.get("alert") == alert else rule
