#!/usr/bin/env bash
# Every header compiles alone and opens with a comment that says what it is: as C11, and, since CUDA
# sources and other people's programs include them, as C++17 (those of the tests are ours alone).
. "$(dirname "$0")/../support/shell.sh"

mapfile -t headers < <(find io cache kernels src tools -name '*.h' | sort)
mapfile -t test_headers < <(find tests -name '*.h' | sort)
warnings="-Wall -Wextra -Werror -Wno-unused-function"

# Every header through a file of one line (as the main file it would be warned about for that).
each_alone() { # COMPILER FLAGS... -- HEADER...
    local compiler=() header failed=0
    while [ "$1" != -- ]; do
        compiler+=("$1")
        shift
    done
    shift
    for header in "$@"; do
        printf '#include "%s"\n' "$header" |
            "${compiler[@]}" -D_GNU_SOURCE -I. -fsyntax-only - || failed=1
    done
    return $failed
}
each_opens_with_a_comment() {
    local header failed=0
    for header in "${headers[@]}" "${test_headers[@]}"; do
        [ "$(head -c 2 "$header")" = '/*' ] || { echo "$header does not" && failed=1; }
    done
    return $failed
}
# shellcheck disable=SC2086 # flags are words
check headers_compile_alone_as_c11 each_alone "$CC" $warnings -std=c11 -x c -- "${headers[@]}"
# shellcheck disable=SC2086
check headers_compile_alone_as_c++17 each_alone "$CXX" $warnings -std=c++17 -x c++ -- "${headers[@]}"
check headers_of_tests_compile_alone each_alone "$CC" -std=c11 -x c -- "${test_headers[@]}"
check headers_open_with_a_comment each_opens_with_a_comment
finish
