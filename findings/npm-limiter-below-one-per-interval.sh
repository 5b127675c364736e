#!/usr/bin/env bash
# npm's limiter never lets anybody in at half a token a second, and says so in one of two calls only.
#
# Program:  limiter 3.0.0 (npm).
# Guess:    tokensPerInterval 0.5 with an interval of a second is one every two seconds.
# Seen:     tryRemoveTokens(1) is false for ever, without an error; removeTokens(1) throws "Requested
#           tokens 1 exceeds maximum tokens per interval 0.5". The same rate written as 1 per 2000 ms
#           works, and begins with one at once.
# Output:   0.5 per 1000 ms   tryRemoveTokens in 4.5 s: 0    removeTokens: Requested tokens 1 exceeds ...
#           1 per 2000 ms     tryRemoveTokens in 4.5 s: 3
# Means:    a rate per second that is computed (a quota divided by clients, say) locks everybody out
#           once it falls below 1. Rates below one in the unit have to be written as one in a longer
#           interval; so in Python's limits 5.8, whose parser refuses "0.5/second" at least.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" limiter@3.0.0 >/dev/null
cd "$T" && node -e '
const { RateLimiter } = require("limiter");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
async function admitted(options) {
  const limiter = new RateLimiter(options), end = Date.now() + 4500;
  let count = 0;
  for (; Date.now() < end; await sleep(20)) count += limiter.tryRemoveTokens(1);
  return count;
}
(async () => {
  const half = { tokensPerInterval: 0.5, interval: 1000 };
  const [never, some] = await Promise.all([admitted(half), admitted({ tokensPerInterval: 1, interval: 2000 })]);
  const said = await new RateLimiter(half).removeTokens(1).then(() => "passed", (error) => error.message);
  console.log(`0.5 per 1000 ms   tryRemoveTokens in 4.5 s: ${never}    removeTokens: ${said}`);
  console.log(`1 per 2000 ms     tryRemoveTokens in 4.5 s: ${some}`);
  process.exit(never === 0 && some === 3 && said.includes("exceeds") ? 0 : 1);
})();
'
