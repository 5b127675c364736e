#!/usr/bin/env bash
# Ordinary edits with tomlkit are lost, or move other keys, when the file is written.
#
# Program:  tomlkit 0.15.2 (PyPI), read again with Python's tomllib. Files like a balancer's: pools whose
#           tables are not next to each other, arrays of tables, keys with a dot.
# Guess:    what the document says after an edit is what is written (it behaves as dict and list do).
# Seen:     four edits miss, three of them silently. Some fifty others, as setting, deleting and
#           appending, were right.
# Output:   sort an array of tables                   written unsorted
#           swap two tables of it by a slice          not TOML any more
#           a table under a key with a dot            made at the top, and takes its neighbours' keys
#           setdefault of a pool, then a key in it    the pool is written without the key
# Means:    a script that edits configs keeps the comments and may still take settings away. Read what
#           was written again and compare it with what was meant before the balancer is reloaded.
set -euo pipefail

T=$(mktemp -d); PIDS=()
stop() { for p in "${PIDS[@]}"; do kill "$p" 2>/dev/null || :; done; wait 2>/dev/null || :; rm -rf "$T"; }
trap stop EXIT

python3 -m pip install -q --disable-pip-version-check --root-user-action ignore --target "$T/py" tomlkit==0.15.2
PYTHONPATH=$T/py python3 - <<'EOF'
import sys, tomlkit, tomllib
BACKENDS = """[[backend]]
address = "b"
[[backend]]
address = "a"
"""
DOTTED = """[defaults]
health.interval = "2s"
health.fall = 3
"""
POOLS = """[pool.web]
balance = "p2c"
[listener.one]
pool = "web"
[pool.db]
balance = "roundrobin"
[listener.two]
pool = "db"
[pool.web.health]
interval = "2s"
"""
def sort(d): d["backend"].sort(key=lambda backend: backend["address"])
def swap(d): d["backend"][:] = [d["backend"][1], d["backend"][0]]
def append(d): d["backend"].append({"address": "c"})
def under(d): d["defaults"]["health"]["http"] = {"path": "/"}
def default(d): d["pool"].setdefault("new", {})["balance"] = "p2c"
def change(d): d["pool"]["web"]["health"]["interval"] = "9s"
def written(edit, text):
    wanted, document = tomllib.loads(text), tomlkit.parse(text)
    edit(wanted)
    edit(document)
    try: found = tomllib.loads(tomlkit.dumps(document))
    except tomllib.TOMLDecodeError: return "not TOML any more"
    if found == wanted: return "right"
    return f"written as {found}"
cases = [(append, BACKENDS), (change, POOLS), (sort, BACKENDS), (swap, BACKENDS), (under, DOTTED), (default, POOLS)]
seen = [written(edit, text) for edit, text in cases]
for (edit, _), result in zip(cases, seen): print(f"{edit.__name__:10}{result}")
sys.exit([s == "right" for s in seen] != [True] * 2 + [False] * 4)
EOF
