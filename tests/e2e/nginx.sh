#!/usr/bin/env bash
# Prints where nginx's program is: one that is here already is taken as it is, else Debian's package is brought into the cache.
#   CUTOVER_NGINX   the program, instead
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

for program in "${CUTOVER_NGINX:-}" "$(command -v nginx || true)" /usr/sbin/nginx; do
  [ -n "$program" ] && [ -x "$program" ] && { echo "$program"; exit; }
done
[ -z "${CUTOVER_NGINX:-}" ] || { echo "setup: no program $CUTOVER_NGINX" >&2; exit 1; }
unpacked=$("$here/../debian.sh" nginx usr/sbin/nginx "install it in your system's way, or name the program in CUTOVER_NGINX")
echo "$unpacked/usr/sbin/nginx"
