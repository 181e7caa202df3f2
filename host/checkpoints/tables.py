"""Embeddings and heads in 16 bits.

The host sends an embedding's row a token and the compiler quantises the head, so that 16 bits are
plenty; most checkpoints store no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from terntable.host.checkpoints.ternarise import NOT_FINITE
from terntable.host.model import F32, widen

ReadRows = Callable[[int, int], NDArray]
"""Rows [number, hidden] of a table as stored (bfloat16 as uint16): first index, number."""

_PART = 1 << 21
"""Elements taken at a time."""
_LARGEST_HALF = float(np.finfo(np.float16).max)


class Table(NamedTuple):
    """values [vocab, hidden], binary16 or bfloat16 as uint16; `error` is the root mean square of
    the rounding to it relative to that of the values, 0 where they were stored so."""

    values: NDArray
    error: float


def sixteen_bits(read: ReadRows, vocab: int, hidden: int) -> Table:
    """A table as stored, or in that 16-bit format which is closer to its binary32 values.

    binary16 must hold all of them. Rows are read once or twice, some at a time. Raises ValueError
    for values that aren't finite.
    """
    step = max(1, _PART // hidden)
    parts = [(at, min(step, vocab - at)) for at in range(0, vocab, step)]
    half = True
    error = 0.0
    if read(0, 1).dtype == np.float32:
        half, error = _closer_format(read, parts)
    values: NDArray | None = None
    for first, count in parts:
        rows = read(first, count)
        if not np.isfinite(widen(rows)).all():
            raise ValueError(NOT_FINITE)
        if rows.dtype == np.float32:
            rows = rows.astype(np.float16) if half else to_bfloat16(rows)
        if values is None:
            values = np.empty((vocab, hidden), rows.dtype)
        values[first : first + count] = rows
    assert values is not None  # vocab is at least 1
    return Table(values, error)


def to_bfloat16(x: F32) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even, of finite values."""
    bits = x.view(np.uint32)
    # A value that would round to infinity becomes the largest number instead.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(rounded & 0x7FFF == 0x7F80, rounded - 1, rounded).astype(np.uint16)


def _closer_format(read: ReadRows, parts: list[tuple[int, int]]) -> tuple[bool, float]:
    """Whether binary16 is the format to take, and the relative error of the one to take."""
    energy = half_error = brain_error = largest = 0.0
    for first, count in parts:
        rows = read(first, count)
        if not np.isfinite(rows).all():
            raise ValueError(NOT_FINITE)
        exact = rows.astype(np.float64)
        energy += float(np.square(exact).sum())
        largest = max(largest, float(np.abs(rows).max()))
        with np.errstate(over="ignore"):
            half_error += float(np.square(exact - rows.astype(np.float16)).sum())
        brain_error += float(np.square(exact - widen(to_bfloat16(rows))).sum())
    half = largest <= _LARGEST_HALF and half_error <= brain_error
    error = half_error if half else brain_error
    return half, (error / energy) ** 0.5 if energy else 0.0
