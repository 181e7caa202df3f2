"""Division, one quotient bit a cycle."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay
from .parts import BIAS, MANTISSA, ROUND_LATENCY, exponent_of, mantissa_of, round_pack, sign_of

reference = numeric.div

_QUOTIENT_BITS = MANTISSA + 2
_BEYOND = 300
"""An exponent field that saturates, whatever the quotient's bits are."""


class Divide(wiring.Component):
    """`o` = fl(a / b), all binary32 of the numeric contract: a / 0 saturates, 0 / b is 0.

    `start` takes the operands; the next one may come with `done` at the earliest. `done` is high
    for one cycle, LATENCY cycles after `start`, and `o` stays until the next `start`. Reset ends
    a division.
    """

    LATENCY = 1 + _QUOTIENT_BITS + ROUND_LATENCY

    def __init__(self) -> None:
        super().__init__({"start": In(1), "a": In(32), "b": In(32), "done": Out(1), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        divisor = Signal(MANTISSA, reset_less=True)
        remainder = Signal(MANTISSA + 1, reset_less=True)  # below twice the divisor
        quotient = Signal(_QUOTIENT_BITS, reset_less=True)
        exponent = Signal(Shape(10, signed=True), reset_less=True)
        sign = Signal(reset_less=True)
        zero = Signal(reset_less=True)
        left = Signal(range(_QUOTIENT_BITS + 1))

        difference = Signal(Shape(MANTISSA + 2, signed=True))
        m.d.comb += difference.eq(remainder - divisor)
        fits = difference >= 0
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                quotient.eq((quotient << 1) | fits),
                remainder.eq(Mux(fits, difference[:MANTISSA], remainder[:MANTISSA]) << 1),
            ]
        with m.If(self.start):
            m.d.sync += [
                left.eq(_QUOTIENT_BITS),
                remainder.eq(mantissa_of(self.a)),
                divisor.eq(mantissa_of(self.b)),
                exponent.eq(
                    Mux(
                        exponent_of(self.b).any(),
                        exponent_of(self.a) - exponent_of(self.b) + BIAS,
                        _BEYOND,
                    )
                ),
                sign.eq(sign_of(self.a) ^ sign_of(self.b)),
                zero.eq(~exponent_of(self.a).any()),
            ]

        # The quotient of two significands is in (1/2, 2).
        high = quotient[_QUOTIENT_BITS - 1]
        packed = round_pack(
            m,
            sign=sign,
            exponent=(exponent - ~high)[:11].as_signed(),
            fraction=Mux(high, quotient[2:25], quotient[1:24]),
            guard=Mux(high, quotient[1], quotient[0]),
            sticky=remainder.any() | (high & quotient[0]),
            zero=zero,
        )
        last = left == 1
        m.d.comb += [
            self.o.eq(packed),
            self.done.eq(delay(m, last, 1 + ROUND_LATENCY)),
        ]
        return m
