"""The numeric contract: one NumPy definition of every operation that the gateware performs.

Numbers are IEEE binary32 without infinities, NaN, subnormals and negative zero:

* a result is rounded to nearest, ties to even;
* a result of magnitude at most 2**-126 becomes +0 (after rounding; 2**-126 itself too);
* a result beyond the largest finite number becomes that number, sign kept; so does the quotient
  of a division by zero, except that 0 / 0 is 0;
* a word that enters from DRAM is made such a number by `sanitise`.

Integer sums are exact. The emulator and every block's `reference()` call these functions; the
gateware is tested to equal them bit for bit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .isa import KvFormat

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

FLUSH = np.float32(2.0**-126)
LARGEST = np.finfo(np.float32).max
_LEAST = np.float32(-LARGEST)
_ZERO = np.float32(0)

INV_127 = np.float32(1 / 127)
HEAD_CODE_MAX = 127 * 256
"""Largest code of the LM head's activation: two int8 digits in base 256."""
INV_HEAD = np.float32(1 / HEAD_CODE_MAX)
ABSMAX_FLOOR = np.float32(1e-5)
KV_FLOOR = np.float32(2.0**-100)
"""Least absmax of a K, V or Q head: keeps the largest code / absmax finite."""
INV_CODE_MAX = {kv: np.float32(1 / kv.code_max) for kv in KvFormat}
"""What turns an absmax into the scale of a head's codes."""
LOG2E = np.float32(1.4426950408889634)


