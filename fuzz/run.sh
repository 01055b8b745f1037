#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [seconds for each, default 600] [target …]
# libFuzzer with coverage, built by the pinned stable toolchain: nothing to install. As many targets at once as there are cores
# (FUZZ_JOBS). A finding ends the run, and its input is in fuzz/artifacts/.
#   fuzz/run.sh --merge   only the inputs of each corpus that reach what no other does (after fuzz/corpus.py)
# With cargo-fuzz and a nightly toolchain the same targets run as usual: cargo fuzz run token
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# One target, for those below.
if [ "${1:-}" = --one ]; then
  program="$2" target="$3" seconds="$4"
  mkdir -p "corpus/$target" "artifacts/$target"
  found="$(mktemp -d)"
  trap 'rm -rf "$found"' EXIT
  status=0
  # New inputs go to a folder of their own: what is in corpus/ was chosen.
  "$program" "$found" "corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=8192 \
    -artifact_prefix="artifacts/$target/" -print_final_stats=1 -verbosity=0 >"$found.log" 2>&1 || status=$?
  runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$found.log")"
  seeds="$(find "corpus/$target" -type f | wc -l)"
  echo "fuzz: $target: ${runs:-0} inputs in $seconds s, grown from $seeds"
  if [ "$status" -ne 0 ]; then
    # The law that was broken stands behind the word.
    grep -a -A 3 "panicked at" "$found.log" >&2 || tail -n 20 "$found.log" >&2
    echo "fuzz: $target found something: fuzz/artifacts/$target/" >&2
  fi
  rm -f "$found.log"
  exit "$status"
fi

if [ "${1:-}" = --merge-one ]; then
  program="$2" target="$3"
  kept="$(mktemp -d)"
  "$program" -merge=1 "$kept" "corpus/$target" >"$kept.log" 2>&1 || { tail -n 20 "$kept.log" >&2; exit 1; }
  rm -r "corpus/$target" "$kept.log"
  mv "$kept" "corpus/$target"
  chmod 755 "corpus/$target"
  echo "fuzz: $target: $(find "corpus/$target" -type f | wc -l) inputs, $(du -bs "corpus/$target" | cut -f1) bytes"
  exit
fi

do=--one
seconds="${1:-600}"
if [ "$seconds" = --merge ]; then do=--merge-one; fi
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# The tests' own target directory: all but our crates was built for them.
built="$(cd .. && mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)"
RUSTC_WRAPPER="$PWD/rustc.sh" CARGO_TARGET_DIR="$built" cargo build --locked --bins

printf '%s\n' "${targets[@]}" |
  xargs -P "${FUZZ_JOBS:-$(nproc)}" -I NAME "$PWD/run.sh" "$do" "$built/debug/NAME" NAME "$seconds"
