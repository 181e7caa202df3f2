"""The LM head as planes of balanced-ternary digits: five of them, or four.

A weight is an integer times its row's scale; the integer, -121..121 with five planes, -40..40 with
four, is the sum of 3**(planes-1-i) * trit_i. So the head is a ternary matrix of so many times the
rows, read by the same engine.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terntable.host.model import widen
from terntable.hw import isa, numeric

PLANES = isa.PLANES[0]
"""What a head has where nothing else is asked for."""
_BLOCK = 4096


def head_max(planes: int) -> int:
    """Largest integer of so many balanced-ternary digits."""
    return (3**planes - 1) // 2


@dataclass(frozen=True)
class QuantisedHead:
    """codes int8 [vocab, hidden], scales binary32 [vocab], planes, and the root mean square of the
    rounding error relative to that of the weights."""

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    planes: int
    error: float


def quantise_head(head: NDArray, planes: int = PLANES) -> QuantisedHead:
    """Quantise each row [vocab, hidden], as numbers of the contract, to its largest magnitude."""
    vocab, hidden = head.shape
    most = head_max(planes)
    codes = np.empty((vocab, hidden), np.int8)
    scales = np.empty(vocab, np.float32)
    error = energy = 0.0
    for at in range(0, vocab, _BLOCK):
        rows = numeric.sanitise(widen(head[at : at + _BLOCK]))
        largest = np.abs(rows).max(axis=1)
        scale = numeric.sanitise(np.where(largest > 0, largest / most, 1).astype(np.float32))
        code = np.rint(rows.astype(np.float64) / np.where(scale > 0, scale, 1)[:, None])
        code = np.clip(code, -most, most)
        codes[at : at + _BLOCK] = code
        scales[at : at + _BLOCK] = scale
        error += float(np.sum((code * scale[:, None] - rows) ** 2))
        energy += float(np.sum(np.square(rows, dtype=np.float64)))
    return QuantisedHead(codes, scales, planes, (error / energy) ** 0.5 if energy else 0.0)


def plane_digits(codes: NDArray[np.int8], planes: int = PLANES) -> NDArray[np.uint8]:
    """Digits 0..2 (trit + 1) [planes * vocab, hidden]: row planes * v + i is the plane of weight
    3**(planes-1-i) of row v."""
    vocab, hidden = codes.shape
    table = _digits(planes)[codes.astype(np.int16) + head_max(planes)]  # [vocab, hidden, planes]
    return np.ascontiguousarray(table.transpose(0, 2, 1)).reshape(planes * vocab, hidden)


def combine_planes(trits: NDArray[np.int8], planes: int = PLANES) -> NDArray[np.int8]:
    """Codes [vocab, hidden] of planes of trits [planes * vocab, hidden]: the inverse."""
    rows = trits.reshape(-1, planes, trits.shape[1])
    codes = rows[:, 0].copy()
    for i in range(1, planes):
        codes *= 3
        codes += rows[:, i]
    return codes


@functools.cache
def _digits(planes: int) -> NDArray[np.uint8]:
    """Digits of each code, the most significant first."""
    codes = np.arange(2 * head_max(planes) + 1)
    return np.stack([codes // 3**i % 3 for i in reversed(range(planes))], axis=1).astype(np.uint8)
