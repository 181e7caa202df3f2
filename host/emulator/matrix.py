"""Exact integer products with weights that were packed for the engine."""

from __future__ import annotations

import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

_EXACT = 1 << 24
"""binary32 sums of integers are exact, in any order, while they stay below this."""
_BLOCK = 1 << 20
"""Weights that are widened to binary32 at a time: they stay in the cache until multiplied."""
_FEW = 2
"""Rows that are faster one by one, as matrix times vector."""

_scratch = threading.local()


class Matrix:
    """weights int8 [rows, k] of magnitude at most `largest`; multiplies codes -128..127.

    The weights stay int8, a quarter of the memory traffic of binary32. A matrix of several blocks
    is spread over the processor's cores.
    """

    def __init__(self, weights: NDArray[np.int8], largest: int) -> None:
        self.rows, self.k = weights.shape
        self._step = max(1, (_EXACT - 1) // (128 * largest))
        self._weights = weights

    def dot(self, codes: NDArray[np.float32]) -> NDArray:
        """Sums [tokens, rows] of integers `codes` [tokens, k]: integers in binary32 or
        binary64, exactly."""
        dtype = np.float32 if self.k <= self._step else np.float64
        sums = np.empty((self.rows, len(codes)), dtype)
        columns = np.ascontiguousarray(codes.T)
        height = max(1, _BLOCK // self.k)
        blocks = [slice(at, at + height) for at in range(0, self.rows, height)]
        if len(blocks) == 1:
            self._block(blocks[0], columns, sums)
        else:
            # Taken from the iterator, so that an exception of a thread is raised here.
            for _ in _pool().map(lambda block: self._block(block, columns, sums), blocks):
                pass
        return np.ascontiguousarray(sums.T)

    def _block(self, rows: slice, columns: NDArray[np.float32], sums: NDArray) -> None:
        """Fill the rows of `sums` [rows, tokens]."""
        part = self._weights[rows]
        wide = _buffer(part.size).reshape(part.shape)
        np.copyto(wide, part)
        for at in range(0, self.k, self._step):
            k = slice(at, at + self._step)
            if columns.shape[1] <= _FEW:
                products = np.stack([wide[:, k] @ column for column in columns[k].T], axis=1)
            else:
                products = wide[:, k] @ columns[k]
            if at:
                sums[rows] += products
            else:
                sums[rows] = products


def _buffer(size: int) -> NDArray[np.float32]:
    """`size` numbers that the calling thread may overwrite."""
    kept: NDArray[np.float32] | None = getattr(_scratch, "buffer", None)
    if kept is None or kept.size < size:
        kept = _scratch.buffer = np.empty(max(size, _BLOCK), np.float32)
    return kept[:size]


@functools.cache
def _pool() -> ThreadPoolExecutor:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(cores, thread_name_prefix="terntable-emulator")
