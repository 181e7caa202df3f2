"""The logistic function."""

from __future__ import annotations

from amaranth.hdl import C, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .convert import ToInt
from .delay import delay, register
from .mul import Mul
from .parts import BIAS, ROUND_LATENCY, magnitude_of, round_product, sign_of
from .table import Exp2Fraction, Reciprocal

reference = numeric.sigmoid

_FRACTION = numeric.SCORE_FRACTION
_LOG2E = int(numeric.LOG2E.view("uint32"))
_PRODUCT_LATENCY = 3


class Sigmoid(wiring.Component):
    """`o` = numeric.sigmoid(i), both binary32.

    Feed-forward: a result every cycle, LATENCY cycles after its operand. No reset.

    With e = 2**-t, t = |i| * log2(e), the result is 1 / (1 + e) for i >= 0 and e / (1 + e) below:
    one product e' * r, with e' = 1 on the one side, is rounded.
    """

    LATENCY = (
        Mul.LATENCY
        + ToInt.LATENCY
        + 1  # negate
        + Exp2Fraction.LATENCY
        + 2  # align e
        + Reciprocal.LATENCY
        + _PRODUCT_LATENCY
        + ROUND_LATENCY
    )

    def __init__(self) -> None:
        super().__init__({"i": In(32), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.log2e = log2e = Mul()
        m.submodules.fixed = fixed = ToInt(32, _FRACTION, 0, 2**31 - 1)
        m.submodules.exp2 = exp2 = Exp2Fraction()
        m.submodules.reciprocal = reciprocal = Reciprocal()

        m.d.comb += [log2e.a.eq(magnitude_of(self.i)), log2e.b.eq(_LOG2E), fixed.i.eq(log2e.o)]
        negative = delay(m, sign_of(self.i), Mul.LATENCY + ToInt.LATENCY + 1, reset_less=True)
        minus = Signal(Shape(32, signed=True), reset_less=True)
        m.d.sync += minus.eq(-fixed.o)
        m.d.comb += exp2.i.eq(minus[:_FRACTION])
        whole = minus[_FRACTION:].as_signed()  # 0 down to -512

        # e with 24 fraction bits; e = 1 is taken as 1 - 2**-24.
        fall = Signal(range(513))
        m.d.comb += fall.eq(-delay(m, whole, Exp2Fraction.LATENCY, reset_less=True))
        e = exp2.o
        halved = register(m, (e << 1) >> fall[:2])
        coarse = register(m, Mux(fall[5:].any(), 7, fall[2:5]))
        aligned = Signal(25, reset_less=True)
        m.d.sync += aligned.eq(halved >> (coarse << 2))
        m.d.comb += reciprocal.i.eq(Mux(aligned[24], C((1 << 24) - 1, 24), aligned[:24]))

        # e' and its exponent, in step with the reciprocal
        to_product = 2 + Reciprocal.LATENCY
        negative = delay(m, negative, Exp2Fraction.LATENCY, reset_less=True)
        factor = delay(m, Mux(negative, e, C(1 << 23, 24)), to_product, reset_less=True)
        power = delay(m, Mux(negative, fall, 0), to_product, reset_less=True)
        product = delay(
            m,
            register(m, factor) * register(m, reciprocal.o),
            _PRODUCT_LATENCY - 1,
            reset_less=True,
        )
        # The entries of the tables lie between 2**23 and 2**24, e' below: a normalised product.
        power = delay(m, power, _PRODUCT_LATENCY - 1, reset_less=True)
        exponent = Signal(Shape(11, signed=True), reset_less=True)
        m.d.sync += exponent.eq(BIAS - 1 - power)
        packed = round_product(m, product, exponent, sign=C(0, 1), zero=C(0, 1), high=False)
        m.d.comb += self.o.eq(packed)
        return m
