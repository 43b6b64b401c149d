# tests/support/shell.sh - for tests that are scripts: source it first.
#
# A script runs in the root of the repository, with SLUICE (the binary under test), CC and CXX set.
# Each test is one line: ok NAME, not ok NAME, skip NAME REASON (tests/run.sh counts them).
# $work is a folder of the script's own, removed when it ends.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
SLUICE=$(realpath "${SLUICE:-./sluice}")
CC=${CC:-cc} CXX=${CXX:-c++}
export SLUICE CC CXX
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-test.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

ok() {
    printf 'ok %s\n' "$1"
}

# not_ok NAME [WHY...]
not_ok() {
    printf 'not ok %s\n' "$1"
    shift
    [ $# = 0 ] || printf '    %s\n' "$@"
    failures=$((failures + 1))
}

# skip NAME REASON
skip() {
    printf 'skip %s %s\n' "$1" "$2"
}

# check NAME COMMAND...: ok if the command succeeds; what it printed is shown if not.
check() {
    local name=$1
    shift
    if "$@" >"$work/check.out" 2>&1; then
        ok "$name"
    else
        not_ok "$name" "$(tail -n 20 "$work/check.out")"
    fi
}

# The last line of a script.
finish() {
    [ "$failures" = 0 ]
    exit
}
