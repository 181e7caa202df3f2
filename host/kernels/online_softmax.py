"""The step that both attentions are made of: a block of positions, with a running maximum.

Scores are base-2 logarithms. Tensor cores multiply binary16; queries and probabilities are binary32
and go in two halves, the second being what the first has lost, so that products have 22 bits of
them and K and V alone limit the accuracy. For that a query is divided by its largest magnitude.

int8 codes are whole numbers that binary16 holds exactly. K's scale multiplies a column of scores.
V's scale multiplies a column of probabilities, relative to the largest of the block so that none
leaves the range of binary16.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def halves(x):
    """x in -1..1 as the sum of two binary16 numbers, to within 2^-25."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def load_queries(q, row, inside, dim, score_scale, HEAD_DIM: tl.constexpr):
    """Queries at rows `row` (numbers from q on) as halves [row, dim], and the weight [row] that
    turns their products with keys into scores."""
    mask = inside[:, None] & (dim < HEAD_DIM)[None, :]
    x = tl.load(q + row[:, None] + dim[None, :], mask=mask, other=0.0)
    largest = tl.maximum(tl.max(tl.abs(x), 1), 1e-30)
    high, low = halves(x / largest[:, None])
    return high, low, largest * score_scale


@triton.jit
def attend_block(
    high, low, weight, last, stop, k, v, k_scale, v_scale, width, start, top, total, mixed,
    MASKED: tl.constexpr, INT8: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Take positions `start` to `start` + BLOCK into the state: `top` [rows] the largest score,
    `total` [rows] the sum of powers, `mixed` [rows, BLOCK_DIM] their sum with V.

    MASKED: a row sees positions up to last[row] and none from `stop` on; otherwise all of them.
    """
    position = start + tl.arange(0, BLOCK)
    dim = tl.arange(0, BLOCK_DIM)
    there = dim < HEAD_DIM
    known = position < stop if MASKED else position >= 0

    keys = tl.load(
        k + position[None, :] * width + dim[:, None],
        mask=there[:, None] & known[None, :],
        other=0.0,
    ).to(tl.float16)
    scores = tl.dot(low, keys, tl.dot(high, keys)) * weight[:, None]
    if INT8:
        scores *= tl.load(k_scale + position, mask=known, other=0.0)[None, :]
    if MASKED:
        scores = tl.where(position[None, :] <= last[:, None], scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, 1))
    power = tl.exp2(scores - new_top[:, None])
    fade = tl.exp2(top - new_top)
    total = total * fade + tl.sum(power, 1)
    mixed = mixed * fade[:, None]

    values = tl.load(
        v + position[:, None] * width + dim[None, :],
        mask=known[:, None] & there[None, :],
        other=0.0,
    ).to(tl.float16)
    if INT8:
        scale = tl.load(v_scale + position, mask=known, other=0.0)
        largest = tl.maximum(tl.max(scale, 0), 1e-30)
        first, second = halves(power * (scale / largest)[None, :])
        mixed += tl.dot(second, values, tl.dot(first, values)) * largest
    else:
        first, second = halves(power)
        mixed = tl.dot(second, values, tl.dot(first, values, mixed))
    return new_top, total, mixed
