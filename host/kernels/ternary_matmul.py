"""Ternary weights times int8 activations on tensor cores, dequantised on the way out.

The weights are the left operand, unpacked in registers; the activations are the right operand, in
shared memory. So a block of few tokens wastes no more than a narrow right operand (see `ternary`
for the layout and the unpacking).

Two kernels: `_prefill` gives each warp rows of its own and all of K. With few tokens the time is
that of reading the weights, and too few blocks of rows exist to keep the memory busy: `_decode`
lets the parts of a block share rows and split K among them, as a batch of products that are summed
at the end. Integer sums are exact, so that neither order nor split changes a bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from terntable.host.kernels.ternary import PackedMatrix, QuantisedRows
from terntable.host.kernels.tuning import FUSED, size_class, tuned

DECODE_TOKENS = 16
"""Up to as many tokens K is split: one block of the right operand."""


@triton.jit
def _store(
    sums, out, residual, row_scale, factor, excess, row, token, rows, tokens,
    SUMS: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Write sums [row, token], of weights with ones too much, to out [tokens, rows]."""
    row_inside, token_inside = row < rows, token < tokens
    inside = row_inside[:, None] & token_inside[None, :]
    at = token[None, :].to(tl.int64) * rows + row[:, None]
    sums -= tl.load(excess + token, mask=token_inside, other=0)[None, :]
    if SUMS:
        tl.store(out + at, sums, mask=inside)
    else:
        scale = tl.load(row_scale + row, mask=row_inside, other=0.0)
        by = tl.load(factor + token, mask=token_inside, other=0.0)
        y = sums.to(tl.float32) * (scale[:, None] * by[None, :])
        if RESIDUAL:
            y += tl.load(residual + at, mask=inside, other=0.0)
        tl.store(out + at, y, mask=inside)


def _fitting(configs: list[triton.Config], named: dict[str, Any], **more: Any) -> Any:
    """No blocks of more tokens than there are, but the smallest that is left; no split of K into
    parts that would be empty."""
    arguments = named | more
    tokens, size = arguments["token_class"], arguments["size"]
    least = min(c.kwargs["BLOCK_TOKENS"] for c in configs)
    kept = [
        c
        for c in configs
        if c.kwargs["BLOCK_TOKENS"] <= max(tokens, least)
        and (c.kwargs.get("PARTS", 1) - 1) * c.kwargs["BLOCK_BYTES"] < size
    ]
    return kept or configs[:1]


def _config(rows: int, tokens: int, parts: int, size: int, warps: int, stages: int) -> Any:
    blocks = {"BLOCK_ROWS": rows, "BLOCK_TOKENS": tokens, "BLOCK_BYTES": size}
    if parts:
        blocks["PARTS"] = parts
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


