"""What ternary decoders compute, operation by operation, in PyTorch: the published semantics.

Tokens are the rows of every matrix of activations; in attention heads come before them. Norms, the
quantisation of activations and the scales are in binary32 whatever the dtype of the products.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from terntable.host.model import TernaryLinear

_ROWS = 8192
"""Rows of a matrix that are widened at a time where it is kept in a narrower format."""


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x**2) + eps) * gain over the last dimension, in binary32."""
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """int8 codes of each row (as floats), and the factor 127 / absmax they were multiplied by."""
    factor = 127 / x.abs().amax(-1, keepdim=True).clamp_min(1e-5)
    return (x * factor).round().clamp(-128, 127), factor


def rope_tables(position: int, tokens: int, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine [tokens, head_dim] of positions `position` and up, each half the same."""
    frequency = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    positions = torch.arange(position, position + tokens, dtype=torch.float64)
    angle = torch.outer(positions, frequency).repeat(1, 2)
    return angle.cos().float(), angle.sin().float()


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding of [heads, tokens, head_dim]: element i turns with i + head_dim / 2."""
    low, high = x.float().chunk(2, -1)
    return (x * cosine + torch.cat((-high, low), -1) * sine).to(x.dtype)


def attention(q: Tensor, k: Tensor, v: Tensor, position: int) -> Tensor:
    """Causal attention of q [heads, tokens, head_dim] at `position` and up over k and v
    [kv_heads, positions, head_dim]; query head h uses KV head h // (heads / kv_heads)."""
    heads, tokens, head_dim = q.shape
    kv_heads, positions, _ = k.shape
    group = heads // kv_heads
    queries = position + torch.arange(tokens, device=q.device)
    visible = torch.arange(positions, device=q.device) <= queries[:, None]
    # The heads that share a KV head are more rows of the same product.
    mixed = F.scaled_dot_product_attention(
        q.reshape(1, kv_heads, group * tokens, head_dim),
        k[None],
        v[None],
        attn_mask=visible.repeat(group, 1),
        scale=1 / math.sqrt(head_dim),
    )
    return mixed.view(heads, tokens, head_dim)


def activate(gate: Tensor, kind: str) -> Tensor:
    """`relu2`: the square of the positive part; `silu`: x * sigmoid(x)."""
    return F.relu(gate).square() if kind == "relu2" else F.silu(gate)


class Matrix:
    """A matrix [rows, columns] on a processor, in the dtype of its products or a narrower one
    that is widened at each use."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __call__(self, x: Tensor) -> Tensor:
        """x [tokens, columns] times the transpose: [tokens, rows] in x's dtype."""
        if self.values.dtype == x.dtype:
            return F.linear(x, self.values)
        parts = self.values.split(_ROWS)
        return torch.cat([F.linear(x, part.to(x.dtype)) for part in parts], -1)


class BitLinear:
    """A TernaryLinear on a processor: sums of codes, then the scales.

    Sums of codes are exact in binary32 up to 131,072 columns. `quantised` is False for models
    published with activations in floating point. Scales of columns belong to the activations.
    """

    def __init__(self, linear: TernaryLinear, matrix: Matrix, quantised: bool) -> None:
        rows, columns = linear.trits.shape
        self.matrix, self.quantised = matrix, quantised
        self.row_scale = _spread(torch.from_numpy(linear.row_scales), rows, matrix)
        self.column_scale: Tensor | None = None
        if linear.column_scale is not None:
            self.column_scale = _spread(torch.from_numpy(linear.column_scale), columns, matrix)

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Rows x [tokens, columns], binary32, through the layer: [tokens, rows] in `dtype`, in
        which the products are made."""
        if self.column_scale is not None:
            x = x * self.column_scale
        if not self.quantised:
            return (self.matrix(x.to(dtype)) * self.row_scale).to(dtype)
        codes, factor = quantise(x)
        return (self.matrix(codes.to(dtype)) * (self.row_scale / factor)).to(dtype)


def _spread(scales: Tensor, length: int, matrix: Matrix) -> Tensor:
    """A scale for each of `length` rows or columns, beside the matrix."""
    return scales.repeat_interleave(length // len(scales)).to(matrix.values.device)
