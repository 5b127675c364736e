#!/usr/bin/env bash
# Shows that the tests notice the faults they are there for: puts each fault of tests/controls/ into
# a copy of the tree and sees the test that it names fail with the words that it names.
# tests/controls/README.md tells the format.
#
#   scripts/controls.sh              every control
#   scripts/controls.sh --part 3/8   the third of eight parts
#   scripts/controls.sh NAME...      these
set -euo pipefail
cd "$(dirname "$0")/.."

# A build or a test that hangs has failed; the first build is of all dependencies.
SECONDS_MAX=1200
target="$(realpath -m "${CARGO_TARGET_DIR:-target}")"
home="$target/controls"
tree="$home/tree"
log="$home/last.log"
unnoticed=0

# Makes the copy equal to this tree. Only files that differ are written, because cargo goes by the
# time of the last change; so a fault that an interrupted run has left there goes, too.
copy() {
  mkdir -p "$tree"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do
      [ -f "$file" ] || continue
      printf '%s\0' "$file"
      cmp -s -- "$file" "$tree/$file" && continue
      mkdir -p "$tree/$(dirname "$file")"
      cp -- "$file" "$tree/$file"
    done | LC_ALL=C sort -z >"$home/files"
  (cd "$tree" && find . -type f -printf '%P\0') | LC_ALL=C sort -z |
    LC_ALL=C comm -z -23 - "$home/files" | (cd "$tree" && xargs -0r rm -f --)
}

# The values of one field of a control's header.
field() {
  sed -n "s/^$2: //p; /^--- /q" "tests/controls/$1.patch"
}

# patched NAME [--reverse]: puts a fault into the copy, or takes it out. The copy is no repository:
# what git finds above it is not looked at.
patched() {
  (cd "$tree" && GIT_CEILING_DIRECTORIES="$home" git apply "${@:2}" "tests/controls/$1.patch")
}

# in_copy TARGET ARGUMENTS...: cargo test of one target of the copy. Dependencies are shared with
# the builds of this tree; what is built of the copy has names of its own, by its path.
in_copy() {
  local flags=(--locked --quiet) build="$target" final="$home/target"
  case "$1" in
    lib) flags+=(--lib) ;;
    netns) flags+=(--features interop --test "$1") ;;
    *) flags+=(--test "$1") ;;
  esac
  if [[ "$1" == loom_* ]]; then
    # As scripts/loom.sh, but incremental.
    export RUSTFLAGS="--cfg evenkeel_loom" CARGO_INCREMENTAL=1
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
    flags+=(--release) build="$target/loom" final="$home/loom"
  fi
  shift
  cd "$tree"
  CARGO_BUILD_BUILD_DIR="$build" CARGO_TARGET_DIR="$final" \
    timeout "$SECONDS_MAX" cargo test "${flags[@]}" "$@"
}

# try [VARIABLE=VALUE...] TARGET TEST: builds the test and runs it. 0: passed; 1: failed; 2: not
# built.
try() {
  local variables=()
  while [[ "$1" == *=* ]]; do
    variables+=("$1")
    shift
  done
  (in_copy "$1" --no-run) >"$log" 2>&1 || return 2
  (
    [ ${#variables[@]} = 0 ] || export "${variables[@]}"
    in_copy "$1" -- --exact "$2"
  ) >"$log" 2>&1 || return 1
  # Else no test has this name.
  grep -q '1 passed' "$log" || return 2
}

# say WHAT TEST OUTCOME: one line of the table.
say() {
  printf '%-34s %-72s %s\n' "$@"
}

# complain WHAT TEST OUTCOME: a line of the table, and what the test printed.
complain() {
  say "$@"
  tail -n 30 "$log" | sed 's/^/    /'
  unnoticed=$((unnoticed + 1))
}

is_left_out() {
  [[ "$1" == *"netns "* ]] && [ "$(id -u)" != 0 ]
}

# Each test that a control names passes without the fault.
sound() {
  for name in "$@"; do field "$name" 'Noticed by'; done | sort -u >"$home/tests"
  local test
  while read -r test <&3; do
    if is_left_out "$test"; then continue; fi
    # shellcheck disable=SC2086 # words
    try $test || {
      complain '(no fault)' "$test" 'DOES NOT PASS'
      continue
    }
    say '(no fault)' "$test" passes
  done 3<"$home/tests"
}

# One control: each of its tests fails with one of the words that are expected of it.
control() {
  local test words found
  if ! patched "$1" >"$log" 2>&1; then
    complain "$1" '' 'DOES NOT APPLY'
    return
  fi
  while IFS=$'\t' read -r test words <&3; do
    found=0
    if is_left_out "$test"; then
      say "$1" "$test" 'left out: needs root'
      continue
    fi
    # shellcheck disable=SC2086 # words
    try $test || found=$?
    case "$found" in
      0) complain "$1" "$test" 'NOT NOTICED' ;;
      2) complain "$1" "$test" 'DOES NOT BUILD' ;;
      *)
        if grep -qF "${words// | /$'\n'}" "$log"; then
          say "$1" "$test" noticed
        else
          complain "$1" "$test" "FAILS WITHOUT \"$words\""
        fi
        ;;
    esac
  done 3< <(paste <(field "$1" 'Noticed by') <(field "$1" As))
  patched "$1" --reverse
}

mapfile -t names < <(basename -s .patch tests/controls/*.patch)
if [ "${1:-}" = --part ]; then
  part="${2%/*}" parts="${2#*/}" chosen=()
  for place in "${!names[@]}"; do
    [ $((place % parts + 1)) = "$part" ] && chosen+=("${names[place]}")
  done
  echo "part $part of $parts: ${chosen[*]}"
  names=("${chosen[@]}")
elif [ $# -gt 0 ]; then
  names=("$@")
fi

mkdir -p "$home"
copy
sound "${names[@]}"
if [ "$unnoticed" = 0 ]; then
  for name in "${names[@]}"; do control "$name"; done
fi
echo "${#names[@]} controls in $SECONDS s, $unnoticed wrong"
[ "$unnoticed" = 0 ]
