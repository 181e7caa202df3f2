"""Operands of the ternary product: four trits in a byte, rows of int8 codes.

A matrix of K columns is cut into four quarters of S = ceil(K / 4) columns, S rounded up to 16.
Byte s of a row holds the trits of columns s, S + s, 2S + s and 3S + s, one of each quarter:

| bits | quarter | trit -1, 0, 1 is | the byte masked to these bits, as int8 |
| ---- | ------- | ---------------- | -------------------------------------- |
| 1:0  | 0       | 0, 1, 2          | trit + 1                               |
| 3:2  | 1       | 0, 1, 2          | 4 * (trit + 1)                         |
| 5:4  | 2       | 0, 1, 2          | 16 * (trit + 1)                        |
| 7:6  | 3       | 3, 0, 1          | 64 * trit, the sign being bit 7        |

So a kernel unpacks by masking alone, four weights in one 32-bit instruction: the masked bytes are
the int8 operand of a product with a quarter of the activations, whose own accumulator is shifted
right by 0, 2, 4 or 6 bits at the very end. The ones that quarters 0 to 2 have too much come to the
sum of the token's codes there, which is subtracted. All of it is exact: with K = 23,040 the
largest accumulator stays below 2^26.

Neighbouring bytes belong to neighbouring columns, so that rows of weights and of codes are both
read in runs of 16 bytes and more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from terntable.host.model import TernaryLinear

_ALIGNMENT = 16


def quarter(columns: int) -> int:
    """S: columns of a quarter of a matrix with `columns`."""
    return -(-columns // (4 * _ALIGNMENT)) * _ALIGNMENT


def pack(trits: NDArray[np.int8]) -> NDArray[np.int8]:
    """Bytes [rows, S] of trits [rows, K] in the layout above; columns beyond K hold trit 0."""
    rows, columns = trits.shape
    size = quarter(columns)
    wide = np.zeros((rows, 4 * size), np.int8)
    wide[:, :columns] = trits
    fields = wide.reshape(rows, 4, size)
    packed = fields[:, 3] << 6
    for i in range(3):
        packed |= (fields[:, i] + 1) << 2 * i
    return packed


@dataclass(frozen=True)
class PackedMatrix:
    """A ternary matrix on a processor.

    packed     int8 [rows, S]
    row_scale  binary32 [rows]
    columns    K
    """

    packed: Tensor
    row_scale: Tensor
    columns: int

    @classmethod
    def of(cls, linears: Sequence[TernaryLinear], device: torch.device) -> PackedMatrix:
        """The rows of matrices with the same input, one after the other. Their scales of columns
        belong to the activations and are not in it."""
        scales = [np.repeat(m.row_scales, len(m.trits) // len(m.row_scales)) for m in linears]
        return cls(
            torch.from_numpy(np.concatenate([pack(m.trits) for m in linears])).to(device),
            torch.from_numpy(np.concatenate(scales)).to(device),
            linears[0].trits.shape[1],
        )

    @property
    def rows(self) -> int:
        return len(self.packed)


@dataclass(frozen=True)
class QuantisedRows:
    """Activations of some tokens.

    codes   int8 [tokens, 4 * S], zeros beyond column K
    factor  binary32 [tokens]: a code times its token's factor is an activation
    excess  int32 [tokens]: sum of a token's codes in the quarters 0 to 2
    """

    codes: Tensor
    factor: Tensor
    excess: Tensor

    @classmethod
    def empty(cls, tokens: int, columns: int, device: torch.device) -> QuantisedRows:
        """Memory for `tokens` rows of K = `columns`."""
        return cls(
            torch.empty((tokens, 4 * quarter(columns)), dtype=torch.int8, device=device),
            torch.empty(tokens, dtype=torch.float32, device=device),
            torch.empty(tokens, dtype=torch.int32, device=device),
        )
