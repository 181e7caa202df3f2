"""Exact integer products with weights that were packed for the engine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_EXACT = 1 << 24
"""binary32 sums of integers are exact, in any order, while they stay below this."""
_ROWS = 4096
_FEW = 2
"""Rows that are faster one by one, as matrix times vector."""


class Matrix:
    """weights int8 [rows, k] of magnitude at most `largest`; multiplies codes -128..127.

    `widen` keeps the weights as binary32: faster, and four times the memory.
    """

    def __init__(self, weights: NDArray[np.int8], largest: int, widen: bool = True) -> None:
        self.rows, self.k = weights.shape
        self._step = max(1, (_EXACT - 1) // (128 * largest))
        self._weights = weights.astype(np.float32) if widen else weights

    def dot(self, codes: NDArray[np.float32]) -> NDArray:
        """Sums [tokens, rows] of integers `codes` [tokens, k]: integers in binary32 or
        binary64, exactly."""
        if self.rows <= _ROWS or self._weights.dtype == np.float32:
            return self._dot(self._weights, codes)
        parts = [
            self._dot(self._weights[at : at + _ROWS], codes) for at in range(0, self.rows, _ROWS)
        ]
        return np.concatenate(parts, axis=1)

    def _dot(self, weights: NDArray, codes: NDArray[np.float32]) -> NDArray:
        weights = weights.astype(np.float32, copy=False)
        if self.k <= self._step:
            if len(codes) <= _FEW:
                return np.stack([weights @ row for row in codes])
            return np.ascontiguousarray((weights @ codes.T).T)
        total = np.zeros((codes.shape[0], weights.shape[0]), np.float64)
        for at in range(0, self.k, self._step):
            part = slice(at, at + self._step)
            total += codes[:, part] @ weights[:, part].T
        return total
