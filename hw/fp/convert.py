"""Conversions between integers and binary32."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay, register
from .parts import (
    BIAS,
    MANTISSA,
    NORMALISE_LATENCY,
    exponent_of,
    mantissa_of,
    normalise,
    round_pack,
    sign_of,
)


class FromInt(wiring.Component):
    """`o` = the integer `i` (`width` bits, 2 to 64) rounded once to binary32.

    Feed-forward: a result every cycle, LATENCY cycles after its operand. No reset.
    """

    LATENCY = 5

    reference = staticmethod(numeric.from_int)

    def __init__(self, width: int, signed: bool = True) -> None:
        if not 2 <= width <= 64:
            raise ValueError(f"width is {width}: 2 to 64 bits are supported")
        self.width = width
        super().__init__({"i": In(Shape(width, signed)), "o": Out(32)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        negative = self.i[-1] if self.i.shape().signed else C(0)
        # At least 26 bits, so that fraction, guard and sticky exist; the value at their top.
        pad = max(0, 26 - self.width)
        magnitude = Signal(self.width, reset_less=True)
        m.d.sync += magnitude.eq(Mux(negative, -self.i, self.i))

        shifted, zeros = normalise(m, Cat(C(0, pad), magnitude))
        sign = delay(m, negative, 1 + NORMALISE_LATENCY, reset_less=True)

        top = len(shifted)
        packed = round_pack(
            m,
            sign=sign,
            exponent=(BIAS + self.width - 1 - zeros)[:9].as_signed(),
            fraction=shifted[top - 24 : top - 1],
            guard=shifted[top - 25],
            sticky=shifted[: top - 25].any(),
            zero=~shifted[top - 1],
            low=False,
            high=False,
        )
        m.d.comb += self.o.eq(packed)
        return m


class ToInt(wiring.Component):
    """`o` = x * 2**fraction_bits rounded to nearest even and clamped to low..high.

    `i` is binary32, `o` signed of `bits` bits, which must hold low..high.
    Feed-forward: a result every cycle, LATENCY cycles after its operand. No reset.
    """

    LATENCY = 5

    reference = staticmethod(numeric.to_int)

    def __init__(self, bits: int, fraction_bits: int, low: int, high: int) -> None:
        limit = 1 << (bits - 1)
        if not -limit <= low <= 0 <= high < limit or not 2 <= bits <= 64:
            raise ValueError(f"{low}..{high} must contain 0 and fit {bits} signed bits (2 to 64)")
        self.bits = bits
        self.fraction_bits = fraction_bits
        self.low = low
        self.high = high
        super().__init__({"i": In(32), "o": Out(Shape(bits, signed=True))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        whole = self.bits  # integer bits of the window: 2**(bits - 1) itself fits
        below = max(1, MANTISSA - whole)
        window = whole + below

        # 1: the significand at the top of the window, and its way down
        shift = Signal(Shape(11, signed=True))
        m.d.comb += shift.eq(whole - 1 + BIAS - self.fraction_bits - exponent_of(self.i))
        value = register(m, Cat(C(0, window - MANTISSA), mantissa_of(self.i)))
        small = shift > whole  # below one half
        over = register(m, (shift < 0) & exponent_of(self.i).any())
        amount = register(m, Mux(small, 0, shift[:7]))
        small = register(m, small)

        # 2, 3: shift by bytes, then by bits; what falls out is sticky
        lost = Signal(reset_less=True)
        by_bytes = Signal(window, reset_less=True)
        m.d.sync += [lost.eq(0), by_bytes.eq(Mux(small, 0, value))]
        with m.Switch(Mux(small, 0, amount[3:])):
            for g in range(1, whole // 8 + 1):
                with m.Case(g):
                    m.d.sync += [by_bytes.eq(value >> (8 * g)), lost.eq(value[: 8 * g].any())]
        fine = register(m, amount[:3])
        shifted = register(m, by_bytes >> fine)
        lost = register(m, lost | Cat(by_bytes[i] & (fine > i) for i in range(7)).any())

        # 4: round
        up = shifted[below - 1] & (shifted[: below - 1].any() | lost | shifted[below])
        rounded = Signal(whole + 1, reset_less=True)
        m.d.sync += rounded.eq(shifted[below:] + up)
        sign = delay(m, sign_of(self.i), 4, reset_less=True)
        over = delay(m, over, 3, reset_less=True)

        # 5: clamp
        packed = Signal(Shape(self.bits, signed=True), reset_less=True)
        with m.If(sign):
            m.d.sync += packed.eq(Mux(over | (rounded > -self.low), self.low, -rounded))
        with m.Else():
            m.d.sync += packed.eq(Mux(over | (rounded > self.high), self.high, rounded))
        m.d.comb += self.o.eq(packed)
        return m
