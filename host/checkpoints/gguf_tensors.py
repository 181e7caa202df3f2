"""Tensors of GGUF files as trits and scales, as binary32 vectors, and as 16-bit tables.

TQ1_0, TQ2_0   blocks of 256 along a row, each with a binary16 scale of its own
I2_S           blocks of 128 over the whole tensor, one binary32 scale after them (32 bytes)
F16, BF16, F32 ternary values: 0 and one magnitude, plus and minus

The scales of a matrix have to be one for the matrix, or one for each of some equal runs of rows or
of columns (a model's shards). Blocks of zeros agree with anything.

Type 36 has several writers whose files differ in nothing but the order of the codes. Blocks of 128
are the order of the published files and of the converter. `i2s_layout` recognises others by the
weights where these show it; random weights don't, and are read in the published order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from terntable.host.checkpoints.gguf_file import I2_S_TAIL, Tensor
from terntable.host.checkpoints.tables import Table, sixteen_bits
from terntable.host.checkpoints.ternarise import NOT_FINITE, from_values
from terntable.host.model import F32, TernaryLinear, widen

_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""As NumPy types; bfloat16 as its bits."""
_BLOCK = 256
_TQ1_PARTS = ((0, 32, 5), (32, 16, 5), (48, 4, 4))
"""First byte, bytes, trits a byte."""


def _trits_of_bytes() -> NDArray[np.int8]:
    """The five trits [256, 5] of each byte: digits of byte / 256 in base 3."""
    fractions = np.arange(256, dtype=np.uint16)[:, None] * 3 ** np.arange(5, dtype=np.uint16)
    return ((fractions & 255) * 3 >> 8).astype(np.int8) - np.int8(1)


_TQ1 = _trits_of_bytes()


