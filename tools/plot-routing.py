#!/usr/bin/env python3
"""What is in a routing trace (sluice run or eval, --record-routing FILE): figures and a plot.

    tools/plot-routing.py TRACE --text            figures, on standard output
    tools/plot-routing.py TRACE -o PLOT.svg       expert use by layer, reuse, overlap, as one SVG

The format is documented in src/routing_trace.h. Rows (tokens) are taken in the order of the file.
Reuse distance of an expert that a row chose, within its layer: in tokens, how many rows ago it was last
chosen; in experts, its place in a list of the layer's experts, the latest chosen first, so the share
of accesses up to d is the hit rate of an LRU cache of d slots for that layer. The first use of an expert
has no distance, and never hits. Overlap: the share of a row's experts that the token before it in its
sequence chose too; by chance it would be K / E. Python's standard library is all it needs.
"""
import argparse, array, math, signal, struct, sys
from bisect import bisect_right
from html import escape

COLOURS = {"hash": "#2b6cb0", "score": "#c05621", "draft": "#2f855a"}


class Trace:
    """kinds of its blocks, E, K, expert_bytes; rows [(sequence, position, token)], steps (their
    numbers of rows), experts [block][row] (a tuple; None where the block was not run)."""

    def __init__(self, path):
        data = open(path, "rb").read()
        if data[:8] != b"slroute\n" or len(data) < 32:
            sys.exit(f"{path}: byte 0: not a routing trace")
        version, n_blocks, self.E, self.K, self.expert_bytes = struct.unpack_from("<IIIIQ", data, 8)
        if version != 1:
            sys.exit(f"{path}: byte 8: a routing trace of version {version}, not of 1")
        kinds = data[32 : 32 + n_blocks]
        if len(kinds) < n_blocks or not 0 < self.K <= self.E <= 65536 or not n_blocks:
            sys.exit(f"{path}: byte 12: a header that cannot be")
        self.kinds = ["draft" if k & 2 else "hash" if k & 1 else "score" for k in kinds]
        self.rows, self.steps, self.experts = [], [], [[] for _ in kinds]
        code, width = ("B", 1) if self.E <= 256 else ("H", 2)
        at = 32 + n_blocks
        while at < len(data):
            n, blocks = struct.unpack_from("<II", data, at) if len(data) >= at + 8 else (1, n_blocks)
            end = at + 8 + n * 12 + n * blocks * self.K * width
            if end > len(data):
                print(f"{path}: byte {at}: the last step is cut short; {len(self.steps)} before it are whole", file=sys.stderr)
                break
            if n < 1 or not 1 <= blocks <= n_blocks:
                sys.exit(f"{path}: byte {at}: a step of {n} rows and {blocks} blocks")
            self.rows += struct.iter_unpack("<III", data[at + 8 : at + 8 + n * 12])
            ids = array.array(code, data[at + 8 + n * 12 : end])
            if sys.byteorder == "big":
                ids.byteswap()
            if max(ids) >= self.E:
                sys.exit(f"{path}: byte {at}: expert {max(ids)} of {self.E}")
            for b, chosen in enumerate(self.experts):
                of = lambda i: tuple(sorted(set(ids[(b * n + i) * self.K : (b * n + i + 1) * self.K])))
                chosen += [of(i) if b < blocks else None for i in range(n)]
            self.steps.append(n)
            at = end


