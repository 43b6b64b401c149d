#!/usr/bin/env bash
# What is read is what was missed: bytes from storage, as the kernel counts them for the process, are
# the experts that were not in the cache and the dense weights that have no room, and peak memory keeps
# the promise of --ram.
. "$(dirname "$0")/../support/shell.sh"

model=$work/demo
"$SLUICE" mkmodel --preset demo "$model" 2>"$work/err" || { cat "$work/err"; exit 1; }

number() { # NAME FILE: the first value of that name in the account
    sed -n "s/^ *\"$1\": \([0-9]*\),*$/\1/p" "$2" | head -1
}

# With little room and nothing from the page cache; greedy, so that both runs share their beginning.
# What is read ahead in vain is no miss: without it.
account() { # TOKENS FILE
    "$SLUICE" run -m "$model" --raw -p "Once upon a time" --io direct --ram "$ram" --ctx 4096 \
        --chunk 64 --prefetch off --temperature 0 --max-tokens "$1" --stats "$2" >/dev/null 2>"$work/err"
}

measure() { # RAM: into short.json and long.json, or leave
    ram=$1
    account 40 "$work/warm.json" # headers, tokenizer and embedding rows are in the page cache from here on
    if ! account 1 "$work/short.json" || ! account 40 "$work/long.json"; then
        if grep -q 'O_DIRECT' "$work/err"; then
            skip bytes_read_are_experts_missed "this file system refuses O_DIRECT"
            exit 0
        fi
        cat "$work/err"
        exit 1
    fi
    read_short=$(number storage_read_bytes "$work/short.json")
    read_long=$(number storage_read_bytes "$work/long.json")
    missed=$(($(number misses "$work/long.json") - $(number misses "$work/short.json")))
    slot=$(number slot_bytes "$work/long.json")
    each=$(number streamed_bytes_per_step "$work/long.json")
}

kernel_agrees() { # NAME: on 39 steps' misses and dense weights
    if [ "$read_long" = 0 ]; then
        skip "$1" "the kernel does not count this file system's reads"
        return
    fi
    local got=$((read_long - read_short)) want=$((missed * slot + 39 * each))
    echo "$missed experts missed, $each bytes of dense weights a step: $want bytes; the kernel counts $got"
    check "$1" test "$missed" -gt 100 -a $((got * 100)) -le $((want * 101)) -a $((got * 100)) -ge $((want * 99))
}

promise_kept() { # NAME
    local peak promised
    peak=$(number peak_bytes "$work/long.json")
    promised=$(number ram_bytes "$work/long.json")
    check "$1" test "$peak" -gt 0 -a "$peak" -le "$promised"
}

ram=64M
account 1 "$work/none.json"
least=$(sed -n 's/.*--ram \([0-9]*\)M$/\1/p' "$work/err")
[ -n "$least" ] || { cat "$work/err"; echo "not ok the_smallest_ram_is_named"; exit 1; }

measure $((least + 4))M
check most_dense_weights_have_no_room test "$each" -gt 10000000
kernel_agrees bytes_read_are_experts_missed_and_dense_weights
promise_kept peak_memory_keeps_the_promise_while_dense_weights_are_read

measure $((least + 24))M # all dense weights, and some of 256 experts
check all_dense_weights_have_room test "$each" = 0
kernel_agrees bytes_read_are_experts_missed
promise_kept peak_memory_keeps_the_promise
finish
