#!/usr/bin/env bash
# Brings a Debian package into the cache and prints the folder that it was unpacked in. It is not installed: nothing of it is started, and
# root is not needed.
#   tests/debian.sh PACKAGE PROGRAM HINT    PROGRAM: a path in the package that shows that it is here; HINT: what to do where there is no apt-get
#   CUTOVER_CACHE   where (default: $XDG_CACHE_HOME/cutover or ~/.cache/cutover)
set -euo pipefail
name=$1 program=$2 hint=$3
cache=${CUTOVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cutover}
target=$cache/$name
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

mkdir -p "$cache"
exec 9>"$cache/$name.lock"
flock 9
if [ ! -x "$target/$program" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "$name comes from Debian's package, and there is no apt-get here: $hint"
  echo "setup: $name, from Debian's packages, some seconds" >&2
  rm -rf "$target.part"
  mkdir "$target.part"
  download() { (cd "$target.part" && apt-get download -qq "$name") >"$cache/$name.log" 2>&1; }
  if ! download && [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq >"$cache/$name.log" 2>&1 || true
    download || true
  fi
  package=$(find "$target.part" -name "${name}_*.deb")
  [ -n "$package" ] || { cat "$cache/$name.log" >&2; fail "apt-get download $name failed; without root, somebody has to run apt-get update first"; }
  dpkg-deb -x "$package" "$target.part"
  rm -rf "$target" "$package"
  mv "$target.part" "$target"
fi
echo "$target"
