#!/usr/bin/env bash
# A TOML file that JavaScript reads and writes has integers where floats were, and may be refused.
#
# Programs: smol-toml 1.4.2, @iarna/toml 2.2.5, @ltd/j-toml 1.38.0 (npm); Python's tomllib to read.
# Guess:    read and written without a change a file means the same. TOML's integers and floats are
#           two types, and its integers have 64 bits.
# Seen:     "2.0" comes back as "2" from smol-toml and @iarna/toml, for JavaScript has one kind of
#           number; j-toml keeps it. An integer above 2^53 is an error for smol-toml: the file cannot
#           be read at all. @iarna/toml keeps it, and writes it with underscores.
# Output:   smol-toml    2.0 -> int 2      2^53+1: refused
#           @iarna/toml  2.0 -> int 2      2^53+1: kept
#           @ltd/j-toml  2.0 -> float 2.0  2^53+1: kept
# Means:    a deployment script that sets one key of a balancer's file turns load_factor = 2.0 into
#           2, which a reader that wants a float refuses at the next reload; 1.25 goes well for
#           months before. And a 64-bit seed, allowed by the format, locks such tools out: keep it
#           below 2^53.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" smol-toml@1.4.2 @iarna/toml@2.2.5 @ltd/j-toml@1.38.0 >/dev/null
cd "$T" && cat >convert.js <<'EOF'
const iarna = require("@iarna/toml"), j = require("@ltd/j-toml"), fs = require("fs");
(async () => {
  const smol = await import("smol-toml");
  const tools = {
    "smol-toml": (text) => smol.stringify(smol.parse(text)),
    "@iarna/toml": (text) => iarna.stringify(iarna.parse(text)),
    "@ltd/j-toml": (text) => j.stringify(j.parse(text, { joiner: "\n", bigint: true }), { newline: "\n" }),
  };
  for (const [name, convert] of Object.entries(tools)) {
    for (const text of ["x = 2.0\n", "x = 9007199254740993\n"]) {
      let out = "";
      try { out = convert(text); } catch {}
      console.log(JSON.stringify([name, out]));
    }
  }
})();
EOF
node convert.js >converted
python3 - <<'EOF'
import json, sys, tomllib
lines = [json.loads(line) for line in open("converted")]
seen = []
for (name, small), (_, big) in zip(lines[::2], lines[1::2]):
    two = tomllib.loads(small)["x"]
    kept = "refused" if not big else "kept" if tomllib.loads(big)["x"] == 2**53 + 1 else "changed"
    seen.append((type(two).__name__, kept))
    print(f"{name:13}2.0 -> {type(two).__name__ + ' ' + str(two):11}2^53+1: {kept}")
sys.exit(seen != [("int", "refused"), ("int", "kept"), ("float", "kept")])
EOF
