#!/usr/bin/env bash
# Every header compiles alone and opens with a comment that says what it is: as C11, and, since CUDA
# sources and other people's programs include them, as C++17 (those of the tests are ours alone).
. "$(dirname "$0")/../support/shell.sh"

mapfile -t headers < <(find io cache kernels src tools tests -name '*.h' | sort)
warnings="-Wall -Wextra -Werror -Wno-unused-function -fsyntax-only -I. -D_GNU_SOURCE"

# Every header through a file of one line (as the main file it would be warned about for that).
each_alone() { # PATTERN COMPILER...
    local pattern=$1 header failed=0
    shift
    for header in "${headers[@]}"; do
        [[ $header =~ $pattern ]] || continue
        # shellcheck disable=SC2086 # flags are words
        printf '#include "%s"\n' "$header" | "$@" $warnings - || failed=1
    done
    return $failed
}
each_opens_with_a_comment() {
    local header failed=0
    for header in "${headers[@]}"; do
        [ "$(head -c 2 "$header")" = '/*' ] || { echo "$header does not" && failed=1; }
    done
    return $failed
}
check headers_compile_alone_as_c11 each_alone . "$CC" -std=c11 -x c
check headers_compile_alone_as_c++17 each_alone '^[^t]|^tools/' "$CXX" -std=c++17 -x c++
check headers_open_with_a_comment each_opens_with_a_comment
finish
