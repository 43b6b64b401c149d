#!/usr/bin/env python3
"""Compare sluice's tokenizer with Hugging Face `tokenizers`, line by line, both ways.

    make build/tests/src/text/tokenize_lines
    pip install tokenizers
    tests/compare_tokenizer.py build/tests/src/text/tokenize_lines tokenizer.json [--lines N] [--seed S]

Lines are made here, from a seed: prose in many scripts, CJK, emoji, combining marks, right to left,
code, numbers, white space, control characters, broken UTF-8, long lines, text full of the file's
own special tokens, and every code point there is. Each line is encoded with the file's added
tokens and without them (the reference: the same file with `added_tokens` removed), and the ids are
decoded again, as are random ids. Exit status 1 if anything differs.

--variants compares other pre-tokenizers put into the same file: every behavior, strings, GPT-2's form.
--truncate N OUT.json, --cases OUT.jsonl, --variant-cases OUT.jsonl write what `make test` reads: the
file with its first N merges only, and lines with the reference's ids.
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unicodedata

WORDS = """the of and to in a is that for it as was with be by on not he his but at are this have had from or
which one all were her she there would their we him been has when who will more no if out so said what up its about
into than them can only other new some could time these two may then do first any my now such like our over man me
even most made after also did many before must through back years where much your way well down should because each
just those people how too little state good very make world still own see men work long get here between both life
being under never day same another know while last might us great old year off come since against go came right used
take three expert gate slot cache token prefill decode window attention context sequence matrix throughput""".split()

# First and last code points of letters in many scripts; what is unassigned among them is left in.
SCRIPTS = {
    "latin": (0xC0, 0x24F), "ipa": (0x250, 0x2AF), "greek": (0x370, 0x3FF), "cyrillic": (0x400, 0x52F),
    "armenian": (0x531, 0x58A), "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF), "syriac": (0x700, 0x74F),
    "thaana": (0x780, 0x7B1), "nko": (0x7C0, 0x7FA), "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE),
    "gurmukhi": (0xA01, 0xA76), "gujarati": (0xA81, 0xAFF), "tamil": (0xB82, 0xBFA), "telugu": (0xC00, 0xC7F),
    "kannada": (0xC80, 0xCF3), "malayalam": (0xD00, 0xD7F), "sinhala": (0xD81, 0xDF4), "thai": (0xE01, 0xE5B),
    "lao": (0xE81, 0xEDF), "tibetan": (0xF00, 0xFDA), "myanmar": (0x1000, 0x109F), "georgian": (0x10A0, 0x10FF),
    "jamo": (0x1100, 0x11FF), "ethiopic": (0x1200, 0x137C), "cherokee": (0x13A0, 0x13FD), "ogham": (0x1680, 0x169C),
    "khmer": (0x1780, 0x17F9), "mongolian": (0x1800, 0x18AA), "vietnamese": (0x1EA0, 0x1EF9),
    "greek extended": (0x1F00, 0x1FFE), "hiragana": (0x3041, 0x309F), "katakana": (0x30A0, 0x30FF),
    "bopomofo": (0x3105, 0x312F), "cjk": (0x4E00, 0x9FFF), "cjk common": (0x4E00, 0x5FFF), "cjk a": (0x3400, 0x4DBF),
    "hangul": (0xAC00, 0xD7A3), "halfwidth": (0xFF01, 0xFFEE), "gothic": (0x10330, 0x1034A),
    "cuneiform": (0x12000, 0x12399), "hieroglyphs": (0x13000, 0x1342E), "math letters": (0x1D400, 0x1D7FF),
    "cjk b": (0x20000, 0x2A6DF), "cjk h": (0x31350, 0x323AF), "kawi": (0x11F00, 0x11F59), "garay": (0x10D40, 0x10D8F),
}
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\r", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e", "\u2003", "\u2028",
          "\u2029", "\u200b", "\u202f", "\u205f", "\u3000", "\ufeff", "\n\n", "    ", "\t\t", " \n", "\n "]
PUNCTUATION = list("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~") + list("¡¿«»“”‘’…—–·§¶†‡‰′″※、。「」『』【】（）！？：；，￥€£¥¢°±×÷≠≤≥∞∑∫√←↑→↓")
EMOJI = ["😀", "🤣", "👍🏽", "👩‍💻", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪", "🇯🇵", "❤️", "1️⃣", "☎", "🫠", "🪿", "🧑🏿‍🚀", "\u200d", "\ufe0f"]
CODE = ["int main(void) {", "    return x[i] += 0x7fff;", "def f(self, *args, **kw):", "\tif (a && !b || c) {", "// why",
        "#include <stdio.h>", "SELECT * FROM t WHERE id = 42;", "<div class=\"a b\">&nbsp;</div>", "x = {'k': [1, 2.5e-10]}",
        "printf(\"%d\\n\", n);", "const auto&& y = std::move(z);", "https://example.org/a?b=c&d=%20#e", "a->b.c::d",
        "});", "}}", "/* *** */", "λx.x", "$(CC) -O2 $^", "user@example.com", "\\begin{align} \\frac{a}{b}", "'s 're I'm don't"]


class Maker:
    def __init__(self, seed, specials):
        self.r = random.Random(seed)
        self.specials = specials

    def prose(self, n):
        out = []
        for _ in range(n):
            word = self.r.choice(WORDS)
            word = word.capitalize() if self.r.random() < 0.15 else word.upper() if self.r.random() < 0.03 else word
            out.append(word + self.r.choice(["", "", "", "", "", ",", ".", "'s", "-", ";", "!", "?", ":"]))
        return " ".join(out)

    def script(self, n):
        first, last = SCRIPTS[self.r.choice(list(SCRIPTS))]
        return " ".join("".join(chr(self.r.randint(first, last)) for _ in range(self.r.randint(1, 12))) for _ in range(n))

    def number(self):
        r = self.r
        return r.choice([str(r.randint(0, 10**r.randint(1, 20))), f"{r.random()*1e6:.{r.randint(0, 9)}f}", hex(r.getrandbits(64)),
                         f"{r.randint(0, 10**9):,}", f"{r.randint(1, 31)}.{r.randint(1, 12)}.{r.randint(1900, 2100)}", "٣٤٥", "१२३४", "Ⅻ½²³",
                         "１２３４", "𝟏𝟐𝟑𝟒", "-1.5e+10"])

    def combining(self):
        marks = "".join(chr(self.r.randint(0x300, 0x36F)) for _ in range(self.r.randint(1, 6)))
        return unicodedata.normalize(self.r.choice(["NFC", "NFD"]), self.r.choice("aeiouAEIOUnc ") + marks)

    def special(self):
        t = self.r.choice(self.specials)
        kind = self.r.randrange(8)
        if kind == 0:
            return t[:self.r.randint(0, len(t))]
        if kind == 1:
            return t[self.r.randint(0, len(t)):] + t
        if kind == 2:
            return t[:len(t) // 2] + t
        if kind == 3:
            return " " + t + " "
        return t

    def part(self):
        r = self.r
        return r.choice([lambda: self.prose(r.randint(1, 30)), lambda: self.script(r.randint(1, 6)), self.number, self.combining,
                         lambda: r.choice(SPACES) * r.randint(1, 4), lambda: "".join(r.choices(PUNCTUATION, k=r.randint(1, 8))),
                         lambda: r.choice(EMOJI) * r.randint(1, 3), lambda: r.choice(CODE), self.special,
                         lambda: chr(r.randint(0, 31)), lambda: chr(r.choice([r.randint(1, 0xD7FF), r.randint(0xE000, 0x10FFFF)])),
                         lambda: r.choice("abcXYZ019 .中") * r.randint(1, 60)])()

    def line(self, i):
        r = self.r
        kind = i % 16
        if kind == 0:
            text = self.prose(r.randint(1, 120))
        elif kind == 1:
            text = "\n".join(" " * (4 * r.randint(0, 4)) + r.choice(CODE) for _ in range(r.randint(1, 20)))
        elif kind == 2:
            text = "".join(self.special() for _ in range(r.randint(1, 30)))
        elif kind == 3:
            text = "".join(r.choice(SPACES) for _ in range(r.randint(1, 40)))
        elif kind == 4:
            text = "".join(self.script(1) + r.choice(SPACES) for _ in range(r.randint(1, 10)))
        elif kind == 5:  # broken UTF-8: cut, flipped, raw bytes
            data = bytearray("".join(self.part() for _ in range(4)).encode())
            for _ in range(r.randint(1, 8)):
                data.insert(r.randint(0, len(data)), r.choice([0x80, 0xBF, 0xC0, 0xC3, 0xE0, 0xE4, 0xED, 0xA0, 0xF0, 0xF4, 0x90, 0xFF]))
            return bytes(data[r.randint(0, 3):len(data) - r.randint(0, 3)])
        else:
            text = "".join(self.part() for _ in range(r.randint(1, 25)))
        return text.encode()

    def long_lines(self):
        yield b"a" * 1000000
        yield b" " * 300000
        yield b" " * 300000 + b"\n"
        yield b"\n" * 100000
        yield "é".encode() * 100000
        yield "中文字".encode() * 50000
        yield "ไทย".encode() * 30000
        yield b"0123456789" * 20000
        yield b"ab" * 100000
        yield bytes(self.r.choice(b"etaoin") for _ in range(200000))
        yield bytes(self.r.choice(b"ab") for _ in range(200000))
        yield bytes(self.r.choice(b" \t\n") for _ in range(50000))
        yield b"!" * 100000 + b"\n" * 5000
        yield (self.prose(20000)).encode()
        yield "".join(self.special() for _ in range(3000)).encode()
        for n in range(1000, 1060):  # around the window within which patterns are matched
            yield b" " * n + b"x" + b"y" * n + b"\n" * n + b"." * n + b"1" * n + " 中".encode() * n

    def code_points(self):
        """Every code point, in the company that decides its class."""
        points = [c for c in range(1, 0x110000) if not 0xD800 <= c <= 0xDFFF]
        for i in range(0, len(points), 128):
            yield "".join("a%cb %c. \n%c" % (c, c, c) for c in points[i:i + 128]).encode()


def variants():
    """Pre-tokenizers that exercise what V4's own does not."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    gpt2 = dict(level, use_regex=True)
    patterns = [{"Regex": r"\s+"}, {"Regex": r"\p{N}{1,3}"}, {"Regex": "[aeiou]*"}, {"String": " "}, {"String": "(?"},
                {"Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"}]
    for pattern in patterns:
        for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
            for invert in [False, True]:
                split = {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}
                yield {"type": "Sequence", "pretokenizers": [split, level]}
    for regex in [r"(?<=[a-z])(?=[A-Z])", r"(?<!\p{L})\p{L}", r"\S\s\S|\D\d", r".{2,5}?\n|.{3}", r"[^\S\n]+|[\d\-x-z]+", r"(?>a|ab)c|(b+)(?:c|d)?+",
                  r"\p{Lu}\p{Ll}*|\P{L}+", r"\p{^P}{,4}", r"\x41|\u4e2D|\x{1F600}|\t|\v|{|}|]|a{b", r"\p{Sm}|\p{Pd}|\p{Nl}|\p{No}|\p{Lo}+|\p{Zs}|\p{M}+"]:
        split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
        yield {"type": "Sequence", "pretokenizers": [split, level]}
        yield {"type": "Sequence", "pretokenizers": [split, dict(gpt2, add_prefix_space=True)]}
    yield level
    yield gpt2
    yield dict(level, add_prefix_space=True)
    yield dict(gpt2, add_prefix_space=True)


