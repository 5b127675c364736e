#!/usr/bin/env bash
# Installs what the tests use and what is missing; does nothing, and needs no root, if all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages="curl:curl ethtool:ethtool haproxy:haproxy iperf3:iperf3 ip:iproute2 memcached:memcached
mosquitto:mosquitto mosquitto_pub:mosquitto-clients nft:nftables nginx:nginx nsenter:util-linux openssl:openssl prlimit:util-linux
psql:postgresql-client slapd:slapd sshd:openssh-server ssh-keygen:openssh-client
redis-server:redis-server redis-cli:redis-tools redis-benchmark:redis-tools setpriv:util-linux valgrind:valgrind
promtool:prometheus vsftpd:vsftpd ss:iproute2 strace:strace sysctl:procps systemd-analyze:systemd tc:iproute2 wrk:wrk"
# crate:version; fixed, so that a new release does not change what is tested.
crates="cargo-nextest:0.9.143 cargo-deny:0.20.2"

# Debian keeps the server's programs out of PATH.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages :postgresql"
# A module, which is no program.
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || packages="$packages :libnginx-mod-stream"
# shellcheck disable=SC2086 # words, not one name
scripts/install-packages.sh $packages

for pair in $crates; do
  crate="${pair%%:*}"
  command -v "$crate" >/dev/null || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$crate" ] && continue
  # Unoptimized: built in a third of the time, and it runs for seconds only.
  cargo install --locked --debug "$crate" --version "${pair##*:}"
done
