#!/usr/bin/env bash
# service-agent gives the server with one tenth of the weight nine tenths of the requests.
#
# Program:  service-agent 4.0.2 (npm), Node 20; a name server on loopback that gives two SRV records of
#           one priority, always in the same order, and two HTTP servers.
# Guess:    requests are shared by the weights, as RFC 2782 has it: 9 and 1 give 90 and 10 %, two of 100
#           a half each, and two of 0 (the usual "no weights") likewise.
# Seen:     the record after the right one is taken, so that weights 9 and 1 are turned round. Of equal
#           ones the first gets 1 in weight + 1, and with weight 0 all. Only 1 and 1 give halves.
# Output:   weights 9 and 1       about 10 : 90 %
#           weights 1 and 9       about 50 : 50 %
#           weights 100 and 100   about 1 : 99 %
#           weights 0 and 0       100 : 0 %
# Means:    services that are found by SRV (Consul, Kubernetes' headless services) are loaded by the
#           answer's order, and name servers that turn it hide that. Shares of the balancers' own
#           sessions that make no sense: look at the clients' resolver before the weights.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" service-agent@4.0.2 >/dev/null
cat >"$T/ask.cjs" <<'EOF'
const dgram = require("node:dgram"), dns = require("node:dns"), http = require("node:http");
const ServiceAgent = require("service-agent");
const SRV = 33;
let records = [];
function record([weight, port]) {
  const target = Buffer.from("\x09localhost\0", "latin1");
  const head = Buffer.alloc(18);
  // The name asked for, type, class IN, no time to live, length, priority 1, weight, port.
  [0xc00c, SRV, 1, 0, 0, 6 + target.length, 1, weight, port].forEach((n, i) => head.writeUInt16BE(n, 2 * i));
  return Buffer.concat([head, target]);
}
const names = dgram.createSocket("udp4").on("message", (query, from) => {
  let end = 12;
  while (query[end] !== 0) end += query[end] + 1;
  const answers = query.readUInt16BE(end + 1) === SRV ? records.map(record) : [];
  const head = Buffer.from(query.subarray(0, 12));
  [0x8480, 1, answers.length, 0, 0].forEach((n, i) => head.writeUInt16BE(n, 2 + 2 * i));
  names.send(Buffer.concat([head, query.subarray(12, end + 5), ...answers]), from.port, from.address);
});
function server(name) {
  const s = http.createServer((_, answer) => answer.end(name));
  return new Promise((up) => s.listen(0, "localhost", () => up(s.address().port)));
}
function ask() {
  const agent = new ServiceAgent({ service: "_http._tcp." });
  return new Promise((done, failed) => {
    http.get({ host: "service.test", agent }, (answer) => {
      let body = "";
      answer.on("data", (part) => { body += part; }).on("end", () => done(body));
    }).on("error", failed);
  });
}
async function main() {
  await new Promise((bound) => names.bind(0, "127.0.0.1", bound));
  dns.setServers([`127.0.0.1:${names.address().port}`]);
  const ports = [await server("first"), await server("second")];
  const bounds = [[[9, 1], 4, 17], [[1, 9], 40, 60], [[100, 100], 0, 5], [[0, 0], 100, 100]];
  let held = true;
  for (const [weights, least, most] of bounds) {
    records = weights.map((weight, i) => [weight, ports[i]]);
    let first = 0;
    for (let i = 0; i < 400; i += 1) first += (await ask()) === "first";
    const share = first / 4;
    console.log(`weights ${weights.join(" and ")}`.padEnd(21), `${share.toFixed(0)} : ${(100 - share).toFixed(0)} %`);
    held = held && least <= share && share <= most;
  }
  process.exit(held ? 0 : 1);
}
main();
EOF
cd "$T" && node ask.cjs
