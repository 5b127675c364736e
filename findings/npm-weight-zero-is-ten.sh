#!/usr/bin/env bash
# One weighted round robin takes weight 0 for 10, another one takes its turns by chance.
#
# Programs: weighted-round-robin 2.0.2, wrr 1.0.0, wrr-pool 1.1.4 (npm), 1,100 picks.
# Guess:    shares go by weight, weight 0 gets nothing, and equal weights take turns.
# Seen:     weighted-round-robin takes 0 for "not given", which is 10: of weights 0 and 1 the server with
#           0 gets ten of eleven. wrr draws by chance, so that one of two equal servers comes many times
#           in a row, and counts a weight by whole steps, so that 0.5 and 0.1 are 1 and 1. wrr-pool is
#           as guessed.
# Output:   weights 0 and 1        weighted-round-robin 1000 : 100, wrr and wrr-pool 0 : 1100
#           weights 0.5 and 0.1    wrr about 550 : 550
#           weights 1 and 1        longest run in wrr above 3, in the others 1
# Means:    a client that drains a server by weight 0 sends it nearly everything: remove the server from
#           the list. The balancer sees the bursts of the other one as uneven load.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" weighted-round-robin@2.0.2 wrr@1.0.0 wrr-pool@1.1.4 >/dev/null
cd "$T" && node -e '
const Peers = require("weighted-round-robin"), wrr = require("wrr"), Pool = require("wrr-pool");
const makers = {
  "weighted-round-robin": (weights) => {
    const peers = new Peers();
    weights.forEach((weight, item) => peers.add({ item, weight }));
    return () => peers.get().item;
  },
  wrr: (weights) => wrr(weights.map((weight, item) => ({ item, weight }))),
  "wrr-pool": (weights) => {
    const pool = new Pool();
    weights.forEach((weight, item) => pool.add(item, weight));
    return () => pool.next();
  },
};
function picks(name, weights) {
  const next = makers[name](weights), seen = Array.from({ length: 1100 }, next);
  let longest = 0, run = 0;
  seen.forEach((item, i) => { run = item === seen[i - 1] ? run + 1 : 1; longest = Math.max(longest, run); });
  const first = seen.filter((item) => item === 0).length;
  console.log(name.padEnd(22), `weights ${weights.join(" and ")}`.padEnd(20), `${first} : ${1100 - first}, longest run ${longest}`);
  return { first, longest };
}
const zero = Object.keys(makers).map((name) => picks(name, [0, 1]).first);
const equal = Object.keys(makers).map((name) => picks(name, [1, 1]).longest);
const parts = picks("wrr", [0.5, 0.1]).first;
const held = zero[0] === 1000 && zero[1] === 0 && zero[2] === 0 && equal[0] === 1 && equal[1] > 3 && equal[2] === 1
  && parts > 450 && parts < 650;
process.exit(held ? 0 : 1);
'
