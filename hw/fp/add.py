"""Addition and subtraction."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay, register
from .parts import (
    MANTISSA,
    NORMALISE_LATENCY,
    exponent_of,
    mantissa_of,
    normalise,
    round_pack,
    sign_of,
)


def reference(a: numeric.F32, b: numeric.F32, subtract: bool) -> numeric.F32:
    return numeric.sub(a, b) if subtract else numeric.add(a, b)


class Add(wiring.Component):
    """`o` = fl(a + b), or fl(a - b) with `subtract`, all binary32 of the numeric contract.

    Feed-forward: a result every cycle, LATENCY cycles after its operands. No reset.
    """

    LATENCY = 9

    def __init__(self) -> None:
        super().__init__({"a": In(32), "b": In(32), "subtract": In(1), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # 1: which magnitude is larger
        a, b = register(m, self.a), register(m, Cat(self.b[:31], self.b[31] ^ self.subtract))
        swap = register(m, self.a[:31] < self.b[:31])
        rise = Signal(Shape(9, signed=True), reset_less=True)
        m.d.sync += rise.eq(exponent_of(self.a) - exponent_of(self.b))

        # 2: larger and smaller operand
        large = register(m, Mux(swap, mantissa_of(b), mantissa_of(a)))
        small = register(m, Mux(swap, mantissa_of(a), mantissa_of(b)))
        exponent = register(m, Mux(swap, exponent_of(b), exponent_of(a)))
        sign = register(m, Mux(swap, sign_of(b), sign_of(a)))
        difference = register(m, sign_of(a) ^ sign_of(b))
        distance = Signal(8)
        m.d.comb += distance.eq(Mux(swap, -rise, rise))
        # A distance beyond the significand leaves it to the sticky bit, as 24 and more do.
        far = distance[5:].any()
        coarse = register(m, Mux(far, 3, distance[3:5]))
        fine = register(m, Mux(far, 7, distance[:3]))

        # 3, 4: align, by bytes, then by bits; three bits below the last place are enough for an
        # exact rounding when the lowest one collects all that was shifted out
        padded = Cat(C(0, 3), small)
        by_bytes = Signal(len(padded), reset_less=True)
        lost = Signal(reset_less=True)
        with m.Switch(coarse):
            for g in range(4):
                with m.Case(g):
                    m.d.sync += [by_bytes.eq(padded >> (8 * g)), lost.eq(padded[: 8 * g].any())]
        fine = register(m, fine)
        lost = lost | Cat(by_bytes[i] & (fine > i) for i in range(7)).any()
        aligned = register(m, (by_bytes >> fine) | lost)
        large = delay(m, large, 2, reset_less=True)

        # 5: sum, never negative
        wide = Cat(C(0, 3), large)
        difference = delay(m, difference, 2, reset_less=True)
        total = Signal(MANTISSA + 4, reset_less=True)
        # One adder: the bit below the lowest carries the 1 that completes the complement.
        other = Cat(aligned, C(0, 1)) ^ difference.replicate(len(total))
        m.d.sync += total.eq((Cat(difference, wide) + Cat(difference, other)) >> 1)

        # 6, 7: normalise
        shifted, zeros = normalise(m, total)
        exponent = delay(m, exponent, 3 + NORMALISE_LATENCY, reset_less=True)
        sign = delay(m, sign, 3 + NORMALISE_LATENCY, reset_less=True)

        # 8, 9: round. The top bit of the sum has twice the weight of the larger operand's.
        top = len(shifted)
        power: Value = (exponent + 1 - zeros)[:10].as_signed()
        packed = round_pack(
            m,
            sign=sign,
            exponent=power,
            fraction=shifted[top - 24 : top - 1],
            guard=shifted[top - 25],
            sticky=shifted[: top - 25].any(),
            zero=~shifted[top - 1],
        )
        m.d.comb += self.o.eq(packed)
        return m
