#!/usr/bin/env python3
"""Decoding with prefetch against without: time, and what became of the predictions.

    tools/compare-prefetch.py -m MODEL --tokens FILE --ram 8G,12G,16G

Runs `sluice eval --tokens FILE --decode-from P` in each mode of --prefetch, the modes in turn, --rounds
times for each size of --ram, and prints for each: seconds of a decoded token (median), the ratio to
"off" of the same round (median and quartiles), the share of decoding that went to waiting for
experts, experts that were there when their turn came, and megabytes read a token. "hide" is the
share of decoding (of "off") in which nothing was awaited: all that prefetch can hide reads in. Then,
by layer, from the last run of --by-layer: accuracy (right of those predicted), coverage (predicted of
those wanted), waste (in vain of those read), cancelled, and the share of the steps in which the layer
was left alone, since reading ahead gained nothing there. The logits of all runs are compared. Options
after -- go to sluice. Python's standard library is all it needs.
"""
import argparse, hashlib, json, os, signal, statistics, subprocess, sys, tempfile


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--tokens", required=True, help="ids, separated by white space")
    p.add_argument("--decode-from", type=int, default=8, metavar="P")
    p.add_argument("--ram", required=True, help="sizes, separated by commas")
    p.add_argument("--modes", default="off,hash,gate,auto", help="the first is what others are compared with")
    p.add_argument("--by-layer", default="auto", metavar="MODE")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--sluice", default=os.path.join(os.path.dirname(__file__), "..", "sluice"))
    p.add_argument("options", nargs="*", metavar="OPTION", help="after --, for sluice")
    return p.parse_args()


def run(a, ram, mode, folder):
    stats, logits = os.path.join(folder, "stats"), os.path.join(folder, "logits")
    command = [a.sluice, "eval", "-m", a.model, "--tokens", a.tokens, "--logits", logits, "--stats", stats]
    command += ["--decode-from", str(a.decode_from), "--ram", ram, "--prefetch", mode] + a.options
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    with open(logits, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    with open(stats) as file:
        return json.load(file), digest


def percent(part, whole):
    return 100 * part / whole if whole else 0.0


def quartiles(values):
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def row(mode, runs, base):
    decode = [r["phases"]["decode"] for r in runs]
    each = [d["seconds"] / max(1, d["tokens"]) for d in decode]
    low, middle, high = quartiles([d["seconds"] / b["phases"]["decode"]["seconds"] for d, b in zip(decode, base)])
    wait = statistics.median(percent(d["activity_seconds"]["wait_experts"], d["seconds"]) for d in decode)
    tokens = sum(p["tokens"] for p in runs[-1]["phases"].values())
    there = percent(runs[-1]["experts"]["hits"], runs[-1]["experts"]["wanted"])
    megabytes = runs[-1]["disk"]["bytes_read"] / 1e6 / max(1, tokens)
    print(f"  {mode:6}{statistics.median(each):12.4f}{middle:9.3f} ({low:.3f} .. {high:.3f}){wait:9.1f} %{there:9.1f} %{megabytes:11.2f}")


def layers(report):
    print(f"  {'layer':>7} {'kind':6}{'accuracy':>10}{'coverage':>10}{'waste':>8}{'read':>8}{'cancelled':>11}{'lost':>6}{'suspended':>11}")
    for c in report["prefetch"]["layers"]:
        shares = percent(c["right"], c["predicted"]), percent(c["right"], c["wanted"]), percent(c["in_vain"], c["read"])
        suspended = percent(c["suspended"], c["steps"] + c["suspended"])
        print("  {:7} {:6}{:8.1f} %{:8.1f} %{:6.1f} %{:8}{:11}{:6}{:9.1f} %".format(
            c["layer"], c["kind"], *shares, c["read"], c["cancelled"], c["lost"], suspended))


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    a = parse()
    modes, digests = a.modes.split(","), set()
    with tempfile.TemporaryDirectory() as folder:
        for ram in a.ram.split(","):
            runs = {mode: [] for mode in modes}
            for _ in range(a.rounds):
                for mode in modes:
                    report, digest = run(a, ram, mode, folder)
                    runs[mode].append(report)
                    digests.add(digest)
            base = runs[modes[0]]
            slots = base[0]["experts"]
            hide = 100 - statistics.median(
                percent(r["phases"]["decode"]["activity_seconds"]["wait_experts"], r["phases"]["decode"]["seconds"]) for r in base)
            print(f"--ram {ram}: {slots['slots']} slots, {percent(slots['slots'], slots['of']):.1f} % of the experts; {a.rounds} rounds; hide {hide:.1f} %")
            print(f"  {'mode':6}{'s/token':>12}{'to ' + modes[0]:>9}{'quartiles':>18}{'waiting':>11}{'there':>11}{'MB/token':>11}")
            for mode in modes:
                row(mode, runs[mode], base)
            if runs.get(a.by_layer):
                layers(runs[a.by_layer][-1])
    print("the same logits in all runs" if len(digests) == 1 else "LOGITS DIFFER BETWEEN RUNS")
    return len(digests) != 1


sys.exit(main())
