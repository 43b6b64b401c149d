"""Mixture of experts (spec 7): hash and score routing, shared expert."""

import torch
import torch.nn.functional as F
from torch import nn

import quant as Q


def round_experts(w):
    return Q.weight_fp4(w)


def activate(u, v, weight, limit, quant):
    """The weight multiplies before w2."""
    a = F.silu(v.clamp(max=limit)) * u.clamp(-limit, limit) * weight.unsqueeze(-1)
    return Q.act_fp8(a) if quant else a


class Experts(nn.Module):
    """E experts stacked; w2's input is the weighted activation."""

    def __init__(self, n, d, f):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(n, f, d) * d**-0.5)
        self.w3 = nn.Parameter(torch.randn(n, f, d) * d**-0.5)
        self.w2 = nn.Parameter(torch.randn(n, d, f) * (0.3 * f**-0.5))

    def forward(self, x, weight, counts, limit, quant):
        """x [rows, d] sorted by expert, counts [E] rows each, weight [rows]."""
        w1, w3, w2 = self.w1, self.w3, self.w2
        if quant:
            w1, w3, w2 = round_experts(w1), round_experts(w3), round_experts(w2)
            x = Q.act_fp8(x)
        parts = x.split(counts)
        u = torch.cat([F.linear(p, w) for p, w in zip(parts, w3.unbind())])
        v = torch.cat([F.linear(p, w) for p, w in zip(parts, w1.unbind())])
        a = activate(u, v, weight, limit, quant)
        return torch.cat([F.linear(p, w) for p, w in zip(a.split(counts), w2.unbind())])


class Shared(nn.Module):
    def __init__(self, d, f, Dense):
        super().__init__()
        self.w1, self.w3 = Dense(d, f, "fp8", d**-0.5), Dense(d, f, "fp8", d**-0.5)
        self.w2 = Dense(f, d, "fp8", 0.3 * f**-0.5)

    def forward(self, x, limit, quant):
        a = F.silu(self.w1(x, quant).clamp(max=limit)) * self.w3(x, quant).clamp(-limit, limit)
        return self.w2(a, quant)


class Gate(nn.Module):
    def __init__(self, c, hashed):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c.n_routed_experts, c.hidden_size) * 0.02)
        if hashed:
            self.register_buffer("tid2eid", torch.zeros(c.vocab_size, c.num_experts_per_tok, dtype=torch.long))
        else:
            self.register_buffer("bias", torch.zeros(c.n_routed_experts))


class MoE(nn.Module):
    def __init__(self, c, hashed, Dense, linear32):
        super().__init__()
        self.c, self.hashed, self.linear32 = c, hashed, linear32
        self.gate = Gate(c, hashed)
        self.experts = Experts(c.n_routed_experts, c.hidden_size, c.moe_intermediate_size)
        self.shared_experts = Shared(c.hidden_size, c.moe_intermediate_size, Dense)
        self.load = None  # rows of each expert in the last forward pass
        self.total = torch.ones(c.n_routed_experts)  # and lately, for the log

    def forward(self, x, tokens, quant):
        """-> output, chosen experts [B,T,K]."""
        c = self.c
        weight = Q.bf16(self.gate.weight) if quant else self.gate.weight
        affinity = torch.sqrt(F.softplus(self.linear32(x, weight)))
        if self.hashed:
            chosen = self.gate.tid2eid[tokens]
        else:
            chosen = (affinity.detach() + self.gate.bias).topk(c.num_experts_per_tok, -1)[1]
        w = affinity.gather(-1, chosen)
        w = w / w.sum(-1, keepdim=True) * c.routed_scaling_factor

        flat = chosen.flatten()
        order = torch.sort(flat, stable=True)[1]
        counts = torch.bincount(flat, minlength=c.n_routed_experts)
        self.load = counts
        row = order // c.num_experts_per_tok
        rows = x.flatten(0, 1)
        y = self.experts(rows[row], w.flatten()[order], counts.tolist(), c.swiglu_limit, quant)
        out = torch.zeros_like(rows).index_add(0, row, y.to(rows.dtype))
        return out.view_as(x) + self.shared_experts(x, c.swiglu_limit, quant), chosen

    @torch.no_grad()
    def balance(self, load, speed):
        """Auxiliary-loss-free balancing (DeepSeek-V3 report, 2.1.2): an expert with less than its
        share becomes a little easier to choose, whatever the size of the shortfall."""
        self.total.lerp_(load.float(), 0.05)
        if not self.hashed:
            self.gate.bias += speed * torch.sign(load.float().mean() - load)
