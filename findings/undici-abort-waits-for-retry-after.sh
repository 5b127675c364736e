#!/usr/bin/env bash
# A request that is aborted while it waits for Retry-After ends only when the wait is over.
#
# Programs: undici 7.30.2 (request and fetch with a RetryAgent), got 14.6.6, ky 1.14.3, axios 1.21.1 with
#           axios-retry 4.5.0 (npm), Node 20. A server says 503 and Retry-After: 6; half a second
#           after it began, each request is aborted by its AbortSignal.
# Guess:    all end at once.
# Seen:     undici's request() goes on for the whole six seconds and ends with AbortError then (nothing
#           more is sent); its fetch() and the others end at once. Nor does headersTimeout cut the wait.
# Output:   undici request     AbortError after 6 s or a little more
#           undici fetch, got, ky, axios-retry     ended within 2 s
# Means:    a service that is shutting down, or has a time limit of its own for what it asks of others,
#           hangs for as long as the other side's header says, up to undici's limit of 30 s. Race the
#           request against the signal, or set maxTimeout.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" undici@7.30.2 got@14.6.6 ky@1.14.3 \
  axios@1.21.1 axios-retry@4.5.0 >/dev/null
cat >"$T/ask.mjs" <<'EOF'
import http from "node:http";
import axios from "axios";
import axiosRetry from "axios-retry";
import got from "got";
import ky from "ky";
import { Agent, RetryAgent, fetch, request } from "undici";
let asked = 0;
const server = http.createServer((_, answer) => {
  asked += 1;
  answer.writeHead(503, { "Retry-After": "6" });
  answer.end();
});
await new Promise((up) => server.listen(0, "127.0.0.1", up));
const url = `http://127.0.0.1:${server.address().port}/`;
const patient = axios.create();
axiosRetry(patient);
const dispatcher = new RetryAgent(new Agent());
const clients = {
  "undici request": (signal) => request(url, { signal, dispatcher }),
  "undici fetch": (signal) => fetch(url, { signal, dispatcher }),
  got: (signal) => got(url, { signal }),
  ky: (signal) => ky(url, { signal }),
  "axios-retry": (signal) => patient.get(url, { signal }),
};
const seen = await Promise.all(Object.entries(clients).map(async ([name, client]) => {
  const control = new AbortController(), start = Date.now();
  setTimeout(() => control.abort(), 500);
  const error = await client(control.signal).catch((e) => e);
  const seconds = (Date.now() - start) / 1000;
  console.log(name.padEnd(18), error.name, "after", seconds.toFixed(1), "s");
  return seconds;
}));
console.log("requests seen by the server:", asked);
process.exit(seen[0] >= 5.5 && seen.slice(1).every((seconds) => seconds < 4) && asked === 5 ? 0 : 1);
EOF
cd "$T" && node ask.mjs
