#!/usr/bin/env bash
# tools/setup.sh GROUP... - what building (build), testing (test) and fuzzing (fuzz) need is there
# afterwards, or one message says what is missing.
#
# Nothing happens, and nothing is printed, when nothing is missing. Otherwise Debian packages are
# installed: at once as root, or where nobody can be asked (through sudo, if it asks for no
# password); an ordinary user on a terminal sees the command first, and decides.
set -u

# Of each package a thing that is there if it is: a command, or a header.
#         package         command or header
build=(
    "gcc              cc"
    "make             make"
    "libc6-dev        stdio.h"
    "liburing-dev     liburing.h"
    "libpcre2-dev     pcre2.h"
    "libjansson-dev   jansson.h"
    "libxxhash-dev    xxhash.h"
    "libedit-dev      histedit.h"
)
test=(
    "g++              c++"
    "binutils         objdump"
    "libcmocka-dev    cmocka.h"
    "clang-format     clang-format"
)
fuzz=(
    "clang            clang"
)

# One run of the preprocessor tells that all headers are there; only if not are they tried singly.
have_headers() {
    printf '#define PCRE2_CODE_UNIT_WIDTH 8\n%s\n' \
        "$(printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n'
        printf '#include <%s>\n' "$@")" | ${CC:-cc} -E -x c - >/dev/null 2>&1
}

missing_packages() { # GROUP...
    local group package thing headers=() owners=() i
    for group in "$@"; do
        local -n rows=$group
        for row in "${rows[@]}"; do
            read -r package thing <<<"$row"
            case $thing in
            *.h) headers+=("$thing") owners+=("$package") ;;
            cc) command -v "${CC:-cc}" >/dev/null || echo "$package" ;;
            *) command -v "$thing" >/dev/null || echo "$package" ;;
            esac
        done
    done
    have_headers "${headers[@]}" && return
    for i in "${!headers[@]}"; do
        have_headers "${headers[i]}" || echo "${owners[i]}"
    done
}

say() {
    printf 'setup: %s\n' "$*" >&2
}

# Install them, each command prefixed by the arguments that follow the list (sudo, or nothing).
install_packages() { # PACKAGES PREFIX...
    local packages=$1
    shift
    # shellcheck disable=SC2086 # a list is words
    "$@" apt-get -qq update &&
        "$@" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $packages \
            >&2
}

[ $# -gt 0 ] || set -- build
for group in "$@"; do
    case $group in
    build | test | fuzz) ;;
    *) say "unknown group '$group': build, test or fuzz" && exit 2 ;;
    esac
done

one_line() { # of words on lines
    tr '\n' ' ' | sed 's/ $//'
}

packages=$(missing_packages "$@" | sort -u | one_line)
[ -n "$packages" ] || exit 0

if ! command -v apt-get >/dev/null; then
    say "these are missing (by their names in Debian): $packages"
    say "install what they are called here, and try again"
    exit 1
fi

by_hand="sudo apt-get update && sudo apt-get install -y --no-install-recommends $packages"
if [ "$(id -u)" = 0 ]; then
    say "installing $packages"
    install_packages "$packages" || failed=1
elif [ -t 0 ] && [ -t 2 ]; then
    say "these packages are missing: $packages"
    printf '\n    %s\n\nRun this now? [y/N] ' "$by_hand" >&2
    read -r answer || answer=n
    case $answer in
    y | Y | yes) install_packages "$packages" sudo || failed=1 ;;
    *) say "nothing was installed" && exit 1 ;;
    esac
elif sudo -n true 2>/dev/null; then
    say "installing $packages (with sudo)"
    install_packages "$packages" sudo -n || failed=1
else
    say "these packages are missing: $packages"
    say "not root, and sudo wants a password: run  $by_hand"
    exit 1
fi

still=$(missing_packages "$@" | sort -u | one_line)
if [ -n "${failed:-}" ] || [ -n "$still" ]; then
    say "could not install ${still:-$packages}: run  $by_hand"
    exit 1
fi
