#!/usr/bin/env bash
# What the design says of the floors, checked on the sources and on the objects made of them.
. "$(dirname "$0")/../support/shell.sh"

# Who may include whom. io knows nothing of models, cache nothing of arithmetic, kernels nothing of
# files: of io they see only what all floors share.
includes_of() { # FLOOR: the local headers that its files include, as FILE:HEADER
    grep -rhoE --include='*.[ch]' '^#include "[^"]+"' "$1" | sed 's/^#include "\(.*\)"/\1/' | sort -u
}
only() { # FLOOR PATTERN: everything included matches
    local strangers
    strangers=$(includes_of "$1" | grep -vE "^($2)")
    [ -z "$strangers" ] || { printf '%s includes %s\n' "$1" $strangers && return 1; }
}
shared='io/(status|event|clock)\.h$'
check io_sees_io only io 'io/'
check cache_sees_cache_and_io only cache 'cache/|io/'
check kernels_see_kernels_and_what_is_shared only kernels "kernels/|$shared|io/pinned\.h$"
check checkpoint_sees_files_and_formats only src/checkpoint 'src/checkpoint/|kernels/lowbit\.h$|io/'
check text_sees_no_engine only src/text 'src/text/|io/'
check src_sees_no_tools only src 'src/|cache/|kernels/|io/'

# Below tools nobody prints, exits, reads the environment or handles signals.
library=$(dirname "$SLUICE")/libsluice.a
outward='printf|vprintf|puts|putchar|perror|stdout|stderr|exit|_exit|_Exit|getenv|secure_getenv|signal|sigaction|environ'
silent() {
    local strangers
    strangers=$(nm -A -u "$library" 2>/dev/null | grep -E " U ($outward)\$")
    [ -z "$strangers" ] || { printf '%s\n' "$strangers" && return 1; }
}
check library_neither_prints_nor_exits_nor_asks_the_environment silent

# No mutable variable with file scope. Constants with addresses in them lie in .data.rel.ro.
stateless() {
    local strangers
    strangers=$(objdump -t "$1" | awk '/^[^ ]*: +file format/ { file = $1 }
        $NF !~ /^\.gomp_critical/ && / O (\.bss|\.data|\.tbss|\.tdata)[^.]/ { print file, $NF }')
    [ -z "$strangers" ] || { printf '%s\n' "$strangers" && return 1; }
}
check library_has_no_mutable_variables stateless "$library"
finish
