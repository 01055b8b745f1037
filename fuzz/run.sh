#!/usr/bin/env bash
# Runs every fuzz target for a while: fuzz/run.sh [seconds for each, default 600] [target …]
# libFuzzer with coverage, built by the pinned stable toolchain: nothing to install. A finding ends the run, and its input is in fuzz/artifacts/.
# With cargo-fuzz and a nightly toolchain the same targets run as usual: cargo fuzz run token
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

seconds="${1:-600}"
shift || true
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  targets=()
  for file in fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

# What cargo-fuzz passes, without a sanitizer: the code forbids unsafe, so that panics and hangs are what is to be found.
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=16"
host="$(rustc -vV | sed -n 's/^host: //p')"
target_dir="${CARGO_TARGET_DIR:-../target}/fuzz"
RUSTFLAGS="$(echo $flags)" CARGO_TARGET_DIR="$target_dir" cargo build --release --locked --target "$host" --bins

for target in "${targets[@]}"; do
  mkdir -p "corpus/$target" "artifacts/$target"
  found="$(mktemp -d)"
  echo "fuzz: $target for $seconds s"
  # New inputs go to a folder of their own: what is in corpus/ was chosen.
  "$target_dir/$host/release/$target" "$found" "corpus/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=8192 -artifact_prefix="artifacts/$target/" -print_final_stats=1 -verbosity=0 2>&1 | grep -E "^(==|SUMMARY|thread|artifact|stat::number_of|stat::peak|  )|panicked|Test unit" || true
  status="${PIPESTATUS[0]}"
  rm -rf "$found"
  if [ "$status" -ne 0 ]; then echo "fuzz: $target found something: fuzz/artifacts/$target/" >&2; exit "$status"; fi
done
