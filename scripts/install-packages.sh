#!/usr/bin/env bash
# scripts/install-packages.sh PROGRAM:PACKAGE...: installs the packages of those programs that are
# missing; a pair with an empty PROGRAM is always installed. Without any missing it needs no root.
#
# Packages come from Debian or Ubuntu. None of their services is started: while they are installed,
# policy-rc.d says no to every one, unless the machine has a policy of its own.
set -euo pipefail

# sbin is where nginx is, and not in every user's PATH.
export PATH="$PATH:/usr/sbin:/sbin"
missing=""
for pair in "$@"; do
  [ -n "${pair%%:*}" ] && command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "these Debian packages are needed, or what they are called here:$missing" >&2
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
apt="$root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0"
$apt update </dev/null || echo "apt-get update failed; trying with the lists there are" >&2
# shellcheck disable=SC2086 # words, not one name
$apt install --no-install-recommends $missing </dev/null
