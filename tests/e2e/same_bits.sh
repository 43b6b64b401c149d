#!/usr/bin/env bash
# Logits and text do not depend on how the work is cut up, cached, read or shared out.
. "$(dirname "$0")/../support/program.sh"

golden_tokens >"$work/tokens"
tokens=$work/tokens
if [ "$(wc -w <"$tokens")" != 280 ]; then
    not_ok the_golden_tokens_are_read
    finish
fi

# logits OUT OPTIONS...: of the golden tokens.
logits() {
    local out=$1
    shift
    sluice eval -m "$golden_model" --ctx 512 --tokens "$tokens" --logits "$out" --stats "$work/stats" "$@"
}
# reference NAME OPTIONS...: what the others are to be equal to, in $reference.
reference() {
    local name=$1
    shift
    reference=$work/$name.safetensors
    logits "$reference" "$@"
    if [ "$code" = 0 ]; then ok "reference_$name"; else not_ok "reference_$name" "$(last_run)"; fi
}
# same NAME OPTIONS...
same() {
    local name=$1
    shift
    rm -f "$work/other"
    logits "$work/other" "$@"
    if [ "$code" = 0 ] && cmp "$reference" "$work/other" >"$work/cmp" 2>&1; then
        ok "same_logits_$name"
    else
        not_ok "same_logits_$name" "options: $*" "$(cat "$work/cmp" 2>&1)" "$(last_run)"
    fi
}
# The last run did what its option says; else the comparison says less than its name.
was() { # NAME PATTERN
    if grep -q "$2" "$work/stats"; then ok "$1"; else not_ok "$1" "$(tail -n 20 "$work/stats")"; fi
}

reference default
for n in 1 7 64 300; do
    same "chunk_$n" --chunk $n
done
for p in 0 100 279; do
    same "decode_from_$p" --decode-from $p
done
same decode_after_chunks --chunk 64 --decode-from 130
for n in 1 2 3; do
    same "threads_$n" --threads $n
done
if reads_directly "$golden_model" same_logits_direct; then
    same direct --io direct
    same direct_pread --io direct --io-engine pread
fi
same buffered --io buffered
was buffered_is_the_page_cache '"engine": ".*page cache'
same pread --io-engine pread
was pread_is_threads '"engine": "pread'
for mode in off hash gate sweep; do
    same "prefetch_$mode" --prefetch $mode --decode-from 150
done
same uring --io-engine uring

# The smallest cache. What the refusal suggests is in whole megabytes; the slots beyond two that
# fit in it are then taken off.
logits "$work/other" --ram 1M
suggested=$(sed -n 's/.*smallest that would do is --ram \([0-9]*\)M.*/\1/p' "$work/err")
if [ "$code" = 3 ] && [ -n "$suggested" ]; then
    ok too_little_memory_is_refused_with_the_least_that_would_do
    same with_what_was_suggested --ram "${suggested}M"
    slots=$(value slots "$work/stats") slot_bytes=$(value slot_bytes "$work/stats")
    least=$((suggested * 1048576 - (slots - 2) * slot_bytes))
    same two_slots --ram $least
    was two_slots_are_two '"slots": 2,'
    was two_slots_are_used_again '"evicted": [1-9]'
    same two_slots_pread_one_thread --ram $least --io-engine pread --threads 1
    same two_slots_decode_from_200 --ram $least --decode-from 200
    was two_slots_are_two_still '"slots": 2,'
    same three_slots --ram $((least + slot_bytes))
    was three_slots_are_three '"slots": 3,'
    for mode in off hash gate sweep; do
        same "prefetch_${mode}_eight_slots" --prefetch $mode --ram $((least + 6 * slot_bytes)) \
            --decode-from 200
    done
    logits "$work/other" --ram $((least - slot_bytes))
    check less_than_two_slots_is_refused test "$code" = 3
else
    not_ok too_little_memory_is_refused_with_the_least_that_would_do "$(last_run)"
fi
same much_memory --ram 1G

# With the draft block; the trunk's part of the file is as without.
trunk=$reference
data_of() { # FILE: where its tensors begin
    echo $((8 + $(od -An -tu8 -N8 "$1")))
}
reference mtp --mtp
check draft_leaves_the_trunk_alone cmp -n $((280 * 256 * 4)) \
    -i "$(data_of "$trunk"):$(data_of "$reference")" "$trunk" "$reference"
check draft_logits_are_in_the_file test "$(stat -c %s "$reference")" = \
    $(($(data_of "$reference") + (280 + 279) * 256 * 4))
for n in 1 7 300; do
    same "mtp_chunk_$n" --mtp --chunk $n
done
for p in 0 100 279; do
    same "mtp_decode_from_$p" --mtp --decode-from $p
done
same mtp_pread_one_thread --mtp --io-engine pread --threads 1

reference exact --exact
check exact_is_another_arithmetic test "$(cmp "$trunk" "$reference" | wc -l)" = 1
same exact_chunk_7 --exact --chunk 7
same exact_decode_from_100 --exact --decode-from 100
same exact_threads_3 --exact --threads 3

# --- text ------------------------------------------------------------------------------------------

make_demo "$work/demo"
prompt='The quick brown fox jumps over the lazy dog, and the dog does not mind at all.'
text() {
    sluice run -m "$work/demo" --raw -p "$prompt" --max-tokens 48 --ctx 512 --stats "$work/stats" "$@" </dev/null
}
same_text() {
    local name=$1
    shift
    text "$@"
    if [ "$code" = 0 ] && cmp "$work/text" "$work/out" >"$work/cmp" 2>&1; then
        ok "same_text_$name"
    else
        not_ok "same_text_$name" "options: $*" "$(cat "$work/cmp" 2>&1)" "$(last_run)"
    fi
}
text --seed 7
mv "$work/out" "$work/text"
check a_text_is_written test -s "$work/text"
same_text again --seed 7
same_text chunk_1 --seed 7 --chunk 1
same_text chunk_5_three_threads --seed 7 --chunk 5 --threads 3
same_text one_thread_buffered --seed 7 --threads 1 --io buffered
same_text pread --seed 7 --io-engine pread
for mode in off hash gate; do
    same_text "prefetch_$mode" --seed 7 --prefetch $mode
done
if reads_directly "$work/demo" same_text_direct; then
    same_text direct --seed 7 --io direct
fi
text --seed 7 --ram 1M
least=$(sed -n 's/.*smallest that would do is --ram \([0-9]*M\).*/\1/p' "$work/err")
same_text least_memory --seed 7 --ram "$least"
was least_memory_is_a_small_cache '"evicted": [1-9]'
text --seed 8
check another_seed_another_text test "$code:$(cmp "$work/text" "$work/out" | wc -l)" = 0:1
text --seed 7 --temperature 0
cp "$work/out" "$work/greedy"
text --seed 8 --temperature 0 --chunk 3
check greedy_needs_no_seed cmp "$work/greedy" "$work/out"
text --seed 9 --top-k 1
check the_best_of_one_is_greedy cmp "$work/greedy" "$work/out"
finish
