#!/usr/bin/env bash
# `sluice run` as a person meets it: where the text comes from, when it ends, what goes where.
. "$(dirname "$0")/../support/program.sh"

make_demo "$work/demo"
model=(-m "$work/demo" --ctx 2048)
greedy=(--raw --temperature 0)

# text NAME ARGUMENTS...: a run that goes well; its text in $work/out.
text() {
    local name=$1
    shift
    sluice run "${model[@]}" "$@"
    if [ "$code" = 0 ]; then ok "$name"; else not_ok "$name" "$(last_run)"; fi
}
# says NAME FILE: the text of the last run is that of FILE.
says() {
    if cmp "$work/out" "$2" >"$work/cmp" 2>&1; then ok "$1"; else not_ok "$1" "$(cat "$work/cmp")" "$(last_run)"; fi
}
# ended NAME PATTERN: why, as the last run tells.
ended() {
    if grep -q "ended by: $2" "$work/err"; then ok "$1"; else not_ok "$1" "$(last_run)"; fi
}

# --- where the text comes from ---------------------------------------------------------------------

prompt=$'Once upon a time,\nthere was a file.\n'
printf '%s' "$prompt" >"$work/prompt"
text prompt_by_option "${greedy[@]}" -p "$prompt" --max-tokens 24 </dev/null
cp "$work/out" "$work/greedy"
text prompt_from_a_file "${greedy[@]}" -f "$work/prompt" --max-tokens 24 </dev/null
says a_file_says_what_the_option_says "$work/greedy"
text prompt_from_standard_input "${greedy[@]}" --max-tokens 24 <"$work/prompt"
says standard_input_says_what_the_option_says "$work/greedy"
text prompt_from_a_pipe "${greedy[@]}" -f - --max-tokens 24 < <(head -c 5 "$work/prompt" && sleep 0.1 && tail -c +6 "$work/prompt")
says a_pipe_says_what_the_option_says "$work/greedy"
text empty_text_begins_with_nothing "${greedy[@]}" -p '' --max-tokens 8 </dev/null
check empty_text_is_continued test "$(wc -c <"$work/out")" -gt 8
cp "$work/out" "$work/from_nothing"
text empty_input_is_an_empty_text "${greedy[@]}" --max-tokens 8 </dev/null
says empty_input_is_continued_alike "$work/from_nothing"
printf 'x' >"$work/one"
text one_byte_is_a_text "${greedy[@]}" -f "$work/one" --max-tokens 4 </dev/null
printf '\377\376\0\200 \303' >"$work/bytes"
text text_that_is_not_utf8_is_a_text "${greedy[@]}" -f "$work/bytes" --max-tokens 4 </dev/null
refused two_texts_are_refused 2 'exclude each other' run "${model[@]}" -p x -f "$work/prompt"
refused a_text_that_is_not_there_is_named 1 "$work/nothing: " run "${model[@]}" -f "$work/nothing"
refused a_directory_is_no_text 1 "$work/demo: .*directory" run "${model[@]}" -f "$work/demo"
refused the_text_is_looked_for_before_the_model 1 "$work/nothing: " run -m "$work/nowhere" -f "$work/nothing"

# --- when it ends ----------------------------------------------------------------------------------

text sixteen_tokens "${greedy[@]}" -p "$prompt" --max-tokens 16 </dev/null
ended max_tokens_is_said --max-tokens
check so_many_are_said grep -q ' 16 generated' "$work/err"
head -c -1 "$work/out" >"$work/shorter" # without the line's end
check fewer_tokens_are_the_beginning cmp -n "$(stat -c %s "$work/shorter")" "$work/shorter" "$work/greedy"
ends the_context_is_an_end 0 run -m "$work/demo" --ctx 12 "${greedy[@]}" -p x
ended a_full_context_is_said 'the context is full'
check the_context_holds_both grep -qE '^2 tokens of prompt, 11 generated' "$work/err"
refused a_prompt_larger_than_the_context 3 'holds 4: a larger --ctx' run -m "$work/demo" --ctx 4 -p "$prompt"