class Layer:
    """Of one block: count [E], distances in experts and in tokens (of what was used before, sorted),
    accesses, overlap (mean; None if no row has a token before it)."""

    def __init__(self, trace, block):
        self.block, self.kind = block, trace.kinds[block]
        self.count, self.by_experts, self.by_tokens = [0] * trace.E, [], []
        latest, last, at, overlaps = [], {}, {}, []  # latest: the latest chosen last
        for row, ((sequence, position, _), chosen) in enumerate(zip(trace.rows, trace.experts[block])):
            if chosen is None:
                continue
            before = at.get((sequence, position - 1))
            if before is not None:
                overlaps.append(len(set(chosen) & set(before)) / len(chosen))
            at[sequence, position] = chosen
            for e in chosen:
                self.count[e] += 1
                if e in last:
                    place = latest.index(e)
                    self.by_experts.append(len(latest) - place)
                    self.by_tokens.append(row - last[e])
                    del latest[place]
                latest.append(e)
                last[e] = row
        self.by_experts.sort()
        self.by_tokens.sort()
        self.accesses = sum(self.count)
        self.used = sum(1 for n in self.count if n)
        self.overlap = sum(overlaps) / len(overlaps) if overlaps else None
        shares = [n / self.accesses for n in self.count if n]
        self.effective = math.exp(-sum(p * math.log(p) for p in shares)) if shares else 0
        tenth = sorted(self.count, reverse=True)[: -(-trace.E // 10)]
        self.tenth = sum(tenth) / self.accesses if self.accesses else 0


def share_up_to(layers, distances, d):
    n = sum(layer.accesses for layer in layers)
    return sum(bisect_right(distances(layer), d) for layer in layers) / n if n else 0


def mean(values):
    values = [v for v in values if v is not None]
    return sum(values) / len(values) if values else None


def percent(x):
    return "-" if x is None else f"{100 * x:.1f} %"


def by_kind(layers):
    kinds = [k for k in COLOURS if any(layer.kind == k for layer in layers)]
    return [(k, [layer for layer in layers if layer.kind == k]) for k in kinds]


MEASURES = (("experts of the layer", lambda layer: layer.by_experts), ("tokens", lambda layer: layer.by_tokens))


def print_text(path, trace, layers):
    one = sum(1 for n in trace.steps if n == 1)
    trunk = sum(1 for k in trace.kinds if k != "draft")
    print(f"{path}: {len(trace.rows)} tokens of {len({r[0] for r in trace.rows})} sequences, in {len(trace.steps)} steps, {one} of one token")
    print(f"{len(layers)} layers ({', '.join(f'{len(l)} {k}' for k, l in by_kind(layers))}), {trace.K} of {trace.E} experts; "
          f"a token uses {trunk * trace.K} in the trunk, {trunk * trace.K * trace.expert_bytes / 1e6:.2f} MB\n")
    print("layer  kind    used  effective  top tenth   overlap")
    for l in layers:
        print(f"{l.block:5}  {l.kind:6} {l.used:5} {l.effective:10.1f} {percent(l.tenth):>10} {percent(l.overlap):>9}")
    for kind, of in by_kind(layers):
        print(f"mean   {kind:6} {mean([l.used for l in of]):5.0f} {mean([l.effective for l in of]):10.1f} "
              f"{percent(mean([l.tenth for l in of])):>10} {percent(mean([l.overlap for l in of])):>9}")
    print(f"chance                               {percent(trace.K / trace.E):>9}")
    for name, distances in MEASURES:
        print(f"\nreuse within so many {name}:")
        longest = max((d for l in layers for d in distances(l)), default=1)
        steps = [1 << i for i in range(longest.bit_length() + 1) if i == 0 or 1 << i < 2 * longest]
        print("       " + "".join(f"{d:>9}" for d in steps))
        for kind, of in by_kind(layers):
            print(f"{kind:6} " + "".join(f"{percent(share_up_to(of, distances, d)):>9}" for d in steps))


# --- the plot -------------------------------------------------------------------------------------


def text(x, y, s, size=12, anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(s)}</text>'


def heat_map(trace, layers, x, y, width, height, in_order):
    out, cell = [], width / trace.E
    for i, l in enumerate(layers):
        usual = l.accesses / trace.E or 1  # if all were used alike; white is never, black 4 times that
        counts = l.count if in_order else sorted(l.count, reverse=True)
        levels = [min(15, math.ceil(15 * n / (4 * usual))) for n in counts]
        begin = 0
        for e in range(1, trace.E + 1):  # neighbours of one shade are one rectangle
            if e == trace.E or levels[e] != levels[begin]:
                grey = 255 - 17 * levels[begin]
                out.append(f'<rect x="{x + begin * cell:.2f}" y="{y + i * height:.1f}" width="{(e - begin) * cell:.2f}" '
                           f'height="{height - 1:.1f}" fill="rgb({grey},{grey},{grey})"/>')
                begin = e
        if len(layers) <= 20 or l.block % 5 == 0:
            out.append(text(x - 6, y + i * height + height * 0.8, f"{l.block} {l.kind}", 10, "end"))
    return out


def frame(x, y, width, height, title):
    out = [text(x, y - 8, title), f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="none" stroke="#999"/>']
    return out + [text(x - 5, y + height * (1 - p) + 4, f"{p:.0%}", 10, "end") for p in (0, 0.25, 0.5, 0.75, 1)]


def curves(layers, name, distances, x, y, width, height):
    out = frame(x, y, width, height, f"accesses reused within so many {name}")
    longest = max([2] + [d for l in layers for d in distances(l)])
    place = lambda d: x + width * math.log(d) / math.log(longest)
    out += [text(place(1 << i), y + height + 14, str(1 << i), 10, "middle") for i in range(longest.bit_length())]
    for i, (kind, of) in enumerate(by_kind(layers)):
        ds = sorted({max(1, round(longest ** (i / 100))) for i in range(101)})
        points = " ".join(f"{place(d):.1f},{y + height * (1 - share_up_to(of, distances, d)):.1f}" for d in ds)
        out.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[kind]}" stroke-width="2"/>')
        out.append(f'<g fill="{COLOURS[kind]}">{text(x + 8, y + 16 + 14 * i, kind)}</g>')
    return out


def overlap_bars(trace, layers, x, y, width, height):
    out, bar = frame(x, y, width, height, "experts that the token before chose too, by layer; the line is chance"), width / len(layers)
    for i, l in enumerate(layers):
        tall = height * (l.overlap or 0)
        out.append(f'<rect x="{x + i * bar + bar * 0.1:.1f}" y="{y + height - tall:.1f}" width="{bar * 0.8:.1f}" height="{tall:.1f}" fill="{COLOURS[l.kind]}"/>')
        if len(layers) <= 20 or l.block % 5 == 0:
            out.append(text(x + (i + 0.5) * bar, y + height + 14, str(l.block), 10, "middle"))
    level = y + height * (1 - trace.K / trace.E)
    return out + [f'<line x1="{x}" x2="{x + width}" y1="{level:.1f}" y2="{level:.1f}" stroke="#333" stroke-dasharray="4 3"/>']


def plot(path, trace, layers, in_order):
    row = 16 if len(layers) <= 20 else 8
    top = 62 + row * len(layers)
    order = "by id" if in_order else "the most used first"
    out = [text(20, 22, f"{path}: {len(trace.rows)} tokens, {trace.K} of {trace.E} experts", 15),
           text(80, 46, f"use of each expert ({order}): white is never, black 4 times the mean of its layer")]
    out += heat_map(trace, layers, 80, 54, 900, row, in_order)
    for i, (name, distances) in enumerate(MEASURES):
        out += curves(layers, name, distances, 80 + 480 * i, top + 36, 420, 240)
    out += overlap_bars(trace, layers, 80, top + 350, 900, 160)
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="1020" height="{top + 550}" font-family="sans-serif">'
            '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(out) + "\n</svg>\n")


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace")
    parser.add_argument("-o", "--output", metavar="PLOT.svg", help="write the plot")
    parser.add_argument("--text", action="store_true", help="print the figures; so it does without -o")
    parser.add_argument("--in-order", action="store_true", help="experts of the plot by id, not by use")
    options = parser.parse_args()
    trace = Trace(options.trace)
    layers = [Layer(trace, block) for block in range(len(trace.kinds))]
    if options.text or not options.output:
        print_text(options.trace, trace, layers)
    if options.output:
        with open(options.output, "w", encoding="utf-8") as file:
            file.write(plot(options.trace, trace, layers, options.in_order))


if __name__ == "__main__":
    main()
