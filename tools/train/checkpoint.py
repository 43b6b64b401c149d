"""The published on-disk form (spec 2) <-> the model's parameters."""

import json
import os

import torch
from safetensors import safe_open

import quant as Q

E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
OUTER = {
    "embed": "embed.weight",
    "unembed": "head.weight",
    "head.norm.weight": "norm.weight",
    "head.fn": "hc_head_fn",
    "head.base": "hc_head_base",
    "head.scale": "hc_head_scale",
}


def published_name(name):
    """Of a parameter or buffer of Model; experts' stacks keep no number yet."""
    if name in OUTER:
        return OUTER[name]
    prefix, number, rest = name.split(".", 2)  # "layers" or "mtp"
    for half in ("hc_attn", "hc_ffn"):
        if rest.startswith(half + "."):
            rest = half + "_" + rest[len(half) + 1 :]
    if rest.startswith("head."):  # a draft block's own
        rest = "norm.weight" if rest == "head.norm.weight" else "hc_head_" + rest[5:]
    return f"{prefix}.{number}.{rest}"


def kinds(model):
    """Name of each parameter and buffer -> "fp8", "fp4", "bf16", "f32" or "i64"."""
    out = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "Dense":
            out[name + ".weight"] = module.kind
        elif type(module).__name__ == "Experts":
            out.update({f"{name}.{w}": "fp4" for w in ("w1", "w3", "w2")})
        elif type(module).__name__ == "RMSNorm":
            out[name + ".weight"] = "bf16"
        elif type(module).__name__ == "Gate":
            out[name + ".weight"] = "bf16"
    out["embed"] = out["unembed"] = "bf16"
    for name, tensor in model.state_dict().items():
        out.setdefault(name, "i64" if tensor.dtype == torch.long else "f32")
    return out


# ---- reading ----

def dequantize(weight, scale):
    if weight.dtype == torch.int8:
        code = weight.view(torch.uint8)
        pair = torch.stack([code & 15, code >> 4], -1).flatten(-2).long()
        value = E2M1[pair & 7] * torch.where(pair > 7, -1.0, 1.0)
        return value * scale.float().repeat_interleave(32, -1)
    return weight.float() * Q.spread_blocks(scale.float(), *weight.shape)


class Reader:
    def __init__(self, folder):
        with open(os.path.join(folder, "model.safetensors.index.json")) as f:
            self.where = json.load(f)["weight_map"]
        self.folder, self.files = folder, {}

    def raw(self, name):
        file = self.where[name]
        if file not in self.files:
            self.files[file] = safe_open(os.path.join(self.folder, file), "pt")
        return self.files[file].get_tensor(name)

    def get(self, name):
        base = name.removesuffix(".weight")
        if base + ".scale" in self.where:
            return dequantize(self.raw(name), self.raw(base + ".scale"))
        t = self.raw(name)
        return t.long() if not t.is_floating_point() else t.float()


@torch.no_grad()
def load(model, folder):
    reader, kind = Reader(folder), kinds(model)
    for name, tensor in model.state_dict().items():
        target = published_name(name)
        if kind[name] == "fp4":
            stem, w = target.rsplit(".", 1)
            for e in range(tensor.shape[0]):
                tensor[e] = reader.get(f"{stem}.{e}.{w}.weight")
        else:
            tensor.copy_(reader.get(target))
    return model


# ---- writing ----

def fp8_pair(w):
    scale = Q.fp8_blocks(w)
    code = (w / Q.spread_blocks(scale, *w.shape)).clamp(-Q.FP8_MAX, Q.FP8_MAX)
    return code.to(torch.float8_e4m3fn), scale.to(torch.float8_e8m0fnu)


def fp4_pair(w):
    g = w.unflatten(-1, (-1, 32))
    scale = Q.fp4_scale(g.abs().amax(-1, keepdim=True))
    value = Q.round_e2m1(g / scale).flatten(-2)
    code = torch.bucketize(value.abs(), E2M1) + 8 * torch.signbit(value)
    code = code.to(torch.uint8)
    packed = code[..., 0::2] | (code[..., 1::2] << 4)
    return packed.view(torch.int8), scale.squeeze(-1).to(torch.float8_e8m0fnu)


@torch.no_grad()
def published(model):
    """Yields (name, tensor) in file order; an expert's six tensors are adjacent."""
    kind, state = kinds(model), model.state_dict()
    for name, w in state.items():
        target = published_name(name)
        if kind[name] == "fp8":
            code, scale = fp8_pair(w.float())
            yield target, code
            yield target.removesuffix(".weight") + ".scale", scale
        elif kind[name] == "bf16":
            yield target, w.to(torch.bfloat16)
        elif kind[name] == "fp4":
            if not name.endswith(".w1"):
                continue  # written with the first of the three
            stem = name.removesuffix(".w1")
            for e in range(w.shape[0]):
                for m in ("w1", "w3", "w2"):
                    code, scale = fp4_pair(state[f"{stem}.{m}"][e].float())
                    expert = f"{published_name(stem + '.w1').removesuffix('.w1')}.{e}.{m}"
                    yield expert + ".weight", code
                    yield expert + ".scale", scale
        else:
            yield target, w
