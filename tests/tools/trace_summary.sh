#!/usr/bin/env bash
# tools/trace-summary.py on a timeline so small that its figures can be told by hand, and on a real one.
. "$(dirname "$0")/../support/program.sh"

if ! command -v python3 >/dev/null || ! python3 -c '' 2>/dev/null; then
    skip summaries_of_a_timeline "python3 is not installed"
    finish
fi

# One layer. In milliseconds:
#   control    prefill 0-10: attention 0-4, wait 4-9, experts 9-10; decode 10-20: wait 10-14, experts
#   reads      4 MB asked for at 3, active 5-9; 2 MB at 10, active 11-13; a prefetch cancelled, 11-12
b() { printf ',\n{"ph":"B","pid":1,"tid":1,"ts":%s,"cat":"%s","name":"%s"%s}' "$@"; }
e() { printf ',\n{"ph":"E","pid":1,"tid":1,"ts":%s}' "$1"; }
counter() { printf ',\n{"ph":"C","pid":1,"tid":2,"ts":%s,"name":"%s","args":{"%s":%s}}' "$@"; }
async() { printf ',\n{"ph":"%s","pid":1,"tid":2,"ts":%s,"cat":"read","id":"%s","name":"%s"%s}' "$@"; }
timeline() { # COMPLETE LOST
    printf '{"traceEvents":[\n{"ph":"M","pid":1,"tid":1,"name":"process_name","args":{"name":"sluice"}}'
    b 0 step prefill ',"args":{"step":0,"rows":4}' && b 0 layer 'layer 0' ',"args":{"layer":0}'
    b 0 prefill attention '' && e 4000 && b 4000 prefill wait_experts '' && e 9000
    b 9000 prefill experts '' && e 10000 && e 10000 && e 10000
    b 10000 step decode ',"args":{"step":1,"rows":1}' && b 10000 layer 'layer 0' ',"args":{"layer":0}'
    b 10000 decode wait_experts '' && e 14000 && b 14000 decode experts '' && [ "$1" = false ] ||
        { e 20000 && e 20000 && e 20000; }
    counter 5000 'disk queue' chunks 1
    async b 3000 0x1 demand ',"args":{"layer":0,"expert":3,"bytes":4000000,"status":"ok"}'
    async b 3000 0x1 queued '' && async e 5000 0x1 queued ''
    async b 5000 0x1 active '' && async e 9000 0x1 active '' && async e 9000 0x1 demand ''
    counter 9000 'disk queue' chunks 0 && counter 9000 'disk read' bytes 4000000
    async b 11000 0x2 prefetch ',"args":{"layer":0,"expert":5,"bytes":0,"status":"cancelled"}'
    async b 11000 0x2 queued '' && async e 12000 0x2 queued '' && async e 12000 0x2 prefetch ''
    counter 11000 'disk queue' chunks 1
    async b 10000 0x3 demand ',"args":{"layer":0,"expert":4,"bytes":2000000,"status":"ok"}'
    async b 10000 0x3 queued '' && async e 11000 0x3 queued ''
    async b 11000 0x3 active '' && async e 13000 0x3 active '' && async e 13000 0x3 demand ''
    counter 13000 'disk queue' chunks 0 && counter 13000 'disk read' bytes 6000000
    printf '\n],"sluice":{"lost_events":%s,"complete":%s}}\n' "$2" "$1"
}
timeline true 0 >"$work/trace"

summary() {
    python3 tools/trace-summary.py "$@" >"$work/out" 2>"$work/err"
    code=$?
}
# line NAME PATTERN: the figures have such a line.
line() {
    if grep -qE "^$2\$" "$work/out"; then ok "$1"; else not_ok "$1" "no line: $2" "$(cat "$work/out" "$work/err")"; fi
}
summary "$work/trace"
check figures_are_printed test "$code" = 0 -a ! -s "$work/err"
line the_whole_time_is_told '.*/trace: 0\.020 s'
line a_phase_has_its_bytes 'prefill: 1 steps in 0\.010 s, 0\.004 GB read'
line idle_time_is_told_apart '  the disk was idle 60\.0 % of the time: 20\.0 % with reads open, 10\.0 % while experts were awaited'
line the_rate_is_that_of_the_waits '  experts were awaited 50\.0 % of the time, at 0\.800 GB/s; 1\.000 GB/s while the disk was busy'
line phases_are_apart '  the disk was idle 80\.0 % of the time: 10\.0 % with reads open, 20\.0 % while experts were awaited'
line so_are_their_rates '  experts were awaited 40\.0 % of the time, at 0\.500 GB/s; 1\.000 GB/s while the disk was busy'
line reads_are_counted '  demand +2 +0 +0 +0\.006 +2\.00 +2\.00 +4\.00 +4\.00'
line a_cancelled_read_is_none '  prefetch +0 +1 +0 +0\.000 .*'
line the_longest_wait_comes_first ' +5\.00 ms at 0\.004 s, step 0, layer 0; expert 3 of layer 0: 2\.00 ms queued, 4\.00 ms active'
line layers_have_shares ' +0 +2 +10\.000 +20\.0 % +0\.0 % +35\.0 % +45\.0 % +3 +6\.0'
summary "$work/trace" --waits 1
check so_many_waits_as_asked test "$(grep -c ' ms at ' "$work/out")" = 1

timeline false 7 >"$work/cut"
summary "$work/cut"
line a_run_that_was_killed_is_one '.*/cut: 0\.014 s; the run did not come to its end; 7 events are missing'
summary README.md
check what_is_no_timeline_is_refused test "$code:$(cat "$work/err")" = '1:README.md: not a timeline of sluice'
summary "$work/nothing"
check what_is_not_there_is_refused test "$code:$(cat "$work/err")" = "1:$work/nothing: No such file or directory"

# A real one, beside the account of the same run.
golden_tokens >"$work/tokens"
ends a_timeline_is_recorded 0 eval -m "$golden_model" --tokens "$work/tokens" --logits "$work/logits" --ctx 320 \
    --chunk 64 --decode-from 270 --prefetch off --stats "$work/stats" --trace "$work/real"
summary "$work/real" --json
agrees() {
    python3 - "$work/out" "$work/stats" <<'END'
import json, sys
timeline, account = (json.load(open(path)) for path in sys.argv[1:])
phases = account["phases"]
waits = sum(p["activity_seconds"]["wait_experts"] for p in phases.values())
assert abs(timeline["activity_seconds"]["wait_experts"] - waits) < 1e-6
assert abs(timeline["phases"]["all"]["awaited_seconds"] - waits) < 1e-6
for phase in ("prefill", "decode"):
    assert timeline["phases"][phase]["steps"] == phases[phase]["steps"] > 1, phase
assert timeline["reads"]["demand"]["ok"] == account["experts"]["misses"]
assert timeline["reads"]["demand"]["bytes"] == account["disk"]["bytes_read"]
assert sum(layer["bytes"] for layer in timeline["layers"]) == account["disk"]["bytes_read"]
within = timeline["phases"]["all"]
assert within["bytes"] == account["disk"]["bytes_read"]
busy = within["seconds"] - within["disk_idle_seconds"]
assert abs(busy - account["disk"]["busy_seconds"]) < 1e-6
assert 0 <= within["disk_idle_while_awaited_seconds"] <= within["disk_idle_seconds"]
END
}
check its_figures_are_those_of_the_account agrees
finish
