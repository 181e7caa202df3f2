"""From rows of binary32 to int8 codes: what lies between two ternary products, in one pass.

In the published order: activation times gate, norm, gain, then codes by the row's largest
magnitude. Each step but the last is optional. A program has whole rows in registers, so that they
are read once.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from terntable.host.kernels.rounding import int8_codes
from terntable.host.kernels.ternary import QuantisedRows
from terntable.host.kernels.tuning import EXACT, INTERPRETED

GATES = {None: 0, "relu2": 1, "silu": 2}
"""Activations by their number in the kernel; None: the input holds the row itself."""
_INTERPRETED_ROWS = 16
"""Rows a program where programs are dear; on a GPU a row has all of one."""


@triton.jit(do_not_specialize=["tokens"])
def _norm_quant(
    x, gain, codes, factor, excess, tokens, columns, padded, eps,
    GATE: tl.constexpr, NORM: tl.constexpr, GAIN: tl.constexpr, BLOCK_TOKENS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    known = token < tokens
    row = token[:, None].to(tl.int64)
    column = tl.arange(0, BLOCK)[None, :]
    inside = known[:, None] & (column < columns)
    if GATE == 0:
        z = tl.load(x + row * columns + column, mask=inside, other=0.0)
    else:
        gate = tl.load(x + row * (2 * columns) + column, mask=inside, other=0.0)
        up = tl.load(x + row * (2 * columns) + columns + column, mask=inside, other=0.0)
        if GATE == 1:
            positive = tl.maximum(gate, 0.0)
            z = positive * positive * up
        else:
            small = tl.exp(-tl.abs(gate))
            z = gate * (tl.where(gate >= 0.0, 1.0, small) / (1.0 + small)) * up
    if NORM:
        mean = tl.sum(z * z, 1) / columns
        z = z * tl.div_rn(1.0, tl.sqrt_rn(mean + eps))[:, None]
    if GAIN:
        z = z * tl.load(gain + column, mask=column < columns, other=0.0)
    scale = tl.div_rn(127.0, tl.maximum(tl.max(tl.abs(z), 1), 1e-5))
    code = int8_codes(z * scale[:, None])
    tl.store(codes + row * padded + column, code, mask=known[:, None] & (column < padded))
    tl.store(factor + token, tl.div_rn(1.0, scale), mask=known)
    # Quarters 0 to 2 of the padded row; codes beyond the last column are zeros.
    low = tl.where(column < padded // 4 * 3, code.to(tl.int32), 0)
    tl.store(excess + token, tl.sum(low, 1), mask=known)


def norm_quant(
    x: Tensor,
    gain: Tensor | None = None,
    eps: float | None = None,
    gate: str | None = None,
) -> QuantisedRows:
    """Quantise rows x, binary32 [tokens, K] or, with `gate`, [tokens, 2 * K].

    gate   'relu2' or 'silu': a row is this function of its first half times the second half
    eps    divide rows by sqrt(mean of squares + eps); None: no norm
    gain   binary32 [K], multiplied in after the norm
    """
    tokens = len(x)
    columns = x.shape[1] // (2 if gate else 1)
    out = QuantisedRows.empty(tokens, columns, x.device)
    padded = out.codes.shape[1]
    block = triton.next_power_of_2(padded)
    rows = _INTERPRETED_ROWS if INTERPRETED else 1
    _norm_quant[(triton.cdiv(tokens, rows),)](
        x,
        x if gain is None else gain,
        out.codes,
        out.factor,
        out.excess,
        tokens,
        columns,
        padded,
        0.0 if eps is None else eps,
        GATE=GATES[gate],
        NORM=eps is not None,
        GAIN=gain is not None,
        BLOCK_TOKENS=rows,
        BLOCK=block,
        num_warps=min(max(block // 512, 1), 32),
        **EXACT,
    )
    return out
