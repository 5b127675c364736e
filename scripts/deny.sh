#!/usr/bin/env bash
# Licences, bans and sources of what is linked in. Advisories need a database from the network and
# are looked at where there is one: `cargo deny check advisories`.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo deny --locked --offline check licenses bans sources
