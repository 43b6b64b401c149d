"""Perplexity of held-out text, computed as `sluice eval` does: windows that begin with BOS and
overlap by half; what an earlier window scored is context only.

    python evaluate.py CONFIG.json tokenizer.json STATE TEXT [--window 2048]
    python evaluate.py --write-text CORPUS.json TEXT      held-out documents of every source

Prints the trained weights' loss in float, then with every rounding that sluice does ("converted"):
the difference is what FP4 and FP8 cost. Compare the second with `sluice eval -m DIR -f TEXT`."""

import argparse
import json
import math

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

from export import load_state


def write_text(corpus_path, path, chars=(9000, 6000, 6000, 3000)):
    """The documents that data.py holds out: every twentieth."""
    texts = json.load(open(corpus_path))["texts"]
    parts = ["\n\n".join(texts[name][::20])[:n] for name, n in zip(("kjv", "jargon", "wordnet", "devil"), chars)]
    with open(path, "w") as f:
        f.write("\n\n".join(parts) + "\n")


@torch.no_grad()
def loss(model, ids, window):
    """-> nats a token over all of ids but the first, BOS."""
    total, scored, n = 0.0, 0, len(ids) - 1
    for begin in range(1, n + 1, window // 2):
        if scored == n:
            break
        part = torch.tensor([[ids[0], *ids[begin : begin + window - 1]]])
        done = scored + 1 - begin
        x, _, _ = model(part[:, :-1], draft=False)
        ce = F.cross_entropy(model.logits(x)[0, done:].double(), part[0, 1 + done :], reduction="sum")
        total += ce.item()
        scored += part.shape[1] - 1 - done
    return total / scored


def main():
    p = argparse.ArgumentParser()
    p.add_argument("files", nargs="+")
    p.add_argument("--write-text", action="store_true")
    p.add_argument("--window", type=int, default=2048)
    a = p.parse_args()
    if a.write_text:
        return write_text(*a.files)
    config, tokenizer, state, text = a.files
    tok = Tokenizer.from_file(tokenizer)
    model = load_state(config, state)
    # Added tokens are not recognized in text (sluice's --raw and eval do not either).
    ids = [0, *tok.encode(open(text).read(), add_special_tokens=False).ids]
    for model.quant in (False, True):
        nats = loss(model, ids, a.window)
        print(f"{'converted' if model.quant else 'float'}: perplexity {math.exp(nats):.6f} "
              f"({nats:.6f} nats a token, {len(ids) - 1} tokens)")


if __name__ == "__main__":
    main()
