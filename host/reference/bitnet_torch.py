"""The published semantics of BitNet b1.58 decoders in binary32 PyTorch.

Written to be read and to be compared with, not to be fast: one sequence, no cache. It takes a
Model as loaded, before any of the compiler's reordering, padding or quantisation.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from terntable.host.model import Model, TernaryLinear, widen


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * gain over the last dimension."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes of each row (as float) and the factor 127 / absmax they were scaled by."""
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
    return (x * scale).round().clamp(-128, 127), scale


def bit_linear(x: Tensor, linear: TernaryLinear) -> Tensor:
    """Ternary matrix times the quantised rows of x."""
    codes, scale = quantise(x)
    sums = codes @ torch.from_numpy(linear.trits.astype(np.float32)).T
    return sums * float(linear.scale) / scale


def rope_tables(length: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine [length, head_dim], each half the same."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(length, dtype=torch.float64), frequency).repeat(1, 2)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of [heads, length, head_dim]: element i turns with i + head_dim / 2."""
    low, high = x.chunk(2, -1)
    return x * cosine + torch.cat((-high, low), -1) * sine


def attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Causal attention of [heads, length, head_dim]; query head h uses KV head h // group."""
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    length = q.shape[1]
    hidden = torch.full((length, length), -torch.inf).triu(1)
    return torch.softmax(q @ k.mT * scale + hidden, -1) @ v


@torch.no_grad()
def logits(model: Model, tokens: list[int], head: NDArray[np.float32] | None = None) -> Tensor:
    """Logits [len(tokens), vocab]. `head` [vocab, hidden] takes the place of the model's own."""
    spec = model.spec
    table = torch.from_numpy(widen(model.head) if head is None else head)
    x = torch.from_numpy(widen(model.embedding[np.asarray(tokens)]))
    cosine, sine = rope_tables(len(tokens), spec.head_dim, spec.rope_theta)

    def heads(y: Tensor) -> Tensor:
        return y.view(len(tokens), -1, spec.head_dim).transpose(0, 1)

    for n in range(spec.layers):
        layer = model.layer(n)
        linears = layer.linears
        gains = {name: torch.from_numpy(gain) for name, gain in layer.gains.items()}

        def norm(x: Tensor, name: str, gains: dict[str, Tensor] = gains) -> Tensor:
            """A sub-norm that the model lacks does nothing."""
            return rms_norm(x, gains[name], spec.eps) if name in gains else x

        normal = norm(x, "attn_norm")
        q, k, v = (heads(bit_linear(normal, linears[name])) for name in ("q", "k", "v"))
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        mixed = attention(q, k, v, 1 / math.sqrt(spec.head_dim))
        mixed = mixed.transpose(0, 1).reshape(len(tokens), -1)
        x = x + bit_linear(norm(mixed, "attn_sub_norm"), linears["o"])

        normal = norm(x, "ffn_norm")
        gate, up = (bit_linear(normal, linears[name]) for name in ("gate", "up"))
        active = F.relu(gate).square() if spec.activation == "relu2" else F.silu(gate)
        x = x + bit_linear(norm(active * up, "ffn_sub_norm"), linears["down"])
    return rms_norm(x, torch.from_numpy(model.final_gain), spec.eps) @ table.T
