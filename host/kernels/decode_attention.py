"""Attention of one token over the KV cache, the context split among programs.

One program a KV head would leave most of a GPU idle. So the context is cut into spans: a program
makes the softmax of its span alone, and a second kernel weighs the spans by their sums.
"""

from __future__ import annotations

import functools
import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from terntable.host.kernels.kv_cache import KvCache
from terntable.host.kernels.online_softmax import attend_block, load_queries
from terntable.host.kernels.tuning import FUSED, INTERPRETED, tuned

_SPAN = 128
"""A span is a multiple of this: of every block of positions that is tried."""
_ROWS = 16
"""Least rows of a product on tensor cores."""


def _config(positions: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"BLOCK": positions}, num_warps=warps, num_stages=stages)


@tuned(
    [
        _config(32, 4, 2),
        _config(32, 2, 3),
        _config(64, 4, 2),
        _config(64, 2, 3),
        _config(128, 4, 2),
    ],
    interpreted=_config(64, 1, 1),
    key=["GROUP", "HEAD_DIM", "INT8"],
)
@triton.jit(do_not_specialize=["length"])
def _decode_span(
    q, k, v, k_scale, v_scale, tops, totals, mixes, length, span, positions, width, score_scale,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, INT8: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kv_head = tl.program_id(0)
    part = tl.program_id(1)
    parts = tl.num_programs(1)
    row = tl.arange(0, BLOCK_ROWS)
    inside = row < GROUP
    head = kv_head * GROUP + row
    dim = tl.arange(0, BLOCK_DIM)
    high, low, weight = load_queries(q, head * HEAD_DIM, inside, dim, score_scale, HEAD_DIM)

    base = kv_head.to(tl.int64) * positions
    k += base * width
    v += base * width
    if INT8:
        k_scale += base
        v_scale += base
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.full((BLOCK_ROWS,), 0.0, tl.float32)
    mixed = tl.full((BLOCK_ROWS, BLOCK_DIM), 0.0, tl.float32)
    stop = tl.minimum(part * span + span, length)
    last = row * 0 + stop - 1
    for start in range(part * span, stop, BLOCK):
        top, total, mixed = attend_block(
            high, low, weight, last, stop, k, v, k_scale, v_scale, width, start,
            top, total, mixed, True, INT8, HEAD_DIM, BLOCK_DIM, BLOCK,
        )  # fmt: skip
    at = head * parts + part
    tl.store(tops + at, top, mask=inside)
    tl.store(totals + at, total, mask=inside)
    mask = inside[:, None] & (dim < HEAD_DIM)[None, :]
    tl.store(mixes + (at * HEAD_DIM)[:, None] + dim[None, :], mixed, mask=mask)


@triton.jit(do_not_specialize=["parts"])
def _merge(
    tops, totals, mixes, out, parts,
    HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK_PARTS: tl.constexpr,
):  # fmt: skip
    head = tl.program_id(0)
    part = tl.arange(0, BLOCK_PARTS)
    dim = tl.arange(0, BLOCK_DIM)
    known, there = part < parts, dim < HEAD_DIM
    at = head * parts + part
    top = tl.load(tops + at, mask=known, other=float("-inf"))
    weight = tl.exp2(top - tl.max(top, 0))
    total = tl.sum(weight * tl.load(totals + at, mask=known, other=0.0), 0)
    mixed = tl.load(
        mixes + (at * HEAD_DIM)[:, None] + dim[None, :],
        mask=known[:, None] & there[None, :],
        other=0.0,
    )
    tl.store(out + head * HEAD_DIM + dim, tl.sum(weight[:, None] * mixed, 0) / total, mask=there)


@functools.cache
def _programs(device: torch.device) -> int:
    """Programs that keep a processor busy."""
    if INTERPRETED:
        return 8
    return 2 * torch.cuda.get_device_properties(device).multi_processor_count


def decode_attention(q: Tensor, cache: KvCache, position: int) -> Tensor:
    """As `prefill_attention` for the one token at `position`: q [1, heads, head_dim]."""
    _, heads, head_dim = q.shape
    kv_heads, positions, width = cache.k.shape
    group, length = heads // kv_heads, position + 1
    wanted = max(_programs(q.device) // kv_heads, 1)
    span = triton.cdiv(triton.cdiv(length, wanted), _SPAN) * _SPAN
    parts = triton.cdiv(length, span)
    tops = torch.empty((heads, parts), dtype=torch.float32, device=q.device)
    totals = torch.empty_like(tops)
    mixes = torch.empty((heads, parts, head_dim), dtype=torch.float32, device=q.device)
    block_dim = max(triton.next_power_of_2(head_dim), 16)
    _decode_span[(kv_heads, parts)](
        q,
        cache.k,
        cache.v,
        cache.k_scale,
        cache.v_scale,
        tops,
        totals,
        mixes,
        length,
        span,
        positions,
        width,
        math.log2(math.e) / math.sqrt(head_dim),
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_DIM=block_dim,
        INT8=cache.int8,
        BLOCK_ROWS=max(triton.next_power_of_2(group), _ROWS),
        **FUSED,
    )
    out = torch.empty_like(q)
    _merge[(heads,)](
        tops,
        totals,
        mixes,
        out,
        parts,
        HEAD_DIM=head_dim,
        BLOCK_DIM=block_dim,
        BLOCK_PARTS=triton.next_power_of_2(parts),
        num_warps=4,
        **FUSED,
    )
    return out
