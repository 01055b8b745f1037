#!/usr/bin/env bash
# Runs a command, and another one beside it at the lowest priority: beside.sh LOG OTHER -- COMMAND…
# Both have to succeed. What the other one says is in LOG, and is shown if it fails; it ends with the command where that fails.
set -euo pipefail
[ "${3:-}" = -- ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 1; }
log=$1 other=$2
shift 3

mkdir -p "$(dirname "$log")"
# A group of its own, so that it is ended with whatever it has started; not a session, to which the kernel would give half of the processors whatever its priority.
set -m
nice -n 19 "$other" >"$log" 2>&1 </dev/null &
beside=$!
set +m
stop() { kill -TERM -- "-$beside" 2>/dev/null || true; }
trap 'stop; exit 130' INT TERM

status=0
"$@" || status=$?
if [ "$status" -ne 0 ]; then
  stop
  exit "$status"
fi
wait "$beside" || { status=$?; cat "$log" >&2; echo "beside: $other failed" >&2; exit "$status"; }
