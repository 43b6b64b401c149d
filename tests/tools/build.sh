#!/usr/bin/env bash
# The Makefile on a small tree of its own: what is made again when, and what is left.
. "$(dirname "$0")/../support/shell.sh"

tree=$work/tree
mkdir -p "$tree"/{io,src,tools}
cp Makefile "$tree"
cd "$tree" || exit 1
echo 'int io_one(void);' >io/one.h
printf '#include "io/one.h"\nint io_one(void) {\n    return 1;\n}\n' >io/one.c
printf 'int src_two(void);\nint src_two(void) {\n    return 2;\n}\n' >src/two.c
printf '#include "io/one.h"\nint main(void) {\n    return io_one() - 1;\n}\n' >tools/main.c

# A make that knows nothing of the one that runs this.
own_make() {
    env -i PATH="$PATH" CC="$CC" make JOBS=1 NVCC= LIBS= "$@" 2>&1
}
# The files that it makes, sorted, in one line. `touch FILES` first: they have changed since the
# last time. All others get an older time, so that a file system with coarse clocks does not matter.
makes() {
    find . -type f -exec touch -d '1 minute ago' {} +
    # shellcheck disable=SC2086 # a list is words
    [ "${1:-}" != touch ] || { touch $2 && shift 2; }
    own_make "$@" | awk '{ print $2 }' | sort | tr '\n' ' '
}
expect() { # NAME WANT, ARGUMENTS of makes...
    local name=$1 want=$2 got
    shift 2
    got=$(makes "$@")
    if [ "$got" = "$want" ]; then ok "$name"; else not_ok "$name" "wanted: $want" "made:   $got"; fi
}

everything='io/one.c libsluice.a sluice src/two.c tools/main.c '
expect first_time_makes_everything "$everything"
expect second_time_makes_nothing ''
expect a_header_remakes_what_includes_it 'io/one.c libsluice.a sluice tools/main.c ' touch io/one.h
expect other_flags_remake_everything "$everything" CFLAGS=-O1
expect the_same_flags_remake_nothing '' CFLAGS=-O1
expect warnings_as_errors_are_other_flags "$everything" CFLAGS=-O1 WERROR=1
rm src/two.c
expect a_file_that_is_gone_leaves_the_library 'libsluice.a sluice ' CFLAGS=-O1 WERROR=1
check nothing_of_it_remains test "$(ar t libsluice.a)" = one.o
rm io/one.h
sed -i '/one.h/d' io/one.c tools/main.c
sed -i '1i int io_one(void);' io/one.c tools/main.c
expect a_header_that_is_gone_is_no_error 'io/one.c libsluice.a sluice tools/main.c ' \
    touch 'io/one.c tools/main.c' CFLAGS=-O1 WERROR=1
check the_program_runs ./sluice
own_make clean >/dev/null
check clean_leaves_sources_only test "$(find . -type f | sort | tr '\n' ' ')" = \
    './Makefile ./io/one.c ./tools/main.c '
finish
