#!/usr/bin/env bash
# Installs what the tests use and what is missing; does nothing, and needs no root, if all is there.
#
# Packages come from Debian or Ubuntu. None of their services is started: while they are installed,
# policy-rc.d says no to every one, unless the machine has a policy of its own.
set -euo pipefail

# program:package
programs="curl:curl ethtool:ethtool iperf3:iperf3 ip:iproute2 nft:nftables nginx:nginx
nsenter:util-linux openssl:openssl prlimit:util-linux psql:postgresql-client
redis-server:redis-server redis-cli:redis-tools redis-benchmark:redis-tools setpriv:util-linux
ss:iproute2 strace:strace sysctl:procps systemd-analyze:systemd tc:iproute2 wrk:wrk"
# crate:version; fixed, so that a new release does not change what is tested.
crates="cargo-nextest:0.9.143 cargo-deny:0.20.2"

has() {
  # sbin is where nginx is, and not in everybody's PATH.
  PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null
}

missing=""
for pair in $programs; do
  has "${pair%%:*}" || missing="$missing ${pair##*:}"
done
# Debian keeps the server's programs out of PATH.
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"

if [ -n "$missing" ]; then
  if ! has apt-get; then
    echo "the tests need these Debian packages, or what they are called here:$missing" >&2
    exit 1
  fi
  root=""
  [ "$(id -u)" = 0 ] || root="sudo"
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
    # shellcheck disable=SC2064 # the values of now
    trap "$root rm -f $policy" EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"
  $apt update </dev/null || echo "apt-get update failed; trying with the lists there are" >&2
  # shellcheck disable=SC2086 # words, not one name
  $apt install --no-install-recommends $missing </dev/null
fi

for pair in $crates; do
  crate="${pair%%:*}"
  has "$crate" || [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/$crate" ] && continue
  # Unoptimized: built in a third of the time, and it runs for seconds only.
  cargo install --locked --debug "$crate" --version "${pair##*:}"
done