def unpack_tq1(codes: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Trits [n, 256] of the 52 bytes of codes of each block.

    Trit t of byte m of a part of b bytes is the part's element m + b * t.
    """
    out = np.empty((len(codes), _BLOCK), np.int8)
    at = 0
    for first, width, digits in _TQ1_PARTS:
        trits = _TQ1[codes[:, first : first + width], :digits].transpose(0, 2, 1)
        out[:, at : at + digits * width] = trits.reshape(len(codes), -1)
        at += digits * width
    return out


def unpack_pairs(codes: NDArray[np.uint8], shifts: tuple[int, ...]) -> NDArray[np.int8]:
    """Codes - 1 [n, 128] of bytes [n, 32]: bits `shifts[i]` and up of byte p hold element
    32 * i + p. A code of 3, which is no trit, comes out as 2."""
    out = np.empty((len(codes), 4, 32), np.int8)
    for part, shift in enumerate(shifts):
        out[:, part] = (codes >> shift) & 3
    out -= 1
    return out.reshape(-1, 128)


def _tq(tensor: Tensor) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Trits [rows, columns] and block scales [rows, columns / 256]."""
    rows, columns = tensor.shape
    blocks = tensor.data.reshape(-1, tensor.type.size)
    codes, scales = blocks[:, :-2], blocks[:, -2:].copy().view("<f2").reshape(-1)
    if tensor.type.name == "TQ1_0":
        trits = unpack_tq1(codes)
    else:
        trits = unpack_pairs(codes.reshape(-1, 32), (0, 2, 4, 6)).reshape(-1, _BLOCK)
    trits[scales == 0] = 0
    return trits.reshape(rows, columns), scales.reshape(rows, -1)


def _i2s(tensor: Tensor) -> tuple[NDArray[np.int8], F32]:
    """Trits [rows, columns] and the scale [1, 1]."""
    if tensor.spare:
        raise tensor.wrong(
            f"is I2_S and has {tensor.spare} bytes more than its shape takes: not the published"
            " layout"
        )
    codes, tail = tensor.data[:-I2_S_TAIL], tensor.data[-I2_S_TAIL:]
    trits = unpack_pairs(codes.reshape(-1, 32), (6, 4, 2, 0)).reshape(tensor.shape)
    scale = tail[:4].copy().view("<f4").reshape(1, 1)
    if scale[0, 0] == 0 and trits.any():
        raise tensor.wrong("has the scale 0: not the published layout of I2_S")
    return trits, scale


def ternary(
    tensor: Tensor, order: NDArray[np.int64] | None = None, row_unit: int = 1
) -> TernaryLinear:
    """A matrix [rows, columns], its rows taken in `order`.

    `row_unit` is as for `ternarise.from_values`. Raises UserError, naming the tensor, where it is
    not ternary.
    """
    name = tensor.type.name
    try:
        if name in _FLOATS:
            return _plain(tensor, order, row_unit)
        if name not in ("TQ1_0", "TQ2_0", "I2_S"):
            raise ValueError(
                f"is {name}: not a ternary checkpoint, whose matrices are TQ1_0, TQ2_0, I2_S, or"
                " ternary values in floating point"
            )
        trits, scales = _i2s(tensor) if name == "I2_S" else _tq(tensor)
        if trits.max() > 1:
            raise ValueError(f"has codes that are no trits: not the published layout of {name}")
        if (scales < 0).any():
            raise ValueError(f"has the scale {scales.min()}: positive ones are expected")
        if order is not None:
            trits = trits[order]
            scales = scales[order] if len(scales) > 1 else scales
        # Scales that blocks share are a ternary matrix by themselves.
        flat, (rows, blocks) = scales.reshape(-1), scales.shape
        shared = from_values(lambda first, n: flat[first : first + n], rows, blocks, row_unit)
    except ValueError as e:
        raise tensor.wrong(str(e)) from None
    return TernaryLinear(trits, shared.scale, shared.column_scale)


def _plain(tensor: Tensor, order: NDArray[np.int64] | None, row_unit: int) -> TernaryLinear:
    """A matrix of floats that are ternary."""
    rows, columns = tensor.shape
    values = tensor.data.view(_FLOATS[tensor.type.name]).reshape(rows, columns)
    flat = (values if order is None else values[order]).reshape(-1)
    return from_values(lambda first, n: flat[first : first + n], rows, columns, row_unit)


def vector(tensor: Tensor) -> F32:
    """A tensor of floats in binary32."""
    if tensor.type.name not in _FLOATS:
        raise tensor.wrong(f"is {tensor.type.name}: {', '.join(_FLOATS)} are expected")
    values = widen(tensor.data.view(_FLOATS[tensor.type.name]).reshape(tensor.shape))
    if not np.isfinite(values).all():
        raise tensor.wrong(NOT_FINITE)
    return values


def table(tensor: Tensor) -> Table:
    """A table [rows, columns] in 16 bits, decoded where the file has it quantised."""
    if tensor.type.name == "I2_S":
        raise tensor.wrong("is I2_S: floats, or blocks of one row, are expected")
    rows, columns = tensor.shape
    raw, decode = tensor.data.reshape(rows, -1), _decoder(tensor)
    try:
        return sixteen_bits(lambda first, n: decode(raw[first : first + n]), rows, columns)
    except ValueError as e:
        raise tensor.wrong(str(e)) from None


def _decoder(tensor: Tensor) -> Callable[[NDArray[np.uint8]], NDArray]:
    """What turns bytes of rows [n, bytes] into values [n, columns]."""
    if tensor.type.name in _FLOATS:
        return lambda rows: rows.view(_FLOATS[tensor.type.name])
    try:
        from gguf import GGMLQuantizationType, dequantize
    except ImportError:
        raise tensor.wrong(
            f"is {tensor.type.name}, which the package gguf decodes: pip install"
            " 'terntable[import]'"
        ) from None

    def decode(rows: NDArray[np.uint8]) -> F32:
        with np.errstate(all="ignore"):  # damaged scales: what comes out is looked at
            return np.asarray(dequantize(rows, GGMLQuantizationType(tensor.number)), np.float32)

    return decode
