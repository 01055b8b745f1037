#!/usr/bin/env bash
# `cutover verify --rows all` over VERIFY_ROWS rows (default 1,000,000) in two real PostgreSQL servers: clean first, then with seven planted
# differences. Fails unless it finds those and no other. Prints time and peak memory. CUTOVER_BIN: the binary (default: the release build).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/../tests/e2e/setup.sh"
exec "$here/../tests/e2e/node_modules/.bin/node" "$here/verify.mjs"
