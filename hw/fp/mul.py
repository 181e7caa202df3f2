"""Multiplication."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay, register
from .parts import BIAS, exponent_of, round_product, sign_of

reference = numeric.mul


class Mul(wiring.Component):
    """`o` = fl(a * b), all binary32 of the numeric contract.

    With `k_bits` there is a signed operand `k` too, and `o` = fl(a * b) * 2**k, where only the end
    result is flushed or saturated: scale2 of the product, as long as that is neither.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.
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

        product = delay(m, a * b, 2, reset_less=True)  # the DSP's own two registers
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
