#!/usr/bin/env bash
# Cutover side by side with other reverse proxies, as `make bench` runs it: installs and builds what is needed, checks each peer, measures, and writes
# docs/performance.md. QUICK=1: one round of the main peers, in less than five minutes. Arguments are those of bench.py.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONDONTWRITEBYTECODE=1
"$here/setup.sh"
(cd "$here/../.." && cargo build --release --locked --quiet && cargo bench --locked --quiet --bench flip --no-run)
flags=()
shown="make bench"
if [ -n "${QUICK:-}" ]; then flags+=(--quick) shown="make bench QUICK=1"; fi
exec python3 "$here/bench.py" --write --command "$shown${*:+ BENCH_FLAGS=\"$*\"}" "${flags[@]}" "$@"
