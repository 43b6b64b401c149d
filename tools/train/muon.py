"""Muon for matrices, AdamW for the rest; state in shared memory, parameters split among ranks.

Muon: K. Jordan and others, "Muon: an optimizer for hidden layers", 2024. The momentum matrix is
replaced by its nearest (semi-)orthogonal one, found by five Newton-Schulz steps; a layer's experts
are one batch. On CPUs with bf16 products the steps cost about a tenth of a training step."""

import torch


def orthogonal(g):
    """Newton-Schulz on [..., rows, cols]; the quintic's coefficients are Muon's."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = (x.transpose(-1, -2) if tall else x).to(torch.bfloat16)
    for _ in range(5):
        s = x @ x.transpose(-1, -2)
        x = a * x + (b * s + c * (s @ s)) @ x
    return (x.transpose(-1, -2) if tall else x).float()


def uses_muon(name, p):
    matrix = name.endswith((".w1", ".w2", ".w3")) or (p.ndim == 2 and ".weight" in name)
    return matrix and not any(w in name for w in ("gate.weight", "weights_proj", "norm"))


def adam_rate(name):
    if name == "embed":
        return 6e-3
    if name == "unembed":
        return 3e-3
    return 2e-3


class Optimizer:
    """grads: per rank, a list of shared tensors like params. Each rank updates its share of the
    parameters in place, so what is computed once is computed by one process only."""

    def __init__(self, named, grads, muon_rate=0.02, decay=0.02):
        self.named, self.grads = named, grads
        self.muon_rate, self.decay = muon_rate, decay
        self.first = [torch.zeros_like(p).share_memory_() for _, p in named]
        self.second = [torch.zeros(1) if uses_muon(n, p) else torch.zeros_like(p) for n, p in named]
        self.second = [s.share_memory_() for s in self.second]
        # Largest first, to the rank with less: the same work for each.
        self.owner, load = [0] * len(named), [0] * len(grads)
        for i in sorted(range(len(named)), key=lambda i: -named[i][1].numel()):
            self.owner[i] = load.index(min(load))
            load[self.owner[i]] += named[i][1].numel()

    @torch.no_grad()
    def step(self, rank, t, rate, scale):
        """t: step number from 1; rate: the schedule's factor; scale: of the summed gradients."""
        for i, (name, p) in enumerate(self.named):
            if self.owner[i] != rank:
                continue
            g = sum(per_rank[i] for per_rank in self.grads) * scale
            m = self.first[i]
            if uses_muon(name, p):
                m.mul_(0.95).add_(g)
                update = orthogonal(g + 0.95 * m)
                lr = self.muon_rate * rate
                p.mul_(1 - lr * self.decay)
                p.add_(update, alpha=-lr * max(1, p.shape[-2] / p.shape[-1]) ** 0.5)
            else:
                v = self.second[i]
                m.lerp_(g, 0.1)
                v.lerp_(g.square(), 0.05)
                m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.95**t)
                p.sub_(adam_rate(name) * rate * m_hat / (v_hat.sqrt() + 1e-8))

    def state(self):
        return {"first": self.first, "second": self.second}

    def restore(self, state):
        for kind in ("first", "second"):
            for mine, saved in zip(getattr(self, kind), state[kind]):
                if mine.shape == saved.shape:  # else pack_state.py left it out
                    mine.copy_(saved)
