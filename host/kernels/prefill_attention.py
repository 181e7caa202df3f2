"""Causal attention of a chunk of tokens, at any position, over the KV cache."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from terntable.host.kernels.kv_cache import KvCache
from terntable.host.kernels.online_softmax import attend_block, load_queries
from terntable.host.kernels.tuning import FUSED, size_class, tuned


def _fitting(configs: list[triton.Config], named: dict[str, Any], **more: Any) -> Any:
    """No blocks of more rows than there are."""
    arguments = named | more
    rows = arguments["token_class"] * arguments["GROUP"]
    kept = [c for c in configs if c.kwargs["BLOCK_ROWS"] <= max(rows, 32)]
    return kept or configs[:1]


def _config(rows: int, positions: int, warps: int, stages: int) -> triton.Config:
    blocks = {"BLOCK_ROWS": rows, "BLOCK": positions}
    return triton.Config(blocks, num_warps=warps, num_stages=stages)


@tuned(
    [
        _config(64, 32, 4, 2),
        _config(64, 64, 4, 2),
        _config(64, 32, 8, 2),
        _config(128, 32, 8, 3),
        _config(128, 64, 8, 2),
        _config(32, 32, 4, 2),
        _config(32, 64, 4, 2),
    ],
    interpreted=_config(64, 32, 1, 1),
    key=["token_class", "GROUP", "HEAD_DIM", "INT8"],
    prune=_fitting,
)
@triton.jit(do_not_specialize=["tokens", "position", "token_class"])
def _prefill_attention(
    q, k, v, k_scale, v_scale, out, tokens, position, positions, width, score_scale, token_class,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, INT8: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # A row is a token and one of the query heads that share this KV head. The last blocks see
    # most positions: they come first.
    block = tl.num_programs(0) - 1 - tl.program_id(0)
    kv_head = tl.program_id(1)
    kv_heads = tl.num_programs(1)
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    token = row // GROUP
    inside = token < tokens
    head = kv_head * GROUP + row % GROUP
    at = (token.to(tl.int64) * kv_heads * GROUP + head) * HEAD_DIM
    dim = tl.arange(0, BLOCK_DIM)
    high, low, weight = load_queries(q, at, inside, dim, score_scale, HEAD_DIM)
    last = position + token

    base = kv_head.to(tl.int64) * positions
    k += base * width
    v += base * width
    if INT8:
        k_scale += base
        v_scale += base
    top = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    total = tl.full((BLOCK_ROWS,), 0.0, tl.float32)
    mixed = tl.full((BLOCK_ROWS, BLOCK_DIM), 0.0, tl.float32)
    # Whole blocks of positions that every row sees, then those that some rows don't.
    stop = position + tl.minimum((block * BLOCK_ROWS + BLOCK_ROWS - 1) // GROUP + 1, tokens)
    seen = (position + block * BLOCK_ROWS // GROUP + 1) // BLOCK * BLOCK
    for start in range(0, seen, BLOCK):
        top, total, mixed = attend_block(
            high, low, weight, last, stop, k, v, k_scale, v_scale, width, start,
            top, total, mixed, False, INT8, HEAD_DIM, BLOCK_DIM, BLOCK,
        )  # fmt: skip
    for start in range(seen, stop, BLOCK):
        top, total, mixed = attend_block(
            high, low, weight, last, stop, k, v, k_scale, v_scale, width, start,
            top, total, mixed, True, INT8, HEAD_DIM, BLOCK_DIM, BLOCK,
        )  # fmt: skip
    mixed = mixed / total[:, None]
    mask = inside[:, None] & (dim < HEAD_DIM)[None, :]
    tl.store(out + at[:, None] + dim[None, :], mixed, mask=mask)


def prefill_attention(q: Tensor, cache: KvCache, position: int) -> Tensor:
    """Attention outputs, binary32 [tokens, heads, head_dim], of queries q of that shape at
    `position` and up, over the cache from position 0 to each query's own.

    Query head h uses KV head h // (heads / kv_heads); scores are scaled by 1 / sqrt(head_dim).
    """
    tokens, heads, head_dim = q.shape
    kv_heads, positions, width = cache.k.shape
    group = heads // kv_heads
    out = torch.empty_like(q)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        return triton.cdiv(tokens * group, meta["BLOCK_ROWS"]), kv_heads

    _prefill_attention[grid](
        q,
        cache.k,
        cache.v,
        cache.k_scale,
        cache.v_scale,
        out,
        tokens,
        position,
        positions,
        width,
        math.log2(math.e) / math.sqrt(head_dim),
        size_class(tokens),
        GROUP=group,
        HEAD_DIM=head_dim,
        BLOCK_DIM=max(triton.next_power_of_2(head_dim), 16),
        INT8=cache.int8,
        **FUSED,
    )
    return out