@tuned(
    [
        _config(128, 64, 0, 64, 8, 3),
        _config(64, 64, 0, 64, 4, 3),
        _config(64, 64, 0, 64, 8, 3),
        _config(64, 32, 0, 64, 4, 4),
        _config(64, 32, 0, 128, 4, 3),
        _config(128, 32, 0, 64, 8, 4),
        _config(32, 64, 0, 128, 4, 3),
    ],
    interpreted=_config(512, 32, 0, 128, 1, 1),
    key=["rows", "size", "token_class"],
    prune=_fitting,
)
@triton.jit(do_not_specialize=["tokens", "token_class"])
def _prefill(
    packed, codes, row_scale, factor, excess, residual, out, rows, tokens, size,
    token_class, SUMS: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_BYTES: tl.constexpr,
):  # fmt: skip
    # Blocks of tokens come first: neighbours in time read the same weights.
    token_blocks = (tokens + BLOCK_TOKENS - 1) // BLOCK_TOKENS
    block = tl.program_id(0)
    row = (block // token_blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    token = (block % token_blocks) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    byte = tl.arange(0, BLOCK_BYTES)
    weights = packed + row[:, None].to(tl.int64) * size + byte[None, :]
    rights = codes + token[None, :].to(tl.int64) * (4 * size) + byte[:, None]
    zeros = tl.full((BLOCK_ROWS, BLOCK_TOKENS), 0, tl.int32)
    sum0, sum1, sum2, sum3 = zeros, zeros, zeros, zeros
    for start in range(0, size, BLOCK_BYTES):
        left = start + byte < size
        w = tl.load(weights, mask=(row < rows)[:, None] & left[None, :], other=0)
        inside = (token < tokens)[None, :] & left[:, None]
        a0 = tl.load(rights, mask=inside, other=0)
        a1 = tl.load(rights + size, mask=inside, other=0)
        a2 = tl.load(rights + 2 * size, mask=inside, other=0)
        a3 = tl.load(rights + 3 * size, mask=inside, other=0)
        sum0 = tl.dot(w & 3, a0, sum0, out_dtype=tl.int32)
        sum1 = tl.dot(w & 12, a1, sum1, out_dtype=tl.int32)
        sum2 = tl.dot(w & 48, a2, sum2, out_dtype=tl.int32)
        sum3 = tl.dot(w & -64, a3, sum3, out_dtype=tl.int32)
        weights += BLOCK_BYTES
        rights += BLOCK_BYTES
    sums = sum0 + (sum1 >> 2) + (sum2 >> 4) + (sum3 >> 6)
    _store(sums, out, residual, row_scale, factor, excess, row, token, rows, tokens, SUMS, RESIDUAL)


@tuned(
    [
        _config(32, 16, 2, 64, 4, 4),
        _config(16, 16, 2, 128, 2, 4),
        _config(16, 16, 4, 64, 4, 4),
        _config(16, 16, 4, 128, 4, 3),
        _config(16, 16, 8, 64, 8, 3),
        _config(32, 16, 4, 64, 8, 4),
        _config(32, 16, 4, 128, 8, 3),
    ],
    interpreted=_config(512, 16, 2, 64, 1, 1),
    key=["rows", "size", "token_class"],
    prune=_fitting,
)
@triton.jit(do_not_specialize=["tokens", "token_class"])
def _decode(
    packed, codes, row_scale, factor, excess, residual, out, rows, tokens, size,
    token_class, SUMS: tl.constexpr, RESIDUAL: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_TOKENS: tl.constexpr, BLOCK_BYTES: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    token = tl.program_id(1) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    byte = tl.arange(0, PARTS)[:, None] * BLOCK_BYTES + tl.arange(0, BLOCK_BYTES)[None, :]
    weights = packed + row[None, :, None].to(tl.int64) * size + byte[:, None, :]
    rights = codes + token[None, None, :].to(tl.int64) * (4 * size) + byte[:, :, None]
    zeros = tl.full((PARTS, BLOCK_ROWS, BLOCK_TOKENS), 0, tl.int32)
    sum0, sum1, sum2, sum3 = zeros, zeros, zeros, zeros
    for start in range(0, size, PARTS * BLOCK_BYTES):
        left = start + byte < size
        w = tl.load(weights, mask=(row < rows)[None, :, None] & left[:, None, :], other=0)
        inside = (token < tokens)[None, None, :] & left[:, :, None]
        a0 = tl.load(rights, mask=inside, other=0)
        a1 = tl.load(rights + size, mask=inside, other=0)
        a2 = tl.load(rights + 2 * size, mask=inside, other=0)
        a3 = tl.load(rights + 3 * size, mask=inside, other=0)
        sum0 = tl.dot(w & 3, a0, sum0, out_dtype=tl.int32)
        sum1 = tl.dot(w & 12, a1, sum1, out_dtype=tl.int32)
        sum2 = tl.dot(w & 48, a2, sum2, out_dtype=tl.int32)
        sum3 = tl.dot(w & -64, a3, sum3, out_dtype=tl.int32)
        weights += PARTS * BLOCK_BYTES
        rights += PARTS * BLOCK_BYTES
    sums = tl.sum(sum0 + (sum1 >> 2) + (sum2 >> 4) + (sum3 >> 6), 0)
    _store(sums, out, residual, row_scale, factor, excess, row, token, rows, tokens, SUMS, RESIDUAL)


def ternary_matmul(
    x: QuantisedRows, matrix: PackedMatrix, residual: Tensor | None = None, sums: bool = False
) -> Tensor:
    """Rows x through the matrix: binary32 [tokens, rows], `residual` [tokens, rows] added.

    With `sums` the integer sums themselves, int32 [tokens, rows]. The result is new memory: a
    kernel runs several times while it is tuned.
    """
    tokens, rows = len(x.codes), matrix.rows
    kind = torch.int32 if sums else torch.float32
    out = torch.empty((tokens, rows), dtype=kind, device=x.codes.device)
    kernel = _decode if tokens <= DECODE_TOKENS else _prefill

    def grid(meta: dict[str, int]) -> tuple[int, ...]:
        row_blocks = triton.cdiv(rows, meta["BLOCK_ROWS"])
        token_blocks = triton.cdiv(tokens, meta["BLOCK_TOKENS"])
        if kernel is _decode:
            return row_blocks, token_blocks
        return (row_blocks * token_blocks,)

    kernel[grid](
        matrix.packed,
        x.codes,
        matrix.row_scale,
        x.factor,
        x.excess,
        out if residual is None else residual,
        out,
        rows,
        tokens,
        matrix.packed.shape[1],
        size_class(max(tokens, DECODE_TOKENS)),
        SUMS=sums,
        RESIDUAL=residual is not None,
        **FUSED,
    )
    return out
