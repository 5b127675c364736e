#!/usr/bin/env bash
# Models of the lock-free code, explored by loom. Other flags, so a target directory of its own:
# else everything would be built anew at each change between the two.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg evenkeel_loom"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
# Optimized, but not as a release: linking for minutes would gain nothing here.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
models=()
for model in tests/loom_*.rs; do
  models+=(--test "$(basename "$model" .rs)")
done
cargo test --locked --release "${models[@]}"
