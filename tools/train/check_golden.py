"""Is the trainer's model the model? Compares it with what the publisher's code computed
(golden vectors: a checkpoint and expected.{exact,fp32}.safetensors).

    python check_golden.py DIR

exact: end to end, every position within 1e-5, all choices equal.
fp32:  quantized, each layer given the publisher's streams: the bounds of the golden README."""

import sys

import torch
from safetensors.torch import load_file

import checkpoint
from model import Config, Model


def error(a, b):
    """Per position: |a - b| / |b| over the flattened row."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    return (a - b).norm(dim=1) / b.norm(dim=1)


def same_sets(a, b):
    return (a.sort(-1)[0] == b.sort(-1)[0]).all(-1).float().mean().item()


def picked_list(mask, width):
    """[T,M] -> [T,width], ascending, padded with -1, as the golden files have it."""
    out = torch.full((mask.shape[0], width), -1)
    for t, row in enumerate(mask):
        entries = row.nonzero().flatten()
        out[t, : len(entries)] = entries
    return out


def check_exact(model, expected):
    tokens = expected["tokens"].long()
    logits = expected["logits"]
    n_draft = expected["mtp.logits"].shape[0]
    trace, ok = [], True
    x, _, _ = model(tokens[None], draft=False, trace=trace)
    worst = error(model.logits(x)[0], logits).max().item()
    h = trace[-1][0][:, :n_draft]
    following = tokens[None, 1 : n_draft + 1]
    block = model.mtp[0]
    h, _, (_, chosen) = block(block.combine(h, model.embedded(following), False), following, False)
    draft = error(model.logits(block.head(h, False))[0], expected["mtp.logits"]).max().item()
    ok &= worst < 1e-5 and draft < 1e-5
    print(f"exact: logits {worst:.1e}, mtp.logits {draft:.1e}, end to end")
    for i, (h, picked, chosen) in enumerate(trace):
        sets = same_sets(chosen[0], expected[f"layers.{i}.route_experts"])
        if f"layers.{i}.index_topk" in expected:
            want = expected[f"layers.{i}.index_topk"]
            sets = min(sets, same_sets(picked_list(picked[0], want.shape[1]), want))
        ok &= sets == 1
        print(f"  layer {i}: choices equal at {sets:.2%} of positions")
    return ok


def check_fp32(model, expected):
    tokens = expected["tokens"].long()[None]
    h = model.streams(tokens)
    errors, ok = [], True
    for i, layer in enumerate(model.layers):
        out, _, (_, chosen) = layer(h, tokens, True)
        h = expected[f"layers.{i}.hidden"][None]
        e = error(out[0], h[0])
        errors.append(e)
        sets = same_sets(chosen[0], expected[f"layers.{i}.route_experts"])
        near = (e < 1e-5).float().mean().item()
        ok &= near > 0.6 and sets > 0.98
        print(f"  layer {i}: median {e.median():.1e}, {near:.1%} < 1e-5, largest {e.max():.1e}, sets {sets:.2%}")
    e = torch.cat(errors)
    head = error(model.logits(model.head(h, True))[0], expected["logits"]).max().item()
    ok &= e.median() < 1e-6 and (e < 1e-5).float().mean() > 0.75 and e.max() < 0.1 and head < 1e-5
    print(f"fp32: median {e.median():.1e}, {(e < 1e-5).float().mean():.1%} < 1e-5, head {head:.1e}")
    return ok


@torch.no_grad()
def main(folder):
    model = Model(Config.load(f"{folder}/checkpoint/config.json"))
    checkpoint.load(model, f"{folder}/checkpoint").eval()
    ok = check_exact(model, load_file(f"{folder}/expected.exact.safetensors"))
    model.quant = True
    ok &= check_fp32(model, load_file(f"{folder}/expected.fp32.safetensors"))
    print("same model" if ok else "NOT the same model")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
