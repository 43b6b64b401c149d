#!/usr/bin/env bash
# `sluice bench decode` and `sluice bench prefill` on a small model: every figure is there, and they
# go together. How fast it is, nobody asserts.
. "$(dirname "$0")/../support/program.sh"

demo="$work/demo"
make_demo "$demo"

# finds NAME PATTERN: it is on the last run's standard output.
finds() {
    if grep -qE -- "$2" "$work/out"; then ok "$1"; else not_ok "$1" "$(last_run)" "$(head -c 3000 "$work/out")"; fi
}

# holds NAME EXPRESSION: of numbers; those of the last run are written as $(n KEY) by the caller.
holds() {
    if awk "BEGIN { exit !($2) }"; then ok "$1"; else not_ok "$1" "$2" "$(head -c 3000 "$work/out")"; fi
}
n() { # KEY: the first number of that name
    value "$1" "$work/out"
}
sum() { # KEY: of all lists' members of that name
    sed -n "s/^ *\"$1\": \([0-9.e+-]*\),*\$/\1/p" "$work/out" | awk '{ s += $1 } END { printf "%.9f", s }'
}
count() { # KEY
    grep -c "\"$1\":" "$work/out"
}

# The smallest --ram that would do, as a refusal names it: then experts are read again and again.
sluice bench decode -m "$demo" --tokens 12 --prompt-tokens 8 --ram 1M </dev/null
check what_does_not_fit_is_refused test "$code" = 3
least=$(grep -oE -- '--ram [0-9.]+[MG]' "$work/err" | tail -n 1 | cut -d' ' -f2)
decode=(bench decode -m "$demo" --tokens 12 --prompt-tokens 8 --rounds 4 --seconds 0.02 --ram "$least")

# --- decode -----------------------------------------------------------------------------------------

ends a_decode_is_measured 0 "${decode[@]}"
finds tokens_a_second '^decode +[0-9.e+]+ tokens/s \(quartiles of 4 rounds [0-9.e+]+ to [0-9.e+]+\), 12 tokens$'
finds bytes_and_hits '[0-9.]+ MB a token; [0-9.]+ experts wanted, [0-9.]+ % found in memory$'
finds where_the_time_went '^time, % +waiting [0-9.]+, attention'
finds idle_time_of_the_disk '^disk +idle [0-9.]+ % of the time; while something was wanted [0-9.]+ %$'
finds the_disk_alone '^disk alone +[0-9.]+ GB/s \([0-9.]+ to [0-9.]+\)$'
finds the_bound 'of arithmetic: [0-9.]+ \([0-9.]+ to [0-9.]+\) times its bound$'
check no_event_was_lost sh -c "! grep -q 'were lost' '$work/out'"
check nothing_but_notes_on_standard_error sh -c "! grep -v '^note: ' '$work/err'"

ends it_is_told_as_json 0 "${decode[@]}" --json
check every_round_is_there test "$(count bound_seconds)" = 5 # and their sum
check a_look_before_and_after_each test "$(sed -n '/"looks_bytes_per_s"/,/]/p' "$work/out" | grep -cE '^ +[0-9]')" = 5
holds tokens_add_up "$(sum tokens) == 2 * 12"
holds the_hits_are_a_share "$(n hit_rate) >= 0 && $(n hit_rate) < 1"
holds bytes_are_those_of_the_tokens "$(n bytes_per_token) > 0 && ($(sum bytes) - 12 * $(n bytes_per_token)) ^ 2 < 1"
holds waiting_is_part_of_the_time "$(sum wait_seconds) > 0 && $(sum wait_seconds) < $(n seconds)"
holds nothing_takes_less_than_its_arithmetic "$(n bound_seconds) >= $(n seconds) - $(sum wait_seconds) - 1e-6"
holds activities_add_up "($(sum attention) + $(sum gate) + $(sum experts) + $(sum predict) + $(sum wait_experts) + $(sum wait_dense) + $(sum head) + $(sum sample) + $(sum other) - $(n seconds)) ^ 2 < 1e-12"
holds idle_time_is_part_of_the_time "$(sum idle_wanted_seconds) <= $(sum idle_seconds) && $(sum idle_seconds) <= $(n seconds)"
finds no_event_is_missing '"lost_events": 0'

# A disk so slow that nothing else counts, and one so fast that it does not.
ends a_rate_may_be_given 0 bench decode -m "$demo" --tokens 12 --ram "$least" --disk-rate 0.000001 --json
holds a_slow_disk_is_all_that_counts "$(n bound_seconds) > 100 * $(n seconds)"
finds it_is_known_as_given '"disk_rate_given": true'
ends at_any_rate 0 bench decode -m "$demo" --tokens 12 --ram "$least" --disk-rate 1000000 --json
holds a_fast_disk_leaves_arithmetic "($(n bound_seconds) - ($(n seconds) - $(sum wait_seconds))) ^ 2 < 1e-6"

