#!/usr/bin/env bash
# One static binary with glibc in it, proven to be static and to run. --target keeps the flag away
# from build scripts and procedural macros, which must be dynamic.
set -euo pipefail
cd "$(dirname "$0")/.."

target="$(uname -m)-unknown-linux-gnu"
RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target"
binary="${CARGO_TARGET_DIR:-target}/$target/release/evenkeel"

# A static-pie has no interpreter; ldd says so in either of two ways.
linked="$(ldd "$binary" 2>&1 || true)"
case "$linked" in
  *"statically linked"* | *"not a dynamic executable"*) ;;
  *) echo "not static: $linked" >&2; exit 1 ;;
esac
"$binary" --version
ls -l "$binary"
