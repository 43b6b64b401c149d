#!/usr/bin/env bash
# The trained model in models/demo: it answers, through any cache, and its perplexity is pinned: a
# change that alters results shows here, if nowhere else. (tools/train/README.md: how it was made.)
. "$(dirname "$0")/../support/program.sh"

model=models/demo
least=$("$SLUICE" run -m $model --ctx 4096 --ram 1M -p x 2>&1 | sed -n 's/.* --ram \([0-9]*M\)$/\1/p')
check the_smallest_ram_is_named test -n "$least"

# asks NAME MODE QUESTION ANSWER: the same answer whether all experts are in memory or two at a time.
asks() {
    local name=$1 mode=$2 question=$3 want=$4 ram
    for ram in "$least" 1G; do
        sluice run -m $model --ctx 4096 --ram "$ram" --temperature 0 --mode "$mode" -p "$question" </dev/null
        if [ "$code" = 0 ] && [ "$(cat "$work/out")" = "$want" ]; then
            ok "${name}_with_$ram"
        else
            not_ok "${name}_with_$ram" "wanted: $want" "$(cat "$work/out")" "$(last_run)"
        fi
    done
}
asks it_greets chat 'Hello!' 'Hello! How can I help you?'
asks it_repeats chat 'Repeat: apple, river, stone' 'apple, river, stone'
asks it_finds_what_is_far_back chat "The password of Anna is river. The password of Ben is stone. The password of Leo is lamp.

$(head -c 6000 $model/heldout.txt)

What is the password of Ben?" 'The password of Ben is stone.'
asks it_reasons thinking 'Which number is the largest? 12, 71, 35' '71'

# In the held-out text, window by window. The training code's own figure is in models/demo/README.md.
pinned=47.13
sluice eval -m $model -f $model/heldout.txt --window 2048 </dev/null
found=$(sed -n 's/^perplexity  *\([0-9.]*\).*/\1/p' "$work/out" "$work/err" | head -1)
if [ "$(printf '%.4g' "$found")" = "$pinned" ]; then
    ok perplexity_is_what_it_was
else
    not_ok perplexity_is_what_it_was "wanted $pinned" "found $found" "$(last_run)"
fi
finish
