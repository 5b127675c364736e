#!/usr/bin/env bash
# Format and lints. Every feature, so that tests with other programs are looked at too.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo fmt --check
cargo fmt --check --manifest-path fuzz/Cargo.toml
cargo clippy --locked --all-targets --all-features -- -D warnings
