#!/usr/bin/env bash
# `make install` puts down a library that a program can be built against, from any folder.
. "$(dirname "$0")/../support/shell.sh"

case $SLUICE in
"$PWD"/sluice) ;;
*) # a sanitized library needs the sanitizer's flags
    skip install_is_complete "only the release build is installed"
    finish
    ;;
esac
# A make of its own: not this one's job server, not its variables.
if ! MAKEFLAGS='' MAKELEVEL=0 make install JOBS=1 DESTDIR="$work/stage" PREFIX=/opt/sluice >"$work/log" 2>&1; then
    not_ok make_install "$(tail -n 20 "$work/log")"
    finish
fi
prefix=$work/stage/opt/sluice
check binary_is_installed "$prefix/bin/sluice" --version
cat >"$work/program.c" <<'END'
#include <sluice.h>
#include <stdio.h>
int main(void) {
    struct sluice *s;
    struct err err = { OK, "" };
    struct sluice_options options = { 0 };
    const char *dirs[] = { "/nowhere" };
    options.dirs = dirs;
    options.n_dirs = 1;
    if (sluice_open(&s, &options, &err) != ERR_MISSING)
        return 1;
    puts(err.text);
    sluice_close(s);
    return 0;
}
END
libs=$(sed -n 's/^Libs: -L[^ ]* //p' "$prefix/lib/pkgconfig/sluice.pc")
# shellcheck disable=SC2086 # flags are words
build() { (cd "$work" && "$@" -I"$prefix/include/sluice" program.c -o program -L"$prefix/lib" $libs); }
check c_program_builds_against_it build "$CC" -std=c11
check the_program_runs "$work/program"
finish
