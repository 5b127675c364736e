#!/usr/bin/env bash
# cacheable-lookup gives the first address of a name to all connections for as long as the answer is cached.
#
# Program:  cacheable-lookup 7.0.0 (npm; what got's dnsCache uses), Node 20; a name server on loopback that turns its
#           three addresses round in every answer.
# Guess:    a cache of DNS answers hands the addresses out in turn, as caching name servers do, or draws.
# Seen:     lookup() takes the first of the cached answer each time. Only the name server's turning shows, once in a time
#           to live, and in every lookup with 0.
# Output:   time to live 60     asked 1       addresses 60, 0, 0
#           time to live 0      asked 60      addresses 20, 20, 20
# Means:    a process connects to one of the balancers behind a name, with all its connections, for the whole time to
#           live: few processes with many connections load them unevenly, and switch together. A short time to live at
#           such names, or lookup with { all: true } and a choice of one's own.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" cacheable-lookup@7.0.0 >/dev/null
cat >"$T/ask.mjs" <<'EOF'
import dgram from "node:dgram";
import { Resolver } from "node:dns/promises";
import CacheableLookup from "cacheable-lookup";
const A = 1, IN = 1;
let ttl, asked = 0;
function record(last) {
  const bytes = Buffer.alloc(16);
  [0xc00c, A, IN].forEach((number, i) => bytes.writeUInt16BE(number, 2 * i));  // the name that was asked for
  bytes.writeUInt32BE(ttl, 6);
  bytes.writeUInt16BE(4, 10);
  bytes.set([10, 0, 0, last], 12);
  return bytes;
}
const names = dgram.createSocket("udp4").on("message", (query, from) => {
  let end = 12;
  while (query[end] !== 0) end += query[end] + 1;
  const answers = [];
  if (query.readUInt16BE(end + 1) === A) {
    for (let i = 0; i < 3; i += 1) answers.push(record(1 + ((asked + i) % 3)));
    asked += 1;
  }
  const head = Buffer.from(query.subarray(0, 12));
  [0x8580, 1, answers.length, 0, 0].forEach((number, i) => head.writeUInt16BE(number, 2 + 2 * i));
  names.send(Buffer.concat([head, query.subarray(12, end + 5), ...answers]), from.port, from.address);
});
await new Promise((bound) => names.bind(0, "127.0.0.1", bound));
async function run(seconds) {
  ttl = seconds;
  asked = 0;
  const resolver = new Resolver();
  resolver.setServers([`127.0.0.1:${names.address().port}`]);
  const cache = new CacheableLookup({ resolver });
  const counts = [0, 0, 0];
  for (let i = 0; i < 60; i += 1) {
    const { address } = await cache.lookupAsync("balancers.test");
    counts[Number(address.split(".").pop()) - 1] += 1;
  }
  console.log(`time to live ${seconds}`.padEnd(19), `asked ${asked}`.padEnd(13), `addresses ${counts.join(", ")}`);
  return [asked, ...counts].join();
}
const cached = await run(60), uncached = await run(0);
process.exit(cached === "1,60,0,0" && uncached === "60,20,20,20" ? 0 : 1);
EOF
cd "$T" && node ask.mjs
