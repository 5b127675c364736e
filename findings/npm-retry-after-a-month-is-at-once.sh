#!/usr/bin/env bash
# "Come back in 30 days" is answered within a blink: JavaScript's timers end at 24.8 days.
#
# Programs: got 14.6.6, axios 1.21.1 with axios-retry 4.5.0, ky 1.14.3, undici 7.30.2 (npm); Node 20.
#           A server that answers every GET with 503 and Retry-After: 2592000 (30 days), or the date.
# Guess:    a client waits that long, or gives up; none asks again at once.
# Seen:     got and axios-retry hand the time to setTimeout, which takes 2^31 - 1 ms at most and fires
#           after 1 ms if it is given more: all tries are made within milliseconds, whether the header
#           has seconds or a date. ky waits; undici waits its own 30 s. (Below the limit got and
#           axios-retry wait, too, and undici comes before the time if that is above 30 s.)
# Output:   asked within 2 s      got   axios-retry   ky   undici
#           20 days in seconds      1             1    1        1
#           30 days in seconds      3             3    1        1
#           30 days as a date       3             3    1        1
# Means:    a long Retry-After, as for a blocked account or a closed interface, makes three requests of
#           one, each perhaps a connection. Send less than 24 days; 86400 says the same.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" \
  got@14.6.6 axios@1.21.1 axios-retry@4.5.0 ky@1.14.3 undici@7.30.2 >/dev/null
cat >"$T/ask.mjs" <<'EOF'
import http from "node:http";
import got from "got";
import ky from "ky";
import axios from "axios";
import axiosRetry from "axios-retry";
import { Agent, RetryAgent, request } from "undici";
const patient = axios.create();
axiosRetry(patient, { retries: 2 });
const clients = {
  got: (url) => got(url, { retry: { limit: 2 } }),
  "axios-retry": (url) => patient.get(url),
  ky: (url) => ky(url, { retry: { limit: 2 } }),
  undici: (url) => request(url, { dispatcher: new RetryAgent(new Agent(), { maxRetries: 2 }) }),
};
async function asked(client, after) {
  let count = 0;
  const server = http.createServer((_, answer) => {
    count += 1;
    answer.writeHead(503, { "Retry-After": after() });
    answer.end();
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  client(`http://127.0.0.1:${server.address().port}/`).catch(() => {});
  await new Promise((later) => setTimeout(later, 2000));
  return count;
}
const day = 86400;
const rows = {
  "20 days in seconds": () => `${20 * day}`,
  "30 days in seconds": () => `${30 * day}`,
  "30 days as a date": () => new Date(Date.now() + 30 * day * 1000).toUTCString(),
};
console.log("asked within 2 s".padEnd(20), ...Object.keys(clients).map((name) => name.padStart(12)));
const seen = [];
for (const [what, after] of Object.entries(rows)) {
  const counts = await Promise.all(Object.values(clients).map((client) => asked(client, after)));
  seen.push(counts.join());
  console.log(what.padEnd(20), ...counts.map((count) => `${count}`.padStart(12)));
}
process.exit(seen.join(" ") === "1,1,1,1 3,3,1,1 3,3,1,1" ? 0 : 1);
EOF
cd "$T" && node --no-warnings ask.mjs
