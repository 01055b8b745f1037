#!/usr/bin/env bash
# Runs the end-to-end suite: real PostgreSQL, real upstreams, real clients, and the binary in CUTOVER_BIN
# (default: target/release/cutover, else target/debug/cutover).
#   tests/e2e/run.sh            everything
#   tests/e2e/run.sh live auth  only the files of suite/ with these words in their names
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh" --browser
"$here/../observability/setup.sh" >/dev/null || echo "no Prometheus: suite/prometheus.test.mjs will fail" >&2
"$here/nginx.sh" >/dev/null || echo "no nginx: suite/smuggling.test.mjs will fail" >&2
exec "$here/node_modules/.bin/node" "$here/lib/run-suite.mjs" "$@"
