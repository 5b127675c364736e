#!/usr/bin/env bash
# API documentation; a broken link is an error.
set -euo pipefail
cd "$(dirname "$0")/.."

RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items --lib
