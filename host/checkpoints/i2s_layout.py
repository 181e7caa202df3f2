"""Which order the codes of I2_S tensors have, seen in the weights.

bitnet.cpp has written type 36 in three orders, and nothing else in the files differs:

published   blocks of 128: byte p holds elements p, p + 32, p + 64, p + 96
arm         blocks of 64: byte p holds elements p, p + 16, p + 32, p + 48
rows        byte c of four rows holds their elements of column c

In a trained gated MLP a channel that is used little has unlike shares of zeros in all its weights:
in its row of the up projection and in its column of the down projection. Read in the right order
the two shares correlate over the channels, in a wrong one they hardly do. Weights without such
channels (random ones) give no evidence, and the published order is taken.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from terntable.host.checkpoints.gguf_file import I2_S_TAIL, Tensor

_SHIFTS = (6, 4, 2, 0)
CERTAIN = 8.0
"""Standard errors by which another order has to win."""
ORDERS = ("published", "arm", "rows")
_WORDS = {
    "arm": "that bitnet.cpp wrote on ARM (blocks of 64)",
    "rows": "that bitnet.cpp wrote with four rows a byte",
}


def _used(tensor: Tensor, width: int) -> list[NDArray[np.bool_]]:
    """Of each of a byte's four codes, first to last, whether it is a weight other than 0
    [bytes / width, width]."""
    codes = tensor.data[:-I2_S_TAIL].reshape(-1, width)
    return [((codes >> shift) & 3) != 1 for shift in _SHIFTS]


def _row_shares(tensor: Tensor, order: str) -> NDArray[np.float64]:
    """Weights other than 0 of each row."""
    rows, columns = tensor.shape
    if order == "rows":
        return np.stack([u.sum(axis=1) for u in _used(tensor, columns)], axis=1).reshape(rows)
    return np.sum([u.sum(axis=1) for u in _used(tensor, columns // 4)], axis=0)


def _column_shares(tensor: Tensor, order: str) -> NDArray[np.float64]:
    """Weights other than 0 of each column."""
    columns = tensor.shape[1]
    if order == "rows":
        return np.sum([u.sum(axis=0) for u in _used(tensor, columns)], axis=0)
    group = 32 if order == "published" else 16
    shares = np.stack([u.sum(axis=0) for u in _used(tensor, columns // 4)])
    return shares.reshape(4, -1, group).transpose(1, 0, 2).reshape(columns)


def correlation(up: Tensor, down: Tensor, order: str) -> float:
    """That of a channel's shares in the two matrices, read in this order."""
    a, b = _row_shares(up, order), _column_shares(down, order)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def check_layout(up: Tensor, down: Tensor) -> None:
    """Raise UserError where a layer's MLP [ffn, hidden] and [hidden, ffn] in I2_S shows another
    order than the published one."""
    if any(t.type.name != "I2_S" or t.shape[0] % 4 or t.shape[1] % 128 for t in (up, down)):
        return
    # Fisher's z of a correlation over n channels has the variance 1 / (n - 3).
    z = {
        order: math.atanh(min(max(correlation(up, down, order), -0.9999), 0.9999))
        for order in ORDERS
    }
    certain = CERTAIN * math.sqrt(2 / (up.shape[0] - 3))
    for order, words in _WORDS.items():
        if z[order] - z["published"] > certain:
            raise up.wrong(
                f"is I2_S in an order {words}, not in the published one: import the Hugging Face"
                " folder instead"
            )
