#!/usr/bin/env bash
# Compiles what `make test` needs beside the tests themselves (tests/beside.sh): a server for the end-to-end tests, which wait for it, and the
# programs that the image's check and the counter of instructions look at, which build nothing again. In the order in which they are needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests/e2e/setup.sh
tests/image/check.sh --build
benches/instructions/run.py --build
