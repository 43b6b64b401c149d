#!/usr/bin/env bash
# What is read is what was missed: bytes from storage, as the kernel counts them for the process, are
# the experts that were not in the cache, and peak memory keeps the promise of --ram.
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

ram=64M
account 1 "$work/none.json"
ram=$(sed -n 's/.*--ram \([0-9]*\)M$/\1/p' "$work/err")
[ -n "$ram" ] || { cat "$work/err"; echo "not ok the_smallest_ram_is_named"; exit 1; }
ram=$((ram + 4))M # some twenty slots of 256
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
if [ "$read_long" = 0 ]; then
    skip bytes_read_are_experts_missed "the kernel does not count this file system's reads"
else
    got=$((read_long - read_short)) want=$((missed * slot))
    echo "$missed experts missed, $want bytes; the kernel counts $got"
    check bytes_read_are_experts_missed test "$missed" -gt 100 -a $((got * 100)) -le $((want * 101)) \
        -a $((got * 100)) -ge $((want * 99))
fi
peak=$(number peak_bytes "$work/long.json")
promised=$(number ram_bytes "$work/long.json")
check peak_memory_keeps_the_promise test "$peak" -gt 0 -a "$peak" -le "$promised"
finish
