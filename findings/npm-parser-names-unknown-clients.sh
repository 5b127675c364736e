#!/usr/bin/env bash
# @balena/proxy-protocol-parser finds addresses where PROXY UNKNOWN and LOCAL name nobody.
#
# Program:  @balena/proxy-protocol-parser 1.0.2 (npm).
# Guess:    for "PROXY UNKNOWN\r\n" and for LOCAL it returns no address, so that the socket's counts.
# Seen:     UNKNOWN is taken for IPv6, and the parser goes on over the end of the line: the client's
#           address is the text "\r\n", the local one "GET". UNKNOWN and LOCAL with addresses, as a
#           balancer's own probe may have them, give those. Only LOCAL without any is empty.
# Output:   v1 TCP4                 "192.0.2.1" port 1111
#           v1 UNKNOWN              "\r\n" port null
#           v1 UNKNOWN, addresses   "192.0.2.1" port 1111
#           v2 LOCAL                undefined port undefined
#           v2 LOCAL, addresses     "192.0.2.1" port 1111
# Means:    logs and limits of such a service see a client whose name is a line's end when a
#           balancer in front probes with UNKNOWN, or has clients of a Unix socket.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" @balena/proxy-protocol-parser@1.0.2 >/dev/null
cd "$T" && node -e '
const { decode } = require("@balena/proxy-protocol-parser");
const addresses = Buffer.from([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 0, 80]);
const one = (line) => Buffer.from(line + "\r\nGET / HTTP/1.0\r\n\r\n");
function local(family, body) {
  const head = Buffer.from("\r\n\r\n\0\r\nQUIT\n....", "latin1");
  head[12] = 0x20; head[13] = family; head.writeUInt16BE(body.length, 14);
  return Buffer.concat([head, body, Buffer.from("GET / HTTP/1.0\r\n\r\n")]);
}
const seen = Object.entries({
  "v1 TCP4": one("PROXY TCP4 192.0.2.1 192.0.2.2 1111 80"),
  "v1 UNKNOWN": one("PROXY UNKNOWN"),
  "v1 UNKNOWN, addresses": one("PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80"),
  "v2 LOCAL": local(0, Buffer.alloc(0)),
  "v2 LOCAL, addresses": local(0x11, addresses),
}).map(([what, header]) => [what, decode(header)]);
for (const [what, { remoteAddress, remotePort }] of seen) {
  console.log(`${what.padEnd(24)}${JSON.stringify(remoteAddress)} port ${JSON.stringify(remotePort)}`);
}
const wanted = JSON.stringify(["192.0.2.1", "\r\n", "192.0.2.1", null, "192.0.2.1"]);
process.exit(JSON.stringify(seen.map(([, found]) => found.remoteAddress ?? null)) === wanted ? 0 : 1);
'
