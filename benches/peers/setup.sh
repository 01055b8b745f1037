#!/usr/bin/env bash
# Installs the peers and the generators by package name (apt, pip, cargo) and builds the two small Rust programs. Safe to run again: what is there
# stays. QUICK=1: only what `make bench QUICK=1` measures. Everything that is not a system package goes to LAB (default: peers/ in cargo's target).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LAB=${LAB:-${CARGO_TARGET_DIR:-$here/../../target}/peers}
mkdir -p "$LAB"
LAB=$(cd "$LAB" && pwd)

say() { if [ -t 2 ]; then echo "peers: $*" >&2; fi; }

need=(nginx-light haproxy wrk nghttp2-client strace openssl util-linux cmake make gcc g++ pkg-config)
if [ -z "${QUICK:-}" ]; then
  need+=(libnginx-mod-http-js libnginx-mod-http-set-misc libnginx-mod-http-ndk libnginx-mod-http-lua)
  python3 -c 'import ensurepip, venv' 2>/dev/null || need+=(python3-venv)
fi
if command -v dpkg >/dev/null && command -v apt-get >/dev/null; then
  missing=()
  for package in "${need[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    say "installing ${missing[*]}"
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    # RUNLEVEL=1 keeps the packages from starting nginx and haproxy as services.
    { "${root[@]}" apt-get update -qq &&
      "${root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"; } >"$LAB/apt.log" 2>&1 ||
      { tail -5 "$LAB/apt.log" >&2; echo "peers: apt could not install ${missing[*]}" >&2; exit 1; }
  fi
else
  echo "peers: no apt here: install these in your system's way; a peer whose program is missing is left out: ${need[*]}" >&2
fi

if [ -z "${QUICK:-}" ]; then
  [ -x "$LAB/venv/bin/pip" ] || python3 -m venv "$LAB/venv"
  "$LAB/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi

for program in tools pingora; do
  say "building $program"
  (cd "$here/$program" && CARGO_TARGET_DIR=$LAB/target cargo build --release --locked --quiet)
done
