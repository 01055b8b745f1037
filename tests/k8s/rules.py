"""Writes the operator's form of observability/rules.yml: the same groups, inside a PrometheusRule."""

import textwrap

from render import ROOT

PLAIN = ROOT / "observability" / "rules.yml"
OPERATOR = ROOT / "observability" / "prometheusrule.yaml"

HEAD = """\
# Made from rules.yml by `make rules`; a test compares. Change rules.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: cutover
  labels: {app.kubernetes.io/name: cutover}
spec:
"""


def operators_form():
    return HEAD + textwrap.indent(PLAIN.read_text(), "  ")


if __name__ == "__main__":
    OPERATOR.write_text(operators_form())
    print(f"wrote {OPERATOR.relative_to(ROOT)}")
