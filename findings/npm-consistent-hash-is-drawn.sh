#!/usr/bin/env bash
# npm's consistent-hash draws its circle at random: two processes agree on one client in three.
#
# Programs: consistent-hash 1.2.2 and hashring 3.2.0 (npm).
# Guess:    a consistent hash is a function of members and key: whoever lists the same members
#           finds the same one, in any order, as hashring does.
# Seen:     the points of a member are Math.random() unless the option "uniform" is given. Two rings
#           of the same three members agree by chance only. With uniform they agree, but every
#           weight is then ignored; without it a weight is a number of points, so that 1 and 3 are
#           four random points and no ratio.
# Output:   hashring, twice                        2000 of 2000 keys the same
#           consistent-hash, twice                 553 of 2000 (another number each time)
#           consistent-hash, uniform, twice        2000 of 2000
#           uniform, b with three times the points  998 of 2000 to b
# Means:    clients or proxies that pick a server by it, each for itself, spread a key over all
#           servers, and every restart is a cold start. It serves one process and nothing else.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" consistent-hash@1.2.2 hashring@3.2.0 >/dev/null
cd "$T" && node -e '
const Drawn = require("consistent-hash"), Ketama = require("hashring");
const members = ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"];
const keys = Array.from({ length: 2000 }, (_, n) => `client${n}`);
const drawn = (options) => members.reduce((ring, member) => (ring.add(member), ring), new Drawn(options));
const alike = (one, two) => keys.filter((key) => one.get(key) === two.get(key)).length;
const weighted = new Drawn({ distribution: "uniform" });
weighted.add("a", 40); weighted.add("b", 120);
const seen = [
  alike(new Ketama(members), new Ketama(members.slice().reverse())),
  alike(drawn(), drawn()),
  alike(drawn({ distribution: "uniform" }), drawn({ distribution: "uniform" })),
  keys.filter((key) => weighted.get(key) === "b").length,
];
console.log(`hashring, twice                        ${seen[0]} of 2000 keys the same
consistent-hash, twice                 ${seen[1]} of 2000
consistent-hash, uniform, twice        ${seen[2]} of 2000
uniform, b with three times the points ${seen[3]} of 2000 to b`);
process.exit(seen[0] === 2000 && seen[1] < 1500 && seen[2] === 2000 && seen[3] < 1250 ? 0 : 1);
'
