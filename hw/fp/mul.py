"""Multiplication."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from ..memories import MemoryPlatform
from .delay import delay, register
from .parts import BIAS, exponent_of, round_product, sign_of

reference = numeric.mul


class Mul(wiring.Component):
    """`o` = fl(a * b), all binary32 of the numeric contract.

    With `k_bits` there is a signed operand `k` too, and `o` = fl(a * b) * 2**k, where only the end
    result is flushed or saturated: scale2 of the product, as long as that is neither.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.

    The product's two registers are those that a DSP48E2 has behind its multiplier. Where the four
    parts of a product are added outside of the multipliers, as on an ECP5, one is in front of the
    sum.
    """

    LATENCY = 5

    def __init__(self, k_bits: int = 0) -> None:
        self.k_bits = k_bits
        scale = {"k": In(Shape(k_bits, signed=True))} if k_bits else {}
        super().__init__({"a": In(32), "b": In(32), **scale, "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # The hidden bit is set for a zero too, whose product is not used.
        a, b = (register(m, Cat(x[:23], C(1, 1))) for x in (self.a, self.b))
        exponent = Signal(Shape(10, signed=True), reset_less=True)
        m.d.sync += exponent.eq(exponent_of(self.a) + exponent_of(self.b) - BIAS)
        sign = register(m, sign_of(self.a) ^ sign_of(self.b))
        zero = register(m, ~exponent_of(self.a).any() | ~exponent_of(self.b).any())

        if isinstance(platform, MemoryPlatform) and platform.family == "ecp5":
            product = register(m, _sum(*(register(m, part) for part in _parts(a, b))))
        else:
            product = delay(m, a * b, 2, reset_less=True)
        if self.k_bits:
            exponent = register(m, exponent + register(m, self.k))
        else:
            exponent = register(m, exponent)
        exponent = register(m, exponent)
        sign = delay(m, sign, 2, reset_less=True)
        zero = delay(m, zero, 2, reset_less=True)
        packed = round_product(m, product, exponent, sign, zero)
        m.d.comb += self.o.eq(packed)
        return m


_LOW = 18
"""Bits of a multiplier's operands."""


def _parts(a: Value, b: Value) -> tuple[Value, Value, Value, Value]:
    """Products of low and high parts of `a` and `b`: low by low, the two mixed, high by high."""
    a_low, a_high, b_low, b_high = a[:_LOW], a[_LOW:], b[:_LOW], b[_LOW:]
    return a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high


def _sum(low: Value, mixed: Value, mixed_too: Value, high: Value) -> Value:
    """What `_parts` are the parts of."""
    outer = Cat(low, high)  # they don't overlap
    return Cat(outer[:_LOW], (outer[_LOW:] + (mixed + mixed_too))[: len(outer) - _LOW])
