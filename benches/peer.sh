#!/usr/bin/env bash
# Cutover as one of the peers of the side-by-side bench (`shared/bench`, beside the repository): makes a configuration of the BENCH_… variables
# that the harness sets, and serves it. From the folder of that bench, after `sh setup.sh` there and `make build` here:
#   python3 bench.py --add "ours=$REPO/benches/peer.sh" --job jwt --set-pct 'write {DIR}/live/V2_ROLLOUT_PERCENTAGE {PCT}' \
#     --only direct,relay,haproxy,pingora,ours
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$BENCH_DIR/live"
printf '%s' "$BENCH_PCT" > "$BENCH_DIR/live/V2_ROLLOUT_PERCENTAGE"
cat > "$BENCH_DIR/cutover.toml" <<TOML
listen = "127.0.0.1:$BENCH_HTTP"
workers = ${BENCH_THREADS:-1}
[tls]
listen = "127.0.0.1:$BENCH_HTTPS"
cert = "$BENCH_CERT"
key = "$BENCH_KEY"
[admin]
listen = "127.0.0.1:$BENCH_ADMIN"
[projects.old]
url = "http://127.0.0.1:$BENCH_OLD"
host = "$BENCH_OLD_HOST"
anon_key = "$BENCH_OLD_APIKEY"
[projects.new]
url = "http://127.0.0.1:$BENCH_NEW"
host = "$BENCH_NEW_HOST"
anon_key = "$BENCH_NEW_APIKEY"
[rollout]
anonymous = "old"
watch_dir = "$BENCH_DIR/live"
audit_file = ""
[routes]
functions = "old"
[log]
access = false
[schema.tables]
$(tr ',' '\n' <<< "$BENCH_TABLE" | sed -E 's/^([^=]+)=(.*)$/\1 = "\2"/')
TOML
exec "$here/../target/release/cutover" serve --config "$BENCH_DIR/cutover.toml"
