#!/usr/bin/env bash
# Format and lints. Every feature, so that tests with other programs are looked at too.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
cargo clippy --locked --all-targets --all-features -- -D warnings
# The fuzz targets are compiled and not linked: that needs neither libFuzzer nor a C++ compiler.
CUSTOM_LIBFUZZER_PATH=/nonexistent/libfuzzer.a cargo check --manifest-path fuzz/Cargo.toml
