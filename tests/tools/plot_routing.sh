#!/usr/bin/env bash
# tools/plot-routing.py on a trace so small that its figures can be told by hand.
. "$(dirname "$0")/../support/shell.sh"

if ! command -v python3 >/dev/null || ! python3 -c '' 2>/dev/null; then
    skip plots_of_a_routing_trace "python3 is not installed"
    finish
fi

u32() { # NUMBER below 256...: in 4 bytes each
    local n
    for n in "$@"; do printf "\\x$(printf %02x "$n")\\0\\0\\0"; done
}
ids() { # EXPERT...: a byte each
    local n
    for n in "$@"; do printf "\\x$(printf %02x "$n")"; done
}
# 2 of 6 experts; layer 0 by table, layer 1 by score. A prompt of two tokens, then two single ones:
#   layer 0: 0 1, 0 2, 0 1, 0 1      layer 1: 2 3, 4 5, 2 3, 3 4
{
    printf 'slroute\n'
    u32 1 2 6 2 100 0
    ids 1 0
    u32 2 2 0 0 7 0 1 8
    ids 0 1 0 2 2 3 4 5
    u32 1 2 0 2 9
    ids 0 1 2 3
    u32 1 2 0 3 9
    ids 0 1 3 4
} >"$work/trace"

plot() {
    python3 tools/plot-routing.py "$@" >"$work/out" 2>"$work/err"
    code=$?
}
# line NAME PATTERN: the figures have such a line.
line() {
    if grep -qE "^$2\$" "$work/out"; then ok "$1"; else not_ok "$1" "no line: $2" "$(cat "$work/out" "$work/err")"; fi
}
plot "$work/trace" --text
check figures_are_printed test "$code" = 0 -a ! -s "$work/err"
line tokens_and_steps_are_counted '.*/trace: 4 tokens of 1 sequences, in 3 steps, 2 of one token'
line the_model_is_named '2 layers \(1 hash, 1 score\), 2 of 6 experts; a token uses 4 in the trunk, 0\.00 MB'
# Layer 0 uses experts 0, 1, 2 four, three times and once: e^0.974 = 2.6 in effect, half of all are 0's.
# Of the token before: one of two, one of two, both.
line use_and_overlap_of_the_first_layer '    0  hash       3        2\.6     50\.0 %    66\.7 %'
# Layer 1 uses 2, 3, 4, 5 twice, three times, twice, once: e^1.321 = 3.7. Overlap: none, none, one of two.
line use_and_overlap_of_the_second '    1  score      4        3\.7     37\.5 %    16\.7 %'
line chance_is_beside_it 'chance  +33\.3 %'
# Of 8 accesses each. Layer 0: three first ones; places 2, 2, 3, 2, 2; tokens ago 1, 1, 2, 1, 1.
# Layer 1: four first ones; places 4, 4, 1, 4; tokens ago 2, 2, 1, 2.
line distances_in_experts '  +1 +2 +4'
line distances_in_tokens '  +1 +2'
line reuse_in_experts_of_the_first 'hash +0\.0 % +50\.0 % +62\.5 %'
line reuse_in_experts_of_the_second 'score +12\.5 % +12\.5 % +50\.0 %'
line reuse_in_tokens_of_the_first 'hash +50\.0 % +62\.5 %'
line reuse_in_tokens_of_the_second 'score +12\.5 % +50\.0 %'

plot "$work/trace" -o "$work/plot.svg"
check a_plot_is_written test "$code" = 0 -a ! -s "$work/out" -a ! -s "$work/err"
well_formed() {
    python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])' "$1" && ! grep -qE '(src|href)=' "$1"
}
check it_is_one_file_of_well_formed_svg well_formed "$work/plot.svg"
plot "$work/trace" -o "$work/ids.svg" --in-order
check by_id_it_is_another_plot test "$code:$(cmp "$work/plot.svg" "$work/ids.svg" | wc -l)" = 0:1

head -c $(($(stat -c %s "$work/trace") - 1)) "$work/trace" >"$work/cut"
plot "$work/cut" --text
line a_trace_that_is_cut_gives_what_is_whole '.*/cut: 3 tokens of 1 sequences, in 2 steps, 1 of one token'
check and_says_where grep -q "/cut: byte 98: the last step is cut short; 2 before it are whole" "$work/err"
plot README.md --text
check what_is_no_trace_is_refused test "$code:$(cat "$work/err")" = '1:README.md: byte 0: not a routing trace'
finish
