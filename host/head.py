"""The LM head as five planes of balanced-ternary digits.

A weight is an integer -121..121 times its row's scale; the integer is sum(3**(4-i) * trit_i), so
that the head is a ternary matrix of five times the rows, read by the same engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host.model import widen
from terntable.hw import isa, numeric

HEAD_MAX = (3**isa.PLANES - 1) // 2
"""Largest integer of five balanced-ternary digits."""
_BLOCK = 4096
_DIGITS = np.stack(
    [(np.arange(2 * HEAD_MAX + 1) // 3 ** (isa.PLANES - 1 - i)) % 3 for i in range(isa.PLANES)],
    axis=1,
).astype(np.uint8)
"""Digits 0..2 (trit + 1) of code + 121, most significant first."""


@dataclass(frozen=True)
class QuantisedHead:
    """codes int8 [vocab, hidden] in -121..121, scales binary32 [vocab], and the root mean square
    of the rounding error relative to that of the weights."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    error: float


def quantise_head(head: NDArray) -> QuantisedHead:
    """Quantise each row [vocab, hidden], as numbers of the contract, to its largest magnitude."""
    vocab, hidden = head.shape
    codes = np.empty((vocab, hidden), np.int8)
    scales = np.empty(vocab, np.float32)
    error = energy = 0.0
    for at in range(0, vocab, _BLOCK):
        rows = numeric.sanitise(widen(head[at : at + _BLOCK]))
        largest = np.abs(rows).max(axis=1)
        scale = numeric.sanitise(np.where(largest > 0, largest / HEAD_MAX, 1).astype(np.float32))
        code = np.rint(rows.astype(np.float64) / np.where(scale > 0, scale, 1)[:, None])
        code = np.clip(code, -HEAD_MAX, HEAD_MAX)
        codes[at : at + _BLOCK] = code
        scales[at : at + _BLOCK] = scale
        error += float(np.sum((code * scale[:, None] - rows) ** 2))
        energy += float(np.sum(np.square(rows, dtype=np.float64)))
    return QuantisedHead(codes, scales, (error / energy) ** 0.5 if energy else 0.0)


def plane_digits(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Digits 0..2 [5 * vocab, hidden]: row 5v + i is the plane of weight 3**(4-i) of row v."""
    vocab, hidden = codes.shape
    digits = _DIGITS[codes.astype(np.int16) + HEAD_MAX]  # [vocab, hidden, planes]
    return np.ascontiguousarray(digits.transpose(0, 2, 1)).reshape(isa.PLANES * vocab, hidden)


def combine_planes(trits: NDArray[np.int8]) -> NDArray[np.int8]:
    """Codes [vocab, hidden] of planes of trits [5 * vocab, hidden]: the inverse."""
    planes = trits.reshape(-1, isa.PLANES, trits.shape[1])
    codes = planes[:, 0].copy()
    for i in range(1, isa.PLANES):
        codes *= 3
        codes += planes[:, i]
    return codes
