"""Square root, one result bit a cycle."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay
from .parts import BIAS, MANTISSA, ROUND_LATENCY, exponent_of, mantissa_of, round_pack

reference = numeric.sqrt

_ROOT_BITS = MANTISSA + 1


class Sqrt(wiring.Component):
    """`o` = fl(sqrt(a)), both binary32 of the numeric contract, a >= 0.

    `start` takes the operand; the next one may come with `done` at the earliest. `done` is high
    for one cycle, LATENCY cycles after `start`, and `o` stays until the next `start`. Reset ends
    a root.
    """

    LATENCY = 1 + _ROOT_BITS + ROUND_LATENCY

    def __init__(self) -> None:
        super().__init__({"start": In(1), "a": In(32), "done": Out(1), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        radicand = Signal(2 * _ROOT_BITS, reset_less=True)
        remainder = Signal(_ROOT_BITS + 2, reset_less=True)
        root = Signal(_ROOT_BITS, reset_less=True)
        exponent = Signal(9, reset_less=True)
        zero = Signal(reset_less=True)
        left = Signal(range(_ROOT_BITS + 1))

        # The schoolbook method: bring down two bits, try to subtract 4 * root + 1.
        current = Cat(radicand[-2:], remainder)
        difference = Signal(Shape(len(current) + 1, signed=True))
        m.d.comb += difference.eq(current - Cat(C(1, 2), root))
        fits = difference >= 0
        with m.If(left != 0):
            m.d.sync += [
                left.eq(left - 1),
                radicand.eq(radicand << 2),
                remainder.eq(Mux(fits, difference, current)),
                root.eq(Cat(fits, root)),
            ]
        power = exponent_of(self.a)
        with m.If(self.start):
            # The bias is odd: an odd exponent field is an even power of two.
            m.d.sync += [
                left.eq(_ROOT_BITS),
                radicand.eq(Mux(power[0], mantissa_of(self.a), mantissa_of(self.a) << 1) << 25),
                remainder.eq(0),
                root.eq(0),
                exponent.eq((power + BIAS) >> 1),
                zero.eq(~power.any()),
            ]

        packed = round_pack(
            m,
            sign=C(0, 1),
            exponent=Cat(exponent, C(0, 1)).as_signed(),
            fraction=root[1:24],
            guard=root[0],
            sticky=remainder.any(),
            zero=zero,
        )
        last = left == 1
        m.d.comb += [self.o.eq(packed), self.done.eq(delay(m, last, 1 + ROUND_LATENCY))]
        return m
