#!/usr/bin/env bash
# The compiler of fuzz/run.sh (RUSTC_WRAPPER): our own crates are built for libFuzzer, everybody else's as `cargo test` builds them, so
# that those are compiled once for both. A flag in RUSTFLAGS would be another build of each of them.
set -euo pipefail

case " $* " in
  *" --crate-name cutover "* | *" fuzz_targets/"*)
    # What cargo-fuzz passes, without a sanitizer: the code forbids unsafe, so that panics, hangs and broken laws are what is to be found.
    set -- "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$@"
