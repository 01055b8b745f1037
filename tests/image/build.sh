#!/usr/bin/env bash
# Builds the program that goes into the image, and prints where it is: optimised, without symbols, and static, so that it needs nothing
# around it. glibc itself is in it, and since 2.34 that reads /etc/hosts and asks DNS without loading anything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Named, so that the flag is for the program alone and not for what runs while it is built: macros can't be static.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="-C target-feature=+crt-static" ${CARGO:-cargo} build --locked --profile dist --bin cutover --target "$host" >&2
echo "${CARGO_TARGET_DIR:-$PWD/target}/$host/dist/cutover"
