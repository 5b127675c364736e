#!/usr/bin/env bash
# scripts/fuzz.sh [SECONDS] [TARGET]: each fuzz target, or one of them, for that long (60 s).
#
# On the stable toolchain: without a sanitizer, which would need nightly. evenkeel has `unsafe` in
# one directory only, and none of the targets reaches it. Needs a C++ compiler for libFuzzer.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds="${1:-60}"
targets="${2:-admin config identity import limiter relay}"

cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --debug cargo-fuzz --version 0.13.2

for target in $targets; do
  # What a run finds is kept for the next one; fuzz/corpus is small, reaches far and is committed.
  found="fuzz/found/$target"
  mkdir -p "$found"
  seeds="fuzz/corpus/$target"
  # Files that people wrote reach further than random bytes.
  [ "$target" != config ] || seeds="$seeds configs tests/config/valid tests/config/invalid"
  [ "$target" != import ] || seeds="tests/import/haproxy tests/import/nginx"
  # shellcheck disable=SC2086 # words, not one name
  cargo fuzz run -s none "$target" "$found" $seeds -- \
    -max_total_time="$seconds" -timeout=10 -print_final_stats=1
done
