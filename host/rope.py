"""Rotary embeddings: the rows that the accelerator reads and the order of a head's dimensions.

The accelerator rotates adjacent elements, checkpoints rotate element i with i + head_dim / 2: the
compiler permutes the rows of Wq and Wk so that the two are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from terntable.hw import numeric


def rope_rows(positions: int, head_dim: int, theta: float, width: int) -> NDArray[np.float32]:
    """Rows [positions, width]: cosine of pair i at 2i, sine at 2i + 1, computed in binary64.

    Padding pairs do not rotate (cosine 1, sine 0).
    """
    frequency = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    angle = np.arange(positions, dtype=np.float64)[:, None] * frequency
    rows = np.zeros((positions, width), np.float32)
    rows[:, 0::2] = 1
    rows[:, 0:head_dim:2] = np.cos(angle)
    rows[:, 1:head_dim:2] = np.sin(angle)
    return numeric.sanitise(rows)


def pair_order(head_dim: int) -> NDArray[np.int64]:
    """Old index of each new dimension: 0, n/2, 1, n/2 + 1, ..."""
    half = head_dim // 2
    return np.arange(head_dim).reshape(2, half).T.reshape(-1)


def pad_heads(
    x: NDArray, heads: int, head_pad: int, order: NDArray[np.int64] | None = None
) -> NDArray:
    """Pad the heads on the first axis with zeros to `head_pad`, each permuted by `order`."""
    split = x.reshape(heads, x.shape[0] // heads, *x.shape[1:])
    if order is not None:
        split = split[:, order]
    pad = [(0, 0)] * split.ndim
    pad[1] = (0, head_pad - split.shape[1])
    return np.pad(split, pad).reshape(heads * head_pad, *x.shape[1:])
