#!/usr/bin/env bash
# Tests with programs of other projects, and in network namespaces (as root). Arguments go to
# nextest: a part of a test's name, say.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-test-tools.sh
cargo nextest run --locked --features interop --test interop --test netns "$@"
