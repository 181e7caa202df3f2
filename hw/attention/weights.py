"""From scores and running maxima to weights."""

from __future__ import annotations

from amaranth import C, Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from .. import numeric
from ..fp import Exp2Fraction, delay, register
from .shape import MAX_BITS, WEIGHT_BITS

reference = numeric.attention_weights

_P_SHIFT_MAX = 25  # 24 bits are gone
_W_SHIFT_MAX = 23  # on top of W_SHIFT: 48 bits are gone


def entry_layout() -> data.StructLayout:
    """A score and the exponent of V's scale; `seen` is low for a masked position."""
    return data.StructLayout(
        {
            "score": signed(32),
            "exponent": unsigned(8),
            "seen": unsigned(1),
        }
    )


def _clamp(m: Module, value: Value, high: int) -> Signal:
    """A value that is not negative, at most `high`, as an unsigned signal."""
    o = Signal(range(high + 1))
    m.d.comb += o.eq(Mux(value > high, high, value))
    return o


class WeightPipe(Component):
    """p (24 bits) and w (at most 2**22) of numeric.attention_weights for one position; 0 where the
    entry is not `seen`. The significand of V's scale is given MANTISSA_DELAY cycles after the rest.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.
    """

    MANTISSA_DELAY = 1 + Exp2Fraction.LATENCY

    _PRODUCT = 3
    LATENCY = 1 + Exp2Fraction.LATENCY + _PRODUCT + 2

    def __init__(self) -> None:
        super().__init__(
            {
                "entry": In(entry_layout()),
                "mantissa": In(24),
                "max_p": In(signed(MAX_BITS)),
                "max_w": In(signed(MAX_BITS)),
                "p": Out(24),
                "w": Out(WEIGHT_BITS),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry = self.entry
        m.submodules.exp2 = exp2 = Exp2Fraction()
        m.d.comb += exp2.i.eq(register(m, entry.score[: numeric.SCORE_FRACTION]))

        # How far below the maxima.
        whole = entry.score[numeric.SCORE_FRACTION :].as_signed()
        fall_p = register(m, self.max_p - whole)
        fall_w = register(m, self.max_w - whole - entry.exponent)
        seen = register(m, entry.seen)
        down_p = register(m, Mux(seen, _clamp(m, fall_p, _P_SHIFT_MAX), _P_SHIFT_MAX))
        down_w = register(m, Mux(seen, _clamp(m, fall_w, _W_SHIFT_MAX), _W_SHIFT_MAX))
        wait = Exp2Fraction.LATENCY - 1 + self._PRODUCT
        down_p = delay(m, down_p, wait, reset_less=True)
        down_w = delay(m, down_w, wait, reset_less=True)

        # The significand of V's scale is the other factor of w.
        factors = register(m, exp2.o), register(m, self.mantissa)
        product = delay(m, factors[0] * factors[1], self._PRODUCT - 1, reset_less=True)
        e = delay(m, exp2.o, self._PRODUCT, reset_less=True)

        # Round half up: shift with one bit more, then add that bit.
        wide_p = register(m, Cat(C(0, 1), e) >> down_p)
        wide_w = register(m, product[numeric.W_SHIFT - 1 :] >> down_w)
        m.d.sync += [
            self.p.eq((wide_p >> 1) + wide_p[0]),
            self.w.eq((wide_w >> 1) + wide_w[0]),
        ]
        return m
