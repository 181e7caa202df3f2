"""Piecewise-linear tables in ROM: 2**f and 1 / (1 + f)."""

from __future__ import annotations

from amaranth.hdl import Module, Shape, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from .. import numeric
from .delay import delay, register


class _Linear(wiring.Component):
    """value[i] +- (slope[i] * low >> low_bits), i the upper and `low` the lower bits of `i`."""

    LATENCY = 4

    def __init__(
        self, value: numeric.I64, slope: numeric.I64, low_bits: int, width: int, falling: bool
    ) -> None:
        self._init = [{"value": int(v), "slope": int(s)} for v, s in zip(value, slope, strict=True)]
        self._low_bits = low_bits
        self._falling = falling
        self._slope_bits = int(slope.max()).bit_length()
        index_bits = (len(value) - 1).bit_length()
        super().__init__({"i": In(index_bits + low_bits), "o": Out(width)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        layout = data.StructLayout(
            {"value": unsigned(len(self.o)), "slope": unsigned(self._slope_bits)}
        )
        m.submodules.rom = rom = memory.Memory(shape=layout, depth=len(self._init), init=self._init)
        read = rom.read_port()
        m.d.comb += [read.addr.eq(self.i[self._low_bits :]), read.en.eq(1)]
        entry = register(m, read.data)  # the block memory's output register
        low = delay(m, self.i[: self._low_bits], 2, reset_less=True)

        product = register(m, entry.slope * low)
        value = register(m, entry.value)
        step = product >> self._low_bits
        total = Signal(Shape(len(self.o)), reset_less=True)
        m.d.sync += total.eq(value - step if self._falling else value + step)
        m.d.comb += self.o.eq(total)
        return m


class Exp2Fraction(_Linear):
    """`o` = 2**(i / 2**22) with 23 fraction bits (24 bits) of a 22-bit fraction `i`.

    Feed-forward: a result every cycle, LATENCY cycles after its operand. No reset.
    """

    reference = staticmethod(numeric.exp2_fraction)

    def __init__(self) -> None:
        super().__init__(numeric.EXP2_VALUE, numeric.EXP2_SLOPE, 12, 24, falling=False)


class Reciprocal(_Linear):
    """`o` = 2**24 / (1 + i / 2**24), 25 bits, of a 24-bit fraction `i`, by the table that
    `numeric.sigmoid` uses.

    Feed-forward: a result every cycle, LATENCY cycles after its operand. No reset.
    """

    def __init__(self) -> None:
        super().__init__(numeric.RECIPROCAL_VALUE, numeric.RECIPROCAL_SLOPE, 14, 25, falling=True)

    @staticmethod
    def reference(i: object) -> numeric.I64:
        i = numeric.np.asarray(i, numeric.np.int64)
        high, low = i >> 14, i & 0x3FFF
        return numeric.RECIPROCAL_VALUE[high] - ((numeric.RECIPROCAL_SLOPE[high] * low) >> 14)
