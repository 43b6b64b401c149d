#!/usr/bin/env bash
# `sluice eval` as a person meets it: perplexity of texts, logits of token ids, what is refused.
. "$(dirname "$0")/../support/program.sh"

make_demo "$work/demo"
demo=(-m "$work/demo" --ctx 2048)
golden_tokens >"$work/tokens"

# --- perplexity ------------------------------------------------------------------------------------

for i in {1..5}; do
    echo "Line $i of a text that is long enough for several windows, with ünïcödé in it."
done >"$work/text"
# scored NAME TOKENS ARGUMENTS...: so many tokens have a perplexity; it is in $perplexity.
scored() {
    local name=$1 tokens=$2
    shift 2
    sluice eval "${demo[@]}" "$@"
    perplexity=$(sed -n "s/^perplexity \([0-9.]*\) .*, $tokens tokens)\$/\1/p" "$work/out")
    if [ "$code" = 0 ] && [ -n "$perplexity" ] && [ "$(wc -l <"$work/out")" = 1 ]; then
        ok "$name"
    else
        not_ok "$name" "$(cat "$work/out")" "$(last_run)"
    fi
}
scored a_text_has_a_perplexity '[0-9]*' -f "$work/text" --window 32
n=$(sed -n 's/.*, \([0-9]*\) tokens)$/\1/p' "$work/out")
windows=$perplexity
check several_windows test "$n" -gt 100
scored the_chunk_does_not_matter "$n" -f "$work/text" --window 32 --chunk 5
check not_a_bit "$([ "$perplexity" = "$windows" ] && echo true || echo false)"
scored standard_input_is_a_text "$n" -f - --window 32 <"$work/text"
check with_the_same_perplexity "$([ "$perplexity" = "$windows" ] && echo true || echo false)"
scored one_window_scores_every_token_once "$n" -f "$work/text" --window 2048
check more_context_is_another_number "$([ "$perplexity" != "$windows" ] && echo true || echo false)"
scored the_smallest_window_scores_every_token_once "$n" -f "$work/text" --window 2
scored a_window_of_odd_length_too "$n" -f "$work/text" --window 33
scored a_window_as_long_as_the_text_too "$n" -f "$work/text" --window $((n + 1))
printf x >"$work/one"
scored one_byte_is_a_text 1 -f "$work/one"
printf '\377\376\0\200 \303' >"$work/bytes"
scored text_that_is_not_utf8_is_a_text '[0-9]*' -f "$work/bytes"
refused an_empty_text_has_none 1 '/dev/null: no text' eval "${demo[@]}" -f /dev/null
refused a_window_larger_than_the_context 2 '--window 4096 does not fit' eval "${demo[@]}" -f "$work/text" --window 4096
refused a_text_that_is_not_there_is_named 1 "$work/nothing: " eval "${demo[@]}" -f "$work/nothing"

# --- logits ----------------------------------------------------------------------------------------

golden=(-m "$golden_model" --ctx 512)
ids() { # NAME CODE PATTERN IDS: a list that is refused, by byte
    printf '%b' "$4" >"$work/ids"
    refused "$1" "$2" "$3" eval "${golden[@]}" --tokens "$work/ids" --logits "$work/logits"
    check "${1}_leaves_no_file" test ! -e "$work/logits" -a ! -e "$work/logits.partial"
}
ids a_word_is_no_token 1 "$work/ids: byte 3: .*: 7x\$" '12 7x 9\n10\n'
ids a_token_beyond_the_vocabulary 1 "byte 2: not a token id from 0 to 255: 256\$" '1 256'
ids a_negative_token 1 'byte 0: not a token id' '-1 5'
ids a_huge_token 1 'byte 0: not a token id' '99999999999999999999999'
ids a_zero_byte 1 'byte 1: not a token id' '5\00007'
ids no_tokens 1 'no tokens' ' \n\t '
ids no_tokens_at_all 1 'no tokens' ''
ends any_white_space_separates 0 eval "${golden[@]}" --tokens <(printf '\t1\r\n2\v3\f 4 ') --logits "$work/logits"
check and_the_header_says_how_many grep -qa '"shape":\[4,256\]' "$work/logits"
ends one_token_is_enough 0 eval "${golden[@]}" --tokens <(echo 5) --logits "$work/logits"
refused a_draft_needs_two 1 '--mtp needs two' eval "${golden[@]}" --tokens <(echo 5) --logits "$work/other" --mtp
refused a_draft_block_that_is_not_there 2 "$work/demo: .*draft" eval "${demo[@]}" --tokens "$work/tokens" --logits "$work/other" --mtp
refused more_tokens_than_the_context 3 '280 tokens, the context holds 100' \
    eval -m "$golden_model" --ctx 100 --chunk 64 --tokens "$work/tokens" --logits "$work/other"
check and_nothing_is_written test ! -e "$work/other" -a ! -e "$work/other.partial"
refused tokens_without_logits 2 '--tokens needs --logits' eval "${golden[@]}" --tokens "$work/tokens"
refused logits_without_tokens 2 '--logits needs --tokens' eval "${demo[@]}" -f "$work/text" --logits "$work/other"
refused nothing_to_evaluate 2 'nothing to evaluate' eval "${demo[@]}"
refused no_model 2 'no model' eval -f "$work/text"

# --- files that cannot be written ------------------------------------------------------------------

# What is no regular file must neither be replaced by one nor get a neighbour.
kept() { # FILE...
    local file
    for file in "$@"; do
        [ -c "$file" ] && [ ! -e "$file.partial" ] || return 1
    done
}
logits=(eval "${golden[@]}" --tokens "$work/tokens" --logits)
ends logits_may_go_nowhere 0 "${logits[@]}" /dev/null
if [ -c /dev/full ]; then
    refused logits_that_do_not_fit_are_an_error 1 '/dev/full: .*No space left' "${logits[@]}" /dev/full
    check devices_stay_what_they_are kept /dev/null /dev/full
fi
refused logits_into_a_folder_that_is_not_there 1 "$work/no/logits.*No such file" "${logits[@]}" "$work/no/logits"
refused logits_into_a_folder 1 "$work/demo: .*directory" "${logits[@]}" "$work/demo"
echo old >"$work/target"
ln -s target "$work/link"
ends logits_through_a_link 0 "${logits[@]}" "$work/link"
check go_to_what_it_links_to test -L "$work/link" -a "$(stat -c %s "$work/target")" -gt $((280 * 256 * 4))
ends numbers_go_to_a_file 0 "${logits[@]}" "$work/logits" --stats "$work/stats"
check with_every_token test "$(value tokens "$work/stats")" = 0 -a "$(grep -c '"tokens": 280,' "$work/stats")" = 1
check nothing_is_on_standard_output test ! -s "$work/out"
check no_progress_where_there_is_no_terminal test "$(tr -dc '\r\033' <"$work/err" | wc -c)" = 0
finish
