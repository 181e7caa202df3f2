"""Multiplication."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay, register
from .parts import BIAS, exponent_of, mantissa_of, round_pack, sign_of

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
        a, b = register(m, mantissa_of(self.a)), register(m, mantissa_of(self.b))
        exponent = Signal(Shape(10, signed=True), reset_less=True)
        m.d.sync += exponent.eq(exponent_of(self.a) + exponent_of(self.b) - BIAS)
        sign = register(m, sign_of(self.a) ^ sign_of(self.b))

        product = delay(m, a * b, 2, reset_less=True)  # the DSP's own two registers
        if self.k_bits:
            exponent = register(m, exponent + register(m, self.k))
        else:
            exponent = register(m, exponent)
        exponent = register(m, exponent)
        sign = delay(m, sign, 2, reset_less=True)

        # The product of two significands is in [2**46, 2**48).
        high = product[47]
        packed = round_pack(
            m,
            sign=sign,
            exponent=(exponent + high)[: len(exponent) + 1].as_signed(),
            fraction=Mux(high, product[24:47], product[23:46]),
            guard=Mux(high, product[23], product[22]),
            sticky=product[:22].any() | (high & product[22]),
            zero=~(product[46] | high),
        )
        m.d.comb += self.o.eq(packed)
        return m
