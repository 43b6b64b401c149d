#!/usr/bin/env bash
# `sluice bench cache` on a trace so small that its figures can be told by hand, and on one that the
# program recorded itself.
. "$(dirname "$0")/../support/program.sh"

u32() { # NUMBER below 256...: in 4 bytes each
    local n
    for n in "$@"; do printf "\\x$(printf %02x "$n")\\0\\0\\0"; done
}
ids() { # EXPERT...: a byte each
    local n
    for n in "$@"; do printf "\\x$(printf %02x "$n")"; done
}
# 2 layers by score, 2 of 6 experts in each; a prompt of two tokens, then two single ones:
#   layer 0: 0 1, 0 2, 0 1, 0 1      layer 1: 2 3, 4 5, 2 3, 3 4
# So the steps ask for 0 1 2 and 2 3 4 5, for 0 1 and 2 3, for 0 1 and 3 4: 15 experts, 7 of them for
# the first time. Half of all are 6: LRU gives 0 up for the last of the seven, Belady 2, which nobody
# wants any more.
{
    printf 'slroute\n'
    u32 1 2 6 2 100 0
    ids 0 0
    u32 2 2 0 0 7 0 1 8
    ids 0 1 0 2 2 3 4 5
    u32 1 2 0 2 9
    ids 0 1 2 3
    u32 1 2 0 3 9
    ids 0 1 3 4
} >"$work/trace"

# finds NAME PATTERN: it is on the last run's standard output.
finds() {
    if grep -qE -- "$2" "$work/out"; then ok "$1"; else not_ok "$1" "$(last_run)" "$(head -c 3000 "$work/out")"; fi
}

ends a_trace_is_replayed 0 bench cache --routing "$work/trace" --html "$work/page.html"
finds it_is_described '2 layers, 2 of 6 experts; 4 tokens in 3 steps ask for 15 experts'
# Of the token before: one of two, one, two in layer 0; none, none, one in layer 1 (of 12 in all).
finds overlap_is_counted 'shares 42 % of its experts with the one before'
finds lru_is_as_counted_by_hand '^  LRU .* 46\.7 \(1\.14\)$'
finds belady_is_as_counted_by_hand '^  Belady .* 53\.3 \(1\.00\)$'
finds bytes_are_told '^  MB a token '
check the_page_is_whole grep -q '^</html>' "$work/page.html"
check the_page_needs_nothing_else sh -c "! grep -qE '<script|https?:' '$work/page.html'"
check the_page_has_both_plots test "$(grep -c '<svg' "$work/page.html")" = 2

ends it_is_told_as_json 0 bench cache --routing "$work/trace" --routing "$work/trace" --json
check json_has_every_trace test "$(grep -c '"trace"' "$work/out")" = 2
check json_has_every_policy test "$(grep -c '"policy"' "$work/out")" = 16
finds json_names_the_default '"default": "reuse"'

head -c $(($(stat -c %s "$work/trace") - 1)) "$work/trace" >"$work/cut"
ends a_trace_that_is_cut_gives_what_is_whole 0 bench cache --routing "$work/cut"
finds the_whole_steps_count '3 tokens in 2 steps ask for 11 experts'
check and_it_is_said grep -q '^note: .*the last step is cut short' "$work/err"

ends what_is_no_trace_is_refused 1 bench cache --routing README.md
check by_name grep -q '^sluice bench cache: README.md: byte 0: not a routing trace' "$work/err"
ends a_trace_that_is_not_there_is_refused 1 bench cache --routing "$work/nowhere"
ends a_page_that_cannot_be_written_is_refused 1 bench cache --routing "$work/trace" --html "$work/no/page.html"
ends operands_are_refused 2 bench cache "$work/trace"
ends help 0 bench cache --help
check help_fits_eighty_columns test "$(wc -L <"$work/out")" -le 80

demo="$work/demo"
make_demo "$demo"
ends its_routing_is_recorded 0 run -m "$demo" --raw -p "Once" --max-tokens 24 --ctx 256 --temperature 1 \
    --seed 1 --record-routing "$work/recorded"
ends and_replayed 0 bench cache --routing "$work/recorded"
finds every_policy_is_there '^  reuse .* \([0-9.]+\)$'
finish
