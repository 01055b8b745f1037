#!/usr/bin/env bash
# Brings nginx into the cache, from Debian's package, and prints where its program is. The package is unpacked there and not installed:
# nothing of it is started, and root is not needed. An nginx that is here already is taken as it is.
#   CUTOVER_NGINX   the program, instead
#   CUTOVER_CACHE   where (default: $XDG_CACHE_HOME/cutover or ~/.cache/cutover)
set -euo pipefail
cache=${CUTOVER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cutover}
target=$cache/nginx
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

for program in "${CUTOVER_NGINX:-}" "$(command -v nginx || true)" /usr/sbin/nginx; do
  [ -n "$program" ] && [ -x "$program" ] && { echo "$program"; exit; }
done
[ -z "${CUTOVER_NGINX:-}" ] || fail "no program $CUTOVER_NGINX"
mkdir -p "$cache"
exec 9>"$cache/nginx.lock"
flock 9
if [ ! -x "$target/usr/sbin/nginx" ]; then
  command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "nginx comes from Debian's package, and there is no apt-get here: install it in your system's way, or name the program in CUTOVER_NGINX"
  echo "setup: nginx, from Debian's packages, some seconds" >&2
  rm -rf "$target.part"
  mkdir "$target.part"
  download() { (cd "$target.part" && apt-get download -qq nginx) >"$cache/nginx.log" 2>&1; }
  if ! download && [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq >"$cache/nginx.log" 2>&1 || true
    download || true
  fi
  package=$(find "$target.part" -name 'nginx_*.deb')
  [ -n "$package" ] || { cat "$cache/nginx.log" >&2; fail "apt-get download nginx failed; without root, somebody has to run apt-get update first"; }
  dpkg-deb -x "$package" "$target.part"
  rm -rf "$target" "$package"
  mv "$target.part" "$target"
fi
echo "$target/usr/sbin/nginx"
