#!/usr/bin/env bash
# tools/compare-fio: what it concludes from rates, with an fio and a sluice that say what they are told.
. "$(dirname "$0")/../support/shell.sh"

command -v python3 >/dev/null || { skip compare_fio "python3 is not installed"; finish; }
mkdir "$work/bin"
head -c 4096 /dev/zero >"$work/file"

# fio reads 2 GB/s in 2 MiB x 32 with registered buffers, 1 GB/s otherwise, and has no libaio.
cat >"$work/bin/fio" <<'END'
#!/usr/bin/env bash
rate=1e9
[[ "$*" = *"--fixedbufs"*"--bs=2097152"* || "$*" = *"--bs=2097152"*"--fixedbufs"* ]] && [[ "$*" = *"--iodepth=32 "* ]] &&
    [[ "$*" = *"--numjobs=1 "* ]] && rate=2e9
[[ "$*" = *libaio* ]] && { echo "fio: no such engine" >&2; exit 1; }
echo "$*" >>"$WORK/fio.log"
printf 'note: this is no JSON\n{"jobs": [{"read": {"bw_bytes": %s}}]}\n' "$rate"
END
cat >"$work/bin/sluice" <<'END'
#!/usr/bin/env bash
echo "$*" >>"$WORK/sluice.log"
[ -n "${SLUICE_FAILS:-}" ] && { echo "sluice bench io: it broke" >&2; exit 1; }
point="{\"shape\": \"expert\", \"direct\": true, \"registered\": true, \"bytes_per_s\": $RATE, \"block_bytes\": 4096, \"depth\": 1}"
printf '{"drives": [{"chosen": {"chunk_bytes": 1048576, "depth": 16}, "points": [%s]}]}\n' "$point"
END
chmod +x "$work/bin/fio" "$work/bin/sluice"
export WORK=$work

compare() { # RATE OPTIONS...
    RATE=$1 PATH=$work/bin:$PATH tools/compare-fio "$work/file" --sluice "$work/bin/sluice" --rounds 3 "${@:2}" \
        >"$work/out" 2>"$work/err"
    code=$?
}
expect() { # NAME CODE PATTERN
    if [ "$code" = "$2" ] && grep -qE -- "$3" "$work/out" "$work/err"; then
        ok "$1"
    else
        not_ok "$1" "exit code $code" "$(cat "$work/out" "$work/err")"
    fi
}

compare 1.96e9 --json "$work/json"
expect two_percent_less_is_within 0 '^within'
expect fio_s_best_point_is_used 0 '2\.000 GB/s  io_uring, registered, 2 MiB x 32  <- used'
expect the_ratio_is_told_with_its_quartiles 0 '^sluice / fio  0\.980  \(0\.980 to 0\.980\)'
expect the_control_is_told 0 '^fio / fio +1\.000'
expect sluice_s_own_choice_is_used 0 '^sluice: chunks of 1024 KiB x 16'
check every_round_is_kept test "$(python3 -c 'import json, sys; print(len(json.load(open(sys.argv[1]))["rounds"]))' "$work/json")" = 3
check fio_reads_in_the_shape_of_experts grep -q -- '--rw=randread:17 .*--bs=2097152' "$work/fio.log"
check fio_only_reads sh -c "! grep -vq -- '--readonly' '$work/fio.log'"
compare 1.9e9 --setting 2M,32
expect five_percent_less_is_not 1 '^NOT within'
check a_setting_that_is_given_is_used grep -q -- '--block 2097152 --depth 32' "$work/sluice.log"
compare 2.2e9 --setting 2M,32
expect more_is_within 0 '^within'
compare 1e9 --setting 2,32
expect a_setting_that_is_none_is_refused 2 'a chunk and a depth'
SLUICE_FAILS=1 compare 1e9 --setting 2M,32
expect a_failure_of_sluice_is_told 2 'it broke'
RATE=1 PATH=$work/bin:$PATH tools/compare-fio "$work/nothing" >"$work/out" 2>"$work/err"
code=$?
expect a_file_that_is_not_there_is_refused 2 'nothing: not a file'
finish
