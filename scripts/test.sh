#!/usr/bin/env bash
# Everything CI runs, cheapest first. Needs Rust, gcc and, to install the rest, root and apt-get.
set -euo pipefail
cd "$(dirname "$0")/.."

step() {
  printf '\n== %s (%d s so far)\n' "$*" "$SECONDS"
  "$@"
}

step scripts/install-test-tools.sh
step scripts/lint.sh
step scripts/doc.sh
step scripts/deny.sh
everything=(--locked --all-features --profile ci)
if [ "$(id -u)" != 0 ]; then
  echo "not root: tests in network namespaces are left out" >&2
  everything+=(-E 'not binary(netns)')
fi
step env EVENKEEL_SCHEDULES=1000000 cargo nextest run "${everything[@]}"
step scripts/loom.sh
# Another part of the known faults with each commit, the same at each run of one.
parts=8
step scripts/controls.sh --part "$((0x$(git rev-parse --short=7 HEAD) % parts + 1))/$parts"
step cargo test --locked --doc --quiet
printf '\n== all passed in %d s\n' "$SECONDS"
