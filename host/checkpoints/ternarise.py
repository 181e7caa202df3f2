"""Trits and scales of the ways in which checkpoints hold ternary matrices.

| stored as | trits | scale |
| --- | --- | --- |
| packed | two bits each, four rows a byte | in a tensor beside them |
| masters | round(W / m), clamped | m = mean abs W |
| values | sign of W | abs W, constant in equal runs of rows or of columns |

Functions raise ValueError with what is wrong: the tensor's name is known to their caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from terntable.host.model import F32, TernaryLinear, widen

ReadPart = Callable[[int, int], NDArray]
"""Elements of a matrix, flattened, as stored (bfloat16 as uint16): first index, number."""

NOT_FINITE = "has values that aren't finite"
_PART = 1 << 20
"""Elements taken at a time: few enough for a cache."""
_SMALLEST_MEAN = np.float32(1e-5)


def unpack(packed: NDArray[np.uint8], rows: int) -> NDArray[np.int8]:
    """int8 trits [rows, columns] of two-bit codes (trit + 1) [ceil(rows / 4), columns].

    With q byte rows, byte row r holds rows r, r + q, r + 2q and r + 3q from the lowest bits up.
    """
    quarter, columns = packed.shape
    codes = np.empty((4, quarter, columns), np.uint8)
    for i in range(4):
        np.right_shift(packed, 2 * i, out=codes[i])
    codes &= 3
    trits = codes.reshape(-1, columns)[:rows].view(np.int8)
    trits -= 1
    if trits.max(initial=0) > 1:
        raise ValueError("has codes that are no trits")
    return trits


def from_masters(read: ReadPart, rows: int, columns: int) -> TernaryLinear:
    """Weights in floating point, rounded to ternary as the published models do at each use.

    m = max(mean abs W, 1e-5); trit = W * (1 / m) rounded half to even and clamped to -1..1; the
    scale is 1 / (1 / m). Every step is rounded to binary32, but the mean is summed in binary64.
    """
    size = rows * columns
    total = 0.0
    for first, count in _parts(size):
        total += float(np.abs(widen(read(first, count))).sum(dtype=np.float64))
    if not np.isfinite(total):
        raise ValueError(NOT_FINITE)
    factor = np.float32(1) / max(np.float32(total / size), _SMALLEST_MEAN)
    trits = np.empty(size, np.int8)
    for first, count in _parts(size):
        scaled = widen(read(first, count)) * factor
        np.rint(scaled, out=scaled)
        np.clip(scaled, -1, 1, out=scaled)
        trits[first : first + count] = scaled
    return TernaryLinear(trits.reshape(rows, columns), np.float32(1) / factor)


def from_values(
    read: ReadPart, rows: int, columns: int, row_unit: int = 1, column_unit: int = 1
) -> TernaryLinear:
    """A matrix that is ternary as it stands: 0, and plus or minus the scale of the block.

    Blocks are equal runs of rows or of columns, as few as explain the values. A block of zeros
    tells nothing of its scale and gets a neighbour's; where that leaves a choice, blocks are made
    of whole units.
    """
    trits = np.empty((rows, columns), np.int8)
    by_row, by_column = _Magnitudes(rows), _Magnitudes(columns)
    dtype = np.dtype(np.float32)
    step = max(1, _PART // columns)
    for first in range(0, rows, step):
        part = slice(first, min(first + step, rows))
        values = read(first * columns, (part.stop - first) * columns).reshape(-1, columns)
        dtype = values.dtype
        bits = values.view(np.uint32 if dtype.itemsize == 4 else np.uint16)
        sign = bits.dtype.type(1 << (8 * dtype.itemsize - 1))
        magnitudes = bits & ~sign
        if magnitudes.max() >= _infinity(dtype):
            raise ValueError(NOT_FINITE)
        by_row.see(part, magnitudes, axis=1)
        by_column.see(slice(None), magnitudes, axis=0)
        np.not_equal(magnitudes, 0, out=trits[part], casting="unsafe")
        trits[part][bits > sign] = -1
    found = by_row.blocks(row_unit), by_column.blocks(column_unit)
    across, down = (None if b is None else _scales(b, dtype) for b in found)
    if across is not None and (down is None or len(across) <= len(down)):
        return TernaryLinear(trits, across if len(across) > 1 else across[0])
    if down is not None:
        return TernaryLinear(trits, np.float32(1), down)
    row = by_row.first_mixed()
    low, high = _scales(np.array([by_row.low[row], by_row.high[row]]), dtype)
    raise ValueError(f"is not ternary: row {row} has magnitudes from {low:.6g} to {high:.6g}")


def _parts(size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, size, _PART):
        yield first, min(_PART, size - first)


class _Magnitudes:
    """The least and the largest magnitude other than 0 of each row (or column), as the bits of
    their format, which order as the values do. Where all are 0, `low` is above `high`."""

    def __init__(self, count: int) -> None:
        self.low = np.full(count, 0xFFFFFFFF, np.uint32)
        self.high = np.zeros(count, np.uint32)

    def see(self, which: slice, magnitudes: NDArray, axis: int) -> None:
        """Take the rows (or columns) `which` of `magnitudes`, reduced along `axis`."""
        highest = magnitudes.max(axis=axis)
        # 0 - 1 is the largest of all: zeros drop out of the minimum.
        lowest = (magnitudes - magnitudes.dtype.type(1)).min(axis=axis)
        lowest = lowest.astype(np.uint32) + np.uint32(1)
        lowest[highest == 0] = 0xFFFFFFFF
        self.high[which] = np.maximum(self.high[which], highest)
        self.low[which] = np.minimum(self.low[which], lowest)

    def blocks(self, unit: int) -> NDArray[np.uint32] | None:
        """The magnitude of each of the fewest equal blocks that have only one, 0 for a block of
        zeros; blocks of whole units where possible. None where a row (or column) has several."""
        count = len(self.high)
        divisors = [n for n in range(1, count + 1) if count % n == 0]
        whole = [n for n in divisors if count // n % unit == 0]
        for n in (*whole, *divisors):
            high = self.high.reshape(n, -1).max(axis=1)
            low = self.low.reshape(n, -1).min(axis=1)
            if ((high == low) | (high == 0)).all():
                return high
        return None

    def first_mixed(self) -> int:
        """The first row (or column) that has several magnitudes."""
        return int(np.argmax(self.low < self.high))


def _infinity(dtype: np.dtype) -> int:
    """Bits of the magnitude from which on values aren't finite. uint16 is bfloat16."""
    return {2: 0x7F80, 4: 0x7F800000}[dtype.itemsize] if dtype != np.float16 else 0x7C00


def _scales(bits: NDArray[np.uint32], dtype: np.dtype) -> F32:
    """binary32 of magnitudes; 0, which is unknown, becomes the one before or the first one."""
    if (known := np.flatnonzero(bits)).size:
        nearest = np.searchsorted(known, np.arange(len(bits)), side="right") - 1
        bits = bits[known[np.maximum(nearest, 0)]]
    else:
        return np.ones(len(bits), np.float32)
    narrow = bits.astype(np.uint32 if dtype.itemsize == 4 else np.uint16)
    return widen(narrow if dtype == np.uint16 else narrow.view(dtype))
