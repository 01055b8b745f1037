#!/usr/bin/env bash
# `make demo`: brings what is needed, builds Cutover unless CUTOVER_BIN names a binary, and shows a rollout with real users.
#   DEMO_EXIT=1   end after the script, with exit code 0 only if every expectation held
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
"$root/tests/e2e/setup.sh"
if [ -z "${CUTOVER_BIN:-}" ]; then
  echo "demo: building cutover (the first time takes a few minutes)"
  (cd "$root" && cargo build --release --bin cutover)
  CUTOVER_BIN=${CARGO_TARGET_DIR:-$root/target}/release/cutover
  export CUTOVER_BIN
fi
exec "$root/tests/e2e/node_modules/.bin/node" "$here/demo.mjs"
