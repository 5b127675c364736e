#!/usr/bin/env bash
# PowerDNS Recursor refuses LOCAL that carries addresses, and headers above 512 bytes.
#
# Programs: pdns-recursor 4.8.8 (Debian; proxy-protocol-from), unbound 1.17.1 (proxy-protocol-port) beside it, TCP and UDP.
# Guess:    LOCAL is taken in any form, as the specification has it that its address block is to be skipped; the
#           command PROXY with family UNSPEC is taken, too; long TLVs are skipped.
# Seen:     recursor: LOCAL with an address block and PROXY with UNSPEC are closed by reset, or not answered over UDP;
#           LOCAL without addresses is served. More than 512 bytes in all: the same. unbound serves all of them.
# Output:                              recursor    unbound       (UDP the same)
#           LOCAL, no addresses        served      served
#           LOCAL, addresses           refused     served
#           PROXY UNSPEC               refused     served
#           TLV of 400 bytes           served      served
#           TLV of 600 bytes           refused     served
# Means:    a balancer's probe in front of it has to send LOCAL with length 0; proxy-protocol-maximum-size has to be
#           raised where a balancer adds long TLVs (a certificate's name, an SNI name).
set -euo pipefail

T=$(mktemp -d); chmod 755 "$T"
trap 'rm -rf "$T"' EXIT
deb() { # pinned packages and what this host lacks of their dependencies, unpacked and not installed
  mkdir -p "$T/debs/partial"
  apt-get install -qq -y --no-install-recommends --reinstall --download-only \
    -o Dir::Cache::archives="$T/debs" -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" >/dev/null
  local d; for d in "$T"/debs/*.deb; do dpkg -x "$d" "$T/r"; done
  LIBS=$T/r/usr/lib/$(dpkg-architecture -qDEB_HOST_MULTIARCH 2>/dev/null || echo x86_64-linux-gnu)
}

deb pdns-recursor=4.8.8-1+deb12u1 unbound=1.17.1-2+deb12u4
mkdir "$T/rec"
printf '@ 0 IN SOA ns.test. h.test. 1 1 1 1 1\n@ 0 IN NS ns.test.\nweb 0 IN A 10.0.0.1\n' >"$T/zone"
export LD_LIBRARY_PATH=$LIBS
python3 - "$T" <<'EOP'
import socket, struct, subprocess, sys, time
T, HOST = sys.argv[1], "127.0.0.1"
def free():  # a port that is free for TCP and UDP
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind((HOST, 0))
            try: udp.bind(tcp.getsockname())
            except OSError: continue
            return tcp.getsockname()[1]
ports = {"recursor": free(), "unbound": free()}
with open(f"{T}/unbound", "w") as conf: conf.write(f"""server:
  interface: {HOST}@{ports["unbound"]}
  proxy-protocol-port: {ports["unbound"]}
  username: ""
  chroot: ""
  directory: "{T}"
  pidfile: ""
  use-syslog: no
  access-control: 0.0.0.0/0 allow
  local-zone: "test." static
  local-data: "web.test. 0 IN A 10.0.0.1"
remote-control:
  control-enable: no
""")
commands = {
    "recursor": [f"{T}/r/usr/sbin/pdns_recursor", "--daemon=no", f"--local-address={HOST}", f"--local-port={ports['recursor']}", "--write-pid=no",
                 "--proxy-protocol-from=127.0.0.0/8", f"--socket-dir={T}/rec", f"--config-dir={T}/rec", "--allow-from=0.0.0.0/0", "--threads=1",
                 f"--auth-zones=test={T}/zone", "--setuid=", "--setgid=", "--dnssec=off", "--security-poll-suffix="],
    "unbound": [f"{T}/r/usr/sbin/unbound", "-d", "-c", f"{T}/unbound"],
}
LOCAL, PROXY, UNSPEC, TCP4 = 0x20, 0x21, 0x00, 0x11
ADDRESSES = socket.inet_aton("192.0.2.9") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 4321, 53)
def header(command, family, rest=b""): return b"\r\n\r\n\0\r\nQUIT\n" + bytes([command, family]) + struct.pack("!H", len(rest)) + rest
def tlv(length): return b"\x04" + struct.pack("!H", length) + bytes(length)  # NOOP
HEADERS = {
    "LOCAL, no addresses": header(LOCAL, UNSPEC), "LOCAL, addresses": header(LOCAL, TCP4, ADDRESSES), "PROXY UNSPEC": header(PROXY, UNSPEC),
    "TLV of 400 bytes": header(PROXY, TCP4, ADDRESSES + tlv(400)), "TLV of 600 bytes": header(PROXY, TCP4, ADDRESSES + tlv(600)),
}
QUERY = struct.pack("!6H", 4711, 0x0100, 1, 0, 0, 0) + b"\3web\4test\0" + struct.pack("!2H", 1, 1)
def over_tcp(port, head):
    with socket.create_connection((HOST, port), timeout=3) as client:
        try:
            client.sendall(head + struct.pack("!H", len(QUERY)) + QUERY)
            return "served" if client.recv(1000) else "refused"
        except (ConnectionResetError, BrokenPipeError): return "refused"
def over_udp(port, head):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.sendto(head + QUERY, (HOST, port))
        try: return "served" if client.recv(1000) else "refused"
        except TimeoutError: return "refused"
servers = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands.values()]
try:
    for port in ports.values():
        for _ in range(100):
            try: socket.create_connection((HOST, port), timeout=5).close(); break
            except ConnectionRefusedError: time.sleep(0.1)
    seen = {what: [ask(port, head) for ask in (over_tcp, over_udp) for port in ports.values()] for what, head in HEADERS.items()}
finally:
    for server in servers: server.terminate(); server.wait()
print(f"{'':27}recursor    unbound")
for what, results in seen.items(): print(f"{what:27}{results[0]:12}{results[1]}" + ("" if results[:2] == results[2:] else "   UDP otherwise"))
wanted = ["served", "refused", "refused", "served", "refused"]
sys.exit(list(seen.values()) != [[result, "served"] * 2 for result in wanted])
EOP
