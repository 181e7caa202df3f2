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
"""Running maximum before the first position."""


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
    v_scale = np.broadcast_to(kv.v_scale.reshape(heads, 1, blocks, KV_BLOCK), by_block)
    v_exponent = numeric.exponent(kv.v_scale).reshape(heads, 1, blocks, KV_BLOCK)
    whole = scores >> numeric.SCORE_FRACTION
    p_top = _running_max(np.where(valid, whole, _NONE))
    w_top = _running_max(np.where(valid, whole + v_exponent, _NONE))

    p, w = numeric.attention_weights(scores, v_scale, p_top[..., None], w_top[..., None])
    block_l = np.where(valid, p, 0).sum(axis=3)
    numerator = np.where(valid, w, 0).transpose(0, 2, 1, 3).astype(np.float64)
    block_o = (numerator @ kv.v.reshape(heads, blocks, KV_BLOCK, dims)).astype(np.int64)

    o = np.zeros((heads, rows, dims), np.int64)
    l = np.zeros((heads, rows), np.int64)  # noqa: E741
    p_max = w_max = np.full((heads, rows), _NONE)
    for b in range(blocks - 1, -1, -1):
        o = (o >> np.minimum(w_top[:, :, b] - w_max, 63)[..., None]) + block_o[:, b]
        l = (l >> np.minimum(p_top[:, :, b] - p_max, 63)) + block_l[:, :, b]  # noqa: E741
        p_max, w_max = p_top[:, :, b], w_top[:, :, b]
    return numeric.attention_output(o, l[..., None], p_max[..., None], w_max[..., None])


def _running_max(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Maximum [..., blocks] over each block and all newer ones."""
    return np.maximum.accumulate(values.max(axis=-1)[..., ::-1], axis=-1)[..., ::-1]
