#!/usr/bin/env python3
"""What a timeline says (sluice run or eval, --trace FILE): where the disk was idle, how fast it was while
it was waited for, the longest waits, time by layer.

    tools/trace-summary.py TRACE           figures, on standard output
    tools/trace-summary.py TRACE --json    the same for programs

The format is documented in src/trace_file.h. Of each phase (prefill, decode) only the time within steps
counts. The disk is idle while no chunk is at the device; a read is open from its submission to its end;
experts, or dense weights that are streamed, are awaited while the control thread does nothing else.
Bytes are taken to arrive evenly between two looks at their counter, from when the device got busy.
Python's standard library is all it needs.
"""
import argparse, json, signal, sys
from bisect import bisect_right

PHASES = ("prefill", "decode")
ACTIVITIES = ("attention", "gate", "experts", "wait_experts", "wait_dense", "predict", "head", "sample", "other")
WAITS = ("wait_experts", "wait_dense")


# --- intervals: sorted lists of (from, to) that do not overlap, in microseconds ----------------------

def union(spans):
    out = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        elif end > begin:
            out.append((begin, end))
    return out


def both(one, other):
    out, i, k = [], 0, 0
    while i < len(one) and k < len(other):
        begin, end = max(one[i][0], other[k][0]), min(one[i][1], other[k][1])
        if end > begin:
            out.append((begin, end))
        if one[i][1] < other[k][1]:
            i += 1
        else:
            k += 1
    return out


def length(spans):
    return sum(end - begin for begin, end in spans)


