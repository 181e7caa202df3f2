"""Rotary embedding of Q and K, and the writing of K and V to the cache in its number format."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from terntable.host.kernels.kv_cache import KvCache
from terntable.host.kernels.rounding import int8_codes
from terntable.host.kernels.tuning import EXACT, INTERPRETED

_PROGRAM = 16384 if INTERPRETED else 512
"""Pairs that a program takes, in whole heads."""


@triton.jit
def _put(
    cache, scales, at, low, high, pair, inside, mask, width, head_dim, INT8: tl.constexpr
):  # fmt: skip
    """Write rows as halves low, high [row, pair] to rows `at` of the cache, where `inside` [row]
    and `mask` [row, pair] allow it."""
    low_at = cache + at[:, None] * width + pair[None, :]
    high_at = low_at + head_dim // 2
    if INT8:
        absmax = tl.maximum(tl.max(tl.abs(low), 1), tl.max(tl.abs(high), 1))
        # Zeros have codes 0 by any scale.
        absmax = tl.maximum(absmax, 1e-30)
        by = tl.div_rn(127.0, absmax)[:, None]
        tl.store(low_at, int8_codes(low * by), mask=mask)
        tl.store(high_at, int8_codes(high * by), mask=mask)
        tl.store(scales + at, tl.div_rn(absmax, 127.0), mask=inside)
    else:
        # The largest binary16 number stands for what is larger.
        low = tl.minimum(tl.maximum(low, -65504.0), 65504.0)
        high = tl.minimum(tl.maximum(high, -65504.0), 65504.0)
        tl.store(low_at, low.to(tl.float16), mask=mask)
        tl.store(high_at, high.to(tl.float16), mask=mask)


@triton.jit(do_not_specialize=["tokens", "position"])
def _rope_cache(
    qkv, cosine, sine, q, k, v, k_scale, v_scale, tokens, position, heads, kv_heads, positions,
    width, head_dim, INT8: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_PAIRS: tl.constexpr,
):  # fmt: skip
    # A row is a head of a token: queries, keys, values, then the next token's.
    total = heads + 2 * kv_heads
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    token, head = row // total, row % total
    known = token < tokens
    pair = tl.arange(0, BLOCK_PAIRS)
    half = head_dim // 2
    there = (pair < half)[None, :]
    inside = known[:, None] & there
    source = qkv + row[:, None].to(tl.int64) * head_dim + pair[None, :]
    low = tl.load(source, mask=inside, other=0.0)
    high = tl.load(source + half, mask=inside, other=0.0)

    # Values are not rotated.
    rotated = known & (head < heads + kv_heads)
    turn = (position + token)[:, None] * half + pair[None, :]
    c = tl.load(cosine + turn, mask=rotated[:, None] & there, other=1.0)
    s = tl.load(sine + turn, mask=rotated[:, None] & there, other=0.0)
    new_low = low * c - high * s
    new_high = high * c + low * s

    is_query = known & (head < heads)
    to = q + (token * heads + head)[:, None].to(tl.int64) * head_dim + pair[None, :]
    tl.store(to, new_low, mask=is_query[:, None] & there)
    tl.store(to + half, new_high, mask=is_query[:, None] & there)

    is_key = rotated & (head >= heads)
    at = (head - heads).to(tl.int64) * positions + position + token
    _put(
        k, k_scale, at, new_low, new_high, pair, is_key, is_key[:, None] & there, width,
        head_dim, INT8,
    )  # fmt: skip
    is_value = known & (head >= heads + kv_heads)
    at = (head - heads - kv_heads).to(tl.int64) * positions + position + token
    _put(
        v, v_scale, at, new_low, new_high, pair, is_value, is_value[:, None] & there, width,
        head_dim, INT8,
    )  # fmt: skip


def rope_cache(
    qkv: Tensor, cosine: Tensor, sine: Tensor, q: Tensor, cache: KvCache, position: int
) -> None:
    """Take rows qkv of tokens at `position` and up: write q and the cache.

    qkv           binary32 [tokens, (heads + 2 * kv_heads) * head_dim]
    cosine, sine  binary32 [positions, head_dim / 2]; dimension i turns with i + head_dim / 2
    q             binary32 [tokens, heads, head_dim], rotated
    """
    tokens, heads, head_dim = q.shape
    kv_heads, positions, width = cache.k.shape
    pairs = triton.next_power_of_2(head_dim // 2)
    block = max(_PROGRAM // pairs, 1)
    _rope_cache[(triton.cdiv(tokens * (heads + 2 * kv_heads), block),)](
        qkv,
        cosine,
        sine,
        q,
        cache.k,
        cache.v,
        cache.k_scale,
        cache.v_scale,
        tokens,
        position,
        heads,
        kv_heads,
        positions,
        width,
        head_dim,
        INT8=cache.int8,
        BLOCK_ROWS=block,
        BLOCK_PAIRS=pairs,
        num_warps=4,
        **EXACT,
    )
