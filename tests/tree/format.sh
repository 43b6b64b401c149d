#!/usr/bin/env bash
# Every source file is as clang-format 14 writes it (`make format` mends it).
. "$(dirname "$0")/../support/shell.sh"

if ! command -v clang-format >/dev/null; then
    skip sources_are_formatted "clang-format is not installed"
    finish
fi
version=$(clang-format --version | sed -n 's/.*version \([0-9]*\).*/\1/p')
if [ "$version" != 14 ]; then # another one breaks other lines
    skip sources_are_formatted "clang-format is version $version, not 14"
    finish
fi
mapfile -t files < <(find io cache kernels src tools tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh')
formatted() {
    local strangers
    strangers=$(clang-format --dry-run -Werror "${files[@]}" 2>&1 | sed -n 's/: error:.*//p' | cut -d: -f1 | sort -u)
    [ -z "$strangers" ] || { printf '%s\n' "$strangers" && return 1; }
}
check sources_are_formatted formatted
finish
