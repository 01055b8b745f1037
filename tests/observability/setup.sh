#!/usr/bin/env bash
# Prints the folder in which Prometheus and promtool are, which Debian's package brings into the cache.
#   CUTOVER_PROMETHEUS   a folder with both programs, instead
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [ -n "${CUTOVER_PROMETHEUS:-}" ]; then
  [ -x "$CUTOVER_PROMETHEUS/prometheus" ] && [ -x "$CUTOVER_PROMETHEUS/promtool" ] ||
    { echo "setup: no prometheus and promtool in $CUTOVER_PROMETHEUS" >&2; exit 1; }
  echo "$CUTOVER_PROMETHEUS"
  exit
fi
unpacked=$("$here/../debian.sh" prometheus usr/bin/promtool "name a folder with prometheus and promtool in CUTOVER_PROMETHEUS")
echo "$unpacked/usr/bin"