class Trace:
    """steps [(phase, from, to, step)], spans [(activity, from, to, step, layer)], layers [(layer, from, to, step)],
    reads [dict], idle (intervals), points of bytes that have arrived, end, lost, complete."""

    def __init__(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                root = json.load(file)
            events, about = root["traceEvents"], root["sluice"]
            self.lost, self.complete = int(about["lost_events"]), bool(about["complete"])
        except OSError as error:
            sys.exit(f"{path}: {error.strerror}")
        except (ValueError, KeyError, TypeError):
            sys.exit(f"{path}: not a timeline of sluice")
        self.end = max((e["ts"] for e in events if "ts" in e), default=0)
        self.steps, self.spans, self.layers, self.reads = [], [], [], []
        self.times, self.bytes = [0.0], [0]
        self.read_control([e for e in events if e.get("tid") == 1 and e["ph"] in "BE"])
        self.read_requests([e for e in events if e.get("cat") == "read"])
        self.read_queue([e for e in events if e["ph"] == "C"])

    def read_control(self, events):
        open_spans = []
        def close(end):
            span = open_spans.pop()
            step = next((s["args"]["step"] for s in open_spans + [span] if s["cat"] == "step"), None)
            layer = next((s["args"]["layer"] for s in open_spans + [span] if s["cat"] == "layer"), None)
            if span["cat"] == "step":
                self.steps.append((span["name"], span["ts"], end, step))
            elif span["cat"] == "layer":
                self.layers.append((layer, span["ts"], end, step))
            else:
                self.spans.append((span["name"], span["ts"], end, step, layer))
        for event in events:
            if event["ph"] == "B":
                open_spans.append(event)
            else:
                close(event["ts"])
        while open_spans:  # it was killed
            close(self.end)

    def read_requests(self, events):
        by_id = {}
        for event in events:
            read = by_id.setdefault(event["id"], {"queued": 0.0, "active": 0.0})
            name, sign = event["name"], 1 if event["ph"] == "e" else -1
            if name in ("queued", "active"):
                read[name] += sign * event["ts"]
            elif sign < 0:
                read.update(event["args"], priority=name, submitted=event["ts"])
            else:
                read["ended"] = event["ts"]
        self.reads = sorted(by_id.values(), key=lambda read: read["ended"])

    def read_queue(self, events):
        chunks, since, idle = 0, 0.0, []
        for event in events:
            if event["name"] == "disk queue":
                now = event["args"]["chunks"]
                if chunks == 0 and now > 0:
                    idle.append((since, event["ts"]))
                    self.times.append(event["ts"])  # from here on they arrive
                    self.bytes.append(self.bytes[-1])
                elif chunks > 0 and now == 0:
                    since = event["ts"]
                chunks = now
            elif event["name"] == "disk read":
                self.times.append(event["ts"])
                self.bytes.append(event["args"]["bytes"])
        if chunks == 0:
            idle.append((since, self.end))
        self.idle = union(idle)

    def arrived(self, at):
        i = bisect_right(self.times, at)
        if i == len(self.times):
            return self.bytes[-1]
        span = self.times[i] - self.times[i - 1]
        return self.bytes[i - 1] + (self.bytes[i] - self.bytes[i - 1]) * (at - self.times[i - 1]) / span


# --- figures -----------------------------------------------------------------------------------------

def phase_figures(trace, phases):
    steps = union([(begin, end) for name, begin, end, _ in trace.steps if name in phases])
    waits = both(union([s[1:3] for s in trace.spans if s[0] in WAITS]), steps)
    reads_open = union([(r["submitted"], r["ended"]) for r in trace.reads])
    idle = both(trace.idle, steps)
    busy_us = length(steps) - length(idle)
    bytes_of = lambda spans: sum(trace.arrived(end) - trace.arrived(begin) for begin, end in spans)
    rate = lambda n_bytes, us: n_bytes / us / 1e3 if us else 0.0  # bytes a microsecond: MB/s
    wait_bytes, step_bytes = bytes_of(waits), bytes_of(steps)
    return {
        "steps": len({step for name, _, _, step in trace.steps if name in phases}),  # turns of one are several spans
        "seconds": length(steps) / 1e6,
        "disk_idle_seconds": length(idle) / 1e6,
        "disk_idle_while_reads_open_seconds": length(both(idle, reads_open)) / 1e6,
        "disk_idle_while_awaited_seconds": length(both(idle, waits)) / 1e6,
        "awaited_seconds": length(waits) / 1e6,
        "awaited_bytes": round(wait_bytes),
        "awaited_gb_per_second": rate(wait_bytes, length(waits)),
        "bytes": round(step_bytes),
        "busy_gb_per_second": rate(step_bytes, busy_us),
    }


def longest_waits(trace, n):
    ends = [read["ended"] for read in trace.reads]
    out = []
    for name, begin, end, step, layer in trace.spans:
        if name not in WAITS:
            continue
        wait = {"milliseconds": (end - begin) / 1e3, "at_seconds": begin / 1e6, "step": step, "layer": layer}
        i = bisect_right(ends, end) - 1
        if i >= 0 and ends[i] >= begin:  # what it waited for
            read = trace.reads[i]
            wait["read"] = {key: read[key] for key in ("priority", "layer", "expert", "dense", "bytes") if key in read}
            wait["read"].update(queued_milliseconds=read["queued"] / 1e3, active_milliseconds=read["active"] / 1e3)
        out.append(wait)
    return sorted(out, key=lambda wait: -wait["milliseconds"])[:n]


def layer_figures(trace):
    layers, visits = {}, set()
    def of(layer):
        return layers.setdefault(layer, {"layer": layer, "visits": 0, "seconds": 0.0, "reads": 0, "bytes": 0,
                                         "activity_seconds": dict.fromkeys(ACTIVITIES, 0.0)})
    for layer, begin, end, step in sorted(trace.layers, key=lambda span: span[1]):
        of(layer)["seconds"] += (end - begin) / 1e6
        of(layer)["visits"] += (layer, step) not in visits
        visits.add((layer, step))
    for name, begin, end, _, layer in trace.spans:
        if layer is not None:
            of(layer)["activity_seconds"][name] += (end - begin) / 1e6
    for read in trace.reads:
        if "layer" in read:
            of(read["layer"])["reads"] += 1
            of(read["layer"])["bytes"] += read["bytes"]
    return [layers[layer] for layer in sorted(layers)]


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def read_figures(trace):
    out = {}
    for priority in ("demand", "gather", "ahead", "prefetch", "background"):
        reads = [read for read in trace.reads if read["priority"] == priority]
        done = [read for read in reads if read["status"] == "ok"]
        if not reads:
            continue
        out[priority] = {
            "ok": len(done),
            "cancelled": sum(read["status"] == "cancelled" for read in reads),
            "bytes": sum(read["bytes"] for read in reads),
        }
        out[priority]["failed"] = len(reads) - len(done) - out[priority]["cancelled"]
        for what in ("queued", "active"):
            for name, share in (("median", 0.5), ("p99", 0.99)):
                out[priority][f"{what}_milliseconds_{name}"] = percentile([r[what] for r in done], share) / 1e3
    return out


def figures(trace, n_waits):
    activity = dict.fromkeys(("load",) + ACTIVITIES, 0.0)
    for name, begin, end, *_ in trace.spans:
        activity[name] += (end - begin) / 1e6
    return {
        "seconds": trace.end / 1e6,
        "complete": trace.complete,
        "lost_events": trace.lost,
        "activity_seconds": activity,
        "phases": {"all": phase_figures(trace, PHASES), **{p: phase_figures(trace, (p,)) for p in PHASES}},
        "reads": read_figures(trace),
        "longest_waits": longest_waits(trace, n_waits),
        "layers": layer_figures(trace),
    }


# --- for people --------------------------------------------------------------------------------------

def print_text(path, f):
    def share(part, whole):
        return f"{100 * part / whole if whole else 0:.1f} %"
    print(f"{path}: {f['seconds']:.3f} s" + ("" if f["complete"] else "; the run did not come to its end")
          + (f"; {f['lost_events']} events are missing" if f["lost_events"] else ""))
    for name in PHASES:
        p = f["phases"][name]
        if not p["steps"]:
            continue
        what = "bytes" if f["activity_seconds"]["wait_dense"] else "experts"
        print(f"\n{name}: {p['steps']} steps in {p['seconds']:.3f} s, {p['bytes'] / 1e9:.3f} GB read")
        print(f"  the disk was idle {share(p['disk_idle_seconds'], p['seconds'])} of the time: "
              f"{share(p['disk_idle_while_reads_open_seconds'], p['seconds'])} with reads open, "
              f"{share(p['disk_idle_while_awaited_seconds'], p['seconds'])} while {what} were awaited")
        print(f"  {what} were awaited {share(p['awaited_seconds'], p['seconds'])} of the time, "
              f"at {p['awaited_gb_per_second']:.3f} GB/s; {p['busy_gb_per_second']:.3f} GB/s while the disk was busy")
    if f["reads"]:
        print(f"\n{'reads':12}{'ok':>8}{'cancelled':>11}{'failed':>8}{'GB':>9}   ms queued: median, 99 %   ms active: median, 99 %")
    for name, r in f["reads"].items():
        print(f"  {name:10}{r['ok']:8}{r['cancelled']:11}{r['failed']:8}{r['bytes'] / 1e9:9.3f}"
              f"{r['queued_milliseconds_median']:17.2f}{r['queued_milliseconds_p99']:9.2f}"
              f"{r['active_milliseconds_median']:17.2f}{r['active_milliseconds_p99']:9.2f}")
    if f["longest_waits"]:
        print("\nlongest waits")
    for w in f["longest_waits"]:
        of = w.get("read", {})
        where = f"layer {w['layer']}" if w["layer"] is not None else "head" if "dense" in of else "embedding"
        what = (f"; expert {of['expert']} of layer {of['layer']}: {of['queued_milliseconds']:.2f} ms queued, "
                f"{of['active_milliseconds']:.2f} ms active" if "expert" in of else
                f"; unit {of['dense']} of the dense weights" if "dense" in of else "")
        print(f"  {w['milliseconds']:9.2f} ms at {w['at_seconds']:.3f} s, step {w['step']}, {where}{what}")
    if f["layers"]:
        print(f"\n{'layer':>5}{'visits':>8}{'ms each':>10}{'attention':>11}{'gate':>8}{'experts':>9}{'waits':>8}{'reads':>8}{'MB':>10}")
    for l in f["layers"]:
        a = l["activity_seconds"]
        shares = [100 * a[name] / l["seconds"] if l["seconds"] else 0 for name in ACTIVITIES[:4]]
        print(f"{l['layer']:5}{l['visits']:8}{1e3 * l['seconds'] / max(1, l['visits']):10.3f}{shares[0]:9.1f} %{shares[1]:6.1f} %"
              f"{shares[2]:7.1f} %{shares[3]:6.1f} %{l['reads']:8}{l['bytes'] / 1e6:10.1f}")


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("--waits", type=int, default=10, metavar="N", help="so many of the longest waits (10)")
    options = parser.parse_args()
    f = figures(Trace(options.trace), max(0, options.waits))
    if options.json:
        print(json.dumps(f, indent=2))
    else:
        print_text(options.trace, f)


if __name__ == "__main__":
    main()
