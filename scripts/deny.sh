#!/usr/bin/env bash
# Licences, bans and sources of what is linked in. Advisories need a database from the network and
# are looked at where there is one: `cargo deny check advisories`.
set -euo pipefail
cd "$(dirname "$0")/.."

# A build fetches what this platform needs; cargo deny looks at all platforms.
cargo fetch --locked --quiet
cargo deny --locked --offline check licenses bans sources
