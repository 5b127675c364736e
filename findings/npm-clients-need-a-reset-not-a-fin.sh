#!/usr/bin/env bash
# Two clients that cope with a balancer that resets do not with one that accepts and closes with FIN.
#
# Programs: rhea 3.0.5 (AMQP 1.0) and memjs 1.3.2 (memcached) (npm), Node 20; a listener that ends every
#           connection at once, by FIN or by RST, as balancers do that have no server left.
# Guess:    FIN and RST before a first byte mean the same to a client: an error, and a pause that grows.
# Seen:     rhea's pause grows only after resets: a connection that was made and closed by FIN begins
#           the series anew, and it connects about ten times a second for as long as that goes on.
#           memjs reports a reset after two tries; after a FIN its get() never ends, though its time
#           limit is half a second, nor does the next one.
# Output:   rhea, FIN     30 or more connects in 6 s      memjs, FIN     pending after 6 s
#           rhea, RST     10 connects at most             memjs, RST     ECONNRESET within a second
# Means:    a balancer without servers ought to reset (or not to listen), not to close politely; a
#           server that is stopped behind one that passes its FIN on has the same clients.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" rhea@3.0.5 memjs@1.3.2 >/dev/null
cat >"$T/ask.cjs" <<'EOF'
const net = require("node:net"), { create_container } = require("rhea"), { Client } = require("memjs");
const clients = {
  rhea: (port) => {
    const container = create_container();
    for (const event of ["connection_error", "disconnected", "error"]) container.on(event, () => {});
    container.connect({ host: "127.0.0.1", port });
    return new Promise(() => {});
  },
  memjs: (port) => Client.create(`127.0.0.1:${port}`, { logger: { log() {} } }).get("key"),
};
async function run(client, end) {
  let connects = 0, result = "pending";
  const server = net.createServer((socket) => {
    connects += 1;
    socket.on("error", () => {});
    socket[end]();
  });
  await new Promise((up) => server.listen(0, "127.0.0.1", up));
  client(server.address().port).then(() => { result = "answered"; }, (error) => { result = error.message; });
  await new Promise((later) => setTimeout(later, 6000));
  return { connects, result };
}
async function main() {
  const [rheaFin, rheaReset, memFin, memReset] = await Promise.all([
    run(clients.rhea, "end"), run(clients.rhea, "resetAndDestroy"),
    run(clients.memjs, "end"), run(clients.memjs, "resetAndDestroy"),
  ]);
  console.log(`rhea, FIN    ${rheaFin.connects} connects\nrhea, RST    ${rheaReset.connects} connects`);
  console.log(`memjs, FIN   ${memFin.result}\nmemjs, RST   ${memReset.result.replace(/:\d+/, "")}`);
  const held = rheaFin.connects >= 30 && rheaReset.connects <= 10 && memFin.result === "pending" && /ECONNRESET/.test(memReset.result);
  process.exit(held ? 0 : 1);
}
main();
EOF
cd "$T" && node ask.cjs
