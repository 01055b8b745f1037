#!/usr/bin/env bash
# What the image would be, without Docker: builds its program from the files that .dockerignore lets through, and checks that it is static,
# small, and serves in an empty root.
#   tests/image/check.sh            builds first (minutes)
#   tests/image/check.sh --build    only builds
#   tests/image/check.sh PROGRAM    checks this one
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
limit=$((30 * 1024 * 1024))
fail() { printf 'image: %s\n' "$*" >&2; exit 1; }

for tool in readelf unshare openssl python3; do
  command -v "$tool" >/dev/null || fail "$tool is needed and was not found"
done

program=${1:-}
[ "$program" != --build ] || program=
if [ -z "$program" ]; then
  target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
  context=$target/image-context
  rm -rf "$context" && mkdir -p "$context"
  grep -q '^\*$' "$root/.dockerignore" || fail ".dockerignore is expected to leave out everything that it does not name"
  sed -n 's/^!//p' "$root/.dockerignore" | while read -r path; do (cd "$root" && cp -rp --parents "$path" "$context"); done
  program=$(CARGO_TARGET_DIR=$target "$context/tests/image/build.sh")
fi
[ "${1:-}" != --build ] || exit 0

readelf -lW "$program" | grep -q INTERP && fail "$program wants a dynamic loader"
readelf -dW "$program" 2>/dev/null | grep -q NEEDED && fail "$program needs shared libraries"
size=$(stat -c %s "$program")
[ "$size" -lt "$limit" ] || fail "$program has $size bytes, the limit is $limit"
printf 'image: static, %d.%d MB\n' $((size / 1000000)) $((size / 100000 % 10))
exec python3 "$here/empty_root.py" "$program"
