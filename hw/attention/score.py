"""From exact dot products to scores in the base-2 logarithm domain."""

from __future__ import annotations

from amaranth import Module, signed
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..fp import FromInt, Mul, ToInt, delay

reference = numeric.score


class ScorePipe(Component):
    """`o` = numeric.score(dot, q_scale, k_scale): 32 bits, 22 of them fraction.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.
    """

    _FRONT = max(FromInt.LATENCY, Mul.LATENCY)
    LATENCY = _FRONT + Mul.LATENCY + ToInt.LATENCY

    def __init__(self, dot_bits: int) -> None:
        self._dot_bits = dot_bits
        super().__init__(
            {
                "dot": In(signed(dot_bits)),
                "q_scale": In(32),
                "k_scale": In(32),
                "o": Out(signed(32)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.from_int = from_int = FromInt(self._dot_bits)
        m.submodules.scales = scales = Mul()
        m.submodules.mul = mul = Mul()
        m.submodules.to_int = to_int = ToInt(32, numeric.SCORE_FRACTION, 1 - 2**31, 2**31 - 1)
        m.d.comb += [
            from_int.i.eq(self.dot),
            scales.a.eq(self.q_scale),
            scales.b.eq(self.k_scale),
            mul.a.eq(delay(m, from_int.o, self._FRONT - FromInt.LATENCY, reset_less=True)),
            mul.b.eq(delay(m, scales.o, self._FRONT - Mul.LATENCY, reset_less=True)),
            to_int.i.eq(mul.o),
            self.o.eq(to_int.o),
        ]
        return m
