#!/usr/bin/env bash
# Makes docs/console-*.png again, with real traffic of both sides in them. Takes six minutes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$here/setup.sh" --browser
exec "$here/node_modules/.bin/node" "$here/lib/screenshots.mjs" "$@"
