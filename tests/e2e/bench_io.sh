#!/usr/bin/env bash
# `sluice bench io` on a real file: reports, what it leaves behind, Ctrl-C; and that `sluice run` reads
# a drive as it was found best. No test here is about how fast anything is.
. "$(dirname "$0")/../support/program.sh"
export XDG_CACHE_HOME=$work/cache
settings=$work/cache/sluice/drives.json

mkdir "$work/drive" "$work/empty"
head -c 80M /dev/urandom >"$work/drive/file"
sum=$(md5sum <"$work/drive/file")

# finds NAME PATTERN: it is on the last run's standard output.
finds() {
    if grep -qE -- "$2" "$work/out"; then ok "$1"; else not_ok "$1" "$(last_run)" "$(head -c 3000 "$work/out")"; fi
}

ends a_directory_is_measured 0 bench io "$work/drive" --seconds 1 --html "$work/page.html"
finds experts_come_first '^  experts +[0-9.]+ GB/s'
finds a_choice_is_made '^  chosen +chunks of [0-9]+ [KM]iB x [0-9]+'
finds it_ends_with_what_this_means '^  Pro +[0-9.]+ .* s$'
check the_page_is_whole grep -q '^</html>' "$work/page.html"
check the_page_needs_nothing_else sh -c "! grep -qE '<script|https?:' '$work/page.html'"
check the_choice_is_kept grep -q '"depth": [0-9]' "$settings"
check the_file_is_as_it_was test "$sum" = "$(md5sum <"$work/drive/file")" -a "$(ls "$work/drive")" = file

# Another machine's drive below this file: an encrypted one on PCIe Gen4 x4.
while read -r path kind value; do
    [ "$kind" = = ] || [ "$kind" = '->' ] || continue
    mkdir -p "$work/sys/${path%/*}"
    if [ "$kind" = = ]; then printf '%s\n' "$value" >"$work/sys/$path"; else ln -s "$value" "$work/sys/$path"; fi
done <tests/data/sysfs/luks_on_nvme.txt
ln -s ../../devices/virtual/block/dm-1 "$work/sys/dev/block/$(stat -c '%Hd:%Ld' "$work/drive/file")"
ends the_drives_of_a_recorded_tree 0 bench io "$work/drive" --seconds 0.5 --sysfs "$work/sys"
finds the_link_is_told 'nvme0n1 +NVMe Samsung SSD 990 PRO 2TB; PCIe Gen4 x4, 7\.88 GB/s, on the processor'
finds its_share_is_told '^  experts .* % of the link'
finds encryption_is_told 'LUKS2\): the CPU decrypts every byte'

ends several_paths_are_measured_together 0 bench io "$work/drive" "$work/drive/file" --seconds 0.5 --sustain 1
finds their_sum_is_told '^ +[0-9.]+ GB/s  together'
finds one_drive_is_not_taken_for_two 'lies on the same drive as'
finds the_rate_over_time_is_told '^  sustained [0-9.]+ GB/s'

ends one_measurement_as_json 0 bench io "$work/drive" --shape random --block 64K --depth 4 --seconds 0.2 --json
check json_has_one_point test "$(grep -c '"shape": "random"' "$work/out")" = 1
for shape in random sequential expert; do
    for engine in auto pread; do
        ends "${shape}_buffered_$engine" 0 bench io "$work/drive" --shape $shape --io buffered \
            --io-engine $engine --seconds 0.2 --depth 4 --unregistered
    done
done

ends a_test_file_is_made 0 bench io "$work/empty" --write-test 64M --shape expert --seconds 0.2
check the_test_file_is_gone test -z "$(ls -A "$work/empty")"

refused2() { # as refused, for a command of two words
    local name=$1 want=$2 pattern=$3
    shift 3
    sluice "$@" </dev/null
    if [ "$code" = "$want" ] && [ ! -s "$work/out" ] && [ "$(wc -l <"$work/err")" = 1 ] &&
        grep -qE -- "^sluice bench io: .*$pattern" "$work/err"; then
        ok "$name"
    else
        not_ok "$name" "wanted exit code $want and one line with: $pattern" "$(last_run)"
    fi
}
refused2 a_path_that_is_not_there 1 'nowhere: No such file' bench io "$work/nowhere"
refused2 a_directory_without_files 1 '--write-test' bench io "$work/empty"
refused2 a_file_is_not_written_to 2 'not a directory' bench io "$work/drive/file" --write-test 64M
refused2 a_page_that_cannot_be_written 1 '/no/page.html: cannot be made' bench io "$work/drive" --html "$work/no/page.html"
truncate -s 256M "$work/sparse"
refused2 a_file_of_holes 1 'holes' bench io "$work/sparse"

# Ctrl-C: what was measured until then, in order, and nothing left.
rm -f "$settings"
"$SLUICE" bench io "$work/drive" --seconds 1 --sustain 3600 --html "$work/page.html" >"$work/out" 2>"$work/err" &
pid=$!
until_true test -e "$settings" || not_ok the_choice_is_kept_at_once
kill -INT $pid
wait $pid
code=$?
check ctrl_c_ends_it test "$code" = 130
finds what_was_measured_is_told '^  experts +[0-9.]+ GB/s'
finds that_it_was_interrupted_is_told '^interrupted'
check an_interrupted_page_is_whole grep -q '^</html>' "$work/page.html"
"$SLUICE" bench io "$work/empty" --write-test 4G >"$work/out" 2>"$work/err" &
pid=$!
until_true sh -c "ls -l /proc/$pid/fd | grep -q '$work/empty'"
kill -INT $pid
wait $pid
code=$?
check ctrl_c_while_writing test "$code" = 130 -a -z "$(ls -A "$work/empty")" -a ! -s "$work/out"

# What was found is used, and found anew when asked for.
"$SLUICE" mkmodel --shards 1 "$work/demo" 2>"$work/err" || not_ok a_demo_model_is_made "$(cat "$work/err")"
key=$(sed -n 's/^    \("..*"\): {$/\1/p' "$settings" | head -n 1)
run=(run -m "$work/demo" --raw -p a --max-tokens 1 --ctx 512 --ram 200M)
if "$SLUICE" bench io "$work/demo" --seconds 0.2 --shape expert --json 2>/dev/null | grep -q '"io_uring"'; then
    printf '{"io_uring": {%s: {"chunk_bytes": 1048576, "depth": 7}}}' "$key" >"$settings"
    ends a_run_goes_well 0 "${run[@]}"
    check a_run_reads_as_was_found_best grep -q '7 x 1 MiB' "$work/err"
    rm "$settings"
    ends a_run_without_it 0 "${run[@]}"
    check the_default_without_it grep -q '32 x 2 MiB' "$work/err"
    ends a_run_that_measures_first 0 "${run[@]}" --remeasure
    check what_it_measured_is_kept grep -q "\"depth\"" "$settings"
    make_demo "$work/small" --shards 9
    ends a_small_model_runs_all_the_same 0 run -m "$work/small" --raw -p a --max-tokens 1 --ctx 512 --remeasure
    check why_it_is_not_measured_is_told grep -q '^note: not measured: .*64 MiB' "$work/err"
else
    skip a_run_reads_as_was_found_best "no io_uring here"
fi
finish
