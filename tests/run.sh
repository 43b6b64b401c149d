#!/usr/bin/env bash
# tests/run.sh BUILD JOBS COMMAND... - run test programs, JOBS at a time, and add up what they say.
#
# Three ways of saying it are understood:
#   cmocka's summary       [  PASSED  ] 12 test(s).   [  SKIPPED ] NAME   [  FAILED  ] NAME
#   lines of a script      ok NAME                    skip NAME REASON    not ok NAME
#   a fuzz target's replay PROGRAM: 5 inputs replayed (one test; a finding is a crash)
# A program that ends badly without naming a failed test, or that ran none, counts as one failure.
# Programs that pass leave one line here and everything in BUILD/logs; V=1 prints all of it.
# The last line is "N passed, N failed", with ", N skipped" where something was.
set -u

build=$1 jobs=$2
shift 2
logs=$build/logs
rm -rf "$logs"
mkdir -p "$logs"

limit_s=900 # of one program; the slowest takes a few minutes under the sanitizers
passed=0 failed=0 skipped=0

# Threads that spin while they wait would take the cores from the tests beside them.
export OMP_WAIT_POLICY=passive
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:abort_on_error=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}

# The sanitizers of gcc 12 lose their place where the kernel randomizes more address bits than
# they knew of; without randomization they find it. Not everywhere is that allowed.
fixed=()
case $build in
*asan | *tsan) setarch "$(uname -m)" -R true 2>/dev/null && fixed=(setarch "$(uname -m)" -R) ;;
esac

# The number in cmocka's line for $2, summed over the groups of a program.
cmocka_count() {
    sed -n "s/^\[  $2 *\] \([0-9]*\) test(s).*/\1/p" "$1" | awk '{ n += $1 } END { print n + 0 }'
}

script_count() {
    grep -c "^$2 " "$1"
}

# What was skipped, and why: cmocka names it after the lines that the test printed.
skips() {
    awk '/^skip / { print "    " $0 }
        /^\[ RUN / { running = $4; why = ""; next }
        /^\[  SKIPPED \]/ && $4 == running { print "    skip " running why; running = ""; next }
        running { why = why " " $0 }' "$1"
}

# Name, exit code and log of a program that has ended: count, and print what is worth reading.
report() {
    local command=$1 code=$2 log=$3 seconds=$4 p f s
    p=$(($(cmocka_count "$log" PASSED) + $(script_count "$log" ok) +
        $(grep -cE '^[^ ]+: [1-9][0-9]* inputs replayed$' "$log")))
    f=$(($(cmocka_count "$log" FAILED) + $(script_count "$log" 'not ok')))
    s=$(($(cmocka_count "$log" SKIPPED) + $(script_count "$log" skip)))
    local why=
    if [ "$f" = 0 ] && [ "$code" != 0 ]; then
        f=1 why="exit code $code without a failed test"
        [ "$code" = 124 ] && why="not done after $limit_s s"
        [ "$code" -gt 128 ] && why="killed by signal $((code - 128))"
    elif [ $((p + f + s)) = 0 ]; then
        f=1 why="it ran no test"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    local line="$p passed"
    [ "$f" = 0 ] || line="$line, $f FAILED"
    [ "$s" = 0 ] || line="$line, $s skipped"
    if [ "$f" != 0 ]; then
        printf '\n---- %s\n' "$command"
        tail -n 200 "$log"
        [ -z "$why" ] || printf '%s: %s\n' "$command" "$why"
        printf -- '----\n'
    elif [ -n "${V:-}" ]; then
        cat "$log"
    else
        skips "$log"
    fi
    printf '%-44s %s (%s s)\n' "$(short "$command")" "$line" "$seconds"
}

# build/tests/io/test_clock -> io/test_clock
short() {
    local name=${1#bash }
    name=${name%% *}
    name=${name##*tests/}
    printf '%s' "$name"
}

# Run one command; what it printed and how it ended go to files of that number.
run_one() {
    local number=$1 command=$2 start=$EPOCHREALTIME code
    # shellcheck disable=SC2086 # a command is words
    timeout -k 10 "$limit_s" "${fixed[@]}" $command >"$logs/$number.log" 2>&1 </dev/null
    code=$?
    awk -v a="$start" -v b="$EPOCHREALTIME" -v c="$code" 'BEGIN { printf "%d %.1f\n", c, b - a }' \
        >"$logs/$number.tmp"
    mv "$logs/$number.tmp" "$logs/$number.end"
}

commands=("$@")
reported=()
# Report whatever has ended since the last look.
collect() {
    local i code seconds
    for i in "${!commands[@]}"; do
        if [ -z "${reported[i]:-}" ] && [ -e "$logs/$i.end" ]; then
            reported[i]=1
            read -r code seconds <"$logs/$i.end"
            report "${commands[i]}" "$code" "$logs/$i.log" "$seconds"
            mv "$logs/$i.log" "$logs/$(short "${commands[i]}" | tr / -).log"
            rm "$logs/$i.end"
        fi
    done
}

trap 'kill $(jobs -p) 2>/dev/null; exit 130' INT TERM
for i in "${!commands[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
        wait -n
        collect
    done
    run_one "$i" "${commands[i]}" &
done
wait
collect

summary="$passed passed, $failed failed"
[ "$skipped" = 0 ] || summary="$summary, $skipped skipped"
printf '\n%s\n' "$summary"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
