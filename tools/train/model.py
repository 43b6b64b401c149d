"""DeepSeek-V4 in torch: batched, differentiable, and small enough to read beside the spec.

Section numbers are those of the project's spec of the model (the table in README.md names the
publisher's sources). Parameters carry the checkpoint's tensor names; a layer's experts are
stacked, [E, f, d]. Two modes:

  quant=False   float: what is trained first, and what `sluice --exact` computes
  quant=True    weights, activations, keys and index keys rounded as sluice rounds them, float32
                between operations; gradients pass straight through

A sequence is given whole, from position 0: there is no cache here, sluice has one."""

import json
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

import quant as Q
from attention import Attention
from moe import MoE


@dataclass
class Config:
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    head_dim: int
    qk_rope_head_dim: int
    q_lora_rank: int
    o_groups: int
    o_lora_rank: int
    sliding_window: int
    compress_ratios: list
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    n_routed_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    num_hash_layers: int
    routed_scaling_factor: float
    swiglu_limit: float
    hc_mult: int
    hc_sinkhorn_iters: int
    hc_eps: float
    rms_norm_eps: float
    rope_theta: float
    compress_rope_theta: float
    rope_scaling: dict
    max_position_embeddings: int

    @classmethod
    def load(cls, path):
        with open(path) as f:
            raw = json.load(f)
        return cls(**{k: raw[k] for k in cls.__dataclass_fields__})


def linear32(x, weight):
    """In float32 even under autocast: small matrices that decide (gate, hyper-connections)."""
    with torch.autocast("cpu", enabled=False):
        return F.linear(x.float(), weight)


class RMSNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x, quant):
        weight = Q.bf16(self.weight) if quant else self.weight
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * weight


class Dense(nn.Module):
    """y = x W^T. `kind` says how the published form stores W: "fp8" (x is rounded too, unless
    round_input is False: wo_a), "bf16", or "f32"."""

    def __init__(self, cols, rows, kind, std, round_input=True):
        super().__init__()
        self.kind, self.round_input = kind, round_input
        self.weight = nn.Parameter(torch.randn(rows, cols) * std)

    def rounded(self, quant):
        if not quant or self.kind == "f32":
            return self.weight
        return Q.weight_fp8(self.weight) if self.kind == "fp8" else Q.bf16(self.weight)

    def forward(self, x, quant):
        if quant and self.kind == "fp8" and self.round_input:
            x = Q.act_fp8(x)
        return F.linear(x, self.rounded(quant))


class Sinkhorn(torch.autograd.Function):
    """C [n, n, N] -> doubly stochastic (spec 4). N is last and long, so that every step is a few
    wide vector operations. The backward pass recomputes the steps and walks them in reverse:
    y = x / (sum x + eps) has dL/dx = (dL/dy - sum(dL/dy * y)) / (sum x + eps)."""

    @staticmethod
    def forward(ctx, logits, iters, eps):
        ctx.iters, ctx.eps = iters, eps
        ctx.save_for_backward(logits)
        x = torch.softmax(logits, 1) + eps
        for axis in Sinkhorn.axes(iters):
            x = x / (x.sum(axis, keepdim=True) + eps)
        return x

    @staticmethod
    def axes(iters):
        return [0] + [1, 0] * (iters - 1)  # columns, then rows and columns in turn

    @staticmethod
    def backward(ctx, grad):
        (logits,) = ctx.saved_tensors
        soft = torch.softmax(logits, 1)
        x, steps = soft + ctx.eps, []
        for axis in Sinkhorn.axes(ctx.iters):
            total = x.sum(axis, keepdim=True) + ctx.eps
            x = x / total
            steps.append((axis, x, total))
        for axis, y, total in reversed(steps):
            grad = (grad - (grad * y).sum(axis, keepdim=True)) / total
        return soft * (grad - (grad * soft).sum(1, keepdim=True)), None, None


class HyperConnection(nn.Module):
    """mHC (spec 4): how a half-layer reads the n residual streams and writes them back."""

    def __init__(self, c, favourite):
        super().__init__()
        n = c.hc_mult
        self.n, self.iters, self.hc_eps, self.norm_eps = n, c.hc_sinkhorn_iters, c.hc_eps, c.rms_norm_eps
        self.fn = nn.Parameter(torch.randn((2 + n) * n, n * c.hidden_size) * 0.02)
        # To begin with a half-layer reads mostly one stream (each its own: what breaks the
        # symmetry of n equal copies), writes to all, and keeps the streams nearly apart.
        base = torch.zeros((2 + n) * n)
        base[:n] = -1.5
        base[favourite % n] = 1.0
        base[2 * n :] = 3 * torch.eye(n).flatten()
        self.base = nn.Parameter(base)
        self.scale = nn.Parameter(torch.full((3,), 0.1))

    def pre(self, h):
        """-> what the half-layer reads [B,T,d], post [B,T,n], C [B,T,n,n]."""
        n = self.n
        u = h.flatten(-2)
        z = linear32(u, self.fn) * torch.rsqrt(u.square().mean(-1, keepdim=True) + self.norm_eps)
        pre = torch.sigmoid(z[..., :n] * self.scale[0] + self.base[:n]) + self.hc_eps
        post = 2 * torch.sigmoid(z[..., n : 2 * n] * self.scale[1] + self.base[n : 2 * n])
        c = z[..., 2 * n :] * self.scale[2] + self.base[2 * n :]
        c = Sinkhorn.apply(c.flatten(0, 1).t().reshape(n, n, -1), self.iters, self.hc_eps)
        c = c.reshape(n * n, -1).t().reshape(*h.shape[:2], n, n)
        return (pre.unsqueeze(-1) * h).sum(-2), post, c

    @staticmethod
    def post(x, h, post, c):
        """h'_j = post_j x + sum_i C[i][j] h_i: the first index of C is the stream read."""
        mixed = sum(c[..., i, :, None] * h[..., i, None, :] for i in range(h.shape[-2]))
        return post.unsqueeze(-1) * x.unsqueeze(-2) + mixed