def _wide(x: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(x, dtype=np.float64)


def finish(x: ArrayLike) -> F32:
    """Round a wider (or already binary32) result and apply the flush and saturation rules.

    Exact only where one rounding to binary32 is what the contract asks: products of two binary32
    numbers are exact in binary64.
    """
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return _rules(np.asarray(x).astype(np.float32))


def _rules(rounded: ArrayLike) -> F32:
    """The flush and saturation rules on a rounded result, in place where it is an array."""
    r = np.asarray(rounded)
    np.minimum(np.maximum(r, _LEAST, out=r), LARGEST, out=r)
    np.copyto(r, _ZERO, where=np.abs(r) <= FLUSH)
    return r


def sanitise(bits: ArrayLike) -> F32:
    """Binary32 words as they arrive from DRAM: subnormals and 2**-126 to +0; infinities and NaN
    (exponent field 255) to the largest number with their sign."""
    b = (
        np.asarray(bits).view(np.uint32)
        if np.asarray(bits).dtype == np.float32
        else np.asarray(bits, dtype=np.uint32)
    )
    sign = b & np.uint32(0x80000000)
    exp = (b >> np.uint32(23)) & np.uint32(0xFF)
    big = sign | np.uint32(0x7F7FFFFF)
    return finish(np.where(exp == 255, big, b).view(np.float32))


def is_number(x: ArrayLike) -> NDArray[np.bool_]:
    """Whether binary32 values are numbers of the contract, which `sanitise` leaves as they are."""
    x = np.asarray(x, np.float32)
    return sanitise(x).view(np.uint32) == x.view(np.uint32)


def mul(a: ArrayLike, b: ArrayLike) -> F32:
    """fl(a * b)."""
    with np.errstate(over="ignore", under="ignore"):
        return _rules(np.multiply(a, b, dtype=np.float32))


def add(a: ArrayLike, b: ArrayLike) -> F32:
    """fl(a + b)."""
    with np.errstate(over="ignore", under="ignore"):
        return _rules(np.add(a, b, dtype=np.float32))


def sub(a: ArrayLike, b: ArrayLike) -> F32:
    """fl(a - b)."""
    with np.errstate(over="ignore", under="ignore"):
        return _rules(np.subtract(a, b, dtype=np.float32))


def div(a: ArrayLike, b: ArrayLike) -> F32:
    """fl(a / b). Division by zero saturates as well; 0 / b is 0 for every b."""
    with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
        quotient = np.divide(a, b, dtype=np.float32)
        return _rules(np.where(np.equal(a, 0), _ZERO, quotient))


def sqrt(a: ArrayLike) -> F32:
    """fl(sqrt(a)), a >= 0."""
    return finish(np.sqrt(np.asarray(a, dtype=np.float32)))


def from_int(n: ArrayLike) -> F32:
    """An integer of up to 64 bits, rounded once."""
    return np.asarray(n).astype(np.float32)


def scale2(x: ArrayLike, k: ArrayLike) -> F32:
    """x * 2**k, with the flush and saturation rules."""
    with np.errstate(over="ignore", under="ignore"):
        k = np.clip(np.asarray(k, dtype=np.int64), -600, 600).astype(np.int32)
        wide = np.ldexp(_wide(x), k)
    return finish(wide)


def to_int(x: ArrayLike, fraction_bits: int, low: int, high: int) -> I64:
    """round_half_even(x * 2**fraction_bits), clamped to low..high."""
    scaled = _wide(x) * 2.0**fraction_bits  # exact: a power of two
    return np.clip(np.rint(scaled), low, high).astype(np.int64)


def exponent(x: ArrayLike) -> I64:
    """The exponent field, 0 for zero (bias 127)."""
    return ((np.asarray(x, np.float32).view(np.uint32) >> 23) & 0xFF).astype(np.int64)


def mantissa(x: ArrayLike) -> I64:
    """The 24-bit significand with its leading one; 0 for zero."""
    b = np.asarray(x, np.float32).view(np.uint32).astype(np.int64)
    return np.where(b & 0x7F800000, (b & 0x7FFFFF) | 0x800000, 0)


# ---------------------------------------------------------------- RMSNorm and quantisation


def square_sum(x: F32, largest: F32) -> U64:
    """Sum over the last axis of squares of `x`, aligned to the exponent of `largest` (its absmax).

    Each significand is shifted right (truncated) to the exponent of the row's absmax, squared and
    summed as uint64: exact and free of order for rows of up to 32,768 elements. The sum's unit is
    2**(2 * (exponent(largest) - 150)).
    """
    shift = exponent(largest)[..., None] - exponent(x)
    aligned = mantissa(x) >> np.minimum(shift, 63)
    return np.sum((aligned * aligned).astype(np.uint64), axis=-1, dtype=np.uint64)


def root_mean_square(x: F32, inv_n: np.float32, eps: np.float32) -> F32:
    """sqrt(mean(x**2) + eps) over the last axis."""
    largest = np.max(np.abs(x), axis=-1)
    mean = scale2(from_int(square_sum(x, largest)), 2 * (exponent(largest) - 150))
    return sqrt(add(mul(mean, inv_n), eps))


def norm_quant(
    x: F32, gain: F32 | None, norm: bool, inv_n: np.float32, eps: np.float32, head: bool
) -> tuple[I64, F32]:
    """RMSNorm and per-token quantisation of rows `x` [rows, n] in one step.

    The root mean square cancels in the codes: with z = fl(x * gain) and a = max(absmax(z),
    fl(1e-5 * rms)) a code is round(fl(z * fl(127 / a))), and the factor that turns integer sums
    back is d = fl(fl(a / rms) * fl(1/127)), where the quotient is fl(a * fl(1 / rms)). Without a
    norm rms is 1. With `head` the codes reach 127 * 256 instead of 127.

    Returns codes [rows, n] and factors [rows].
    """
    z = mul(x, gain) if gain is not None else x
    rms = root_mean_square(x, inv_n, eps) if norm else np.ones(x.shape[:-1], np.float32)
    a = np.maximum(np.max(np.abs(z), axis=-1), mul(ABSMAX_FLOOR, rms))
    limit, inverse = (HEAD_CODE_MAX, INV_HEAD) if head else (127, INV_127)
    codes = to_int(mul(z, div(np.float32(limit), a)[..., None]), 0, -limit, limit)
    return codes, mul(mul(a, div(np.float32(1), rms)), inverse)


def head_digits(codes: I64) -> tuple[I64, I64]:
    """Codes of the LM head's activation as two int8 digits, code = 256 * high + low."""
    high = (codes + 128) >> 8
    return high, codes - (high << 8)


def kv_quant(x: F32, kv: KvFormat) -> tuple[I64, F32]:
    """Codes of heads `x` [..., head_dim] in a format, and their scales [...]: absmax over the
    largest code."""
    limit = kv.code_max
    a = np.maximum(np.max(np.abs(x), axis=-1), KV_FLOOR)
    codes = to_int(mul(x, div(np.float32(limit), a)[..., None]), 0, -limit, limit)
    return codes, mul(a, INV_CODE_MAX[kv])


# ---------------------------------------------------------------- exp2 and sigmoid

SCORE_FRACTION = 22
"""Fraction bits of a score in the base-2 logarithm domain (32-bit signed)."""
_EXP2_SEGMENTS = 1024
_EXP2_LOW = SCORE_FRACTION - 10
_RECIPROCAL_SEGMENTS = 1024
_RECIPROCAL_LOW = 14


def _table_exp2() -> tuple[I64, I64]:
    at = 2.0 ** (23 + np.arange(_EXP2_SEGMENTS + 1) / _EXP2_SEGMENTS)
    value = np.rint(at).astype(np.int64)
    return value[:-1], np.diff(value)


def _table_reciprocal() -> tuple[I64, I64]:
    at = 2.0**24 / (1 + np.arange(_RECIPROCAL_SEGMENTS + 1) / _RECIPROCAL_SEGMENTS)
    value = np.rint(at).astype(np.int64)
    return value[:-1], -np.diff(value)


EXP2_VALUE, EXP2_SLOPE = _table_exp2()
"""2**f at f = i/1024 with 23 fraction bits (24 bits), and the rise to the next (15 bits)."""
RECIPROCAL_VALUE, RECIPROCAL_SLOPE = _table_reciprocal()
"""2**24 / (1 + i/1024) (25 bits) and the fall to the next (15 bits)."""


def exp2_fraction(u: ArrayLike) -> I64:
    """2**(u / 2**22) * 2**23 for 0 <= u < 2**22: 24 bits, relative error below 2.5e-7."""
    u = np.asarray(u, np.int64)
    high, low = u >> _EXP2_LOW, u & ((1 << _EXP2_LOW) - 1)
    return EXP2_VALUE[high] + ((EXP2_SLOPE[high] * low) >> _EXP2_LOW)


def sigmoid(x: ArrayLike) -> F32:
    """1 / (1 + exp(-x)), relative error below 1e-6 on both sides.

    With e = 2**-t, t = fl(|x| * log2 e): 1 / (1 + e) for x >= 0 and e / (1 + e) below.
    """
    x = np.asarray(x, np.float32)
    t = to_int(mul(np.abs(x), LOG2E), SCORE_FRACTION, 0, 2**31 - 1)
    whole = (-t) >> SCORE_FRACTION  # floor, <= 0
    e = exp2_fraction((-t) & ((1 << SCORE_FRACTION) - 1))  # 24 bits, * 2**(whole - 23)
    fixed = np.minimum((e << 1) >> np.minimum(-whole, 63), 2**24 - 1)  # 24 fraction bits
    high, low = fixed >> _RECIPROCAL_LOW, fixed & ((1 << _RECIPROCAL_LOW) - 1)
    r = RECIPROCAL_VALUE[high] - ((RECIPROCAL_SLOPE[high] * low) >> _RECIPROCAL_LOW)
    return np.where(x < 0, scale2(from_int(e * r), whole - 47), scale2(from_int(r), -24))


def silu(x: ArrayLike) -> F32:
    """fl(x * sigmoid(x))."""
    return mul(x, sigmoid(x))


# ---------------------------------------------------------------- attention

P_BITS = 24
"""Bits of an attention weight as the denominator sums it."""
W_SHIFT = 26
"""exp2 (24 bits) times V's significand (24 bits) is rounded to 22 bits for the numerator."""


def score(dot: ArrayLike, q_scale: ArrayLike, k_scale: ArrayLike) -> I64:
    """Score in the base-2 logarithm domain, 32 bits with 22 fraction bits.

    `q_scale` holds log2(e) / sqrt(head_dim) already.
    """
    s = mul(from_int(dot), mul(q_scale, k_scale))
    return to_int(s, SCORE_FRACTION, -(2**31) + 1, 2**31 - 1)


def shift_round(value: ArrayLike, shift: ArrayLike) -> I64:
    """value >> shift rounded half up, value >= 0; 0 for shifts of 63 and above."""
    value, shift = np.asarray(value, np.int64), np.asarray(shift, np.int64)
    s = np.clip(shift, 0, 62)
    half = np.where(s > 0, np.int64(1) << np.maximum(s - 1, 0), 0)
    return np.where(shift >= 63, 0, (value + half) >> s)


def attention_weights(
    scores: I64, v_scale: F32, max_p: I64 | int, max_w: I64 | int
) -> tuple[I64, I64]:
    """Weights of a block for the denominator (p) and the numerator (w, V's scale folded in).

    `max_p` is the running maximum of floor(score), `max_w` that of floor(score) + exponent of
    V's scale, both integers, this block included. p has 24 bits, w at most 2**22.
    """
    whole = scores >> SCORE_FRACTION
    e = exp2_fraction(scores & ((1 << SCORE_FRACTION) - 1))
    p = shift_round(e, max_p - whole)
    w = shift_round(e * mantissa(v_scale), W_SHIFT + (max_w - (whole + exponent(v_scale))))
    return p, w


def attention_output(o: ArrayLike, l: ArrayLike, max_p: I64 | int, max_w: I64 | int) -> F32:
    """sum(w v) / sum(p): fl(fl(o) * fl(1 / fl(l))) * 2**(max_w - 127 - max_p + 3)."""
    quotient = mul(from_int(o), div(np.float32(1), from_int(l)))
    return scale2(quotient, np.asarray(max_w, np.int64) - 127 - np.asarray(max_p, np.int64) + 3)
