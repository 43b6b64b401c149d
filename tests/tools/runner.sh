#!/usr/bin/env bash
# tests/run.sh counts what programs say, and lets nothing that went wrong pass for a success.
. "$(dirname "$0")/../support/shell.sh"

program() { # NAME, its text on standard input
    { echo '#!/bin/bash' && cat; } >"$work/$1"
    chmod +x "$work/$1"
}
program cmocka <<'END'
echo '[==========] Running 3 test(s).'
echo '[  PASSED  ] 2 test(s).'
echo '[  SKIPPED ] 1 test(s), listed below:'
echo '[  SKIPPED ] needs_a_second_drive'
END
program cmocka_skip <<'END'
echo '[ RUN      ] here'
echo '[       OK ] here'
echo '[ RUN      ] needs_a_card'
echo 'no card'
echo '[  SKIPPED ] needs_a_card'
echo '[  PASSED  ] 1 test(s).'
echo '[  SKIPPED ] 1 test(s), listed below:'
echo '[  SKIPPED ] needs_a_card'
END
program two_groups <<'END'
echo '[  PASSED  ] 2 test(s).'
echo '[  PASSED  ] 5 test(s).'
END
program failing <<'END'
echo '[  PASSED  ] 1 test(s).'
echo '[  FAILED  ] 2 test(s), listed below:'
exit 2
END
program script <<'END'
echo 'ok this'
echo 'skip that no card here'
echo 'ok not this'
END
program bad_script <<<"echo 'ok this'; echo 'not ok that'; exit 1"
program liar <<<"echo 'ok this'; exit 3"
program replay <<<"echo '\$0: 7 inputs replayed'"
program crash <<<'kill -SEGV $$'
program silent <<<'true'

runs() { # NAME CODE LAST-LINE PATTERN PROGRAM...
    local name=$1 want=$2 last=$3 pattern=$4 out code
    shift 4
    out=$(tests/run.sh "$work/build" 2 "${@/#/$work/}" 2>&1)
    code=$?
    if [ $code = "$want" ] && [ "$(tail -n 1 <<<"$out")" = "$last" ] && grep -qE "$pattern" <<<"$out"; then
        ok "$name"
    else
        not_ok "$name" "exit code $code" "$out"
    fi
}

runs passes_are_added_up 0 '9 passed, 0 failed, 1 skipped' '2 passed, 1 skipped' cmocka two_groups
runs skipped_tests_are_named 0 '1 passed, 0 failed, 1 skipped' '^    skip needs_a_card no card$' cmocka_skip
runs reasons_for_skipping_are_shown 0 '2 passed, 0 failed, 1 skipped' 'skip that no card here' script
runs a_replay_is_a_test 0 '1 passed, 0 failed' '1 passed' replay
runs a_failed_test_fails_the_run 1 '3 passed, 2 failed, 1 skipped' '1 passed, 2 FAILED' failing cmocka
runs a_failed_script_fails_the_run 1 '1 passed, 1 failed' 'not ok that' bad_script
runs a_crash_is_a_failure 1 '2 passed, 1 failed, 1 skipped' 'killed by signal 11' crash script
runs a_bad_exit_code_is_a_failure 1 '1 passed, 1 failed' 'exit code 3' liar
runs a_program_that_runs_no_test_is_a_failure 1 '0 passed, 1 failed' 'it ran no test' silent
runs a_program_that_is_not_there_is_a_failure 1 '0 passed, 1 failed' 'exit code 127' nowhere
runs no_test_at_all_is_no_success 1 '0 passed, 0 failed' 'passed'
finish
