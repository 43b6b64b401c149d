"""Trains the demo model on CPUs.

    python train.py CONFIG.json CORPUS.json tokenizer.json STATE --steps 6000 [--resume STATE0]
                    [--decay-from N] [--quant-from N] [--long-from N] [--draft-from N] [--narrow-from N]

One process a core, each with one thread: they share parameters, gradients and optimizer state in
memory and meet at two barriers a step. That is faster than one process with many threads (small
products), and a busy neighbour slows it less. The rate is flat after a warm-up and falls to 0 from
--decay-from to --steps, so a run can be ended from any saved state by a short decay. STATE holds
everything: a resumed run continues the same sequence of batches."""

import argparse
import json
import os
import random
import time

import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

import moe
import model as model_file
from data import KINDS, Source
from model import Config, Model
from muon import Optimizer

WARMUP, SAVE_SECONDS = 100, 180
NARROW = 24  # tokens of a window that is narrowed


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("config"), p.add_argument("corpus"), p.add_argument("tokenizer"), p.add_argument("state")
    p.add_argument("--resume")
    p.add_argument("--steps", type=int, required=True)
    p.add_argument("--decay-from", type=int, default=10**9)
    p.add_argument("--quant-from", type=int, default=10**9)
    p.add_argument("--long-from", type=int, default=10**9, help="some steps have long rows")
    p.add_argument("--long-every", type=int, default=6)
    p.add_argument("--narrow-from", type=int, default=10**9,
                   help=f"two of three steps have a window of {NARROW}: what lies further back must be found in "
                   "compressed entries")
    p.add_argument("--start-entries", action="store_true", help="compressors begin as the window's projection")
    p.add_argument("--draft-from", type=int, default=10**9)
    p.add_argument("--index-from", type=int, default=0, help="the indexers learn from here on")
    p.add_argument("--mix", default="early", help="of the data: early, late or last (data.py)")
    p.add_argument("--ranks", type=int, default=2)
    p.add_argument("--rows", type=int, default=4, help="rows of 512 tokens for each rank")
    p.add_argument("--long", type=int, default=4096)
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def fill_hash_tables(model, corpus_path, tokenizer_path):
    """K different experts for each token, such that every expert gets about the same share of a
    sample of training text: frequent tokens first, each to the experts with least so far."""
    source = Source(json.load(open(corpus_path)), tokenizer_path, 7)
    c = model.config
    freq = torch.bincount(torch.tensor([t for _ in range(400) for t in source.row(512)[0]]), minlength=c.vocab_size)
    r = random.Random(7)
    for layer in model.layers:
        if layer.ffn.hashed:
            load = [0.0] * c.n_routed_experts
            for t in freq.argsort(descending=True).tolist():
                best = sorted(range(len(load)), key=lambda e: (load[e], r.random()))[: c.num_experts_per_tok]
                layer.ffn.gate.tid2eid[t] = torch.tensor(best)
                for e in best:
                    load[e] += freq[t].item() + 1e-3


@torch.no_grad()
def start_entries(model):
    """Compressed entries of CSA layers become means of what the window's keys are, each mostly of its
    own 4 tokens: then heads that find something in the window begin to find it in entries too, which
    takes them many hundred steps from noise."""
    for layer in model.layers:
        attn = layer.attn
        if attn.ratio == 4:
            compressor = attn.compressor
            compressor.wkv.weight.copy_(attn.wkv.weight.repeat(2, 1))
            compressor.norm.weight.copy_(attn.kv_norm.weight)
            compressor.ape[:, : compressor.dim] = -1.5


def rate(step, a):
    warm = min(1.0, step / WARMUP)
    return warm * min(1.0, max(0.0, (a.steps - step) / max(1, a.steps - a.decay_from)))


def compile_parts():
    """Fuses what is between the products; experts' row counts change and stay eager."""
    torch._dynamo.config.cache_size_limit = 256
    for owner, name in [(model_file.HyperConnection, "pre"), (model_file.Attention, "forward"),
                        (model_file.Head, "forward"), (moe.Shared, "forward")]:
        setattr(owner, name, torch.compile(getattr(owner, name), dynamic=False))
    model_file.HyperConnection.post = staticmethod(torch.compile(model_file.HyperConnection.post, dynamic=False))
    moe.activate = torch.compile(moe.activate, dynamic=True)
    moe.round_experts = torch.compile(moe.round_experts, dynamic=False)


def losses(model, ids, weight, kind, draft, stats):
    """-> the loss summed over tokens. stats [kinds + 2, 2] gathers sums and counts for the log."""
    with torch.autocast("cpu", torch.bfloat16):
        x, y, index_loss = model(ids[:, :-1], draft=draft)
        logits = model.logits(x)
    ce = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    w = weight.flatten()
    counted = (w > 0).float()
    stats[: len(KINDS), 0] += torch.bincount(kind.flatten(), ce.detach() * counted, len(KINDS))
    stats[: len(KINDS), 1] += torch.bincount(kind.flatten(), counted, len(KINDS))
    stats[-2] += torch.tensor([float(index_loss.detach()) if torch.is_tensor(index_loss) else 0.0, 1.0])
    total = (ce * w).sum() + 0.3 * index_loss * w.sum()
    if draft:  # position t has seen token t+1 too, and predicts token t+2
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.logits(y[:, :-1])
        w = weight[:, 1:].flatten()
        ce = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 2:].flatten(), reduction="none")
        stats[-1] += torch.tensor([float((ce.detach() * w).sum()), float(w.sum())])
        total = total + 0.2 * (ce * w).sum()
    return total


