#!/usr/bin/env bash
# `sluice mkmodel` and what can be done with what it makes; what it leaves when it cannot go on.
. "$(dirname "$0")/../support/program.sh"

demo=$work/demo
ends the_demo_is_made 0 mkmodel "$demo"
check in_less_than_100_megabytes test "$(du -sb "$demo" | cut -f 1)" -lt 100000000
check with_all_that_belongs_to_one test -s "$demo/config.json" -a -s "$demo/tokenizer.json" -a \
    -s "$demo/tokenizer_config.json" -a -s "$demo/generation_config.json" -a \
    -s "$demo/model.safetensors.index.json"
ends the_demo_is_inspected 0 inspect "$demo"
check inspect_is_a_table_of_its_layers test "$(grep -cE '^ +[0-7]  ' "$work/out")" = 8
ends the_demo_runs 0 run -m "$demo" -p 'Once upon a time' --max-tokens 16 --ctx 512
check and_writes_a_text test "$(wc -c <"$work/out")" -gt 16
printf '5 6 7 8 9' >"$work/tokens"
ends its_draft_block_works 0 eval -m "$demo" --ctx 512 --mtp --tokens "$work/tokens" --logits "$work/logits"

same_files() {
    diff -r "$@"
}
other_files() {
    ! cmp -s "$1/$3" "$2/$3"
}
ends the_same_seed 0 mkmodel --seed 0 "$work/same"
check makes_the_same_files same_files "$demo" "$work/same"
ends another_seed 0 mkmodel --seed 1 "$work/other"
for shard in "$demo"/*.safetensors; do
    check "makes_another_${shard##*/}" other_files "$demo" "$work/other" "${shard##*/}"
done
check but_the_same_config cmp "$demo/config.json" "$work/other/config.json"
rm -rf "$work/same" "$work/other"

small=(mkmodel --layers 1 --drafts none)
mkdir "$work/exists"
ends an_empty_directory_is_used 0 "${small[@]}" "$work/exists"
cp -r "$work/exists" "$work/before"
refused a_directory_that_is_not_empty 2 "$work/exists: not empty" "${small[@]}" --seed 5 "$work/exists"
check is_left_as_it_was same_files "$work/before" "$work/exists"
ends folders_on_the_way_are_made 0 "${small[@]}" "$work/some/where/else"
refused a_file_is_no_directory 1 "$work/tokens" "${small[@]}" "$work/tokens"
refused no_directory 2 'DIR' mkmodel
refused layers_that_are_not_there 2 'layers' mkmodel --layers 9 "$work/nine"
check and_nothing_is_made test ! -e "$work/nine"

# --- a drive that is full --------------------------------------------------------------------------

# nothing DIR: neither a checkpoint nor parts of one.
nothing() {
    [ ! -e "$1" ] || [ -z "$(ls -A "$1")" ]
}
# A file that may not grow beyond 3 MB, as on a full drive.
limited() {
    (ulimit -f 3072 && timeout "$limit_s" "$SLUICE" "${small[@]}" "$1" >"$work/out" 2>"$work/err")
    code=$?
}
trap '' XFSZ
limited "$work/limited"
trap - XFSZ
check a_file_that_cannot_grow_is_an_error test "$code:$(wc -l <"$work/err"):$(grep -c "^sluice mkmodel: $work/limited/" "$work/err")" = 1:1:1
check which_leaves_nothing nothing "$work/limited"
limited "$work/killed" 2>/dev/null
if [ "$code" -gt 128 ]; then
    check a_killed_run_leaves_no_checkpoint test ! -e "$work/killed/config.json" -a \
        -z "$(find "$work/killed" -name '*.safetensors' -o -name '*.json')"
    refused and_nobody_takes_it_for_one 1 "$work/killed" run -m "$work/killed" -p x
    ends the_next_run_clears_it_away 0 "${small[@]}" "$work/killed"
    check and_makes_the_same same_files "$work/before" "$work/killed"
fi

# on_tmpfs OPTIONS: the same on a file system of its own, $listing is what is left on it.
mkdir "$work/mount"
on_tmpfs() {
    unshare --map-root-user --mount bash -c '
        mount -t tmpfs -o "$1" none "$2" 2>/dev/null || exit 99
        shift
        dir=$1/model log=$2
        shift 2
        timeout "$1" "${@:2}" "$dir" >/dev/null 2>"$log"
        code=$?
        find "$dir" -type f 2>/dev/null | wc -l >"$log.left"
        exit $code' - "$1" "$work/mount" "$work/err" "$limit_s" "$SLUICE" "${small[@]}" 2>/dev/null
    code=$?
}
on_tmpfs size=300m
if [ $code = 0 ]; then
    on_tmpfs size=8m
    check too_little_space_is_found_before test "$code:$(grep -c '^sluice mkmodel: .*needs .* free' "$work/err"):$(cat "$work/err.left")" = 1:1:0
    on_tmpfs size=300m,nr_inodes=6
    check a_drive_that_fills_up_is_an_error test "$code:$(wc -l <"$work/err"):$(grep -c '^sluice mkmodel: .*No space left' "$work/err")" = 1:1:1
    check which_leaves_nothing_on_it test "$(cat "$work/err.left")" = 0
else
    skip a_full_drive_is_an_error "no file system can be mounted here"
fi
finish
