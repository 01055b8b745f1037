"""The dashboard: its structure, and that it names only metrics that exist, and every one of them."""

import json
import unittest

import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as Model

from metrics import DASHBOARD, RULES, documented, faults, metrics_in, used

BOARD = json.loads(DASHBOARD.read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
COLUMNS = 24

# What Grafana writes and reads, and its published model does not have.
UNMODELLED = {"step", "titleFormat", "definition"}


def questions():
    """Every expression of the board, with where it is."""
    for panel in PANELS:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in BOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def lost(written, read, path=""):
    """What the model did not take over from what is written."""
    if isinstance(written, dict):
        for key, value in written.items():
            if key not in UNMODELLED:
                yield from lost(value, read[key], f"{path}/{key}") if isinstance(read, dict) and key in read else [f"{path}/{key}"]
    elif isinstance(written, list):
        for number, value in enumerate(written):
            yield from lost(value, read[number] if isinstance(read, list) and number < len(read) else None, f"{path}/{number}")
    elif written != read:
        yield f"{path}: {written!r} is read as {read!r}"


def as_grafana_reads(board):
    plugins.register_default_plugins()
    return json.loads(JSONEncoder().encode(Model.from_json(board)))


class Dashboard(unittest.TestCase):
    def test_grafana_knows_every_field(self):
        self.assertEqual(list(lost(BOARD, as_grafana_reads(BOARD))), [])
        misspelt = json.loads(json.dumps(BOARD).replace('"showPoints"', '"showPonits"'))
        self.assertTrue(list(lost(misspelt, as_grafana_reads(misspelt))))

    def test_it_names_only_metrics_and_labels_that_exist(self):
        for where, expression in questions():
            with self.subTest(where):
                self.assertEqual(list(faults(expression)), [])
                self.assertTrue(list(used(expression)), "no metric at all")

    def test_it_is_about_the_chosen_replicas(self):
        for where, expression in questions():
            for metric, matchers in used(expression):
                with self.subTest(where, metric=metric):
                    if metric != "ALERTS":
                        self.assertEqual({label: value for label, _, value in matchers if label in ("job", "instance")}, {"job": "$job", "instance": "$instance"})

    def test_every_metric_is_shown_or_watched(self):
        rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
        shown = metrics_in([expression for _, expression in questions()])
        self.assertEqual(documented().keys() - shown - metrics_in(rules), set())

    def test_every_variable_is_defined_and_every_source_a_variable(self):
        defined = {variable["name"] for variable in BOARD["templating"]["list"]}
        self.assertEqual(defined, {"datasource", "job", "instance"})
        sources = [thing["datasource"] for panel in PANELS for thing in (panel, *panel["targets"])]
        sources += [annotation["datasource"] for annotation in BOARD["annotations"]["list"]]
        for source in sources:
            self.assertEqual(source, {"type": "prometheus", "uid": "${datasource}"})

    def test_panels_stand_side_by_side_and_never_on_one_another(self):
        taken = set()
        for panel in BOARD["panels"]:
            at = panel["gridPos"]
            self.assertLessEqual(at["x"] + at["w"], COLUMNS, panel["title"])
            cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
            self.assertFalse(cells & taken, f"{panel['title']} covers another panel")
            taken |= cells

    def test_what_is_of_both_sides_stands_next_to_each_other(self):
        pairs = {}
        for panel in PANELS:
            for side in ("old", "new"):
                if panel["title"].endswith(f" {side}"):
                    pairs.setdefault(panel["title"].removesuffix(side), {})[side] = panel
        pairs = {title: pair for title, pair in pairs.items() if len(pair) == 2}
        self.assertEqual(len(pairs), 6)
        for title, pair in pairs.items():
            old, new = pair["old"], pair["new"]
            self.assertEqual((old["gridPos"]["y"], old["gridPos"]["x"], new["gridPos"]["x"]), (new["gridPos"]["y"], 0, COLUMNS // 2), title)
            swapped = [target["expr"].replace('side="old"', 'side="new"') for target in old["targets"]]
            self.assertEqual(swapped, [target["expr"] for target in new["targets"]], title)
            self.assertEqual(old["fieldConfig"], new["fieldConfig"], title)

    def test_ids_are_unique_and_every_panel_says_what_it_shows(self):
        ids = [panel["id"] for panel in BOARD["panels"]]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in PANELS:
            self.assertTrue(panel["title"] and panel["description"], panel["title"] or panel["id"])
            self.assertIn("unit", {**panel["fieldConfig"]["defaults"], **({"unit": ""} if panel["type"] == "table" else {})}, panel["title"])


class Names(unittest.TestCase):
    """What finds the faults can fail."""

    def test_wrong_names_are_found(self):
        for expression, fault in (
            ("rate(cutover_request_total[5m])", "no metric cutover_request_total"),
            ("cutover_request_duration_seconds", "no metric cutover_request_duration_seconds"),
            ('cutover_requests_total{sides="old"}', "cutover_requests_total has no label sides"),
            ('cutover_requests_total{side="older"}', "side is never ['older']"),
            ('cutover_errors_total{kind=~"unreachable|timeout"}', "kind is never ['timeout']"),
            ("sum by (reason) (cutover_requests_total)", "nothing here has a label reason"),
            ("frobnicate(up)", "no metric frobnicate"),
        ):
            self.assertIn(fault, list(faults(expression)))

    def test_good_names_are_not(self):
        self.assertEqual(list(faults('histogram_quantile(0.99, sum by (job, le) (rate(cutover_request_duration_seconds_bucket{side="old",job=~"$job"}[5m])))')), [])
        self.assertEqual(list(faults("up == 0 and on (job, instance) last_over_time(cutover_build_info[1h] offset 5m)")), [])
