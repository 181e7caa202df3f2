"""The byte code of ternary weights, and the order in which a stream holds them.

Five digits d0..d4 of 0, 1, 2 (trits -1, 0, 1) make a byte: the low five bits hold d0 + 3 d1 + 9 d2
(27 values) and the high three bits d3 + 3 d4 (9 values), where the ninth of these is told by the
five values of the low bits that are left over: then the two fields change places. A decoder is a
handful of LUTs where a base-3 number would take a divider.

Needs NumPy only: the compiler packs with it, the gateware decodes its tables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TRITS_PER_BYTE = 5
UNUSED_DIGIT = 1
"""Padding digit: the trit 0."""


def encode_byte(digits: tuple[int, ...]) -> int:
    """The byte of five digits."""
    d0, d1, d2, d3, d4 = digits
    idx3, idx2 = d0 + 3 * d1 + 9 * d2, d3 + 3 * d4
    if idx2 < 8:
        return idx3 | idx2 << 5
    return (27 + (idx3 >> 3)) | (idx3 & 7) << 5


def decode_byte(byte: int) -> tuple[int, ...]:
    """The five digits of a byte. The 13 bytes that code nothing give digits 0..2 all the same."""
    low, high = byte & 31, byte >> 5
    idx3, idx2 = (low, high) if low < 27 else (((low - 27) * 8 + high) % 27, 8)
    return idx3 % 3, idx3 // 3 % 3, idx3 // 9, idx2 % 3, idx2 // 3


_DECODE = np.array([decode_byte(b) for b in range(256)], np.uint8)


def encode_bytes(digits: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Bytes of a stream of digits 0..2 [n]; the last byte is padded with the trit 0."""
    d = np.ascontiguousarray(digits, dtype=np.uint8).reshape(-1)
    if d.size and int(d.max()) > 2:
        raise ValueError(f"digit {int(d.max())}: digits are 0, 1 and 2")
    pad = -d.size % TRITS_PER_BYTE
    if pad:
        d = np.concatenate([d, np.full(pad, UNUSED_DIGIT, np.uint8)])
    five = d.reshape(-1, TRITS_PER_BYTE)
    idx3 = five[:, 0] + 3 * five[:, 1] + 9 * five[:, 2]
    idx2 = five[:, 3] + 3 * five[:, 4]
    return np.where(idx2 < 8, idx3 | idx2 << 5, (27 + (idx3 >> 3)) | (idx3 & 7) << 5).astype(
        np.uint8
    )


def decode_bytes(code: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Digits 0..2 of a stream of bytes, five a byte."""
    return _DECODE[np.asarray(code, np.uint8)].reshape(-1)


def order_digits(
    digits: NDArray[np.integer], tile_words: int, rows: int, tile_inputs: int
) -> NDArray[np.uint8]:
    """A weight matrix of digits [n, k] in stream order.

    For every tile of tile_words * rows weight rows, every K tile of tile_inputs inputs and every
    word of the tile: `rows` weight rows by `tile_inputs` inputs, row-major. n is padded to whole
    words and k to whole K tiles with the trit 0. The last tile has as many words as are left.
    """
    n, k = digits.shape
    pad = ((0, -n % rows), (0, -k % tile_inputs))
    d = np.pad(np.asarray(digits, np.uint8), pad, constant_values=UNUSED_DIGIT)
    words, k_tiles = d.shape[0] // rows, d.shape[1] // tile_inputs
    d = d.reshape(words, rows, k_tiles, tile_inputs)
    parts = [
        d[at : at + tile_words].transpose(2, 0, 1, 3).reshape(-1)
        for at in range(0, words, tile_words)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint8)