def save(path, model, optimizer, step, tokens):
    torch.save({"step": step, "tokens": tokens, "model": model.state_dict(), "optimizer": optimizer.state()},
               path + ".new")
    os.replace(path + ".new", path)


def report(step, tokens, a, stats, model, began):
    mean = stats[:, 0] / stats[:, 1].clamp(min=1e-9)
    by_kind = " ".join(f"{k} {mean[i]:.3f}" for i, k in enumerate(KINDS) if stats[i, 1] > 0)
    tasks = slice(3, len(KINDS))
    average = (stats[tasks, 0].sum() / stats[tasks, 1].sum().clamp(min=1)).item()
    uneven = max(float(b.ffn.total.max() / b.ffn.total.float().mean()) for b in model.layers if not b.ffn.hashed)
    print(f"{time.strftime('%T')} step {step} tokens {tokens / 1e6:.2f}M rate {rate(step, a):.2f} "
          f"{tokens_per_second(began, tokens):.0f} tok/s | tasks {average:.3f} | {by_kind} | index {mean[-2]:.3f} "
          f"draft {mean[-1]:.3f} fullest expert {uneven:.1f}x", flush=True)


def tokens_per_second(began, tokens):
    return (tokens - began[1]) / (time.time() - began[0])


def work(rank, a, model, optimizer, grads, counts, loads, stats, barrier, start, tokens):
    torch.set_num_threads(1)
    torch.manual_seed(rank)
    compile_parts()
    model.train()
    for p, g in zip(model.parameters(), grads[rank]):
        p.grad = g
    corpus = json.load(open(a.corpus))
    blocks = [*model.layers, *model.mtp]
    saved, began = time.time(), (time.time(), tokens)
    source = Source(corpus, a.tokenizer, a.seed, a.mix)
    for step in range(start + 1, a.steps + 1):
        model.quant = step > a.quant_from
        for layer in model.layers:
            layer.attn.train_index = step > a.index_from
            layer.attn.window = NARROW if step > a.narrow_from and step % 3 else model.config.sliding_window
        long = step > a.long_from and step % a.long_every == 0
        source.r = random.Random(f"{a.seed} {rank} {step}")  # so that a resumed run goes on alike
        ids, weight, kind = source.batch(1, a.long) if long else source.batch(a.rows, 512)
        for g in grads[rank]:
            g.zero_()
        losses(model, ids, weight, kind, step > a.draft_from, stats[rank]).backward()
        counts[rank] = weight.sum()
        for i, b in enumerate(blocks):
            loads[rank, i] = b.ffn.load if b.ffn.load is not None else 0
        barrier.wait()
        optimizer.step(rank, step, rate(step, a), 1 / counts.sum().item())
        tokens += ids.shape[0] * (ids.shape[1] - 1) * a.ranks
        if rank == 0:
            for i, b in enumerate(blocks):
                b.ffn.balance(loads[:, i].sum(0), 0.003 * rate(step, a))
        barrier.wait()
        if rank == 0:
            if step % 50 == 0 or step in (5, 20):
                report(step, tokens, a, stats.sum(0), model, began)
                stats.zero_()
            if time.time() - saved > SAVE_SECONDS or step == a.steps:
                save(a.state, model, optimizer, step, tokens)
                saved = time.time()
            if step == a.decay_from:  # from here a later run can go on
                save(a.state + ".undecayed", model, optimizer, step, tokens)


def main():
    a = arguments()
    torch.manual_seed(a.seed)
    model = Model(Config.load(a.config))
    fill_hash_tables(model, a.corpus, a.tokenizer)
    model.share_memory()
    named = list(model.named_parameters())
    grads = [[torch.zeros_like(p).share_memory_() for _, p in named] for _ in range(a.ranks)]
    optimizer = Optimizer(named, grads)
    start = tokens = 0
    if a.resume:
        state = torch.load(a.resume, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.restore(state["optimizer"])
        start, tokens = state["step"], state["tokens"]
    if a.start_entries:
        start_entries(model)
    print(sum(p.numel() for _, p in named) / 1e6, "M parameters; from step", start, flush=True)
    counts = torch.zeros(a.ranks).share_memory_()
    loads = torch.zeros(a.ranks, len(model.layers) + 1, model.config.n_routed_experts).share_memory_()
    stats = torch.zeros(a.ranks, len(KINDS) + 2, 2).share_memory_()
    barrier = mp.get_context("fork").Barrier(a.ranks)
    context = mp.get_context("fork")  # children inherit the shared tensors and the barrier
    ranks = [context.Process(target=work, args=(r, a, model, optimizer, grads, counts, loads, stats, barrier,
                                                start, tokens)) for r in range(a.ranks)]
    for p in ranks:
        p.start()
    for p in ranks:
        p.join()
    return max(p.exitcode for p in ranks)


if __name__ == "__main__":
    raise SystemExit(main())