# Text with an added token in it, whose spelling has characters of several bytes.
export LC_ALL=C
for seed in {0..39}; do
    sluice run "${model[@]}" --raw -p Hello --max-tokens 100 --seed "$seed" </dev/null
    all=$(cat "$work/out" && echo .)
    all=${all%$'\n'.}
    before=${all%%'<｜'*}
    [ "$code" = 0 ] && [ "$before" != "$all" ] && [ ${#before} -gt 12 ] && break
done
check a_text_with_long_characters test "${#before}" -lt "${#all}"
seeded=(--raw -p Hello --max-tokens 100 --seed "$seed")
# stops NAME STOP...: before the first of them, which is the only one in the text.
stops() {
    local name=$1 stop=$2 arguments=() s
    shift
    for s in "$@"; do
        arguments+=(--stop "$s")
    done
    sluice run "${model[@]}" "${seeded[@]}" "${arguments[@]}" </dev/null
    printf '%s\n' "${all%%"$stop"*}" >"$work/wanted"
    says "$name" "$work/wanted"
    ended "${name}_and_says_so" 'a stop string'
}
stops a_stop_within_a_token "${all:3:2}"
stops a_stop_over_several_tokens "${all:4:25}"
stops a_stop_in_the_middle_of_a_character "${before: -5}"$'<\357\275'
stops a_stop_of_long_characters '｜'
stops the_first_stop_counts "${all:10:12}" "${all:20:30}" 'never said by anyone'
stops a_stop_at_the_beginning "${all:0:1}"
sluice run "${model[@]}" "${seeded[@]}" --stop 'never said by anyone' --stop "${all: -4}?" </dev/null
printf '%s\n' "$all" >"$work/wanted"
says a_stop_that_only_begins_is_text "$work/wanted"
ended a_stop_that_only_begins_is_no_end --max-tokens
unset LC_ALL
refused an_empty_stop_is_refused 2 'empty' run "${model[@]}" -p x --stop ''

# --- how tokens are chosen -------------------------------------------------------------------------

text top_k_of_one "${greedy[0]}" --top-k 1 --seed 5 -p "$prompt" --max-tokens 24 </dev/null
says the_best_of_one_is_the_best "$work/greedy"
text top_p_of_nothing "${greedy[0]}" --top-p 0 --seed 5 -p "$prompt" --max-tokens 24 </dev/null
says the_fewest_of_all_is_the_best "$work/greedy"
text min_p_of_one "${greedy[0]}" --min-p 1 --seed 5 -p "$prompt" --max-tokens 24 </dev/null
says as_likely_as_the_best_is_the_best "$work/greedy"
refused greedy_has_nothing_to_choose_from 2 '--top-k would do nothing' \
    run "${model[@]}" -p x --temperature 0 --top-k 5

# --- what goes where -------------------------------------------------------------------------------

text account_and_text "${greedy[@]}" -p "$prompt" --max-tokens 24 --stats "$work/stats" </dev/null
says text_alone_is_on_standard_output "$work/greedy"
check the_account_is_on_standard_error grep -qE '^ +sum .* 100\.0 %$' "$work/err"
check no_progress_where_there_is_no_terminal test "$(tr -dc '\r\033' <"$work/err" | wc -c)" = 0
check numbers_go_to_a_file grep -q '"phases": {' "$work/stats"

"$SLUICE" run "${model[@]}" "${greedy[@]}" -p a --max-tokens 1000 2>"$work/err" </dev/null | head -c 1 >"$work/out"
codes=${PIPESTATUS[*]}
check a_closed_pipe_ends_it_quietly test "$codes:$(grep -vc '^note: ' "$work/err")" = '141 0:0'

# full NAME FILE ARGUMENTS...: one line about it, exit code 1.
full() {
    local name=$1 file=$2
    shift 2
    sluice "$@" </dev/null
    if [ "$code" = 1 ] && [ "$(grep -cE '^sluice( [a-z]+)?: ' "$work/err")" = 1 ] &&
        tail -n 1 "$work/err" | grep -q "^sluice run: $file: .*No space left"; then
        ok "$name"
    else
        not_ok "$name" "$(last_run)"
    fi
}
if [ -c /dev/full ]; then
    full numbers_that_do_not_fit_are_an_error /dev/full run "${model[@]}" -p x --max-tokens 2 --stats /dev/full
    to_full() {
        timeout "$limit_s" "$SLUICE" run "${model[@]}" -p x --max-tokens 9 "$@" >/dev/full 2>"$work/err" </dev/null
        code=$?
        [ "$code:$(grep -cE '^sluice( [a-z]+)?: ' "$work/err")" = 1:1 ] && grep -q '^sluice run: standard output: .*No space left' "$work/err"
    }
    check text_that_does_not_fit_is_an_error to_full
else
    skip what_does_not_fit_is_an_error "no /dev/full"
fi
refused numbers_are_refused_before_the_work 1 "$work/no/stats: " run "${model[@]}" -p x --stats "$work/no/stats"

closed() {
    timeout "$limit_s" "$SLUICE" run "${model[@]}" -p x --max-tokens 2 --stats "$work/closed" >&- 2>"$work/err" </dev/null
    code=$?
    [ $code = 1 ] && grep -q '^sluice run: standard output: ' "$work/err" && [ "$(head -c 1 "$work/closed")" = '{' ]
}
check closed_output_is_an_error_and_goes_nowhere_else closed

# --- what makes no sense ---------------------------------------------------------------------------

refused no_model 2 'no model: .*-m' run -p x
refused no_such_model 1 "$work/nowhere" run -m "$work/nowhere" -p x
refused unknown_option 2 "unknown option --promt \(did you mean --prompt" run --promt x
refused option_of_another_command 2 '--window' run "${model[@]}" -p x --window 5
refused option_without_a_value 2 '--seed' run "${model[@]}" -p x --seed
refused too_little_memory 3 'smallest that would do is --ram [0-9]+M$' run "${model[@]}" -p x --ram 2M
least=$(sed -n 's/.*--ram \([0-9]*M\)$/\1/p' "$work/err")
text the_memory_suggested_is_enough "${greedy[@]}" -p "$prompt" --max-tokens 24 --ram "$least" </dev/null
says little_memory_says_the_same "$work/greedy"
finish