def variant_spec(spec, i, pre_tokenizer):
    """Every third with ignore_merges, every other with merges in the other form."""
    model = dict(spec["model"], ignore_merges=i % 3 == 0)
    if i % 2:
        model["merges"] = [m.split(" ") if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return dict(spec, pre_tokenizer=pre_tokenizer, model=model)


def compare_variants(o, spec, maker):
    import tokenizers
    wrong = 0
    lines = [l for l in (maker.line(i) for i in range(o.lines)) if len(l) < 4000]
    for i, pre_tokenizer in enumerate(variants()):
        text = json.dumps(variant_spec(spec, i, pre_tokenizer))
        theirs = [" ".join(map(str, ids)) for ids in reference_ids(tokenizers.Tokenizer.from_str(text), lines)]
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(text)
            f.flush()
            ours = run(o.binary, f.name, "added", [l.hex() for l in lines])
        wrong += differences(json.dumps(pre_tokenizer)[:150], ours, theirs, lines)
    return wrong


def write_variant_cases(path, spec, maker):
    import tokenizers
    with open(path, "w") as out:
        for i, pre_tokenizer in enumerate(variants()):
            lines = [l for l in (maker.line(j) for j in range(200)) if 20 < len(l) <= 80][:8]
            spec_i = variant_spec(spec, i, pre_tokenizer)
            ids = reference_ids(tokenizers.Tokenizer.from_str(json.dumps(spec_i)), lines)
            case = {"pre_tokenizer": pre_tokenizer, "ignore_merges": spec_i["model"]["ignore_merges"], "pairs": i % 2 == 1,
                    "cases": [{"hex": l.hex(), "added": n} for l, n in zip(lines, ids)]}
            out.write(json.dumps(case, separators=(",", ":")) + "\n")


def truncate(spec, n, path):
    """The first n merges, the bytes, all added tokens, numbered anew without gaps; nothing else changes."""
    model = spec["model"]
    merges = model["merges"][:n]
    keep = len(model["vocab"]) - len(model["merges"]) + n
    vocab = {t: i for t, i in model["vocab"].items() if i < keep}
    after, added = keep, []
    for t in spec["added_tokens"]:
        added.append(dict(t, id=vocab.get(t["content"], after)))
        after += t["content"] not in vocab
    small = dict(spec, model=dict(model, vocab=vocab, merges=merges), added_tokens=added)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(small, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def run(binary, path, mode, lines):
    data = "\n".join(lines) + "\n"
    done = subprocess.run([binary, path, mode], input=data.encode(), capture_output=True)
    if done.returncode:
        sys.exit(f"{binary} {path} {mode}: exit status {done.returncode}: {done.stderr.decode()}")
    return done.stdout.decode().split("\n")[:-1]


def differences(name, ours, theirs, lines):
    if len(ours) != len(theirs):
        sys.exit(f"{name}: {len(theirs)} lines in, {len(ours)} out")
    wrong = [i for i in range(len(ours)) if ours[i] != theirs[i]]
    for i in wrong[:5]:
        print(f"  {name}, line {i}: {lines[i][:120]!r}\n    sluice    {ours[i][:200]}\n    reference {theirs[i][:200]}")
    print(f"{name}: {len(ours)} lines compared, {len(wrong)} different", flush=True)
    return len(wrong)


def reference_ids(tokenizer, lines):
    ids = []
    for i in range(0, len(lines), 500):
        texts = [l.decode("utf-8", "replace") for l in lines[i:i + 500]]
        ids += [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
    return ids


def write_cases(path, reference, plain, lines):
    with open(path, "w") as out:
        for text, with_added, without in zip(lines, reference_ids(reference, lines), reference_ids(plain, lines)):
            case = {"hex": text.hex(), "added": with_added}
            if without != with_added:
                case["plain"] = without
            out.write(json.dumps(case, separators=(",", ":")) + "\n")


def main():
    a = argparse.ArgumentParser()
    a.add_argument("binary")
    a.add_argument("tokenizer")
    a.add_argument("--lines", type=int, default=20000)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--variants", action="store_true")
    a.add_argument("--truncate", nargs=2)
    a.add_argument("--cases")
    a.add_argument("--variant-cases")
    o = a.parse_args()

    import tokenizers
    spec = json.load(open(o.tokenizer, encoding="utf-8"))
    specials = [t["content"] for t in spec["added_tokens"]] or ["<|none|>"]
    without = dict(spec, added_tokens=[])
    reference = tokenizers.Tokenizer.from_str(json.dumps(spec))
    plain = tokenizers.Tokenizer.from_str(json.dumps(without))
    maker = Maker(o.seed, specials)
    if o.truncate:
        truncate(spec, int(o.truncate[0]), o.truncate[1])
    if o.cases:
        short = [l for l in (maker.line(i) for i in range(o.lines)) if len(l) <= 120]
        write_cases(o.cases, reference, plain, short)
    if o.variant_cases:
        write_variant_cases(o.variant_cases, spec, maker)
    if o.truncate or o.cases or o.variant_cases:
        return 0
    if o.variants:
        return 1 if compare_variants(o, spec, maker) else 0

    lines = [maker.line(i) for i in range(o.lines)] + list(maker.long_lines()) + list(maker.code_points())
    hexed = [l.hex() for l in lines]
    print(f"tokenizers {tokenizers.__version__}, seed {o.seed}, {sum(map(len, lines)) / 1e6:.1f} MB")
    wrong = 0
    for mode, tok in (("added", reference), ("plain", plain)):
        theirs = [" ".join(map(str, ids)) for ids in reference_ids(tok, lines)]
        ours = run(o.binary, o.tokenizer, mode, hexed)
        wrong += differences(f"encode, {mode}", ours, theirs, lines)
        if mode == "added":
            encoded = theirs
    n_ids = reference.get_vocab_size()
    drawn = [" ".join(str(maker.r.randrange(n_ids)) for _ in range(maker.r.randint(1, 40))) for _ in range(o.lines)]
    ids = encoded + drawn + [str(i) for i in range(n_ids)]
    theirs = [reference.decode([int(i) for i in line.split()], skip_special_tokens=False).encode().hex() for line in ids]
    wrong += differences("decode", run(o.binary, o.tokenizer, "decode", ids), theirs, ids)

    with tempfile.NamedTemporaryFile("w", delete=False) as f:
        for i in range(20000):
            f.write(maker.prose(60) + maker.r.choice([" ", "\n", "\n\n"]))
            if i % 10 == 0:
                f.write(maker.r.choice(CODE) + "\n" + maker.number() + " " + maker.script(2))
    print(f"speed on one core, {os.path.getsize(f.name) / 1e6:.1f} MB of mixed English:", flush=True)
    subprocess.run([o.binary, o.tokenizer, "bench", f.name])
    for n in (1, 10):
        with open(f.name, "w") as g:
            g.write("a" * (n * 1000000))
        print(f"one line of {n} MB, one letter:", flush=True)
        subprocess.run([o.binary, o.tokenizer, "bench", f.name])
    os.unlink(f.name)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
