#!/usr/bin/env bash
# Checks the dashboard and the alerts in observability/ without any server: their structure, that they name only metrics and labels that
# exist, and by promtool that each alert fires on series made for it and is silent otherwise. A real Prometheus asks their questions in
# tests/e2e/suite/prometheus.test.mjs.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
packages=$("$here/../k8s/setup.sh")
PROMTOOL=$("$here/setup.sh")/promtool
export PROMTOOL PYTHONDONTWRITEBYTECODE=1
cd "$here"
exec "$packages/bin/python" -m unittest --verbose
