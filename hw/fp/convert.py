"""Conversions between integers and binary32."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay, register
from .parts import (
    BIAS,
    MANTISSA,
    exponent_of,
    mantissa_of,
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
        # A negative value is normalised and rounded as it is, in two's complement, and negated with
        # the rounding: ties go to even either way.
        negative = self.i[-1] if self.i.shape().signed else C(0)
        bits = self.width - 1 if self.i.shape().signed else self.width
        value = Cat(C(0, max(0, _WINDOW - bits)), self.i[:bits])

        # 1, 2, 3: left by sixteens, by fours, by ones, to the first bit that is not the sign's.
        value, sixteens = _left(m, value, negative, 16)
        negative = register(m, negative)
        below = len(value) - _WINDOW
        lost = Signal(reset_less=True)
        value, fours = _left(m, value, negative, 4, keep=_WINDOW, lost=lost if below else None)
        sixteens, negative = register(m, sixteens), register(m, negative)
        value, ones = _left(m, value, negative, 1)
        lost = register(m, lost)
        shift = Cat(ones, register(m, Cat(fours, sixteens)))
        negative = register(m, negative)

        # 4: round and negate
        top = len(value)
        fraction = value[top - 24 : top - 1]
        up = value[top - 25] & (lost | value[: top - 25].any() | fraction[0])
        exponent = BIAS + bits - 1 - shift
        rounded = register(
            m,
            (Cat(fraction ^ negative.replicate(23), exponent[:8]) + (up ^ negative))[:31],
        )
        none = register(m, value[top - 1] == negative)  # 0 or -1
        negative = register(m, negative)

        # 5
        packed = Signal(32, reset_less=True)
        m.d.sync += packed.eq(Cat(rounded, negative))
        with m.If(none):
            m.d.sync += packed[:31].eq(Mux(negative, BIAS << 23, 0))
        m.d.comb += self.o.eq(packed)
        return m


_WINDOW = 28
"""Bits that a last shift by up to three can bring into the 25 that decide the rounding."""


def _left(
    m: Module,
    value: Value,
    negative: Value,
    step: int,
    keep: int | None = None,
    lost: Signal | None = None,
) -> tuple[Value, Value]:
    """Shift `value` left by up to three `step` until a bit of its upper `step` differs from
    `negative`; one cycle. Returns the upper `keep` bits, and how many steps (2 bits). `lost` takes
    whether any bit below was set."""
    top, keep = len(value), keep or len(value)
    choices = range(min(4, -(-top // step)))
    steps = Signal(2, name="steps")
    m.d.comb += steps.eq(choices[-1])
    for n in reversed(choices[:-1]):
        group = value[top - (n + 1) * step : top - n * step]
        with m.If((group ^ negative.replicate(step)).any()):
            m.d.comb += steps.eq(n)
    shifted = Signal(keep, name="shifted", reset_less=True)
    with m.Switch(steps):
        for n in choices:
            with m.Case(n):
                m.d.sync += shifted.eq((value << n * step)[top - keep : top])
                if lost is not None:
                    m.d.sync += lost.eq(value[: max(0, top - keep - n * step)].any())
    return shifted, register(m, steps)


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
        amount = register(m, shift[: whole.bit_length()])
        small = register(m, small)

        # 2, 3: shift by fours, then by ones; what falls out is sticky
        lost = Signal(reset_less=True)
        by_fours = Signal(window, reset_less=True)
        with m.If(small):
            m.d.sync += [by_fours.eq(0), lost.eq(0)]
        with m.Else():
            m.d.sync += by_fours.eq(value >> (amount[2:] << 2))
            with m.Switch(amount[2:]):
                for n in range(whole // 4 + 1):
                    with m.Case(n):
                        m.d.sync += lost.eq(value[: 4 * n].any())
        fine = register(m, amount[:2])
        shifted = register(m, by_fours >> fine)
        lost = register(m, lost | Cat(by_fours[i] & (fine > i) for i in range(3)).any())

        # 4: round, and negate with the same addition
        sign = delay(m, sign_of(self.i), 3, reset_less=True)
        up = shifted[below - 1] & (shifted[: below - 1].any() | lost | shifted[below])
        magnitude = Cat(shifted[below:], C(0, 1)) ^ sign.replicate(whole + 1)
        rounded = register(m, (magnitude + (up ^ sign))[: whole + 1])
        sign, over = register(m, sign), delay(m, over, 3, reset_less=True)

        # 5: clamp; a negative zero has come out as 0
        below_low = (rounded.as_signed() < self.low) & sign
        above_high = (rounded > self.high) & ~sign
        packed = Signal(Shape(self.bits, signed=True), reset_less=True)
        m.d.sync += packed.eq(rounded)
        with m.If(sign & (over | below_low)):
            m.d.sync += packed.eq(self.low)
        with m.Elif(~sign & (over | above_high)):
            m.d.sync += packed.eq(self.high)
        m.d.comb += self.o.eq(packed)
        return m
