#!/usr/bin/env bash
# tools/setup.sh against a machine made of stand-ins: a PATH on which cc says which headers there
# are, and apt-get, sudo and id do what the case wants and write down how they were called.
. "$(dirname "$0")/../support/shell.sh"

bin=$work/bin log=$work/log installed=$work/installed
mkdir -p "$bin"

stand_in() { # NAME, its text on standard input
    { echo '#!/bin/bash' && cat; } >"$bin/$1"
    chmod +x "$bin/$1"
}

# A machine: everything is there but $1 (words), user $2, sudo $3: password, free or none.
machine() {
    local missing=$1 user=$2 sudo=$3 name
    rm -rf "$bin" "$log" "$installed"
    mkdir -p "$bin"
    touch "$log" "$installed"
    for name in bash env sort tr cat printf sed grep touch; do
        ln -s "$(type -P "$name")" "$bin/$name"
    done
    for name in make c++ objdump clang-format clang; do
        [[ " $missing " == *" $name "* ]] || stand_in "$name" </dev/null
    done
    # The preprocessor: fails if what it is given includes a header that is neither there nor
    # installed meanwhile.
    [[ " $missing " == *" cc "* ]] || stand_in cc <<END
text=\$(cat)
for header in $missing; do
    package=lib\${header%.h}-dev
    [[ \$text != *"<\$header>"* ]] || grep -q "\$package" $installed || exit 1
done
END
    # Installing makes a command appear, and a header be found.
    stand_in apt-get <<END
echo "apt-get \$*" >>$log
[ ! -e $work/offline ] || exit 100
[[ " \$* " != *" install "* ]] || echo "\$*" >>$installed
[[ " \$* " != *" clang-format "* ]] || { echo '#!/bin/bash' >$bin/clang-format && chmod +x $bin/clang-format; }
END
    ln -s "$(type -P chmod)" "$bin/chmod"
    stand_in id <<<"echo $user"
    case $sudo in
    free) stand_in sudo <<<"[ \"\$1\" != -n ] || shift; \"\$@\"" ;;
    password) stand_in sudo <<<'[ "$1" != -n ] || exit 1; "$@"' ;;
    esac
}

setup() { # GROUP...: without a terminal; output and code are kept
    out=$(PATH=$bin CC=cc "$bin/bash" tools/setup.sh "$@" 2>&1 </dev/null)
    code=$?
}

setup_on_a_terminal() { # ANSWER GROUP...
    local answer=$1
    shift
    out=$(printf '%s\n' "$answer" |
        script -qec "env PATH=$bin CC=cc $bin/bash tools/setup.sh $*" /dev/null 2>&1)
    code=$?
}

expect() { # NAME CODE LOG-PATTERN OUT-PATTERN
    local name=$1
    if [ "$code" = "$2" ] && [[ $(cat "$log") =~ $3 ]] && [[ $out =~ $4 ]]; then
        ok "$name"
    else
        not_ok "$name" "exit code $code" "calls: $(cat "$log")" "said: $out"
    fi
}

machine "" 0 none
setup build test fuzz
expect nothing_missing_does_and_says_nothing 0 '^$' '^$'

machine "jansson.h xxhash.h" 0 none
setup build test
expect root_installs_exactly_what_is_missing 0 \
    $'^apt-get -qq update\napt-get -qq install -y --no-install-recommends libjansson-dev libxxhash-dev$' \
    'setup: installing libjansson-dev libxxhash-dev'

machine "clang-format" 0 none
setup build
expect a_group_that_is_not_asked_for_is_not_looked_at 0 '^$' '^$'
setup build test
expect a_missing_command_is_installed 0 'install .* clang-format$' 'installing clang-format'

machine "cc" 0 none
setup build
expect without_a_compiler_everything_it_must_tell_is_installed 1 'install .*gcc .*liburing-dev' 'could not install'

machine "jansson.h" 0 none
touch "$work/offline"
setup build
expect a_failed_install_says_what_to_run 1 'update$' 'could not install libjansson-dev: run  sudo apt-get'
rm "$work/offline"

machine "jansson.h" 1000 password
setup build
expect without_root_and_terminal_a_message_says_what_to_run 1 '^$' \
    'packages are missing: libjansson-dev.*run  sudo apt-get update && sudo apt-get install'

machine "jansson.h" 1000 none
setup build
expect without_sudo_too 1 '^$' 'packages are missing: libjansson-dev'

machine "jansson.h" 1000 free
setup build
expect a_sudo_without_password_is_used 0 'install .*libjansson-dev$' 'with sudo'

machine "jansson.h" 0 none
rm "$bin/apt-get"
setup build
expect without_apt_the_names_are_told 1 '^$' 'missing .by their names in Debian.: libjansson-dev'

setup nonsense
expect an_unknown_group_is_refused 2 '^$' "unknown group 'nonsense'"

if script -qec true /dev/null >/dev/null 2>&1; then
    machine "jansson.h" 1000 password
    setup_on_a_terminal n build
    expect on_a_terminal_no_installs_nothing 1 '^$' 'sudo apt-get install -y .*libjansson-dev.*nothing was installed'
    setup_on_a_terminal y build
    expect on_a_terminal_yes_installs 0 'install .*libjansson-dev$' 'Run this now'
else
    skip on_a_terminal_the_user_is_asked "no terminal can be made here"
fi
finish
