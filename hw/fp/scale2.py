"""Multiplication by a power of two."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import register
from .parts import LARGEST, exponent_of, sign_of

reference = numeric.scale2


class Scale2(wiring.Component):
    """`o` = x * 2**k with the flush and saturation rules; `k` is signed of `k_bits` bits.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.
    """

    LATENCY = 2

    def __init__(self, k_bits: int = 11) -> None:
        self.k_bits = k_bits
        super().__init__({"x": In(32), "k": In(Shape(k_bits, signed=True)), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        exponent = Signal(Shape(max(self.k_bits, 9) + 1, signed=True), reset_less=True)
        m.d.sync += exponent.eq(exponent_of(self.x) + self.k)
        fraction, sign = register(m, self.x[:23]), register(m, sign_of(self.x))
        zero = register(m, ~exponent_of(self.x).any())

        flushed = zero | (exponent <= 0) | ((exponent == 1) & ~fraction.any())
        packed = Signal(32, reset_less=True)
        m.d.sync += packed.eq(
            Mux(
                flushed,
                0,
                Cat(Mux(exponent >= 255, C(LARGEST, 31), Cat(fraction, exponent[:8])), sign),
            )
        )
        m.d.comb += self.o.eq(packed)
        return m
