#!/usr/bin/env bash
# The command line as a person meets it: help, version, exit codes, what goes to which stream.
. "$(dirname "$0")/../support/shell.sh"

# expect NAME CODE STDOUT-PATTERN STDERR-PATTERN ARGUMENTS...
expect() {
    local name=$1 want=$2 out=$3 err=$4 code
    shift 4
    "$SLUICE" "$@" >"$work/out" 2>"$work/err" </dev/null
    code=$?
    if [ $code = "$want" ] && [[ $(cat "$work/out") =~ $out ]] && [[ $(cat "$work/err") =~ $err ]]; then
        ok "$name"
    else
        not_ok "$name" "exit code $code" "$(cat "$work/out" "$work/err")"
    fi
}
nothing='^$'

expect version_is_printed 0 '^sluice [0-9]+\.[0-9]+\.[0-9]+$' "$nothing" --version
expect without_arguments_it_tells_how_to_use_it 2 "$nothing" '^usage: sluice COMMAND'
expect help_lists_the_commands 0 '  run .*  eval .*  inspect .*  tokenize .*  mkmodel ' "$nothing" --help
for command in run eval inspect tokenize mkmodel; do
    expect "${command}_has_help" 0 "^usage: sluice $command " "$nothing" $command --help
    expect "help_${command}_is_the_same" 0 "^usage: sluice $command " "$nothing" help $command
    expect "${command}_refuses_an_unknown_option" 2 "$nothing" \
        "^sluice $command: unknown option --nonsense" $command --nonsense
done
widest=$(for command in run eval inspect tokenize mkmodel; do "$SLUICE" help $command; done | wc -L)
check help_fits_eighty_columns test "$widest" -le 80
expect bench_lists_what_can_be_measured 2 "$nothing" '  io  ' bench
expect help_bench_is_the_same 0 '  io  ' "$nothing" help bench
expect bench_io_has_help 0 '^usage: sluice bench io ' "$nothing" bench io --help
expect help_bench_io_is_the_same 0 '^usage: sluice bench io ' "$nothing" help bench io
expect bench_io_refuses_an_unknown_option 2 "$nothing" \
    '^sluice bench io: unknown option --nonsense' bench io --nonsense
expect unknown_measurement_suggests_the_nearest 2 "$nothing" "did you mean 'io'\?" bench oi
expect bench_kernels_measures_an_op 0 ' gate +1 .* % of ' "$nothing" \
    bench kernels --op gate --rows 1 --threads 1
expect bench_kernels_has_json 0 '"op": "gate"' "$nothing" \
    bench kernels --op gate --rows 1 --threads 1 --cpu scalar --json
expect bench_kernels_suggests_the_nearest_op 2 "$nothing" "did you mean 'gate'\?" \
    bench kernels --op gat
check help_bench_kernels_fits_eighty_columns test "$("$SLUICE" help bench kernels | wc -L)" -le 80
check help_bench_io_fits_eighty_columns test "$("$SLUICE" help bench io | wc -L)" -le 80
expect help_tells_the_exit_codes 0 '0 .*1 .*2 .*3 .*130 ' "$nothing" help exit-codes
expect unknown_command_suggests_the_nearest 2 "$nothing" "did you mean 'inspect'\?" inspct
expect unknown_topic_suggests_the_nearest 2 "$nothing" "did you mean 'eval'\?" help evla
expect a_model_that_is_not_there_is_a_failure 1 "$nothing" '^sluice run: .*/nowhere/model' \
    run -m /nowhere/model -p x --max-tokens 1
expect an_error_is_one_line 1 "$nothing" $'^[^\n]*$' run -m /nowhere/model -p x --max-tokens 1

"$SLUICE" help >/dev/full 2>"$work/err"
if [ $? = 1 ] && grep -q 'cannot write to standard output' "$work/err"; then
    ok a_full_disk_is_noticed
else
    not_ok a_full_disk_is_noticed "$(cat "$work/err")"
fi
"$SLUICE" help run 2>"$work/err" | head -n 1 >/dev/null
if [ ! -s "$work/err" ]; then
    ok a_closed_pipe_ends_quietly
else
    not_ok a_closed_pipe_ends_quietly "$(cat "$work/err")"
fi
finish
