#!/usr/bin/env bash
# What a change must pass and what needs no program but cargo.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/lint.sh
scripts/doc.sh
cargo test --locked
