#!/usr/bin/env bash
# Sessions of every kind for 10 minutes (or as many seconds as the argument says); the faults with
# GRO, GSO and TSO on; a million sessions over every kind of link unless EVENKEEL_SESSIONS says
# otherwise; clients of 2^20 prefixes; a report at the end. Needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-test-tools.sh
log="$(mktemp)"
trap 'rm -f "$log"' EXIT
run() {
  # No runner: it would end what takes so long.
  cargo test --locked --features interop --test netns -- --test-threads 1 --nocapture "$@" | tee -a "$log"
}
status=0
EVENKEEL_SOAK="${1:-600}" run --exact rest::soak || status=1
# The faults once more, with large packets.
EVENKEEL_OFFLOADS=1 run faulty_ || status=1
EVENKEEL_SESSIONS="${EVENKEEL_SESSIONS:-1000000}" run integrity:: || status=1
EVENKEEL_SOURCES="${EVENKEEL_SOURCES:-1048576}" run --exact sources::very_many_prefixes || status=1

printf '\n== report\n'
# A run that reported nothing has shown nothing.
grep '^soak: ' "$log" || { echo 'no report of the soak'; status=1; }
sed -n 's/^.*{"bytes":\([0-9]*\),"case":"\([^"]*\)","failures":\([0-9]*\),.*"seconds":\([0-9]*\).*"sessions":\([0-9]*\)}$/\2: \5 sessions, \3 failures, \1 bytes, \4 s/p' "$log" |
  awk '!/^(soak|warm-up)/ { print; cases++ } END { exit !cases }' ||
  { echo 'no report of the integrity cases'; status=1; }
grep '^sources: ' "$log" || { echo 'no report of the many prefixes'; status=1; }
exit "$status"
