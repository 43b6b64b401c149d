"""Writes a checkpoint in the published on-disk form.

    python export.py CONFIG.json tokenizer.json STATE OUT_DIR

STATE is train.py's. Weights are rounded as the published ones are stored: dense matrices FP8 with
one scale for 128x128, experts FP4 with one scale for a row and 32 columns. What else lies in OUT_DIR
(README.md) stays."""

import json
import os
import shutil
import struct
import sys

import torch

import checkpoint
from model import Config, Model

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64", torch.int8: "I8",
          torch.float8_e4m3fn: "F8_E4M3", torch.float8_e8m0fnu: "F8_E8M0"}
N_SHARDS = 2


def write_safetensors(path, tensors):
    """In the given order: the library's own writer sorts by type, and would part an expert's six."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, t in tensors:
        size = t.numel() * t.element_size()
        header[name] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, t in tensors:
            f.write(t.contiguous().view(torch.uint8).numpy().tobytes())
    return at


def shards(tensors):
    """Layers in order, cut in N_SHARDS of about the same size at a layer's border."""
    groups = {}
    for name, t in tensors:
        parts = name.split(".")
        key = ".".join(parts[:2]) if parts[0] in ("layers", "mtp") else parts[0]
        groups.setdefault(key, []).append((name, t))
    total = sum(t.numel() * t.element_size() for g in groups.values() for _, t in g)
    out, size = [[]], 0
    for group in groups.values():
        if size > total * len(out) / N_SHARDS:
            out.append([])
        out[-1] += group
        size += sum(t.numel() * t.element_size() for _, t in group)
    return out


def load_state(config, path):
    model = Model(Config.load(config))
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model.eval()


def main(config, tokenizer, state, out):
    model = load_state(config, state)
    new = out.rstrip("/") + ".new"
    shutil.rmtree(new, ignore_errors=True)
    os.makedirs(new)
    files = shards(list(checkpoint.published(model)))
    weight_map, total = {}, 0
    for i, tensors in enumerate(files):
        file = f"model-{i + 1:05}-of-{len(files):05}.safetensors"
        total += write_safetensors(f"{new}/{file}", tensors)
        weight_map.update({name: file for name, _ in tensors})
    with open(f"{new}/model.safetensors.index.json", "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, f, separators=(",", ":"))
    shutil.copy(config, f"{new}/config.json")
    shutil.copy(tokenizer, f"{new}/tokenizer.json")
    token = {"__type": "AddedToken", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    eos = {**token, "content": "<｜end▁of▁sentence｜>"}
    with open(f"{new}/tokenizer_config.json", "w") as f:
        json.dump({"add_bos_token": False, "add_eos_token": False,
                   "bos_token": {**token, "content": "<｜begin▁of▁sentence｜>"}, "eos_token": eos, "pad_token": eos,
                   "clean_up_tokenization_spaces": False, "legacy": True,
                   "model_max_length": model.config.max_position_embeddings, "sp_model_kwargs": {},
                   "unk_token": None, "tokenizer_class": "PreTrainedTokenizerFast"}, f, ensure_ascii=False, indent=2)
    with open(f"{new}/generation_config.json", "w") as f:
        json.dump({"_from_model_config": True, "bos_token_id": 0, "eos_token_id": 1, "do_sample": True,
                   "temperature": 1.0, "top_p": 1.0}, f, indent=2)
    for other in os.listdir(out) if os.path.exists(out) else []:
        if not os.path.exists(f"{new}/{other}") and not other.startswith("model-"):
            shutil.copy(f"{out}/{other}", f"{new}/{other}")  # README.md, and what else is kept there
    size = sum(os.path.getsize(f"{new}/{f}") for f in os.listdir(new))
    assert size < 16_000_000, f"{size} bytes: above the limit"
    if os.path.exists(out):
        os.rename(out, out.rstrip("/") + ".old")
    os.rename(new, out)
    shutil.rmtree(out.rstrip("/") + ".old", ignore_errors=True)
    print(f"{out}: {size} bytes, {len(weight_map)} tensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