class Head(nn.Module):
    """The streams' mix and the last norm (spec 4); logits are made by Model.logits."""

    def __init__(self, c):
        super().__init__()
        n = c.hc_mult
        self.hc_eps, self.norm_eps = c.hc_eps, c.rms_norm_eps
        self.fn = nn.Parameter(torch.randn(n, n * c.hidden_size) * 0.02)
        self.base = nn.Parameter(torch.zeros(n))
        self.scale = nn.Parameter(torch.full((1,), 0.1))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, h, quant):
        u = h.flatten(-2)
        z = linear32(u, self.fn) * torch.rsqrt(u.square().mean(-1, keepdim=True) + self.norm_eps)
        pre = torch.sigmoid(z * self.scale + self.base) + self.hc_eps
        return self.norm((pre.unsqueeze(-1) * h).sum(-2), quant)


class Block(nn.Module):
    def __init__(self, c, index):
        super().__init__()
        self.hc_attn = HyperConnection(c, 2 * index)
        self.hc_ffn = HyperConnection(c, 2 * index + 1)
        self.attn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.ffn_norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.attn = Attention(c, c.compress_ratios[index], Dense, RMSNorm)
        self.ffn = MoE(c, index < c.num_hash_layers, Dense, linear32)

    def forward(self, h, tokens, quant):
        x, post, mix = self.hc_attn.pre(h)
        x, index_loss, picked = self.attn(self.attn_norm(x, quant), quant)
        h = HyperConnection.post(x, h, post, mix)
        x, post, mix = self.hc_ffn.pre(h)
        x, chosen = self.ffn(self.ffn_norm(x, quant), tokens, quant)
        return HyperConnection.post(x, h, post, mix), index_loss, (picked, chosen)


class Draft(Block):
    """MTP block (spec 8): from position t's streams and token t+1, predicts token t+2."""

    def __init__(self, c):
        super().__init__(c, c.num_hidden_layers)
        d = c.hidden_size
        self.e_proj = Dense(d, d, "fp8", d**-0.5)
        self.h_proj = Dense(d, d, "fp8", d**-0.5)
        self.enorm, self.hnorm = RMSNorm(d, c.rms_norm_eps), RMSNorm(d, c.rms_norm_eps)
        self.head = Head(c)

    def combine(self, h, embedded, quant):
        e = self.e_proj(self.enorm(embedded, quant), quant)
        return e.unsqueeze(-2) + self.h_proj(self.hnorm(h, quant), quant)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        c = self.config = config
        self.embed = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.5)
        self.unembed = nn.Parameter(torch.randn(c.vocab_size, c.hidden_size) * 0.02)
        self.layers = nn.ModuleList(Block(c, i) for i in range(c.num_hidden_layers))
        self.mtp = nn.ModuleList([Draft(c)])
        self.head = Head(c)
        self.quant = False

    def embedded(self, tokens):
        return F.embedding(tokens, Q.bf16(self.embed) if self.quant else self.embed)

    def logits(self, x):
        return F.linear(x, Q.bf16(self.unembed) if self.quant else self.unembed)

    def streams(self, tokens):
        return self.embedded(tokens).unsqueeze(-2).expand(-1, -1, self.config.hc_mult, -1)

    def forward(self, tokens, draft=True, trace=None):
        """tokens [B,T] -> final hidden states [B,T,d] of trunk and draft block (whose last
        position has no next token: ignore it), and the indexers' loss."""
        h, index_loss = self.streams(tokens), 0.0
        for layer in self.layers:
            h, loss, chosen = layer(h, tokens, self.quant)
            index_loss = index_loss + loss
            if trace is not None:
                trace.append((h, *chosen))
        x = self.head(h, self.quant)
        if not draft:
            return x, None, index_loss
        following = torch.cat([tokens[:, 1:], tokens[:, :1]], 1)
        h = self.mtp[0].combine(h, self.embedded(following), self.quant)
        h, _, chosen = self.mtp[0](h, following, self.quant)
        if trace is not None:
            trace.append((h, *chosen))
        return x, self.mtp[0].head(h, self.quant), index_loss
