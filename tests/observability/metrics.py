"""Which metrics and labels exist, by docs/metrics.md (a Rust test holds that page to what /metrics prints), and which ones an expression
of PromQL uses."""

import re
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "observability" / "rules.yml"
DASHBOARD = ROOT / "observability" / "cutover.json"

WORDS = set(
    "absent and avg bool by changes count count_values group_left group_right histogram_quantile ignoring increase label_replace"
    " last_over_time max min offset on or rate sum time topk unless vector without".split()
)
FROM_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
TARGET = {"job", "instance"}

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
MATCHER = re.compile(r'\s*([a-zA-Z_]+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*')


@cache
def documented():
    """Metric -> (type, labels), from the tables."""
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (\w+) \|([^|]*)\|", page(), re.M)
    found = {name: (kind, {label.strip() for label in labels.split(",") if label.strip()}) for name, kind, labels in rows}
    assert len(found) > 30, f"only {len(found)} metrics in docs/metrics.md"
    return found


@cache
def values():
    """Label -> its closed set of values, from the first table."""
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]*`[^|]*) \|$", page(), re.M)
    found = {label: set(re.findall(r"`([^`]+)`", text)) for label, text in rows}
    found["status"] = {f"{n}xx" for n in range(1, 6)}
    assert {"side", "route", "reason", "kind"} <= found.keys(), found.keys()
    return found


@cache
def values_of(metric, label):
    """The closed set of values of a metric's label, or None where it is open. A row's own words ("`kind`: `table` or `function`") come first."""
    row = re.search(rf"^\| `{metric}` \|.*$", page(), re.M)
    own = row and re.search(rf"`{label}`: ((?:`[^`]+`(?:, | or )?)+)", row[0])
    return set(re.findall(r"`([^`]+)`", own[1])) if own else values().get(label)


def page():
    return (ROOT / "docs" / "metrics.md").read_text()


@cache
def recorded():
    """What the rules record -> its labels."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["record"]: {"side"} for group in groups for rule in group["rules"] if "record" in rule}


def labels_of(metric):
    """The labels of a metric, or None when there is no such metric."""
    if metric in FROM_PROMETHEUS:
        return FROM_PROMETHEUS[metric]
    if metric in recorded():
        return recorded()[metric]
    if metric in documented() and documented()[metric][0] != "histogram":
        return documented()[metric][1]
    base, _, part = metric.rpartition("_")
    if part in ("bucket", "sum", "count") and documented().get(base, ("",))[0] == "histogram":
        return documented()[base][1] | ({"le"} if part == "bucket" else set())
    return None


def used(expression):
    """The metrics of an expression, each with its matchers as (label, operator, value)."""
    for selector in re.finditer(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}", expression):
        yield selector[1], MATCHER.findall(selector[2])
    bare = re.sub(r"[a-zA-Z_:][a-zA-Z0-9_:]*\s*\{[^}]*\}", " ", expression)
    bare = re.sub(r'"[^"]*"', " ", bare)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    bare = re.sub(r"\[[^\]]*\]|\boffset\s+\w+|\b\d[\w.]*", " ", bare)
    for name in NAME.findall(bare):
        if name not in WORDS:
            yield name, []


def faults(expression):
    """What an expression names that does not exist."""
    for metric, matchers in used(expression):
        labels = labels_of(metric)
        if labels is None:
            yield f"no metric {metric}"
            continue
        for label, operator, value in matchers:
            if label not in labels | TARGET:
                yield f"{metric} has no label {label}"
            elif (known := values_of(metric, label)) and not value.startswith("$"):
                if unknown := [one for one in (value.split("|") if "~" in operator else [value]) if one not in known]:
                    yield f"{label} is never {unknown}"
    for clause in re.findall(r"\bby\s*\(([^)]*)\)", expression):
        for label in filter(None, (label.strip() for label in clause.split(","))):
            if not any(label in (labels_of(metric) or set()) | TARGET for metric, _ in used(expression)):
                yield f"nothing here has a label {label}"


def metrics_in(expressions):
    """The documented metrics that expressions use, histograms under their own name."""
    names = {metric for expression in expressions for metric, _ in used(expression)}
    return {name for name in documented() if name in names or {f"{name}_bucket", f"{name}_sum", f"{name}_count"} & names}
