#!/usr/bin/env bash
# Brings Prometheus and promtool into the cache, from Debian's package, and prints the folder they are in. The package is unpacked there
# and not installed: nothing of it is started, and root is not needed.
#   CUTOVER_PROMETHEUS   a folder with both programs, instead
#   CUTOVER_CACHE        where (default: $XDG_CACHE_HOME/cutover or ~/.cache/cutover)
set -euo pipefail
cache=${CUTOVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cutover}
target=$cache/prometheus
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

if [ -n "${CUTOVER_PROMETHEUS:-}" ]; then
  [ -x "$CUTOVER_PROMETHEUS/prometheus" ] && [ -x "$CUTOVER_PROMETHEUS/promtool" ] || fail "no prometheus and promtool in $CUTOVER_PROMETHEUS"
  echo "$CUTOVER_PROMETHEUS"
  exit
fi
mkdir -p "$cache"
exec 9>"$cache/prometheus.lock"
flock 9
if [ ! -x "$target/usr/bin/promtool" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "Prometheus comes from Debian's package, and there is no apt-get here: name a folder with prometheus and promtool in CUTOVER_PROMETHEUS"
  echo "setup: Prometheus, from Debian's packages, some seconds" >&2
  rm -rf "$target.part"
  mkdir "$target.part"
  download() { (cd "$target.part" && apt-get download -qq prometheus) >"$cache/prometheus.log" 2>&1; }
  if ! download && [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq >"$cache/prometheus.log" 2>&1 || true
    download || true
  fi
  package=$(find "$target.part" -name 'prometheus_*.deb')
  [ -n "$package" ] || { cat "$cache/prometheus.log" >&2; fail "apt-get download prometheus failed; without root, somebody has to run apt-get update first"; }
  dpkg-deb -x "$package" "$target.part"
  rm -rf "$target" "$package"
  mv "$target.part" "$target"
fi
echo "$target/usr/bin"