ends several_sequences_at_once 0 bench decode -m "$demo" --tokens 3 --sequences 3 --seconds 0.02 --json
holds each_decodes_its_tokens "$(n tokens) == 9 && $(sum tokens) == 18"
ends in_groups_that_take_turns 0 bench decode -m "$demo" --tokens 6 --sequences 4 --groups 2 --rounds 2 --seconds 0.02 --json
holds all_of_them_decode "$(n tokens) >= 24 && $(n tokens) <= 32 && $(sum tokens) == 2 * $(n tokens)"
finds their_groups_are_told '"groups": 2'
holds their_activities_add_up "($(sum attention) + $(sum gate) + $(sum experts) + $(sum predict) + $(sum wait_experts) + $(sum wait_dense) + $(sum head) + $(sum sample) + $(sum other) - $(n seconds)) ^ 2 < 1e-12"
ends more_groups_than_sequences_are_refused 2 bench decode -m "$demo" --sequences 2 --groups 3
ends a_text_may_be_the_prompt 0 bench decode -m "$demo" -f README.md --tokens 1 --seconds 0.02 --json
holds it_has_tokens "$(n prompt_tokens) > 100"
ends a_text_that_is_not_there_is_refused 1 bench decode -m "$demo" -f "$work/nowhere"
check by_name grep -q '^sluice bench decode: .*nowhere: ' "$work/err"
ends a_model_that_is_not_there_is_refused 1 bench prefill -m "$work/nowhere"
check by_its_name grep -q '^sluice bench prefill: .*nowhere' "$work/err"

# --- prefill ----------------------------------------------------------------------------------------

prefill=(bench prefill -m "$demo" --rows 16,32,64 --seconds 0.02)
ends a_prefill_is_measured 0 "${prefill[@]}" --ram 200M
check a_line_for_each_length test "$(grep -cE '^ +(16|32|64) +[0-9.]+ ' "$work/out")" = 3
finds the_crossover_or_where_it_is_not '(takes longer than|from about [0-9]+ rows on)'
sluice bench prefill -m "$demo" --rows 16,32,64 --ram 1M </dev/null
least=$(grep -oE -- '--ram [0-9.]+[MG]' "$work/err" | tail -n 1 | cut -d' ' -f2)
ends few_slots 0 "${prefill[@]}" --ram "$least" --prefetch off --io direct --json
if [ "$code" = 0 ]; then
    # Of five slots hardly one is kept until its turn comes: what was held may be read again.
    holds each_expert_is_read_once "$(sum bytes) > 0 && $(sum experts_again) == 0"
    holds none_but_those_that_were_chosen "$(sum bytes) - $(sum dense_bytes) >= $(sum ideal_bytes) && $(sum bytes) - $(sum dense_bytes) <= $(sum chosen_bytes)"
    holds the_first_pass_reads_them_all "$(n bytes) - $(n dense_bytes) == $(n chosen_bytes) && $(n chosen_bytes) == $(n ideal_bytes)"
    holds the_kernel_counts_the_same "$(sum kernel_bytes) >= $(sum bytes)"
    holds what_was_held_was_chosen "$(sum experts_held) <= $(sum experts_chosen)"
    holds waits_and_arithmetic_are_the_time "($(sum wait_seconds) + $(sum arithmetic_seconds) - $(sum seconds)) ^ 2 < 1e-12"
    holds the_bound_is_no_less_than_arithmetic "$(sum bound_seconds) >= $(sum arithmetic_seconds) - 1e-6"
fi
ends lengths_that_descend_are_refused 2 bench prefill -m "$demo" --rows 32,16

for what in decode prefill; do
    ends "help_of_$what" 0 bench $what --help
    check "help_of_${what}_fits_eighty_columns" test "$(wc -L <"$work/out")" -le 80
done

# --- Ctrl-C -----------------------------------------------------------------------------------------

# However slow the machine is: after some time a round has come to its end.
interrupted() { # SECONDS
    "$SLUICE" bench decode -m "$demo" --tokens 100000 --rounds 10000 --seconds 0.02 --ram 1G \
        >"$work/out" 2>"$work/err" </dev/null &
    sleep "$1"
    kill -INT $!
    wait $!
    code=$?
    [ -s "$work/out" ]
}
interrupted 1 || interrupted 5 || interrupted 30
check an_interrupted_run_says_so test "$code" = 130
finds and_tells_what_it_has 'interrupted: these are the rounds that came to their end'
finish
