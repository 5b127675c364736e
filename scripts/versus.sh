#!/usr/bin/env bash
# evenkeel beside HAProxy, nginx, Envoy and a bare relay: installs, builds, measures.
# The arguments are those of benches/versus/versus.py. Needs two cores, root, and a quiet machine.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-versus-tools.sh
# One after the other: together, the features that only tests need would be built into both.
cargo build --release --locked
cargo build --release --locked --examples
exec python3 benches/versus/versus.py "$@"
