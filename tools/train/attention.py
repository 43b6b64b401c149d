"""Window, CSA and HCA attention (spec 5 and 6), over whole sequences.

The window is computed in chunks: a chunk's queries see their own chunk's keys and the one
before's. All heads share one key = value vector, so heads fold into rows of one product."""

import math

import torch
import torch.nn.functional as F
from torch import nn

import quant as Q

NEVER = -1e30  # a score that softmax turns into 0; -inf would make NaN of an empty row


def rope_angles(c, compressed, positions):
    """float32 steps as in the reference (spec 5)."""
    r = c.qk_rope_head_dim
    base = c.compress_rope_theta if compressed else c.rope_theta
    i = torch.arange(0, r, 2, dtype=torch.float32) / r
    theta = 1.0 / torch.pow(torch.tensor(base, dtype=torch.float64), i.double()).float()
    if compressed:
        s = c.rope_scaling
        original, factor = s["original_max_position_embeddings"], s["factor"]

        def find_dim(turns):
            return r * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(math.floor(find_dim(s["beta_fast"])), 0)
        high = min(math.ceil(find_dim(s["beta_slow"])), r - 1)
        high = high + 0.001 if low == high else high
        ramp = ((torch.arange(r // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
        theta = theta / factor * ramp + theta * (1 - ramp)
    angle = positions.float()[:, None] * theta
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotates the last 2 * cos.shape[-1] dims, adjacent pairs; cos, sin broadcast over x."""
    r = 2 * cos.shape[-1]
    rest, pairs = x[..., :-r], x[..., -r:].unflatten(-1, (-1, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.cat([rest, torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)], -1)


def hadamard(size):
    h = torch.ones(1, 1)
    while h.shape[0] < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h * size**-0.5


def round_key(x, rope_dim):
    return torch.cat([Q.act_fp8(x[..., :-rope_dim], 64), Q.bf16(x[..., -rope_dim:])], -1)


class Compressor(nn.Module):
    def __init__(self, c, ratio, dim, Dense, RMSNorm):
        super().__init__()
        self.m, self.dim, self.rope_dim = ratio, dim, c.qk_rope_head_dim
        wide = 2 * dim if ratio == 4 else dim
        self.ape = nn.Parameter(torch.zeros(ratio, wide))
        self.wkv = Dense(c.hidden_size, wide, "bf16", c.hidden_size**-0.5)
        self.wgate = Dense(c.hidden_size, wide, "bf16", 0.1 * c.hidden_size**-0.5)
        self.norm = RMSNorm(dim, c.rms_norm_eps)

    def forward(self, x, cos, sin, quant):
        """x [B,T,d] -> [B, T // m, dim], rotated, not yet quantized."""
        m, n = self.m, x.shape[1] // self.m
        x = x[:, : n * m]
        kv = self.wkv(x, quant).unflatten(1, (n, m))
        gate = self.wgate(x, quant).unflatten(1, (n, m)) + self.ape
        if m == 4:  # the A half comes from the group before; the first entry has none
            kv = self.overlap(kv, 0.0)
            gate = self.overlap(gate, NEVER)
        entry = (torch.softmax(gate, 2) * kv).sum(2)
        return rotate(self.norm(entry, quant), cos[: n * m : m], sin[: n * m : m])

    def overlap(self, x, missing):
        a, b = x[..., : self.dim], x[..., self.dim :]
        before = F.pad(a[:, :-1], (0, 0, 0, 0, 1, 0), value=missing)
        return torch.cat([before, b], 2)


class Indexer(nn.Module):
    def __init__(self, c, Dense, RMSNorm):
        super().__init__()
        self.heads, self.dim = c.index_n_heads, c.index_head_dim
        self.wq_b = Dense(c.q_lora_rank, self.heads * self.dim, "fp8", c.q_lora_rank**-0.5)
        self.weights_proj = Dense(c.hidden_size, self.heads, "bf16", c.hidden_size**-0.5)
        self.compressor = Compressor(c, 4, self.dim, Dense, RMSNorm)
        self.register_buffer("hadamard", hadamard(self.dim), persistent=False)

    def forward(self, x, qr, cos, sin, quant):
        """-> scores [B, T, T // 4]; causality is the caller's."""
        q = self.wq_b(qr, quant).unflatten(-1, (self.heads, self.dim))
        q = rotate(q, cos[:, None], sin[:, None]) @ self.hadamard
        k = self.compressor(x, cos, sin, quant) @ self.hadamard
        if quant:
            q, k = Q.act_fp4(q), Q.act_fp4(k)
        w = self.weights_proj(x, quant) * (self.dim**-0.5 * self.heads**-0.5)
        scores = torch.relu(q.flatten(1, 2) @ k.transpose(1, 2)).unflatten(1, (-1, self.heads))
        return (w.unsqueeze(-1) * scores).sum(2)


class Attention(nn.Module):
    def __init__(self, c, ratio, Dense, RMSNorm):
        super().__init__()
        self.c, self.ratio = c, ratio
        H, dim, d, g = c.num_attention_heads, c.head_dim, c.hidden_size, c.o_groups
        self.wq_a = Dense(d, c.q_lora_rank, "fp8", d**-0.5)
        self.q_norm = RMSNorm(c.q_lora_rank, c.rms_norm_eps)
        self.wq_b = Dense(c.q_lora_rank, H * dim, "fp8", c.q_lora_rank**-0.5)
        self.wkv = Dense(d, dim, "fp8", d**-0.5)
        self.kv_norm = RMSNorm(dim, c.rms_norm_eps)
        self.wo_a = Dense(H * dim // g, g * c.o_lora_rank, "fp8", (H * dim // g) ** -0.5, False)
        self.wo_b = Dense(g * c.o_lora_rank, d, "fp8", 0.3 * (g * c.o_lora_rank) ** -0.5)
        self.attn_sink = nn.Parameter(torch.zeros(H))
        if ratio:
            self.compressor = Compressor(c, ratio, dim, Dense, RMSNorm)
        if ratio == 4:
            self.indexer = Indexer(c, Dense, RMSNorm)
        self.angles = {}
        self.train_index = True  # train.py begins without: a young model attends to nothing much
        self.window = c.sliding_window  # train.py narrows it now and then

    def cos_sin(self, length):
        if length not in self.angles:
            self.angles[length] = rope_angles(self.c, self.ratio > 0, torch.arange(length))
        return self.angles[length]

    def forward(self, x, quant):
        """-> output [B,T,d], the indexer's loss, the entries it picked [B,T,M] (or None)."""
        c, T = self.c, x.shape[1]
        H, dim = c.num_attention_heads, c.head_dim
        cos, sin = self.cos_sin(T)
        qr = self.q_norm(self.wq_a(x, quant), quant)
        q = self.wq_b(qr, quant).unflatten(-1, (H, dim))
        q = q * torch.rsqrt(q.square().mean(-1, keepdim=True) + c.rms_norm_eps)
        q = rotate(q, cos[:, None], sin[:, None])
        kv = rotate(self.kv_norm(self.wkv(x, quant), quant), cos, sin)
        if quant:
            kv = round_key(kv, c.qk_rope_head_dim)
        entries = self.entries(x, cos, sin, quant)
        near, near_values = self.window_scores(q, kv)
        B = x.shape[0]
        sink = self.attn_sink.view(1, 1, H, 1).expand(B, T, H, 1)
        scores = [near, sink]
        picked, index_loss = None, 0.0
        if entries is not None:
            M = entries.shape[1]
            far = (q.flatten(1, 2) @ entries.transpose(1, 2)).unflatten(1, (T, H)) * dim**-0.5
            visible = torch.arange(M) < ((torch.arange(T) + 1) // self.ratio)[:, None]
            far = far.masked_fill(~visible[:, None], NEVER)
            if self.ratio == 4 and (not self.training or self.train_index or M > c.index_topk):
                index_scores = self.indexer(x.detach(), qr.detach(), cos, sin, quant)
                index_scores = index_scores.masked_fill(~visible, NEVER)
                if self.training and self.train_index:
                    index_loss = self.index_loss(index_scores, torch.cat([near, sink, far], -1), M)
                picked = self.pick(index_scores, visible)
                if picked is not visible:
                    far = far.masked_fill(~picked[:, :, None], NEVER)
            scores.append(far)
        p = torch.softmax(torch.cat(scores, -1), -1)
        width = near.shape[-1]
        o = near_values(p[..., :width])
        if entries is not None:
            o = o + (p[..., width + 1 :].flatten(1, 2) @ entries).unflatten(1, (T, H))
        o = rotate(o, cos[:, None], -sin[:, None])
        return self.project(o, quant), index_loss, picked

    def entries(self, x, cos, sin, quant):
        if not self.ratio or x.shape[1] < self.ratio:
            return None
        e = self.compressor(x, cos, sin, quant)
        return round_key(e, self.c.qk_rope_head_dim) if quant else e

    def window_scores(self, q, kv):
        """-> scores [B,T,H,2W] of each query against its chunk's keys and the chunk's before,
        and a function that multiplies probabilities of that shape with the values."""
        (B, T, H, dim), W = q.shape, self.c.sliding_window
        n = -(-T // W)
        kv = F.pad(kv, (0, 0, W, n * W - T)).unflatten(1, (n + 1, W))
        keys = torch.cat([kv[:, :-1], kv[:, 1:]], 2).flatten(0, 1)  # [B n, 2W, dim]
        rows = F.pad(q, (0, 0, 0, 0, 0, n * W - T)).reshape(B * n, W * H, dim)
        scores = (rows @ keys.transpose(1, 2)).view(B, n * W, H, 2 * W)[:, :T] * dim**-0.5
        t = torch.arange(n * W)[:, None]
        key = (t // W - 1) * W + torch.arange(2 * W)
        seen = (key >= 0) & (key <= t) & (key > t - self.window)

        def values(p):
            p = F.pad(p, (0, 0, 0, 0, 0, n * W - T)).reshape(B * n, W * H, 2 * W)
            return (p @ keys).view(B, n * W, H, dim)[:, :T]

        return scores.masked_fill(~seen[:T, None], NEVER), values

    def index_loss(self, index_scores, scores, M):
        """Teaches the indexer what the heads attend to, as DeepSeek-V3.2 does (its report, 2.1):
        cross-entropy of its softmax with the heads' mean attention over compressed entries. The
        target is not normalized to 1: a row counts by how much it uses the entries."""
        with torch.no_grad():
            target = torch.softmax(scores, -1)[..., -M:].mean(2)
        log_p = torch.log_softmax(index_scores, -1)
        entropy = torch.special.entr(target).sum() + torch.special.xlogy(
            target.sum(-1), target.sum(-1)).sum()  # so that a perfect indexer has loss 0
        return -((target * log_p).sum() + entropy) / (index_scores.shape[0] * index_scores.shape[1])

    def pick(self, index_scores, visible):
        """The top-k entries; all visible ones where there are no more than k. Among equal scores
        the lower entry: a stable sort keeps their order."""
        k = self.c.index_topk
        if index_scores.shape[-1] <= k:
            return visible
        if self.training:  # ties do not matter, time does
            order = index_scores.detach().topk(k, -1)[1]
        else:
            order = torch.sort(index_scores, dim=-1, descending=True, stable=True)[1][..., :k]
        mask = torch.zeros_like(index_scores, dtype=torch.bool).scatter_(-1, order, True)
        return mask & visible

    def project(self, o, quant):
        g, rank = self.c.o_groups, self.c.o_lora_rank
        w = self.wo_a.rounded(quant).unflatten(0, (g, rank))
        y = torch.einsum("btgi,gri->btgr", o.flatten(2).unflatten(2, (g, -1)), w)
        return self.wo_b(y.flatten(2), quant)
