#!/usr/bin/env bash
# proxy-protocol-js hands the TLVs of version 2 to the application as the client's first bytes.
#
# Program:  proxy-protocol-js 4.0.6 (npm).
# Guess:    "data" of the parsed result is what follows the header; TLVs are parsed or skipped, for
#           the header says how long it is.
# Seen:     data begins behind the addresses. With a UNIQUE_ID of 4 bytes it is 05 00 04 'abcd' and
#           then the request. The length field is not used. It goes well with a sender without TLVs,
#           and with LOCAL without addresses. Of version 1 it refuses "PROXY UNKNOWN\r\n", and takes
#           UNKNOWN only with addresses.
# Output:   v2 TCP4                  data "GET"
#           v2 TCP4, UNIQUE_ID       data "\u0005\u0000\u0004abcdGET"
#           v2 LOCAL                 data "GET"
#           v2 LOCAL, NOOP           data "\u0004\u0000\u0002\u0000\u0000GET"
#           v1 UNKNOWN               refused
#           v1 UNKNOWN, addresses    data "GET"
# Means:    a service that was tested behind a balancer that sends plain headers breaks behind one
#           that adds a unique id, an authority or a checksum: the request has garbage in front.
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT

npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$T" proxy-protocol-js@4.0.6 >/dev/null
cd "$T" && node -e '
const { V1ProxyProtocol, V2ProxyProtocol } = require("proxy-protocol-js");
const addresses = Buffer.from([192, 0, 2, 1, 192, 0, 2, 2, 4, 87, 0, 80]);
function two(command, family, ...body) {
  body = Buffer.concat(body.map((part) => Buffer.from(part)));
  const head = Buffer.from("\r\n\r\n\0\r\nQUIT\n....", "latin1");
  head[12] = 0x20 | command; head[13] = family; head.writeUInt16BE(body.length, 14);
  const parsed = V2ProxyProtocol.parse(new Uint8Array(Buffer.concat([head, body, Buffer.from("GET")])));
  return Buffer.from(Object.values(parsed.data)).toString("latin1");
}
function one(line) {
  try { return V1ProxyProtocol.parse(line + "\r\nGET").data; } catch { return null; }
}
const seen = {
  "v2 TCP4": two(1, 0x11, addresses),
  "v2 TCP4, UNIQUE_ID": two(1, 0x11, addresses, [5, 0, 4], "abcd"),
  "v2 LOCAL": two(0, 0),
  "v2 LOCAL, NOOP": two(0, 0, [4, 0, 2, 0, 0]),
  "v1 UNKNOWN": one("PROXY UNKNOWN"),
  "v1 UNKNOWN, addresses": one("PROXY UNKNOWN 192.0.2.1 192.0.2.2 1111 80"),
};
for (const [what, data] of Object.entries(seen)) {
  console.log(what.padEnd(25) + (data === null ? "refused" : "data " + JSON.stringify(data)));
}
const wanted = ["GET", "\x05\0\x04abcdGET", "GET", "\x04\0\x02\0\0GET", null, "GET"];
process.exit(JSON.stringify(Object.values(seen)) === JSON.stringify(wanted) ? 0 : 1);
'
