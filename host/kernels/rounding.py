"""Rounding to integers as the checkpoints' quantisation does it, for kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def int8_codes(x):
    """x rounded half to even and clamped to -128..127, as int8; |x| below 2^22.

    A sum with 1.5 * 2^23 has no bits for fractions: the adder rounds. That holds wherever the sum
    isn't fused with the product that x came from, so launch with `tuning.EXACT`.
    """
    x = (x + 12582912.0) - 12582912.0
    return tl.minimum(tl.maximum(x, -128.0), 127.0).to(tl.int8)
