"""The numeric contract itself: rounding, flush, saturation, accuracy of the functions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terntable.hw import numeric as n
from terntable.hw.isa import KvFormat

LARGEST = float(n.LARGEST)
numbers = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(
    lambda x: float(n.sanitise(np.float32(x)))
)


def nearest(exact: Fraction) -> np.float32:
    """Round a fraction to binary32 by the contract."""
    if abs(exact) >= Fraction(LARGEST) + Fraction(2) ** 103:
        return np.float32(LARGEST if exact > 0 else -LARGEST)
    if exact == 0:
        return np.float32(0)
    e = 0
    size = abs(exact)
    while size >= 2 ** (e + 1):
        e += 1
    while size < Fraction(2) ** e:
        e -= 1
    unit = Fraction(2) ** (e - 23)
    scaled = exact / unit
    whole = round(scaled)  # Fraction rounds half to even
    value = whole * unit
    if abs(value) <= Fraction(2) ** -126:
        return np.float32(0)
    return np.float32(min(max(float(value), -LARGEST), LARGEST))


def same(a: object, b: object) -> bool:
    return np.float32(a).tobytes() == np.float32(b).tobytes()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(numbers, numbers)
def test_operations_round_once(a: float, b: float) -> None:
    assert same(n.mul(np.float32(a), np.float32(b)), nearest(Fraction(a) * Fraction(b)))
    assert same(n.add(np.float32(a), np.float32(b)), nearest(Fraction(a) + Fraction(b)))
    assert same(n.sub(np.float32(a), np.float32(b)), nearest(Fraction(a) - Fraction(b)))
    if b:
        assert same(n.div(np.float32(a), np.float32(b)), nearest(Fraction(a) / Fraction(b)))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(numbers, st.integers(-300, 300))
def test_scale2_rounds_once(x: float, k: int) -> None:
    assert same(n.scale2(np.float32(x), k), nearest(Fraction(x) * Fraction(2) ** k))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(-(2**62), 2**62))
def test_from_int_rounds_once(i: int) -> None:
    assert same(n.from_int(np.int64(i)), nearest(Fraction(i)))


def test_flush_boundary_and_saturation() -> None:
    least = np.float32(2.0**-126)
    above = np.nextafter(least, np.float32(1), dtype=np.float32)
    one = np.float32(1)
    assert n.mul(least, one) == 0
    assert n.mul(above, one) == above
    assert not np.signbit(n.mul(-least, one))
    assert not np.signbit(n.mul(np.float32(-0.0), one))
    assert n.mul(n.LARGEST, np.float32(-2)) == -n.LARGEST
    assert n.add(n.LARGEST, n.LARGEST) == n.LARGEST


def test_sanitise() -> None:
    words = np.array(
        [0x7F800000, 0xFF800000, 0x7FC00001, 0xFFFFFFFF, 1, 0x807FFFFF, 0x00800000, 0x80000000,
         0x00800001, 0x3F800000], np.uint32
    )  # fmt: skip
    big = 0x7F7FFFFF
    sign = 0x80000000
    want = [big, big | sign, big, big | sign, 0, 0, 0, 0, 0x00800001, 0x3F800000]
    assert n.sanitise(words).view(np.uint32).tolist() == want
    assert n.is_number(words.view(np.float32)).tolist() == [False] * 8 + [True] * 2
    assert n.is_number(0.0) and not n.is_number(-0.0)


def test_division_by_zero_saturates() -> None:
    largest = n.LARGEST
    for a, want in ((1, largest), (-1e-37, -largest), (largest, largest), (0, 0)):
        assert same(n.div(np.float32(a), np.float32(0)), want)
    assert same(n.div(np.float32(0), np.float32(-3)), 0)


def test_tables_are_those_of_every_machine() -> None:
    # Gateware and emulator may be made on different ones: no entry may hang on the last bits of
    # their libraries' powers of two.
    exact = 2.0 ** (23 + np.arange(1024) / 1024), 2.0**24 / (1 + np.arange(1024) / 1024)
    for values, table in zip(exact, (n.EXP2_VALUE, n.RECIPROCAL_VALUE), strict=True):
        off = np.abs(values - np.floor(values) - 0.5)
        assert off[values != np.floor(values)].min() > 1e-5
        assert np.array_equal(np.rint(values), table)


def test_a_norm_of_nothing() -> None:
    # Without epsilon the root mean square of a row of zeros is 0, and so are codes and factor.
    zero, one = np.zeros((1, 8), np.float32), np.float32(1)
    codes, factor = n.norm_quant(zero, None, True, one / 8, np.float32(0), False)
    assert not codes.any() and factor[0] == 0


def test_a_sum_of_squares_that_saturates() -> None:
    # Codes do not depend on it; the factor is that of squares that sum to the largest number.
    x = np.float32([[1e30, -1e30, 5e29, 0]])
    codes, factor = n.norm_quant(x, None, True, np.float32(0.25), np.float32(1e-5), False)
    assert codes.tolist() == [[127, -127, 64, 0]]
    root = np.sqrt(np.float64(n.LARGEST) / 4)
    assert factor[0] == pytest.approx(1e30 / root / 127, rel=1e-6)


def test_exp2_and_sigmoid_accuracy() -> None:
    u = np.arange(0, 2**n.SCORE_FRACTION, 37)
    exact = 2.0 ** (u / 2**n.SCORE_FRACTION + 23)
    got = n.exp2_fraction(u)
    assert np.max(np.abs(got / exact - 1)) < 2e-7
    assert got.min() >= 2**23 and got.max() < 2**24
    x = np.linspace(-20, 20, 100_001).astype(np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.max(np.abs(n.sigmoid(x) / exact - 1)) < 2e-6
    assert n.sigmoid(np.float32(-1e30)) == 0 and n.sigmoid(np.float32(1e30)) == 1


@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e6, 1e17])
def test_norm_quant_against_the_published_order(size: float) -> None:
    rng = np.random.default_rng(4)
    x = (size * rng.standard_normal((50, 300))).astype(np.float32)
    gain = rng.uniform(0.1, 2, 300).astype(np.float32)
    codes, factor = n.norm_quant(x, gain, True, np.float32(1 / 300), np.float32(1e-5), False)
    wide = x.astype(np.float64)
    y = wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * gain
    absmax = np.maximum(np.abs(y).max(-1, keepdims=True), 1e-5)
    exact = y * 127 / absmax
    assert np.max(np.abs(codes - exact)) < 0.5 + 1e-4
    np.testing.assert_allclose(factor, absmax[:, 0] / 127, rtol=3e-6)


def test_rows_of_zeros() -> None:
    zero = np.zeros((1, 8), np.float32)
    codes, factor = n.norm_quant(zero, None, False, np.float32(1 / 8), np.float32(0), False)
    assert not codes.any() and factor[0] > 0
    for kv in KvFormat:
        codes, scale = n.kv_quant(zero, kv)
        assert not codes.any() and scale[0] > 0


@pytest.mark.parametrize("kv", KvFormat)
def test_codes_of_k_and_v_reach_to_the_largest_and_are_nearest(kv: KvFormat) -> None:
    rng = np.random.default_rng(kv)
    x = (rng.standard_normal((200, 24)) * 2.0 ** rng.integers(-30, 30, (200, 1))).astype(np.float32)
    codes, scale = n.kv_quant(x, kv)
    most = {KvFormat.INT16: 32767, KvFormat.INT8: 127, KvFormat.INT4: 7}[kv]
    assert (np.abs(codes).max(axis=-1) == most).all()
    error = np.abs(codes - x / scale[:, None].astype(np.float64))
    assert error.max() < 0.5 + most * 2.0**-22


def test_head_digits_are_int8_and_exact() -> None:
    codes = np.arange(-n.HEAD_CODE_MAX, n.HEAD_CODE_MAX + 1)
    high, low = n.head_digits(codes)
    assert high.min() >= -128 and high.max() <= 127
    assert low.min() >= -128 and low.max() <= 127
    np.testing.assert_array_equal(256 * high + low, codes)


def test_shift_round() -> None:
    for shift in (0, 1, 5, 40, 62, 63, 200):
        for value in (0, 1, 2**30, 2**47 - 1):
            want = 0 if shift >= 63 else (value + (1 << shift >> 1)) >> shift
            assert int(n.shift_round(value, shift)) == want
