"""The attention unit's arithmetic, over all heads, tokens and blocks at once.

Positions are summed in blocks of 32, from the newest to the oldest. Scores, weights and block sums
do not depend on one another and are computed together; only the rescaling of the running sums is
a chain over the blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.hw import numeric
from terntable.hw.config import KV_BLOCK

_NONE = -(1 << 40)
"""Whole part of a masked score: below any other, whatever exponent is added."""


@dataclass(frozen=True)
class KvCodes:
    """Records of positions 0..n-1, n whole blocks; whatever lies past the last one is masked.

    k, v            integers as binary64 [kv_heads, n, dims]
    k_scale, v_scale  binary32 [kv_heads, n]
    """

    k: NDArray[np.float64]
    v: NDArray[np.float64]
    k_scale: NDArray[np.float32]
    v_scale: NDArray[np.float32]


def attend(
    q: NDArray[np.float64], q_scale: NDArray[np.float32], kv: KvCodes, last: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Outputs [kv_heads, rows, dims] of query rows q [kv_heads, rows, dims].

    Row r attends to positions 0..last[r]. Products are sums of integers below 2**53: exact.
    """
    heads, rows, dims = q.shape
    blocks = kv.k.shape[1] // KV_BLOCK
    by_block = (heads, rows, blocks, KV_BLOCK)
    valid = (np.arange(blocks * KV_BLOCK) <= last[:, None]).reshape(by_block[1:])

    dot = q @ kv.k.transpose(0, 2, 1)
    scores = numeric.score(dot, q_scale[:, :, None], kv.k_scale[:, None, :]).reshape(by_block)
    v_scale = kv.v_scale.reshape(heads, 1, blocks, KV_BLOCK)
    whole = np.where(valid, scores >> numeric.SCORE_FRACTION, _NONE)
    p_top = _running_max(whole)
    w_top = _running_max(whole + numeric.exponent(v_scale))

    p, w = numeric.attention_weights(scores, v_scale, p_top[..., None], w_top[..., None])
    block_l = np.where(valid, p, 0).sum(axis=3)
    numerator = np.where(valid, w, 0).transpose(0, 2, 1, 3).astype(np.float64)
    block_o = (numerator @ kv.v.reshape(heads, blocks, KV_BLOCK, dims)).astype(np.int64)

    p_rise, w_rise = _rise(p_top), _rise(w_top)[..., None]
    o, l = block_o[:, -1], block_l[:, :, -1]
    for b in range(blocks - 2, -1, -1):
        o = (o >> w_rise[:, :, b]) + block_o[:, b]
        l = (l >> p_rise[:, :, b]) + block_l[:, :, b]
    p_max, w_max = p_top[:, :, 0, None], w_top[:, :, 0, None]
    return numeric.attention_output(o, l[..., None], p_max, w_max)


def _running_max(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Maximum [..., blocks] over each block and all newer ones."""
    return np.maximum.accumulate(values.max(axis=-1)[..., ::-1], axis=-1)[..., ::-1]


def _rise(top: NDArray[np.int64]) -> NDArray[np.int64]:
    """How far the maximum of each block but the newest lies above that of the next newer one."""
    return np.minimum(top[..., :-1] - top[..., 1:], 63)
