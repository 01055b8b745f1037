#!/usr/bin/env bash
# Holds both lock files to deny.toml, by cargo-deny: no second TLS library or crypto provider, no version twice without a reason, listed licences,
# crates.io alone; and no advisory, where their database can be reached (a git repository): where it can't, it says so and goes on.
#   CUTOVER_CARGO_DENY   a cargo-deny, instead of the one that setup.sh brings
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$here/../..
program=${CUTOVER_CARGO_DENY:-$("$here/setup.sh")}
# Errors alone: what only one of the two needs of the policy is no fault of the other's.
deny=("$program" --config "$root/deny.toml" --log-level error)

for manifest in Cargo.toml fuzz/Cargo.toml; do
  "${deny[@]}" --manifest-path "$root/$manifest" --locked check --hide-inclusion-graph bans licenses sources
done

# One that hangs is as good as one that is not there.
if ! said=$(timeout 60 "${deny[@]}" --manifest-path "$root/Cargo.toml" fetch db 2>&1); then
  echo "deny: the database of advisories can't be reached from here; bans, licences and sources are checked without it" >&2
  exit
fi
for manifest in Cargo.toml fuzz/Cargo.toml; do
  "${deny[@]}" --manifest-path "$root/$manifest" --locked check --disable-fetch advisories
done
