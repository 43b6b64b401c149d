"""The number formats of the published checkpoint (spec 2 and 3), and straight-through rounding.

Every function here returns float32 values that lie on the grid of a format. The gradient of a
rounding is taken to be 1 (straight through): the model learns weights that round well, and
activations that survive being rounded."""

import torch

FP8_MAX, FP4_MAX = 448.0, 6.0


def ceil_log2(x):
    """The exponent of the smallest power of two that is not below x > 0, read off the float."""
    mantissa, exponent = torch.frexp(x)
    return exponent - (mantissa == 0.5).to(exponent.dtype)


def power_of_two(exponent):
    return torch.ldexp(torch.ones_like(exponent, dtype=torch.float32), exponent)


def round_e4m3(x):
    return x.clamp(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn).to(torch.float32)


def round_e2m1(x):
    """Steps of 1/2 below 2, of 1 below 4, of 2 up to 6. torch.round takes ties to even, and the
    even multiple of a step is the even code."""
    a = x.abs().clamp(max=FP4_MAX)
    step = torch.where(a < 2, 0.5, torch.where(a < 4, 1.0, 2.0))
    return torch.copysign(torch.round(a / step) * step, x)


def straight_through(x, rounded):
    return x + (rounded - x).detach()


def _by_group(x, group, scale_of, round_code):
    g = x.detach().unflatten(-1, (-1, group))
    scale = scale_of(g.abs().amax(-1, keepdim=True))
    return (round_code(g / scale) * scale).flatten(-2)


def fp8_scale(a):
    return power_of_two(ceil_log2(a.clamp(min=1e-4) / FP8_MAX))


def fp4_scale(a):
    return power_of_two(ceil_log2(a.clamp(min=6 * 2.0**-126) / FP4_MAX))


def act_fp8(x, group=128):
    """Activations (groups of 128) and keys (groups of 64)."""
    return straight_through(x, _by_group(x, group, fp8_scale, round_e4m3))


def act_fp4(x):
    """Index queries and keys."""
    return straight_through(x, _by_group(x, 32, fp4_scale, round_e2m1))


def bf16(x):
    return straight_through(x, x.detach().to(torch.bfloat16).to(torch.float32))


def fp8_blocks(w):
    """Scales of a matrix, one for each 128x128 block: [ceil(rows/128), ceil(cols/128)]."""
    rows, cols = w.shape
    padded = torch.nn.functional.pad(w, (0, -cols % 128, 0, -rows % 128))
    blocks = padded.unflatten(0, (-1, 128)).unflatten(-1, (-1, 128))
    return fp8_scale(blocks.abs().amax((1, 3)))


def spread_blocks(scale, rows, cols):
    return scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]


def weight_fp8(w):
    d = w.detach()
    scale = spread_blocks(fp8_blocks(d), *w.shape)
    return straight_through(w, round_e4m3(d / scale) * scale)


def weight_fp4(w):
    """Experts: one scale for a row and 32 columns; any leading dimensions."""
    return straight_through(w, _by_group(w, 32, fp4_scale, round_e2m1))
